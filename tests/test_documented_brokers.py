"""What docs/brokers.md says of brokers other than mosquitto, with the configurations that it has."""

import datetime
import itertools
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from documented import REFRESH, Aedes, Documented, HaProxy, Nats, Nginx, RabbitMq, documented
from mqtt_device import CA, CERTIFICATE, PRIVATE_KEY, MqttDevice, Refused
from server import Server, start
from stack import until


def name(kind: type) -> str:
    return kind.__name__


BROKERS = [HaProxy, Nginx, RabbitMq, Aedes, Nats]
READS_LISTS = pytest.mark.parametrize("broker", BROKERS[:4], indirect=True, ids=name, scope="module")
PROXIES = pytest.mark.parametrize("broker", BROKERS[:2], indirect=True, ids=name, scope="module")
AEDES = pytest.mark.parametrize("broker", [Aedes], indirect=True, ids=name, scope="module")
NATS = pytest.mark.parametrize("broker", BROKERS[4:], indirect=True, ids=name, scope="module")


@pytest.fixture(scope="module")
def serving(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    server = start(folder / "data", folder)
    for device_id in ("sn-0001", "sn-0002"):
        server.vend(device_id, server.register(device_id))
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="module")
def rabbitmq(serving: Server, tmp_path_factory) -> Iterator[RabbitMq]:
    broker = RabbitMq(serving, tmp_path_factory.mktemp("RabbitMq"))
    broker.prepare()
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="module", params=BROKERS, ids=name)
def broker(request, serving: Server, tmp_path_factory) -> Iterator[Documented]:
    if any("RabbitMq" in item.name for item in request.session.items):
        # It takes ten seconds to start: meanwhile, the others are tested.
        rabbitmq = request.getfixturevalue("rabbitmq")
    if request.param is RabbitMq:
        rabbitmq.wait()
        yield rabbitmq
        return
    broker = request.param(serving, tmp_path_factory.mktemp(request.param.__name__))
    broker.prepare()
    try:
        broker.start()
        broker.wait()
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def one(serving: Server) -> Path:
    return serving.folder / "sn-0001"


@pytest.fixture
def two(serving: Server) -> Path:
    return serving.folder / "sn-0002"


@pytest.fixture
def another(serving: Server, broker: Documented, _numbers=itertools.count(1000)) -> Path:
    """A device that no other test has."""
    device_id = f"sn-{next(_numbers)}"
    folder = serving.vend(device_id, serving.register(device_id))
    broker.learn()
    until(lambda: not is_refused(broker, folder), "a broker that knows the device", seconds=60)
    return folder


def is_refused(broker: Documented, folder: Path, client_id: str = "") -> bool:
    try:
        with broker.connect(folder, client_id or folder.name):
            return False
    except (Refused, OSError):
        return True


def attempt(act, *arguments: str) -> None:
    """With MQTT 3.1.1, a broker closes the connection, or says yes and does nothing."""
    try:
        act(*arguments)
    except (Refused, OSError):
        pass


def has_its_topics(device: MqttDevice, device_id: str) -> bool:
    device.publish(f"devices/{device_id}/a", "hello")
    return device.receive() == (f"devices/{device_id}/a", b"hello")


def test_a_device_has_its_own_topics(broker: Documented, one: Path):
    for protocol in broker.protocols:
        with broker.connect(one, "sn-0001", protocol) as device:
            device.subscribe("devices/sn-0001/#")
            assert has_its_topics(device, "sn-0001")


def test_a_device_has_no_topics_of_another_one(broker: Documented, one: Path, two: Path):
    with broker.connect(two, "sn-0002") as victim:
        victim.subscribe("devices/sn-0002/#")
        with broker.connect(one, "sn-0001") as device:
            attempt(device.publish, "devices/sn-0002/a", "forged")
        for topics in ["devices/sn-0002/#", "devices/+/a", "devices/#", "#"]:
            with broker.connect(one, "sn-0001") as device:
                attempt(device.subscribe, topics)
                assert has_its_topics(victim, "sn-0002"), "and nothing that was forged before"
                assert device.receive(0.3) is None, topics


