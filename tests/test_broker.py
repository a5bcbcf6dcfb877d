"""From an empty folder to messages over mosquitto, with nothing but what cvm writes: devices are themselves and nobody
else, and out when they are revoked."""

import functools
import http.server
import os
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509

from broker import MOSQUITTO, Broker
from mqtt_device import CA, CERTIFICATE, PRIVATE_KEY, MqttDevice, Refused
from server import Server, openssl
from stack import CVM, until


@pytest.fixture
def broker(server: Server, tmp_path):
    broker = Broker(server, tmp_path / "broker")
    yield broker
    if broker.process:
        broker.stop()


def vend(server: Server, device_id: str) -> Path:
    return server.vend(device_id, server.register(device_id))


def subscribe(device: MqttDevice, topics: str) -> None:
    """Whether mosquitto refuses a subscription or delivers nothing is its own to choose."""
    try:
        device.subscribe(topics)
    except Refused:
        pass


def is_refused(broker: Broker, folder: Path, device_id: str) -> bool:
    try:
        with broker.connect(folder, device_id):
            return False
    except (Refused, OSError):
        return True


def test_a_device_is_itself_on_the_broker_and_nobody_else(server: Server, broker: Broker):
    first, second = vend(server, "sn-0001"), vend(server, "sn-0002")
    broker.configure()
    broker.start()
    with broker.connect(first, "sn-0001") as one, broker.connect(second, "sn-0002") as two:
        for device, own in [(one, "devices/sn-0001/a"), (two, "devices/sn-0002/a")]:
            device.subscribe(own)
            device.publish(own, "hello")
            assert device.receive() == (own, b"hello")
        # Another device's topics, and those of nobody.
        for topic in ["devices/sn-0002/a", "devices/sn-0002", "other", "$SYS/broker/uptime"]:
            with pytest.raises(Refused):
                one.publish(topic, "forged")
        for topics in ["devices/sn-0002/#", "devices/+/a", "#"]:
            subscribe(one, topics)
        two.publish("devices/sn-0002/a", "for me alone")
        assert two.receive() == ("devices/sn-0002/a", b"for me alone")
        assert one.receive(1) is None, "another device's messages are not delivered"
        # Another device's client id: the session of that device goes on, and the forger is who its certificate says.
        forger = MqttDevice(vend(server, "sn-0003"), "sn-0002").connect(broker.endpoint)
        with forger:
            with pytest.raises(Refused):
                forger.publish("devices/sn-0002/a", "forged")
            two.publish("devices/sn-0002/a", "still here")
            assert two.receive() == ("devices/sn-0002/a", b"still here")
    assert "as sn-0003 (" in broker.log and "already connected" not in broker.log


@pytest.mark.parametrize("verb", ["disable", "revoke"])
def test_a_session_ends_when_its_device_is_revoked_and_others_connect_again(server: Server, broker: Broker, verb: str):
    first, second = vend(server, "sn-0001"), vend(server, "sn-0002")
    broker.configure()
    broker.start()
    with broker.connect(first, "sn-0001") as device:
        assert server.ask("POST", f"/devices/sn-0001/{verb}", {"reason": "leaked"}).status == 200
        assert device.ended(20), "the session goes on"
    until(lambda: not is_refused(broker, second, "sn-0002"), "a broker for the others")
    assert is_refused(broker, first, "sn-0001")
    if verb == "disable":
        assert server.ask("POST", "/devices/sn-0001/enable", {}).status == 200
        until(lambda: not is_refused(broker, first, "sn-0001"), "a device that was enabled again")
    assert broker.stop() == 0


def test_refresh_makes_the_broker_read_a_new_list_without_ending_sessions(server: Server, broker: Broker):
    """As a timer runs it, beside a mosquitto that something else supervises."""
    first, second = vend(server, "sn-0001"), vend(server, "sn-0002")
    broker.configure()
    subprocess.run([broker.folder / "refresh", "start"], check=True, timeout=60)
    log = open(broker.log_file, "wb")
    mosquitto = subprocess.Popen([MOSQUITTO, "-c", broker.folder / "mosquitto.conf"], stdout=log, stderr=log)
    try:
        until(lambda: " running" in broker.log, "a broker")
        with broker.connect(second, "sn-0002") as device:
            assert server.ask("POST", "/devices/sn-0001/revoke", {"reason": "leaked"}).status == 200
            until(lambda: broker.refresh() or is_refused(broker, first, "sn-0001"), "a broker that knows of it")
            device.publish("devices/sn-0002/a", "the session went on")
    finally:
        mosquitto.kill()
        mosquitto.wait()


def test_a_second_run_of_one_folder_changes_nothing(server: Server, broker: Broker):
    device = vend(server, "sn-0001")
    broker.configure()
    broker.start()
    pid = (broker.folder / "run.pid").read_text()
    for options in ([], ["-d"]):
        second = subprocess.run([broker.folder / "run", *options], capture_output=True, text=True, timeout=30)
        assert second.returncode == 1 and f"kill {pid.strip()}" in second.stderr, second
    assert (broker.folder / "run.pid").read_text() == pid
    with broker.connect(device, "sn-0001") as connection:
        assert server.ask("POST", "/devices/sn-0001/revoke", {"reason": "leaked"}).status == 200
        assert connection.ended(20), "the session goes on"


