"""The CA of `cvm serve`: its passphrase, its rotation while it runs, a root whose key is elsewhere, and what it says of a
certificate."""

import base64
import json
import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mqtt_device import CERTIFICATE
from server import Server, openssl, start
from stack import CVM, lower, until


def run(*words: object, **environment: object) -> subprocess.CompletedProcess:
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.run([CVM, *words], capture_output=True, text=True, timeout=60, env=variables)


def ca(data: Path, *words: object, **environment: object) -> dict:
    done = run("ca", *words, "--data", data, "--output", "json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def states(data: Path) -> list[str]:
    return [authority["state"] for authority in ca(data, "show")["issuing"]]


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def verify(server: Server, device: Path) -> None:
    """The certificate is good by what the server has published, and by its revocation lists up to the root."""
    trusted = server.folder / "trusted.pem"
    trusted.write_text(server.ca.read_text() + server.crl.read_text())
    openssl("verify", "-crl_check_all", "-CAfile", trusted, device / CERTIFICATE)


def first_in(server: Server) -> str:
    """The id of the CA that issues: the first one behind the root in what the server publishes."""
    bundle = server.ask("GET", "/ca.pem", token="").body
    issuing = x509.load_pem_x509_certificates(bundle)[1]
    return issuing.fingerprint(hashes.SHA256()).hex()


def issuer(device: Path) -> str:
    return openssl("x509", "-noout", "-issuer", "-in", device / CERTIFICATE).strip()


def test_threat_55_a_server_that_runs_issues_with_the_next_ca_when_the_overlap_is_over(server: Server):
    before = server.vend("sn-0001", server.register("sn-0001"))
    made = ca(server.data, "rotate", "--overlap", "12s")
    assert states(server.data) == ["issuing", "next"]
    until(lambda: server.crl.read_text().count("BEGIN X509 CRL") == 3, "a list of the next CA before it issues")
    assert server.ask("GET", "/ca.pem", token="").body.decode().count("BEGIN CERTIFICATE") == 3
    early = server.vend("sn-0002", server.register("sn-0002"))
    assert issuer(early) == issuer(before)
    second = run("ca", "rotate", "--data", server.data)
    assert second.returncode == 1 and made["issuesFrom"] in second.stderr, second.stderr

    until(lambda: first_in(server) == made["caId"], "a server that issues with the next CA", 30)
    assert states(server.data) == ["earlier", "issuing"]
    after = server.vend("sn-0003", server.register("sn-0003"))
    assert issuer(after) != issuer(before)
    for device in [before, early, after]:
        verify(server, device)
    # The CA before still says what is revoked of it.
    lists = server.crl.read_text()
    assert server.ask("PUT", "/devices/sn-0001", {"status": "disabled"}, if_match="*").status == 200
    until(lambda: server.crl.read_text() != lists, "a new revocation list")
    with pytest.raises(AssertionError, match="revoked"):
        verify(server, before)
    verify(server, after)


def test_a_root_whose_key_is_elsewhere_is_needed_for_a_rotation_alone(server: Server, tmp_path):
    elsewhere = tmp_path / "root.key"
    server.register("sn-0001")
    shutil.move(server.data / "ca" / "root.key", elsewhere)
    assert server.end() == 0
    again = start(server.data, tmp_path)
    again.token = server.token
    try:
        verify(again, again.vend("sn-0001", tmp_path / "sn-0001.token"))
        assert ca(server.data, "show")["root"]["key"] == "elsewhere"
        refused = run("ca", "rotate", "--data", server.data)
        assert refused.returncode == 1 and "--root-key" in refused.stderr, refused.stderr
        ca(server.data, "rotate", "--root-key", elsewhere)
        assert states(server.data) == ["issuing", "next"]
    finally:
        again.process.kill()
        again.process.wait()


def test_threat_54_keys_under_a_passphrase_open_with_it_and_with_nothing_else(server: Server, tmp_path):
    good, other = secret(tmp_path / "good", "correct horse\n"), secret(tmp_path / "other", "battery staple")
    device = server.vend("sn-0001", server.register("sn-0001"))
    changed = ca(server.data, "passphrase", "--new-passphrase-file", good)
    assert changed["isEncrypted"] and len(changed["keys"]) == 2
    keys = [Path(key) for key in changed["keys"]]
    assert all("ENCRYPTED" in key.read_text() and key.stat().st_mode & 0o777 == 0o600 for key in keys)
    # It is PKCS #8 as everybody reads it.
    openssl("pkey", "-in", keys[0], "-passin", f"file:{good}", "-noout")
    assert server.end() == 0

    serve = ["serve", "--data", server.data, "--listen", "127.0.0.1:0"]
    missing = run(*serve)
    assert missing.returncode == 1 and "CVM_CA_PASSPHRASE_FILE" in missing.stderr, missing.stderr
    wrong = run(*serve, CVM_CA_PASSPHRASE_FILE=other)
    assert wrong.returncode == 1 and "does not open the key" in wrong.stderr, wrong.stderr
    other.chmod(0o644)
    exposed = run(*serve, CVM_CA_PASSPHRASE_FILE=other)
    assert exposed.returncode == 1 and "chmod 600" in exposed.stderr, exposed.stderr
    other.chmod(0o600)
    assert not any("correct horse" in done.stdout + done.stderr for done in [missing, wrong, exposed])

    again = start(server.data, tmp_path, "--ca-passphrase-file", good)
    again.token = server.token
    try:
        verify(again, again.vend("sn-0002", again.register("sn-0002")))
        verify(again, device)
        ca(server.data, "rotate", "--overlap", "1s", CVM_CA_PASSPHRASE_FILE=good)
        until(lambda: again.crl.read_text().count("BEGIN X509 CRL") == 3, "a server that knows of the next CA")
        assert {authority["key"] for authority in ca(server.data, "show")["issuing"]} == {"encrypted"}
        changed = ca(server.data, "passphrase", "--new-passphrase-file", other, CVM_CA_PASSPHRASE_FILE=good)
        # As if it had been interrupted: what is changed already stays.
        assert ca(server.data, "passphrase", "--new-passphrase-file", other, CVM_CA_PASSPHRASE_FILE=good) == changed
        ca(server.data, "passphrase", "--remove", CVM_CA_PASSPHRASE_FILE=other)
        assert {authority["key"] for authority in ca(server.data, "show")["issuing"]} == {"plain"}
    finally:
        again.process.kill()
        again.process.wait()


def test_a_running_server_follows_a_changed_passphrase_and_says_once_what_it_needs(tmp_path):
    old, new = secret(tmp_path / "old", "correct horse"), secret(tmp_path / "new", "battery staple")
    server = start(tmp_path / "data", tmp_path, "--ca-passphrase-file", old)
    try:
        ca(server.data, "passphrase", "--new-passphrase-file", new, CVM_CA_PASSPHRASE_FILE=old)
        ca(server.data, "rotate", "--overlap", "1s", CVM_CA_PASSPHRASE_FILE=new)

        def failures() -> list[dict]:
            lines = [json.loads(line) for line in server.log.read_text().splitlines()]
            return [line for line in lines if "folder has changed and cannot be read" in json.dumps(line)]

        until(failures, "a server that noticed")
        until(lambda: states(server.data)[-1] == "issuing", "the next CA to issue")
        # It tries again every few seconds; a decision has it try at once.
        token = server.register("sn-0001")
        server.vend("sn-0001", token)
        server.ask("POST", "/devices/sn-0001/disable", {"reason": "x"})
        until(lambda: "Serial Number" in openssl("crl", "-in", server.crl, "-noout", "-text"), "a revocation")
        [failure] = failures()
        assert str(old) in json.dumps(failure) and "again within seconds" in json.dumps(failure), failure
        secret(old, new.read_text())
        until(lambda: server.crl.read_text().count("BEGIN X509 CRL") == 3, "a server that knows of the next CA")
        assert len(failures()) == 1
    finally:
        server.process.kill()
        server.process.wait()


def test_a_first_start_with_a_passphrase_never_writes_a_key_without_it(tmp_path):
    passphrase = secret(tmp_path / "passphrase", "correct horse")
    server = start(tmp_path / "data", tmp_path, "--ca-passphrase-file", passphrase)
    try:
        shown = ca(server.data, "show")
        assert {shown["root"]["key"], shown["issuing"][0]["key"]} == {"encrypted"}
        verify(server, server.vend("sn-0001", server.register("sn-0001")))
    finally:
        server.process.kill()
        server.process.wait()


MALFORMED = bytes.fromhex("30030a0101")
UNAUTHORIZED = bytes.fromhex("30030a0106")


def post_ocsp(server: Server, body: bytes, path: str = "/ocsp", **headers: str) -> tuple[int, dict[str, str], bytes]:
    headers = {"content-type": "application/ocsp-request"} | headers
    asked = urllib.request.Request(f"{server.url}{path}", data=body or None, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=30, context=ssl.create_default_context(cafile=str(server.ca))) as done:
            return done.status, lower(done.headers), done.read()
    except urllib.error.HTTPError as refused:
        return refused.code, lower(refused.headers), refused.read()


def ocsp(server: Server, *words: object) -> str:
    """What OpenSSL makes of the server's answer, which it asks for itself and verifies up to the root."""
    trust = ["-CAfile", server.data / "ca" / "root.pem"]
    issuer = ["-issuer", server.data / "ca" / "issuing.pem"]
    done = subprocess.run(
        ["openssl", "ocsp", "-url", f"{server.url}/ocsp", *trust, *issuer, *words],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"SSL_CERT_FILE": str(server.ca)},
    )
    assert done.returncode == 0 and "Response verify OK" in done.stderr, (done.stdout, done.stderr)
    return done.stdout


