"""HTTP as clients of many kinds speak it to `cvm serve`."""

import json
import socket
import ssl
import subprocess
import time
from urllib.parse import urlsplit

import pytest

from server import Server, start
from stack import CVM, until


def connect(server: Server) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(server.ca))
    address = urlsplit(server.url)
    plain = socket.create_connection((address.hostname, address.port), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")


def exchange(server: Server, sent: bytes) -> bytes:
    """Sends all of it before anything is read, and returns what came back until the connection ended."""
    with connect(server) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


PKCS10 = "Content-Type: application/pkcs10"
EARLY = [
    (401, "PUT", "/devices/sn-1", "Content-Type: application/json"),
    (401, "POST", "/.well-known/est/simpleenroll", PKCS10),
    (404, "POST", "/v1/certificate", PKCS10),
    (404, "POST", "/.well-known/est/fullcmc", PKCS10),
    (405, "PUT", "/v1/certificates", PKCS10),
    (413, "POST", "/v1/certificates", PKCS10),
]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_early_response_reaches_a_client_that_still_sends_its_body(server: Server, tmp_path, version):
    body = tmp_path / "body"
    for status, method, path, content_type in EARLY:
        body.write_bytes(b"A" * (40_000 if status == 413 else 6_000))
        command = ["curl", "-sS", version, "--cacert", server.ca, "-o", tmp_path / "out", "-w", "%{http_code}", "-X", method]
        command += ["-H", content_type, "-H", "Expect:", "--data-binary", f"@{body}", f"{server.url}{path}"]
        done = [subprocess.run(command, capture_output=True, text=True) for _ in range(10)]
        assert {(answer.returncode, answer.stdout) for answer in done} == {(0, str(status))}, done


@pytest.mark.parametrize("size", [20_000, 600_000, 8_000_000])
def test_a_client_that_sends_too_much_is_told_so(server: Server, size):
    sent = request("POST", "/v1/certificates", PKCS10, body=b"A" * size)
    assert exchange(server, sent).startswith(b"HTTP/1.1 413 ")
    token = f"Authorization: Bearer {server.token}"
    sent = request("PUT", "/devices/sn-1", "Content-Type: application/json", token, body=b" " * size)
    assert exchange(server, sent).startswith(b"HTTP/1.1 413 " if size > 512 * 1024 else b"HTTP/1.1 400 ")


def test_a_client_that_waits_to_be_asked_for_its_body_is_not_asked_for_nothing(server: Server):
    head = request("POST", "/nowhere", "Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: 100000")
    assert exchange(server, head).startswith(b"HTTP/1.1 404 ")


def test_a_connection_goes_on_after_a_request_that_was_refused_early(server: Server):
    refused = request("POST", "/nowhere", body=b"A" * 20_000).replace(b"Connection: close\r\n", b"")
    received = exchange(server, refused + request("GET", "/livez"))
    assert received.startswith(b"HTTP/1.1 404 ") and received.endswith(b"\r\n\r\nok\n"), received


def test_threat_27_a_request_names_its_host_once(server: Server):
    def status(*lines: str) -> bytes:
        return exchange(server, "\r\n".join([*lines, "Connection: close", "", ""]).encode()).split(b" ")[1]

    assert status("GET /livez HTTP/1.1", "Host: localhost") == b"200"
    assert status("GET /livez HTTP/1.0") == b"200"
    assert status("GET /livez HTTP/1.1") == b"400"
    assert status("GET /livez HTTP/1.1", "Host: localhost", "Host: localhost") == b"400"
    assert status("GET /livez HTTP/1.1", "Host: a/b") == b"400"


def test_names_of_headers_are_in_their_usual_case(server: Server):
    refused = exchange(server, request("GET", "/tokens")).partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = {line.partition(b":")[0] for line in refused[1:]}
    assert {b"Content-Type", b"Content-Length", b"WWW-Authenticate", b"Cache-Control", b"Date"} <= names, refused
    token = f"Authorization: Bearer {server.token}"
    body = b"{}"
    made = exchange(server, request("PUT", "/devices/sn-1", "Content-Type: application/json", token, body=body))
    assert b"\r\nETag: " in made and b"\r\nX-Request-Id: " in made, made


def test_a_slash_at_the_end_of_an_address_is_passed_over(server: Server):
    answers = [server.ask("POST", path, {"deviceId": "sn-1"}, token="") for path in ("/v1/certificates", "/v1/certificates/")]
    assert [(answer.status, answer.json["code"]) for answer in answers] == [(403, "refused")] * 2
    assert "--claim-template" in server.ask("POST", "/v1/claims/", {"deviceId": "sn-1"}).json["detail"]


def test_what_a_trusted_proxy_sends_that_is_no_address_is_logged_once(tmp_path):
    server = start(tmp_path / "data", tmp_path, "--trusted-proxy", "127.0.0.1")
    try:
        for _ in range(3):
            assert server.ask("GET", "/ca.pem", token="", x_forwarded_for="198.51.100.1:51234").status == 200
        assert "X-Forwarded-For" not in server.log.read_text()
        for _ in range(3):
            assert server.ask("GET", "/ca.pem", token="", x_forwarded_for="unknown").status == 200
        warnings = [line for line in server.log.read_text().splitlines() if "X-Forwarded-For that is no address" in line]
        assert len(warnings) == 1 and '"unknown"' in warnings[0], warnings
    finally:
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize(("option", "is_open"), [("1s", False), ("600s", True)])
def test_a_slow_client_has_the_time_that_is_configured(tmp_path, option, is_open):
    server = start(tmp_path / "data", tmp_path, "--handshake-timeout", option)
    try:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=3) as client:
            # The head of a TLS record, whose rest does not come.
            client.sendall(b"\x16\x03\x01\x02\x00")
            try:
                ended = client.recv(1) == b""
            except TimeoutError:
                ended = False
        assert ended != is_open
    finally:
        server.process.kill()
        server.process.wait()


def test_threat_25_idle_connections_from_many_sources_do_not_keep_a_device_out(tmp_path):
    server = start(tmp_path / "data", tmp_path, "--max-connections", "20", "--max-connections-per-source", "8")
    try:
        address = urlsplit(server.url)
        context = ssl.create_default_context(cafile=str(server.ca))
        held = []
        for number in range(20):
            plain = socket.create_connection(("127.0.0.1", address.port), source_address=(f"127.0.1.{number // 5}", 0))
            held.append(context.wrap_socket(plain, server_hostname="localhost"))
        began = time.monotonic()
        until(lambda: reached(server), "a place for a device")
        assert time.monotonic() - began < 10
        assert server.register("sn-1").exists()
        for connection in held:
            connection.close()
    finally:
        server.process.kill()
        server.process.wait()


def reached(server: Server) -> bool:
    try:
        return server.ask("GET", "/livez", token="").status == 200
    except OSError:
        return False


def test_more_connections_than_files_can_be_open_are_not_promised(tmp_path):
    command = ["prlimit", "--nofile=300:300", CVM, "serve", "--data", tmp_path / "data", "--check", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and json.loads(done.stdout)["ok"], done
    assert "takes 200 connections" in done.stderr and "ulimit -n" in done.stderr, done.stderr