def test_a_kept_session_gets_no_messages_of_another_device(broker: Documented, two: Path, another: Path):
    own = f"devices/{another.name}/#"
    with broker.connect(another, another.name, keep=True) as device:
        attempt(device.subscribe, own, "devices/sn-0002/#")
    with broker.connect(two, "sn-0002") as other:
        other.publish("devices/sn-0002/a", "secret")
    with broker.connect(another, another.name, keep=True) as device:
        attempt(device.subscribe, own)
        assert has_its_topics(device, another.name), "and nothing of the other device before"


def test_a_device_cannot_take_over_the_session_of_another_one(broker: Documented, one: Path, another: Path):
    victim_id = another.name
    with broker.connect(another, victim_id, keep=True) as victim:
        victim.subscribe(f"devices/{victim_id}/#")
        for keep in (True, False):
            try:
                with broker.connect(one, victim_id, keep=keep) as thief:
                    assert not broker.refuses_other_client_ids and not thief.session_present
                    attempt(thief.subscribe, f"devices/{victim_id}/#")
            except (Refused, OSError):
                assert broker.refuses_other_client_ids
            if broker.keeps_connections_of_others:
                assert has_its_topics(victim, victim_id)
    with broker.connect(another, victim_id, keep=True) as victim:
        assert victim.session_present and has_its_topics(victim, victim_id)


@pytest.mark.parametrize("presented", ["no certificate", "a certificate of another CA"])
def test_a_connection_is_refused_with(broker: Documented, one: Path, tmp_path, presented: str):
    (tmp_path / CA).write_text((one / CA).read_text())
    own = (tmp_path / CERTIFICATE, tmp_path / PRIVATE_KEY)
    for path, pem in zip(own, self_signed("sn-0001"), strict=True):
        path.write_text(pem)
    context = ssl.create_default_context(cafile=one / CA)
    if presented != "no certificate":
        context.load_cert_chain(*own)
    assert answer(broker, context, connect_packet("sn-0001")) == b""
    assert is_refused(broker, tmp_path, "sn-0001")
    context.load_cert_chain(one / CERTIFICATE, one / PRIVATE_KEY)
    assert answer(broker, context, connect_packet("sn-0001")) == b"\x20\x02\x00\x00", "the same is accepted of the device"


@pytest.mark.parametrize("verb", ["disable", "revoke"])
def test_a_device_is_out_when_it_is_revoked(serving: Server, broker: Documented, two: Path, another: Path, verb: str):
    with broker.connect(another, another.name) as device:
        # The process that has the session is not the one that gets the next list.
        broker.reload()
        assert serving.ask("POST", f"/devices/{another.name}/{verb}", {"reason": "leaked"}).status == 200
        until(lambda: broker.refresh() or device.ended(0.1), "an end of the session", seconds=60)
    until(lambda: not is_refused(broker, two), "a broker for the others", seconds=60)
    assert is_refused(broker, another)
    if verb == "disable":
        assert serving.ask("POST", f"/devices/{another.name}/enable", {}).status == 200
        until(lambda: broker.refresh() or not is_refused(broker, another), "a device that was enabled again", seconds=60)


@READS_LISTS
def test_a_revoked_device_cannot_resume_its_tls_session(serving: Server, broker: Documented, another: Path):
    serial = x509.load_pem_x509_certificate((another / CERTIFICATE).read_bytes()).serial_number
    kept = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=another / CA)
        context.load_cert_chain(another / CERTIFICATE, another / PRIVATE_KEY)
        context.maximum_version = version
        with tls(broker, context) as connection:
            connection.sendall(connect_packet(another.name))
            assert connection.recv(4), "a session comes with the first bytes"
            kept.append((context, connection.session))
    assert serving.ask("POST", f"/devices/{another.name}/revoke", {"reason": "leaked"}).status == 200
    until(lambda: broker.refresh() or f"{serial:X}" in (broker.files / "crl.txt").read_text(), "a list with it", seconds=60)
    until(lambda: not is_refused(broker, serving.folder / "sn-0001"), "a broker for the others", seconds=60)
    for context, session in kept:
        assert answer(broker, context, connect_packet(another.name), session) == b""


