"""The server's numbers, as Prometheus reads them."""

import http.client
import re
import socket
import time
import urllib.request

import pytest

from local_aws import free_port
from server import openssl, start
from stack import until

SAMPLE = re.compile(r'(?P<name>[a-z_]+)(?:\{(?P<labels>[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*)\})? (?P<value>\S+)')


def scrape(port: int) -> dict[tuple[str, frozenset], float]:
    """Every sample by its name and labels, as the OpenMetrics text format has them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        lines = answer.read().decode().splitlines()
    assert lines[-1] == "# EOF"
    types, samples = {}, {}
    for line in lines[:-1]:
        if line.startswith("# "):
            kind, name, rest = line[2:].split(" ", 2)
            assert kind in {"HELP", "TYPE", "UNIT"}
            if kind == "TYPE":
                types[name] = rest
            continue
        found = SAMPLE.fullmatch(line)
        assert found, line
        labels = frozenset(tuple(pair.split("=", 1)) for pair in re.findall(r'[a-z]+="[^"]*"', found["labels"] or ""))
        assert (found["name"], labels) not in samples, line
        assert any(found["name"].startswith(name) for name in types), line
        samples[found["name"], labels] = float(found["value"])
    return samples


@pytest.fixture
def watched(tmp_path):
    port = free_port()
    options = ["--metrics-listen", f"127.0.0.1:{port}", "--rate-per-device", "3/h"]
    server = start(tmp_path / "data", tmp_path, *options)
    yield server, port
    server.process.kill()
    server.process.wait()


def value(samples: dict, name: str, **labels: str) -> float:
    wanted = {(key, f'"{text}"') for key, text in labels.items()}
    return sum(number for (other, its), number in samples.items() if other == name and wanted <= its)


def test_what_the_server_does_is_counted(watched):
    server, port = watched
    token = server.register("sn-marked")
    server.vend("sn-marked", token)
    server.vend("sn-marked", token)
    # Refusals have a rate of their own.
    for _ in range(5):
        server.ask("POST", "/v1/certificates", {"deviceId": "sn-marked"}, token="")
    server.ask("GET", "/sn-marked?secret=marked", token="")
    samples = scrape(port)
    vends = {"door": "vend", "method": "write"}
    requests = "cvm_http_requests_total"
    assert value(samples, requests, **vends, status="201", code="") == 1
    assert value(samples, requests, **vends, status="200", code="") == 1
    assert value(samples, requests, **vends, status="403", code="refused") == 3
    assert value(samples, requests, **vends, status="429", code="rate-limited") == 2
    assert value(samples, "cvm_rate_limited_total", bucket="device") == 2
    assert value(samples, requests, door="registry", method="write", status="200") == 1
    assert value(samples, "cvm_refusals_total", door="vend", reason="wrong-proof") == 5
    assert value(samples, requests, door="other") == 1
    assert value(samples, "cvm_http_request_duration_seconds_count", door="vend") == 7
    assert not any("marked" in label for _, labels in samples for pair in labels for label in pair)
    now = time.time()
    assert 80 * 86_400 < value(samples, "cvm_tls_certificate_end_seconds") - now < 91 * 86_400
    assert value(samples, "cvm_ca_end_seconds") - now > 9 * 365 * 86_400
    assert now - value(samples, "cvm_revocation_list_made_seconds") < 60
    assert value(samples, "cvm_database_size_bytes") > 4096
    server.ask("POST", "/v1/certificates", {"deviceId": "sn-other"}, token="")
    for token in ["", "cvm_0000000000000000_marked"]:
        assert server.ask("GET", "/devices/sn-marked", token=token).status == 401
    samples = scrape(port)
    assert value(samples, "cvm_refusals_total", door="vend", reason="unknown-device") == 1
    assert value(samples, "cvm_operator_refusals_total", reason="no-token") == 1
    assert value(samples, "cvm_operator_refusals_total", reason="wrong-token") == 1
    assert not any("marked" in label for _, labels in samples for pair in labels for label in pair)
    # Those of the server's own addresses do not have them.
    assert server.ask("GET", "/metrics").status == 404


def test_connections_are_counted(watched):
    server, port = watched
    assert value(scrape(port), "cvm_handshakes_failed_total") == 0
    address = server.url.removeprefix("https://")
    with pytest.raises(AssertionError):
        openssl("s_client", "-connect", address, "-cipher", "NULL-MD5", "-tls1_2")
    with pytest.raises((OSError, http.client.HTTPException)):
        urllib.request.urlopen(f"http://{address}/livez", timeout=10)
    samples = scrape(port)
    assert value(samples, "cvm_handshakes_failed_total") >= 1
    assert value(samples, "cvm_connections_refused_total") == 0
    assert value(samples, "cvm_connections") < 5


def test_threat_25_whoever_holds_connections_to_the_metrics_gets_few_and_not_for_long(watched):
    server, port = watched
    held = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(17)]
    try:
        assert held[-1].recv(1) == b"", "one too many is closed at once"
        assert server.ask("GET", "/readyz").status == 200, "and takes no place of those who come for certificates"
        began = time.monotonic()
        held[0].sendall(b"GET /metrics HTTP/1.1\r\nhost: ")
        while held[0].recv(4096):
            pass
        assert time.monotonic() - began < 25, "headers that come to no end are not waited for"
    finally:
        for connection in held:
            connection.close()

    def is_free() -> bool:
        try:
            return value(scrape(port), "cvm_connections_refused_total") >= 1
        except OSError:
            return False

    until(is_free, "places for others")
