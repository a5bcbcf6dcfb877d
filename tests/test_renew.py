"""`cvm vend --renew`: a device renews with the certificate that it has, and is never without one that works."""

import hashlib
import json
import subprocess
from pathlib import Path

from mqtt_device import CERTIFICATE, PRIVATE_KEY
from server import Server, openssl
from stack import CVM

FILES = [PRIVATE_KEY, CERTIFICATE, "root-ca.pem", "device.json"]


def renew(server: Server, folder: Path, *options: object) -> subprocess.CompletedProcess:
    command = [CVM, "vend", "--url", server.url, "--root-ca", server.ca, "--renew", folder, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def content(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def key_of(pem: Path, *kind: str) -> str:
    return hashlib.sha256(openssl(*kind, "-in", pem, "-noout" if kind[0] == "x509" else "-pubout").encode()).hexdigest()


def belong_together(folder: Path) -> bool:
    return key_of(folder / PRIVATE_KEY, "pkey") == key_of(folder / CERTIFICATE, "x509", "-pubkey")


def test_a_device_renews_with_its_certificate_and_has_a_new_key(server: Server):
    device = server.vend("sn-0001", server.register("sn-0001"))
    before = content(device)
    done = renew(server, device, "--output", "json")
    assert done.returncode == 0, done.stderr
    after = content(device)
    assert sorted(after) == sorted(FILES), "nothing else is left"
    assert before[PRIVATE_KEY] != after[PRIVATE_KEY] and before[CERTIFICATE] != after[CERTIFICATE]
    assert belong_together(device)
    openssl("verify", "-CAfile", server.ca, device / CERTIFICATE)
    renewed = json.loads(done.stdout)
    assert renewed["certificateId"] == json.loads(after["device.json"])["certificateId"]
    assert server.ask("GET", "/devices/sn-0001").json["cvm"]["certificate"]["certificateId"] == renewed["certificateId"]
    # And again, with the certificate of the renewal as the proof.
    assert renew(server, device).returncode == 0 and belong_together(device)


def test_a_key_is_kept_if_it_is_wanted(server: Server):
    device = server.vend("sn-0001", server.register("sn-0001"))
    before = content(device)
    done = renew(server, device, "--keep-key")
    assert done.returncode == 0, done.stderr
    # In the first half of the validity the same key gets the same certificate.
    assert content(device)[CERTIFICATE] == before[CERTIFICATE] and belong_together(device)


def test_a_refused_renewal_leaves_what_works_and_goes_on_with_the_same_key(server: Server):
    device = server.vend("sn-0001", server.register("sn-0001"))
    before = content(device)
    server.ask("POST", "/devices/sn-0001/disable", {"reason": "on hold"})
    refused = renew(server, device)
    assert refused.returncode == 1 and "403" in refused.stderr, refused
    tried = content(device)
    assert {name: tried[name] for name in FILES} == before
    next_key = tried[f"{PRIVATE_KEY}.next"]
    server.ask("POST", "/devices/sn-0001/enable", {})
    assert renew(server, device).returncode == 0
    assert content(device)[PRIVATE_KEY] == next_key and belong_together(device)


def test_what_cannot_be_renewed_says_what_to_do(server: Server, tmp_path):
    empty = renew(server, tmp_path / "none")
    assert empty.returncode == 1 and "cannot be read" in empty.stderr, empty
    device = server.vend("sn-0001", server.register("sn-0001"))
    plain = subprocess.run(
        [CVM, "vend", "--url", "http://127.0.0.1:1", "--renew", device], capture_output=True, text=True, timeout=60
    )
    assert plain.returncode == 2 and "https://" in plain.stderr, plain
