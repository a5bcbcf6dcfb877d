"""The CA of `cvm serve` whose keys are in AWS KMS: the server signs with them and never has them."""

import subprocess
from pathlib import Path

import pytest

import local_aws
from mqtt_device import CERTIFICATE
from server import Server, start
from stack import CVM, until
from test_authority import ca, first_in, issuer, ocsp, run, states, verify


@pytest.fixture(scope="module")
def kms(tmp_path_factory):
    aws = local_aws.start(tmp_path_factory.mktemp("kms"))
    try:
        yield aws.client("kms"), aws.environment
    finally:
        aws.stop()


@pytest.fixture
def key(kms, monkeypatch):
    """Makes keys that the server of this test may sign with."""
    client, environment = kms
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return lambda: client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]


def keys_in(data: Path) -> set[str]:
    return {path.name for path in (data / "ca").iterdir() if path.suffix in (".key", ".kms")}


def stop(server: Server) -> None:
    server.process.kill()
    server.process.wait()


def test_threat_54_a_first_start_with_keys_in_kms_never_has_one_on_the_disk(key, tmp_path):
    folder = tmp_path / "data" / "ca"
    folder.mkdir(parents=True, mode=0o700)
    for name in ("root", "issuing"):
        (folder / f"{name}.kms").write_text(f"{key()}\n")
    server = start(tmp_path / "data", tmp_path)
    try:
        device = server.vend("sn-0001", server.register("sn-0001"))
        verify(server, device)
        assert f"{device / CERTIFICATE}: good" in ocsp(server, "-cert", device / CERTIFICATE)
        shown = ca(server.data, "show")
        assert {shown["root"]["key"], shown["issuing"][0]["key"]} == {"kms"}
        assert server.end() == 0
        again = start(server.data, tmp_path)
        again.token = server.token
        try:
            verify(again, again.vend("sn-0002", again.register("sn-0002")))
        finally:
            stop(again)
    finally:
        stop(server)
    assert keys_in(server.data) == {"root.kms", "issuing.kms"}


def test_threat_54_a_server_moves_to_kms_by_a_rotation_while_it_runs(key, server: Server):
    before = server.vend("sn-0001", server.register("sn-0001"))
    arn = key()
    made = ca(server.data, "rotate", "--overlap", "1s", "--kms-key", arn)
    until(lambda: first_in(server) == made["caId"], "a server that issues with the next CA", 30)
    after = server.vend("sn-0002", server.register("sn-0002"))
    assert issuer(after) != issuer(before)
    for device in (before, after):
        verify(server, device)
    assert (server.data / "ca" / "issuing-2.kms").read_text().strip() == arn
    assert keys_in(server.data) == {"root.key", "issuing.key", "issuing-2.kms"}
    again = run("ca", "rotate", "--data", server.data, "--overlap", "1s", "--kms-key", arn)
    assert again.returncode == 1 and "same key" in again.stderr, again.stderr
    assert states(server.data) == ["earlier", "issuing"]


def test_a_key_that_is_switched_off_costs_no_device_anything_but_time(key, kms, server: Server):
    arn = key()
    made = ca(server.data, "rotate", "--overlap", "1s", "--kms-key", arn)
    until(lambda: first_in(server) == made["caId"], "a server that issues with the next CA", 30)
    token, out = server.register("sn-0001"), server.folder / "sn-0001"
    kms[0].disable_key(KeyId=arn)
    vend = [CVM, "vend", "--url", server.url, "--root-ca", server.ca, "--device", "sn-0001"]
    refused = subprocess.run([*vend, "--token-file", token, "--out", out], capture_output=True, text=True)
    assert refused.returncode != 0 and not (out / CERTIFICATE).exists()
    assert server.ask("GET", "/devices/sn-0001").json["cvm"]["state"] == "registered"
    kms[0].enable_key(KeyId=arn)
    verify(server, server.vend("sn-0001", token))


@pytest.mark.parametrize("text", ["", "two words", "arn:aws:kms:eu-central-1:000000000000:key/none"])
def test_a_name_of_no_key_is_told_at_the_start_and_nothing_is_made(key, tmp_path, text):
    folder = tmp_path / "data" / "ca"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "root.kms").write_text(text)
    done = run("serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0")
    assert done.returncode == 1 and "kms" in done.stderr.lower(), done
    assert keys_in(tmp_path / "data") == {"root.kms"}
