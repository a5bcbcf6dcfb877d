"""The folders that earlier versions of `cvm serve` have left: each is gone on with."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from server import start
from stack import CVM

OUT_OF_POWER = {"sn-disabled", "sn-revoked"}
KEPT = sorted((Path(__file__).parent / "fixtures").glob("serve-*"))


@pytest.mark.parametrize("kept", KEPT, ids=[kept.name for kept in KEPT])
def test_the_data_of_every_version_is_gone_on_with(tmp_path, kept):
    expected = json.loads((kept / "expected.json").read_text())
    data = tmp_path / "data"
    shutil.copytree(kept / "data", data)
    # A checkout lets others read; the server does not.
    for path in [data, *data.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    server = start(data, tmp_path)
    ask = lambda *arguments, **more: server.ask(*arguments, token=expected["operator"], **more)
    # Without `since`, only the entries of the last day are told.
    assert len(ask("GET", "/audit?since=2026-01-01T00:00:00Z").json) == expected["entries"]
    for device, vended in expected["vended"].items():
        request = {"deviceId": device, "csr": vended["csr"]}
        answer = server.ask("POST", "/v1/certificates", request, token=vended["token"])
        if device in OUT_OF_POWER:
            assert answer.status == 403
        elif device == "sn-renewable":
            assert answer.status == 201 and answer.json["certificatePem"] != vended["certificatePem"]
        else:
            assert answer.status == 200 and answer.json["certificatePem"].startswith(vended["certificatePem"])
        if earlier := vended.get("earlier"):
            # The next certificate was not seen yet, so that the one before it is still in power.
            superseded = ask("GET", f"/devices/{device}").json["cvm"]["superseded"]
            assert [one["certificateId"] for one in superseded] == [certificate(earlier).fingerprint(SHA256()).hex()]
    revoked = x509.load_pem_x509_crl(server.crl.read_bytes())
    for device, vended in expected["vended"].items():
        number = certificate(vended["certificatePem"]).serial_number
        listed = revoked.get_revoked_certificate_by_serial_number(number) is not None
        assert listed == (device in OUT_OF_POWER), device
    assert ask("GET", "/devices/sn-waiting").json["cvm"]["state"] == "registered"
    assert ask("GET", "/devices/sn-gone").status == 404
    assert server.end() == 0
    verified = subprocess.run([CVM, "audit", "verify", "--data", data], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stderr


def certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_there_is_a_folder_of_an_earlier_version():
    assert KEPT