def test_threat_56_openssl_is_told_how_a_certificate_stands(server: Server):
    certificate = server.vend("sn-0001", server.register("sn-0001")) / CERTIFICATE
    for words in [[], ["-sha256"], ["-no_nonce"]]:
        assert f"{certificate}: good" in ocsp(server, *words, "-cert", certificate)
    for status, said in [("disabled", "revoked"), ("enabled", "good")]:
        assert server.ask("PUT", "/devices/sn-0001", {"status": status}, if_match="*").status == 200
        until(lambda said=said: f": {said}" in ocsp(server, "-cert", certificate), f"an answer after {status}")
    assert server.ask("PUT", "/devices/sn-0001", {"status": "disabled"}, if_match="*").status == 200
    until(lambda: "Reason: certificateHold" in ocsp(server, "-cert", certificate), "a reason")
    assert "0xC0FFEE: unknown" in ocsp(server, "-serial", "0xC0FFEE")
    # Deleted for good, and said so after the next start, too.
    assert server.ask("DELETE", "/devices/sn-0001", if_match="*").status == 204
    until(lambda: "Reason" not in (said := ocsp(server, "-cert", certificate)) and ": revoked" in said, "an end")


def test_an_answer_by_get_is_the_same_for_everybody_and_may_be_cached(server: Server, tmp_path):
    certificate = server.vend("sn-0001", server.register("sn-0001")) / CERTIFICATE
    issuing, request = server.data / "ca" / "issuing.pem", tmp_path / "request.der"
    openssl("ocsp", "-no_nonce", "-issuer", issuing, "-cert", certificate, "-reqout", request)
    encoded = base64.b64encode(request.read_bytes()).decode()
    for path in [urllib.parse.quote(encoded, safe=""), encoded, encoded.rstrip("=")]:
        status, headers, body = post_ocsp(server, b"", f"/ocsp/{path}")
        assert (status, headers["content-type"]) == (200, "application/ocsp-response")
        assert "max-age=300" in headers["cache-control"] and len(body) > 100
    answer = tmp_path / "answer.der"
    answer.write_bytes(body)
    said = openssl("ocsp", "-no_nonce", "-respin", answer, "-issuer", issuing, "-cert", certificate, "-CAfile", server.ca)
    assert f"{certificate}: good" in said
    assert post_ocsp(server, request.read_bytes())[1]["cache-control"] == "no-store"


