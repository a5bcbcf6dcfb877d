"""`cvm backup`: a copy of a server that runs, what is in it, and what a start with it says and does."""

import json
import signal
import sqlite3
import stat
import subprocess
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mqtt_device import CERTIFICATE
from server import Server, openssl, start
from stack import CVM, Device, until
from test_operate_server import Desk


def backup(data: Path, out: Path) -> subprocess.CompletedProcess:
    command = [CVM, "backup", "--data", data, "--out", out, "--output", "json"]
    return subprocess.run(command, capture_output=True, text=True)


def serial(certificate: Path) -> int:
    return x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number


def crl_number(data: Path) -> int:
    lists = x509.load_pem_x509_crl((data / "ca" / "crl.pem").read_bytes())
    return lists.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_threat_40_a_server_begins_with_its_backup_and_says_what_that_means(server: Server, tmp_path):
    before_token = server.register("sn-before")
    before = (server.vend("sn-before", before_token) / CERTIFICATE).read_text()
    after_token = server.register("sn-after")

    kept = tmp_path / "kept"
    made = backup(server.data, kept)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["registry"] is True
    for path in [kept, *kept.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"others may look at {path}"
    verified = subprocess.run([CVM, "audit", "verify", "--data", kept], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stderr

    # What happens after it is not in it.
    lost = server.vend("sn-after", after_token) / CERTIFICATE
    lost_serial = serial(lost)
    assert server.ask("POST", "/devices/sn-before/disable", {"reason": "lost"}).status == 200
    until(lambda: "Serial Number" in openssl("crl", "-in", server.crl, "-noout", "-text"), "a revocation")
    number = crl_number(server.data)
    assert server.end() == 0

    restored = start(kept, tmp_path)
    try:
        assert restored.token is None, "its operators are those of the backup"
        restored.token = server.token
        assert "this folder was a backup" in restored.log.read_text()
        assert (restored.vend("sn-before", before_token) / CERTIFICATE).read_text() == before
        assert crl_number(kept) >= number, "brokers would keep the later list"

        # A device that has more than the registry knows is no stranger's doing, and is told of.
        body = {"deviceId": "sn-after", "csr": Device("sn-after").csr_pem}
        assert restored.ask("POST", "/v1/certificates", body, token="", certificate=lost).status == 403
        assert "is not in the registry" in restored.log.read_text()
        again = restored.ask("POST", "/v1/certificates", body, token=after_token.read_text())
        assert again.status == 201, again.body
        vended = x509.load_pem_x509_certificate(again.json["certificatePem"].encode())
        assert vended.serial_number != lost_serial, "a serial number came again"
        # What it had before is nobody's any more, and is taken out of power by itself.
        desk = Desk(tmp_path, restored.url, restored.ca, restored.token)
        revoked = desk.json("ca", "revoke", lost, "--reason", "made after the backup")
        assert int(revoked["serialNumber"], 16) == lost_serial and revoked["standing"] == "revoked"
        lists = lambda: x509.load_pem_x509_crl((kept / "ca" / "crl.pem").read_bytes())
        until(lambda: lists().get_revoked_certificate_by_serial_number(lost_serial), "a list that has it")
        assert lists().get_revoked_certificate_by_serial_number(vended.serial_number) is None
        assert desk.json("ca", "revoke", lost, "--reason", "again") == revoked
        assert restored.ask("POST", "/v1/certificates", body, token="", certificate=lost).status == 403
        # What a device has is the device's to lose, and what another CA has signed is that one's.
        current = tmp_path / "current.pem"
        current.write_bytes(vended.public_bytes(serialization.Encoding.PEM))
        owned = desk.error("ca", "revoke", current, "--reason", "by mistake")
        assert owned["code"] == "refused" and "cvm device revoke sn-after" in owned["message"], owned
        # Who has the CA's key can make another one of the same number, which lists cannot tell from it.
        key = serialization.load_pem_private_key((kept / "ca" / "issuing.key").read_bytes(), None)
        twin = tmp_path / "twin.pem"
        copied = x509.CertificateBuilder(
            vended.issuer,
            x509.Name([]),
            ec.generate_private_key(ec.SECP256R1()).public_key(),
            vended.serial_number,
            vended.not_valid_before_utc,
            vended.not_valid_after_utc,
        )
        twin.write_bytes(copied.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        both = desk.error("ca", "revoke", twin, "--reason", "not one of ours")
        assert "sn-after has one of the same number" in both["message"], both
        foreign = tmp_path / "foreign.pem"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        leaf = ["-subj", "/CN=sn-after", "-addext", "basicConstraints=critical,CA:FALSE"]
        openssl("req", "-x509", *curve, *leaf, "-keyout", tmp_path / "foreign.key", "-out", foreign)
        refused = desk.error("ca", "revoke", foreign, "--reason", "by mistake")
        assert refused["code"] == "refused" and "none of this server's CAs" in refused["message"], refused
        made = desk.json("token", "create", "--data", kept, "--name", "anna", "--role", "operator")
        anna = Desk(tmp_path, restored.url, restored.ca, made["token"])
        assert anna.error("ca", "revoke", lost, "--reason", "again")["code"] == "not-allowed"
        assert desk.error("ca", "revoke", lost, "--reason", "again", "--server", "", code=2)["code"] == "usage"
        assert restored.end() == 0
        said = restored.log.read_text().count("this folder was a backup")
        once_more = start(kept, tmp_path)
        assert once_more.end() == 0
        assert once_more.log.read_text().count("this folder was a backup") == said, "it is told once"
    finally:
        restored.process.kill()


def test_a_backup_is_of_one_moment_whatever_goes_on(server: Server, tmp_path):
    over, registered = threading.Event(), []

    def work(caller: int) -> None:
        while not over.is_set():
            name = f"sn-{caller}-{len(registered)}"
            if server.ask("PUT", f"/devices/{name}", {}).status == 200:
                registered.append(name)

    callers = [threading.Thread(target=work, args=(caller,)) for caller in range(3)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: len(registered) > 20, "some devices")
        for number in range(3):
            known = set(registered)
            out = tmp_path / f"kept-{number}"
            made = backup(server.data, out)
            assert made.returncode == 0, made.stderr
            copied = sqlite3.connect(out / "registry" / "registry.sqlite")
            found = {name for (name,) in copied.execute("SELECT id FROM devices")}
            copied.close()
            assert known <= found, "what was answered before is in it"
            verified = subprocess.run([CVM, "audit", "verify", "--data", out], capture_output=True, text=True)
            assert verified.returncode == 0, verified.stderr
    finally:
        over.set()
        for caller in callers:
            caller.join()


def test_a_backup_is_whole_or_not_there(server: Server, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    refused = backup(server.data, kept)
    assert refused.returncode == 1 and json.loads(refused.stderr)["error"]["code"] == "file", refused.stderr
    assert list(kept.iterdir()) == []
    none = backup(tmp_path / "nowhere", tmp_path / "other")
    assert none.returncode == 1 and json.loads(none.stderr)["error"]["code"] == "not-found", none.stderr

    # Of one that is damaged there is none.
    server.end(signal.SIGKILL)
    assert start(server.data, tmp_path).end() == 0
    registry = server.data / "registry" / "registry.sqlite"
    with open(registry, "r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xa5" * 4096)
    broken = backup(server.data, tmp_path / "broken")
    assert broken.returncode == 1 and json.loads(broken.stderr)["error"]["code"] == "registry", broken.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if "broken" in path.name or "backup" in path.name) == []
    command = [CVM, "serve", "--data", server.data, "--listen", "127.0.0.1:0"]
    started = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert started.returncode == 1 and "put its backup in its place" in started.stderr, started