def test_a_run_that_is_killed_leaves_no_broker_without_refreshes(server: Server, broker: Broker):
    device = vend(server, "sn-0001")
    broker.configure()
    broker.start()
    broker.process.kill()
    broker.process.wait(timeout=20)
    until(lambda: is_refused(broker, device, "sn-0001"), "an end of the broker")
    broker.log_file.unlink()

    def starts_again() -> bool:
        try:
            broker.start()
            return True
        except AssertionError:
            # The one before holds the lock for a moment longer.
            return False

    until(starts_again, "another run")
    assert not is_refused(broker, device, "sn-0001")


@pytest.mark.parametrize("swallowed_by", ["refresh", "renewal"])
def test_a_session_ends_whoever_fetched_the_list(server: Server, broker: Broker, swallowed_by: str):
    device = vend(server, "sn-0001")
    broker.configure()
    broker.start(interval=4)
    with broker.connect(device, "sn-0001") as connection:
        assert server.ask("POST", "/devices/sn-0001/revoke", {"reason": "leaked"}).status == 200
        broker.refresh() if swallowed_by == "refresh" else broker.configure("--renew-before", "366d")
        assert connection.ended(20), "the session goes on"
    until(lambda: is_refused(broker, device, "sn-0001"), "a broker that knows of it")