def test_what_is_no_question_is_refused_and_a_long_one_is_not_read(server: Server, tmp_path):
    for garbage in [b"", b"\0", b"garbage", b"\x30\x84\xff\xff\xff\xff", b"\x30\x80" * 2000]:
        assert post_ocsp(server, garbage or b" ")[::2] == (200, MALFORMED)
    assert post_ocsp(server, b"", "/ocsp/%00%ff")[0] == 400
    assert post_ocsp(server, b"", "/ocsp/garbage")[::2] == (200, MALFORMED)
    assert post_ocsp(server, b"x", **{"content-type": "text/plain"})[0] == 415
    assert post_ocsp(server, b"x" * 4_097)[0] == 413
    assert post_ocsp(server, b"x" * 10_000_000)[0] == 413, "a client that still sends is told so"
    # Of a CA that is not ours it has nothing to say.
    key, other, request = tmp_path / "other.key", tmp_path / "other.pem", tmp_path / "request.der"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-subj", "/CN=other", "-keyout", key, "-out", other)
    openssl("ocsp", "-issuer", other, "-serial", "1", "-reqout", request)
    assert post_ocsp(server, request.read_bytes())[::2] == (200, UNAUTHORIZED)
    assert server.ask("GET", "/livez", token="").status == 200


def test_clients_write_an_ocsp_request_in_many_ways(server: Server, tmp_path):
    device = server.vend("sn-0001", server.register("sn-0001"))
    issuing, certificate = server.data / "ca" / "issuing.pem", device / CERTIFICATE
    request = tmp_path / "request"
    openssl("ocsp", "-no_nonce", "-issuer", issuing, "-cert", certificate, "-reqout", request)
    der = request.read_bytes()
    for kind in ["application/ocsp-request", "Application/OCSP-Request", "application/ocsp-request; charset=utf-8"]:
        status, _, answer = post_ocsp(server, der, **{"content-type": kind})
        assert (status, answer[:2] == b"\x30\x82", len(answer) > 100) == (200, True, True), kind
    text = base64.b64encode(der).decode()
    forms = [text, text.rstrip("="), f"/{text}", base64.urlsafe_b64encode(der).decode(), urllib.parse.quote(text, safe="")]
    answers = [post_ocsp(server, b"", f"/ocsp/{form}") for form in forms]
    assert all(status == 200 and len(answer) > 100 for status, _, answer in answers), answers
