"""Measure whether the response time of `cvm serve` reveals that a device exists.

The caller knows serial numbers and has no proof. Each kind of device is compared with devices that do not exist, by the
two-sample Kolmogorov-Smirnov test. D is the largest distance between the two distributions of response times: whoever
guesses the kind from one response is right in at most (1 + D) / 2 of the cases. "unknown again" is a second sample of
the same kind, and shows how large D is by chance.

    cargo build --locked --profile server --package cvm
    .venv/bin/python scripts/measure_refusals.py --cvm target/server/cvm
"""

import argparse
import http.client
import json
import math
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from bisect import bisect_right
from pathlib import Path

DEVICES = 100
UNLIMITED = ["--rate-per-source", "9999999/s", "--rate-per-device", "9999999/s"]
KINDS = ["unknown", "unknown again", "registered", "provisioned", "disabled"]
WRONG_TOKEN = "a-wrong-token-0123456789-0123456789"


def name(kind: str, number: int) -> str:
    return f"{KINDS.index(kind)}-{number:06d}"


def signing_request(folder: Path) -> str:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/"]
    command = ["openssl", "req", "-new", *curve, "-keyout", str(folder / "device.key")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Server:
    def __init__(self, cvm: Path, folder: Path):
        self.log = (folder / "log").open("wb")
        command = [cvm, "serve", "--data", folder / "data", "--listen", "127.0.0.1:0", *UNLIMITED, "--output", "json"]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=self.log, text=True)
        said = self.process.stdout.readline()
        while said.count("{") != said.count("}"):
            said += self.process.stdout.readline()
        began = json.loads(said)
        self.url, self.token = began["url"], began["operatorToken"]
        self.tls = ssl.create_default_context(cafile=str(folder / "data" / "ca" / "ca.pem"))

    def ask(self, method: str, path: str, body: object, token: str) -> dict:
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request, context=self.tls) as answer:
            return json.loads(answer.read())

    def connection(self) -> http.client.HTTPSConnection:
        host = self.url.removeprefix("https://")
        return http.client.HTTPSConnection(host, context=self.tls)


def make(server: Server, folder: Path) -> None:
    for kind in ["registered", "provisioned", "disabled"]:
        for number in range(DEVICES):
            device = name(kind, number)
            status = "disabled" if kind == "disabled" else "enabled"
            made = server.ask("PUT", f"/devices/{device}", {"status": status}, server.token)
            if kind == "provisioned":
                body = {"deviceId": device, "csr": signing_request(folder)}
                server.ask("POST", "/v1/certificates", body, made["authentication"]["symmetricKey"]["primaryKey"])


def measure(server: Server, csr: str, requests: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    order = [kind for kind in KINDS for _ in range(requests)]
    random.Random(19).shuffle(order)
    headers = {"content-type": "application/json", "authorization": f"Bearer {WRONG_TOKEN}"}
    connection = server.connection()
    for place, kind in enumerate(order):
        body = json.dumps({"deviceId": name(kind, random.randrange(DEVICES)), "csr": csr})
        begin = time.perf_counter()
        connection.request("POST", "/v1/certificates", body, headers)
        answer = connection.getresponse()
        answer.read()
        took = time.perf_counter() - begin
        assert answer.status == 403, answer.status
        # The first ones warm the server up.
        if place >= len(order) // 10:
            times[kind].append(took * 1e6)
    return times


def distance(one: list[float], other: list[float]) -> float:
    """The statistic D of Kolmogorov and Smirnov for two samples."""
    one, other = sorted(one), sorted(other)
    return max(abs(bisect_right(one, at) / len(one) - bisect_right(other, at) / len(other)) for at in one + other)


def probability(d: float, first: int, second: int) -> float:
    """The probability of a distance of at least this between samples of one distribution (asymptotic)."""
    size = math.sqrt(first * second / (first + second))
    scaled = (size + 0.12 + 0.11 / size) * d
    if scaled < 0.2:
        return 1.0
    return max(0.0, min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cvm", type=Path, default=Path("target/server/cvm"), help="the binary to measure")
    parser.add_argument("--requests", type=int, default=4_000, help="requests for each kind of device")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        server = Server(arguments.cvm, folder)
        try:
            make(server, folder)
            times = measure(server, signing_request(folder), arguments.requests)
        finally:
            server.process.terminate()
            server.process.wait()
    print(f"{'kind':15}{'median µs':>10}{'D':>8}{'p':>10}{'one guess right':>17}")
    for kind in KINDS:
        d = distance(times["unknown"], times[kind])
        p = probability(d, len(times["unknown"]), len(times[kind]))
        print(f"{kind:15}{statistics.median(times[kind]):10.0f}{d:8.3f}{p:10.2g}{(1 + d) / 2:16.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