def test_a_list_that_cannot_be_read_is_not_taken(server: Server, broker: Broker, tmp_path):
    broker.configure()
    good = (broker.folder / "crl.pem").read_text()
    served = tmp_path / "served"
    served.mkdir()
    (served / "ca.pem").write_text((broker.folder / "ca.pem").read_text())
    begin, end = "-----BEGIN X509 CRL-----", "-----END X509 CRL-----"
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        environment = os.environ | {"CVM_SERVER": f"http://127.0.0.1:{web.server_port}/"}
        for bad in ["", "<html>", f"{begin}\nAAAA\n{end}\n", good[: len(good) * 3 // 4], (served / "ca.pem").read_text()]:
            (served / "crl.pem").write_text(bad)
            done = subprocess.run([broker.folder / "refresh"], env=environment, capture_output=True, text=True, timeout=60)
            assert done.returncode != 0 and "crl.pem stays as it is" in done.stderr, (bad, done)
            assert (broker.folder / "crl.pem").read_text() == good
        web.shutdown()


def test_a_server_s_certificate_is_no_device_s(server: Server, broker: Broker, tmp_path):
    vend(server, "sn-0001")
    broker.configure()
    broker.start()
    folder = tmp_path / "impostor"
    folder.mkdir()
    for name, source in [(CERTIFICATE, "server.pem"), (PRIVATE_KEY, "server.key"), (CA, "root.pem")]:
        (folder / name).write_text((broker.folder / source).read_text())
    assert is_refused(broker, folder, "localhost")


def test_devices_of_both_cas_connect_during_a_rotation(server: Server, broker: Broker):
    before = vend(server, "sn-0001")
    broker.configure()
    broker.start()
    rotate = [CVM, "ca", "rotate", "--data", server.data, "--overlap", "1s"]
    subprocess.run(rotate, check=True, capture_output=True, timeout=60)

    def issued_by_the_next(numbers=iter(range(2, 100))) -> Path | None:
        device_id = f"sn-{next(numbers):04}"
        folder = vend(server, device_id)
        return folder if "cvm issuing" in issuer(folder) and issuer(folder) != issuer(before) else None

    after = until(issued_by_the_next, "a certificate of the next CA")
    for folder in (before, after):
        until(lambda folder=folder: not is_refused(broker, folder, folder.name), f"{folder.name} on the broker")


def issuer(folder: Path) -> str:
    return x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes()).issuer.rfc4514_string()


def test_a_server_s_certificate_is_kept_until_it_has_to_be_renewed(server: Server, tmp_path):
    out = tmp_path / "server"

    def issue(*arguments: object) -> str:
        command = [CVM, "ca", "issue-server", "--data", server.data, "--out", out, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return (out / "server.pem").read_text()

    names = ["broker.example.com", "192.0.2.1", "2001:db8::1"]
    first = issue(*names)
    key = (out / "server.key").read_text()
    leaf = x509.load_pem_x509_certificate(first.encode())
    assert leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value[0].dotted_string == "1.3.6.1.5.5.7.3.1"
    alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in alternative] == names
    chain = ["-CAfile", server.data / "ca" / "root.pem", "-untrusted", out / "server.pem"]
    for check in (["-verify_hostname", names[0]], ["-verify_ip", names[1]], ["-verify_ip", names[2]]):
        assert "OK" in openssl("verify", *chain, "-purpose", "sslserver", *check, out / "server.pem")
    assert issue(*names) == first, "it is valid for long enough"
    renewed = issue(*names, "--renew-before", "366d")
    more_names = issue(*names, "localhost")
    assert len({first, renewed, more_names}) == 3 and (out / "server.key").read_text() == key
    # Each is on record, so that it can be revoked.
    assert len(list((server.data / "ca" / "servers").iterdir())) == 3
    leaf = tmp_path / "leaf.pem"
    leaf.write_text(openssl("x509", "-in", out / "server.pem"))
    revoke = [CVM, "ca", "revoke", leaf, "--reason", "leaked", "--server", server.url, "--server-ca", server.ca]
    token = tmp_path / "token"
    token.write_text(server.token)
    token.chmod(0o600)
    subprocess.run([*revoke, "--operator-token-file", token], check=True, capture_output=True, timeout=60)
    serial = openssl("x509", "-in", leaf, "-noout", "-serial").strip().removeprefix("serial=")
    until(lambda: serial in openssl("crl", "-in", server.crl, "-noout", "-text"), "a list with it")


def test_what_was_changed_in_the_folder_of_a_broker_is_kept(server: Server, broker: Broker):
    broker.configure()
    acl = broker.folder / "acl"
    acl.write_text("pattern read devices/%u/#\n")
    again = broker.configure()
    assert acl.read_text() == "pattern read devices/%u/#\n" and "acl, which was edited" in again.stdout + again.stderr
    acl.unlink()
    broker.configure()
    assert "readwrite" in acl.read_text()


def test_other_options_of_a_broker_rewrite_what_nobody_edited(server: Server, broker: Broker):
    broker.configure()
    run = broker.folder / "run"
    run.write_text(run.read_text().replace("INTERVAL:-60", "INTERVAL:-30"))
    options = ["--data", server.data, "--listen", "127.0.0.1:18884", "--server", "https://cvm.example.com"]
    command = [CVM, "broker", "mosquitto", "--out", broker.folder, *options]
    again = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "listener 18884 127.0.0.1" in (broker.folder / "mosquitto.conf").read_text()
    refresh = broker.folder / "refresh"
    assert "'https://cvm.example.com'" in refresh.read_text() and os.access(refresh, os.X_OK)
    assert "rewrote mosquitto.conf, refresh" in again.stdout and "run, which was edited" in again.stderr
    assert "INTERVAL:-30" in run.read_text()


def test_a_folder_may_be_written_with_detours_in_its_path(server: Server, tmp_path):
    (tmp_path / "other").mkdir()
    broker = Broker(server, tmp_path / "broker")
    command = [CVM, "broker", "mosquitto", "--data", server.data, "--server", server.url]
    out = f"{tmp_path}/other/..//broker/"
    done = subprocess.run([*command, "--listen", f"127.0.0.1:{broker.port}", "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    try:
        broker.start()
        assert not is_refused(broker, vend(server, "sn-0001"), "sn-0001")
    finally:
        broker.stop()


def test_a_revoked_certificate_of_a_broker_is_not_kept(server: Server, broker: Broker):
    broker.configure()
    certificate, key = broker.folder / "server.pem", broker.folder / "server.key"
    before = certificate.read_text(), key.read_text()
    pem = certificate.read_text().split("-----END")[0] + "-----END CERTIFICATE-----\n"
    answer = server.ask("POST", "/revocations", {"certificatePem": pem, "reason": "its key was published"})
    assert answer.status == 200, answer.body
    serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
    listed = lambda: x509_lists(server.data / "ca" / "crl.pem")
    until(lambda: serial in listed(), "a list with it")
    again = [CVM, "ca", "issue-server", "localhost", "--data", server.data, "--out", broker.folder]
    refused = subprocess.run(again, capture_output=True, text=True)
    assert refused.returncode == 1 and "is revoked" in refused.stderr and f"rm {key} {certificate}" in refused.stderr
    key.unlink()
    certificate.unlink()
    assert subprocess.run(again, capture_output=True).returncode == 0
    assert before[0] != certificate.read_text() and before[1] != key.read_text()


def x509_lists(path: Path) -> set[int]:
    """The serial numbers in all revocation lists of a file."""
    end = "-----END X509 CRL-----\n"
    lists = [x509.load_pem_x509_crl(f"{text}{end}".encode()) for text in path.read_text().split(end) if text.strip()]
    return {revoked.serial_number for each in lists for revoked in each}


def test_runs_at_once_make_one_certificate_of_a_server(server: Server, tmp_path):
    command = [CVM, "ca", "issue-server", "broker.example", "--data", server.data, "--out", tmp_path / "broker"]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    ended = [(run.communicate(timeout=60)[1], run.returncode) for run in runs]
    assert all(status == 0 for _, status in ended), ended
    assert len(list((server.data / "ca" / "servers").iterdir())) == 1
    assert not list((tmp_path / "broker").glob(".tmp*"))