@READS_LISTS
def test_every_device_is_refused_when_the_list_has_expired(serving: Server, broker: Documented, one: Path):
    lists = broker.files / "crl.pem"
    good = lists.read_text()
    for text in (expired_list(serving) + (serving.data / "ca" / "root-crl.pem").read_text(), good):
        lists.write_text(text)
        broker.reload()
        expected = text != good
        until(lambda expected=expected: is_refused(broker, one) == expected, "a broker with these lists")


@AEDES
def test_a_file_without_a_list_is_not_taken(serving: Server, broker: Aedes, one: Path, another: Path):
    assert serving.ask("POST", f"/devices/{another.name}/revoke", {"reason": "leaked"}).status == 200
    until(lambda: broker.refresh() or is_refused(broker, another), "a broker that knows of it", seconds=60)
    until(lambda: not is_refused(broker, one), "a broker for the others", seconds=60)
    lists = broker.files / "crl.pem"
    good = lists.read_text()
    lists.write_text("")
    broker.reload()
    try:
        until(lambda: "no revocation list" in broker.daemons[0].log.read_text(), "a refusal of the file", seconds=60)
        assert is_refused(broker, another) and not is_refused(broker, one)
    finally:
        lists.write_text(good)


@PROXIES
@pytest.mark.parametrize(
    "packets",
    [
        [("sn-0001", 4), ("sn-0002", 4)],
        [("sn-0002", 4)],
        [("", 4)],
        # As bridges have it. A proxy that took it for another version would find the client id elsewhere.
        [("sn-0001", 0x84)],
        [("sn-0001", 0x85)],
    ],
    ids=["a second packet", "another id", "no id", "a bridge", "a bridge with MQTT 5"],
)
def test_a_proxy_accepts_only_the_client_id_of_the_certificate(broker: Documented, one: Path, packets: list):
    context = ssl.create_default_context(cafile=one / CA)
    context.load_cert_chain(one / CERTIFICATE, one / PRIVATE_KEY)
    accepted = b"\x20\x02\x00\x00"
    for together in (True, False):
        parts = [connect_packet(*packet) for packet in packets]
        received = b""
        with tls(broker, context) as connection:
            try:
                for part in [b"".join(parts)] if together else parts:
                    connection.sendall(part)
                    received += connection.recv(4)
                assert connection.recv(4) == b"", "the connection goes on"
            except (ConnectionError, ssl.SSLError):
                pass
        # What a broker says right before it hangs up may be lost.
        assert received == b"" or (received == accepted and len(packets) > 1)


@PROXIES
def test_a_proxy_waits_for_a_packet_that_comes_in_pieces(broker: Documented, one: Path):
    context = ssl.create_default_context(cafile=one / CA)
    context.load_cert_chain(one / CERTIFICATE, one / PRIVATE_KEY)
    packet = connect_packet("sn-0001")
    with tls(broker, context) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in packet[:-1]:
            connection.sendall(bytes([octet]))
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(4)
        connection.settimeout(10)
        connection.sendall(packet[-1:])
        assert connection.recv(4) == b"\x20\x02\x00\x00"


