"""The server's certificate, and what it makes of those that clients show."""

import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server import Server, openssl, start
from stack import CVM, until


def make(folder: Path, name: str) -> tuple[Path, Path]:
    """Somebody else's certificate for localhost, and its key, in files of this name."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, *names, "-days", "2", "-keyout", key, "-out", certificate)
    key.chmod(0o600)
    return certificate, key


def connect(server: Server, ca: Path, client: tuple[Path, Path] | None = None, version=ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = context.maximum_version = version
    if client:
        context.load_cert_chain(*client)
    address = urlsplit(server.url)
    return context.wrap_socket(socket.create_connection((address.hostname, address.port)), server_hostname="localhost")


def subject(server: Server, ca: Path) -> str:
    with connect(server, ca) as connection:
        return dict(pair for [pair] in connection.getpeercert()["subject"])["commonName"]


def serial(server: Server) -> str:
    with connect(server, server.ca) as connection:
        return connection.getpeercert()["serialNumber"]


@pytest.fixture
def foreign(tmp_path):
    """A server with a certificate of somebody else."""
    certificate, key = make(tmp_path, "tls")
    server = start(tmp_path / "data", tmp_path, "--tls-certificate", certificate, "--tls-key", key)
    yield server
    server.process.kill()
    server.process.wait()


@pytest.mark.parametrize("is_foreign", [True, False])
def test_the_lines_of_a_first_start_work_in_a_shell_of_another_server(tmp_path, is_foreign: bool):
    certificate, key = make(tmp_path, "tls")
    options = ["--tls-certificate", certificate, "--tls-key", key] if is_foreign else []
    command = [CVM, "serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", *options]
    with open(tmp_path / "log", "w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server:
        try:
            lines = []
            while "A first device" not in (line := server.stdout.readline()):
                assert line, (tmp_path / "log").read_text()
                lines.append(line)
        finally:
            server.kill()
    pasted = "".join(line for line in lines if line.startswith("    "))
    shell = f"{pasted}\nprintf '%s' \"$CVM_SERVER,${{CVM_SERVER_CA-unset}},${{CVM_TABLE-unset}}\""
    others = {"CVM_SERVER": "https://other", "CVM_SERVER_CA": "other.pem", "CVM_TABLE": "other"}
    environment = os.environ | others
    set_to = subprocess.run(["sh", "-ec", shell], env=environment, check=True, capture_output=True, text=True).stdout
    address, trusted, table = set_to.split(",")
    assert table == "unset"
    assert address.startswith("https://localhost:"), set_to
    assert trusted == ("unset" if is_foreign else str(tmp_path / "data" / "ca" / "ca.pem"))


def test_a_certificate_that_is_renewed_is_used_without_a_new_start(foreign: Server, tmp_path):
    trusted = tmp_path / "trusted.pem"
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    trusted.write_text(certificate.read_text())
    assert subject(foreign, trusted) == "tls"
    new_certificate, new_key = make(tmp_path, "renewed")
    trusted.write_text(trusted.read_text() + new_certificate.read_text())
    new_key.rename(key)
    new_certificate.rename(certificate)
    until(lambda: subject(foreign, trusted) == "renewed", "the new certificate")
    # What is broken, or halfway there, is told and not used.
    for broken in ["", make(tmp_path, "other")[0].read_text()]:
        told = foreign.log.read_text().count("keeps the certificate")
        certificate.write_text(broken)
        until(lambda told=told: foreign.log.read_text().count("keeps the certificate") > told, "word of it")
        assert subject(foreign, trusted) == "renewed"
    (tmp_path / "other.key").rename(key)
    trusted.write_text(trusted.read_text() + certificate.read_text())
    until(lambda: subject(foreign, trusted) == "other", "the last one")


def test_a_server_that_is_told_to_look_makes_its_certificate_anew(server: Server):
    before = serial(server)
    assert serial(server) == before
    server.process.send_signal(signal.SIGHUP)
    until(lambda: serial(server) != before, "another certificate")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_of_somebody_else_locks_no_client_out(server: Server, tmp_path, version):
    for client in [None, make(tmp_path, "stranger")]:
        with connect(server, server.ca, client, version) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
            assert not connection.session_reused and connection.version() == version.name.replace("_", ".")


def test_clients_are_told_whose_certificates_count(server: Server):
    address = urlsplit(server.url).netloc
    command = ["openssl", "s_client", "-connect", address, "-CAfile", server.ca, "-servername", "localhost"]
    said = subprocess.run(command, input="", capture_output=True, text=True, timeout=20).stdout
    names = said.partition("Acceptable client certificate CA names")[2].partition("Requested")[0]
    assert "cvm issuing" in names and "cvm root" in names, said
    assert "Verify return code: 0" in said


@pytest.mark.parametrize("fault", ["exposed", "missing", "mismatched", "encrypted"])
def test_files_that_cannot_be_used_are_told_at_the_start(tmp_path, fault):
    certificate, key = make(tmp_path, "tls")
    match fault:
        case "exposed":
            key.chmod(0o644)
        case "missing":
            key.unlink()
        case "mismatched":
            key = make(tmp_path, "other")[1]
        case "encrypted":
            plain, key = key, tmp_path / "encrypted.key"
            openssl("pkey", "-in", plain, "-aes256", "-passout", "pass:secret", "-out", key)
            key.chmod(0o600)
    command = [CVM, "serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0"]
    command += ["--tls-certificate", certificate, "--tls-key", key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and "next:" in done.stderr and str(key) in done.stderr, done.stderr
    assert ("is encrypted" in done.stderr) == (fault == "encrypted"), done.stderr


def s_client(server: Server, *options: object, ca: Path | None = None) -> str:
    address = urlsplit(server.url).netloc.replace("localhost", "127.0.0.1")
    command = ["openssl", "s_client", "-connect", address, "-CAfile", ca or server.ca, *options]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


def test_any_name_in_the_handshake_is_accepted_and_what_is_none_is_refused(server: Server):
    for name in [[], ["127.0.0.1"], ["other.example"], ["LOCALHOST."], ["my_host"]]:
        said = s_client(server, "-servername", *name) if name else s_client(server, "-noservername")
        assert "Verification: OK" in said and "Cipher is TLS_" in said, said
    assert "illegal parameter" in s_client(server, "-servername", "localhost:8443")


def test_the_suites_of_the_documentation_are_there_and_no_others(server: Server, tmp_path):
    gcm, chacha = ["AES128-GCM-SHA256", "AES256-GCM-SHA384"], ["CHACHA20-POLY1305"]
    for suite in [*gcm, *chacha]:
        assert f"Cipher is ECDHE-ECDSA-{suite}" in s_client(server, "-tls1_2", "-cipher", f"ECDHE-ECDSA-{suite}")
    for suite in ["ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256"]:
        assert "handshake failure" in s_client(server, "-tls1_2", "-cipher", suite), suite
    for group in ["X25519", "P-256", "P-384"]:
        assert "Cipher is TLS_" in s_client(server, "-groups", group), group
    certificate, key = tmp_path / "rsa.pem", tmp_path / "rsa.key"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, "-days", "2", "-keyout", key, "-out", certificate)
    key.chmod(0o600)
    (tmp_path / "other").mkdir()
    foreign = start(tmp_path / "other" / "data", tmp_path / "other", "--tls-certificate", certificate, "--tls-key", key)
    try:
        suite = f"ECDHE-RSA-{gcm[0]}"
        assert f"Cipher is {suite}" in s_client(foreign, "-tls1_2", "-cipher", suite, ca=certificate)
    finally:
        foreign.process.kill()
        foreign.process.wait()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_records_are_as_small_as_the_documentation_says(server: Server, version):
    token = server.register("sn-0001").read_text()
    context = ssl.create_default_context(cafile=str(server.ca))
    context.minimum_version = context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    address = urlsplit(server.url)
    received = bytearray()
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:

        def go_on(step):
            while True:
                try:
                    done = step()
                    connection.sendall(outgoing.read())
                    return done
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    part = connection.recv(65536)
                    received.extend(part)
                    incoming.write(part)

        go_on(client.do_handshake)
        of_handshake = len(received)
        body = b'{"deviceId": "sn-0001"}'
        head = f"POST /v1/certificates HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n\r\n"
        go_on(lambda: client.write(head.encode() + body))
        go_on(lambda: client.read(65536))
    lengths, start_of_next = [], 0
    while start_of_next + 5 <= len(received):
        lengths.append(int.from_bytes(received[start_of_next + 3 : start_of_next + 5], "big"))
        start_of_next += 5 + lengths[-1]
    assert of_handshake < 1400 and max(lengths) < 6 * 1024, lengths


def test_a_server_is_reached_by_its_ipv6_address(tmp_path):
    server = start(tmp_path / "data", tmp_path, "--name", "::1,localhost", listen="[::1]:0")
    try:
        url = server.url
        assert url.startswith("https://[::1]:")
        done = subprocess.run(["curl", "-sS", "--cacert", server.ca, f"{url}/livez"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "ok\n"), done
        token = tmp_path / "token"
        token.write_text("a" * 32)
        token.chmod(0o600)
        command = [CVM, "vend", "--url", url, "--root-ca", server.ca, "--device", "x-1", "--token-file", token]
        refused = subprocess.run([*command, "--out", tmp_path / "x"], capture_output=True, text=True, timeout=20)
        assert "error: 403" in refused.stderr, refused.stderr
    finally:
        server.process.kill()
        server.process.wait()


def test_a_client_whose_clock_is_behind_verifies_a_new_certificate(server: Server):
    certificate = server.vend("sn-0001", server.register("sn-0001")) / "certificate.pem"
    then = str(int(time.time()) - 240)
    openssl("verify", "-attime", then, "-CAfile", server.ca, certificate)