@NATS
def test_services_receive_from_devices_and_send_to_one(broker: Nats, one: Path, two: Path):
    with socket.create_connection(("127.0.0.1", broker.inner), timeout=10) as service:
        lines = service.makefile("rb")
        service.sendall(b'CONNECT {"verbose":false,"user":"services","pass":"secret"}\r\nSUB devices.> 1\r\nPING\r\n')
        while lines.readline() != b"PONG\r\n":
            pass
        with broker.connect(one, "sn-0001") as device, broker.connect(two, "sn-0002") as other:
            for each, folder in ((device, one), (other, two)):
                each.subscribe(f"devices/{folder.name}/#")
            device.publish("devices/sn-0001/a", "hello")
            assert lines.readline() == b"MSG devices.sn-0001.a 1 5\r\n" and lines.readline() == b"hello\r\n"
            assert device.receive() == ("devices/sn-0001/a", b"hello")
            service.sendall(b"PUB commands.sn-0001.restart 3\r\nnow\r\n")
            assert device.receive() == ("devices/sn-0001/restart", b"now")
            assert other.receive(0.3) is None


@NATS
def test_nobody_is_a_device_without_its_certificate(broker: Nats):
    """The users of devices have no password."""
    with socket.create_connection(("127.0.0.1", broker.inner), timeout=10) as client:
        client.sendall(b'CONNECT {"verbose":false,"user":"CN=sn-0001","pass":""}\r\nPING\r\n')
        assert b"Authorization Violation" in client.makefile("rb").read()


def test_refresh_takes_no_damaged_list_and_repeats_what_failed(serving: Server, tmp_path):
    broker = Documented(serving, tmp_path / "broker")
    broker.prepare()
    done = tmp_path / "done"
    broker.script("refresh", RELOAD=f"touch {done}")
    good = (broker.files / "crl.pem").read_text()
    served = tmp_path / "served"
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\ncp {served} "$2"\n')
    curl.chmod(0o755)
    path = f"{curl.parent}:{broker.environment['PATH']}"
    in_the_last_list = good.rindex("BEGIN X509 CRL") + 100
    for bad in ["", "<html>", good[: len(good) // 4], good[:in_the_last_list], (serving.data / "ca" / "ca.pem").read_text()]:
        served.write_text(bad)
        with pytest.raises(subprocess.CalledProcessError):
            broker.script("refresh", RELOAD="true", PATH=path)
        assert (broker.files / "crl.pem").read_text() == good, bad
    done.unlink()
    served.write_text(good + good)
    with pytest.raises(subprocess.CalledProcessError):
        broker.script("refresh", RELOAD="false", PATH=path)
    broker.script("refresh", RELOAD=f"touch {done}", PATH=path)
    assert done.exists()
    done.unlink()
    broker.script("refresh", RELOAD=f"touch {done}", PATH=path)
    assert not done.exists(), "there is nothing new"


def test_each_file_of_the_page_is_tested():
    assert documented().keys() == {REFRESH, *(path for kind in BROKERS for path in kind.names)}


def tls(broker: Documented, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    connection = socket.create_connection(("localhost", broker.port), timeout=10)
    return context.wrap_socket(connection, server_hostname="localhost", session=session)


def answer(broker: Documented, context: ssl.SSLContext, packet: bytes, session: ssl.SSLSession | None = None) -> bytes:
    """The broker's first bytes after `packet`; none if it hangs up."""
    try:
        with tls(broker, context, session) as connection:
            connection.sendall(packet)
            return connection.recv(4)
    except (ConnectionError, ssl.SSLError):
        return b""


def connect_packet(client_id: str, version: int = 4) -> bytes:
    """The MQTT CONNECT packet of a clean session, without properties."""
    properties = b"\0" if version & 0x7F == 5 else b""
    body = b"\0\4MQTT" + bytes([version, 2, 0, 60]) + properties + len(client_id).to_bytes(2) + client_id.encode()
    return bytes([0x10, len(body)]) + body


def self_signed(device_id: str) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode(), private.decode()


def expired_list(server: Server) -> str:
    """A list of the issuing CA that was valid until yesterday."""
    ca = x509.load_pem_x509_certificate((server.data / "ca" / "issuing.pem").read_bytes())
    key = load_pem_private_key((server.data / "ca" / "issuing.key").read_bytes(), None)
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
    revoked = builder.last_update(now - 2 * day).next_update(now - day).sign(key, hashes.SHA256())
    return revoked.public_bytes(Encoding.PEM).decode()
