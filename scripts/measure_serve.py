"""Measure `cvm serve` beside cfssl, under wrk: the same key in every request, keep-alive and a fresh TLS connection each.
Devices come from all over the registry.

cfssl neither asks who a device is nor remembers what it signed; it is here for what signing over HTTP costs. Both have
certificates of P-256. Build first, and install wrk and golang-cfssl (Debian has both):

    cargo build --locked --profile server --package cvm
    .venv/bin/python scripts/measure_serve.py --devices 300000

wrk asks without pause while a handshake is under way, so that with a connection each it has more than half of two cores. Where
oha is installed, it makes that load, too:

    cargo install oha --locked --version 1.16.0 --no-default-features --features rustls
"""

import argparse
import json
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "a-token-that-all-of-these-devices-share-0123456789"
BULK = 100
CALLERS = 16
# So many devices are drawn from for each second of oha's, which are several times those that it comes to.
DRAWN = 16_000

VEND = """
local thread_number = 0
function setup(thread) thread:set("number", thread_number); thread_number = thread_number + 1 end
function init(args) asked, first, threads, devices = 0, tonumber(args[1]), tonumber(args[2]), tonumber(args[3]) end
function request()
  local device = string.format("sn-%08d", (first + number + asked * threads) * 7919 % devices)
  asked = asked + 1
  return wrk.format("POST", "/v1/certificates", {headers}, '{{"deviceId":"' .. device .. '","csr":{csr}}}')
end
function done(summary, latency, requests)
  io.write(string.format("p99=%.2f\\nerrors=%d\\n", latency:percentile(99) / 1000, summary.errors.status))
end
"""

SIGN = """
wrk.method, wrk.body, wrk.headers = "POST", '{body}', {headers}
function done(summary, latency, requests)
  io.write(string.format("p99=%.2f\\nerrors=%d\\n", latency:percentile(99) / 1000, summary.errors.status))
end
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def openssl(*arguments: object) -> str:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def signing_request(folder: Path) -> str:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    return openssl("req", "-new", *curve, "-subj", "/", "-keyout", folder / "device.key")


class Peer:
    """A server under measurement."""

    def __init__(self, name: str, process: subprocess.Popen, url: str):
        self.name, self.process, self.url = name, process, url

    def memory(self) -> float:
        """Its largest resident memory so far, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def processor(self) -> float:
        """What it has had of the processors, in seconds."""
        times = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(times[11]) + int(times[12])) / 100


def wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens at port {port}")


@contextmanager
def running(command: list[object], log: Path) -> Iterator[subprocess.Popen]:
    with log.open("w") as out, subprocess.Popen(list(map(str, command)), stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.terminate()


def server_certificate(folder: Path) -> None:
    """A chain of two, as `cvm serve` has it: what is longer costs the client more, who is on the same processors."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"]
    issuing = ["-subj", "/CN=issuing", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key"]
    openssl("req", "-x509", *curve, *issuing, "-keyout", folder / "issuing.key", "-out", folder / "issuing.pem")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"]
    by = ["-CA", folder / "issuing.pem", "-CAkey", folder / "issuing.key"]
    openssl("req", "-x509", *curve, *names, *by, "-keyout", folder / "tls.key", "-out", folder / "leaf.pem")
    (folder / "tls.pem").write_text((folder / "leaf.pem").read_text() + (folder / "issuing.pem").read_text())


@contextmanager
def cfssl(folder: Path, with_tls: bool) -> Iterator[Peer]:
    folder.mkdir()
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"]
    openssl("req", "-x509", *curve, "-subj", "/CN=ca", "-keyout", folder / "ca.key", "-out", folder / "ca.pem")
    port = free_port()
    command = ["cfssl", "serve", "-address", "127.0.0.1", "-port", port, "-ca", folder / "ca.pem", "-ca-key", folder / "ca.key"]
    if with_tls:
        server_certificate(folder)
        command += ["-tls-cert", folder / "tls.pem", "-tls-key", folder / "tls.key"]
    with running(command, folder / "log") as process:
        wait_for(port)
        yield Peer("cfssl" + (", TLS" if with_tls else ""), process, f"http{'s' if with_tls else ''}://localhost:{port}")


@contextmanager
def cvm(folder: Path, binary: Path, devices: int) -> Iterator[Peer]:
    folder.mkdir()
    port = free_port()
    bounds = ["--rate-per-source", "9999999/s", "--max-connections", "900", "--max-connections-per-source", "900"]
    command = [binary, "--output", "json", "serve", "--data", folder / "data", "--listen", f"127.0.0.1:{port}", *bounds]
    with running(command, folder / "log") as process:
        wait_for(port)
        peer = Peer("cvm serve, TLS", process, f"https://localhost:{port}")
        token = first_token(folder / "log")
        register(peer, token, folder / "data" / "ca" / "ca.pem", devices)
        yield peer


def first_token(log: Path) -> str:
    while not (found := re.search(r'"operatorToken": ?"([^"]+)"', log.read_text())):
        time.sleep(0.05)
    return found[1]


def register(peer: Peer, token: str, ca: Path, devices: int) -> None:
    """Puts devices on the allowlist, a hundred in a call."""
    began = time.monotonic()
    context = ssl.create_default_context(cafile=str(ca))
    numbers = iter(range(0, devices, BULK))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                first = next(numbers, None)
            if first is None:
                return
            secret = {"type": "sas", "symmetricKey": {"primaryKey": TOKEN}}
            entries = [
                {"id": f"sn-{number:08}", "importMode": "create", "authentication": secret}
                for number in range(first, min(first + BULK, devices))
            ]
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            asked = urllib.request.Request(f"{peer.url}/devices", json.dumps(entries).encode(), headers)
            with urllib.request.urlopen(asked, context=context) as answer:
                assert answer.status == 200, answer.read()

    callers = [threading.Thread(target=work) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    print(f"{devices} devices registered, {devices / (time.monotonic() - began):.0f} a second", file=sys.stderr)


def asked(number: int, csr: str) -> str:
    return json.dumps({"deviceId": f"sn-{number:08}", "csr": csr}) + "\n"


def load(peer: Peer, script: Path, path: str, connections: int, seconds: int, *arguments: object) -> dict:
    threads = 2 if connections > 1 else 1
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "-s", script, f"{peer.url}{path}"]
    before = peer.processor()
    ran = subprocess.run(list(map(str, [*command, "--", *arguments])), capture_output=True, text=True, check=True)
    used = peer.processor() - before
    told = ran.stdout
    requests = int(re.search(r"(\d+) requests in", told)[1])
    return {
        "server": peer.name,
        "connections": connections,
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1]),
        "p99_ms": float(re.search(r"p99=([\d.]+)", told)[1]),
        "errors": int(re.search(r"errors=(\d+)", told)[1]) + socket_errors(told),
        "requests": requests,
        "processor_us": used / requests * 1e6,
        "memory_mb": peer.memory(),
    }


def load_with_oha(peer: Peer, bodies: Path, path: str, connections: int, seconds: int, headers: dict[str, str]) -> dict:
    """A connection for each request, and one line of `bodies` in each, at random; only what is made is counted."""
    command = ["oha", "--no-tui", "--output-format", "json", "--insecure", "--disable-keepalive", "-m", "POST"]
    command += ["-Z", bodies, "-c", connections, "-z", f"{seconds}s"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    before = peer.processor()
    ran = subprocess.run(list(map(str, [*command, f"{peer.url}{path}"])), capture_output=True, text=True, check=True)
    used = peer.processor() - before
    told = json.loads(ran.stdout)
    answers = told["statusCodeDistribution"]
    requests = sum(answers.values())
    # cfssl says 200 to each. Here it is a device that was drawn a second time, and got again what it has.
    again = answers.get("200", 0) if "201" in answers else 0
    # What is under way at the end is given up.
    given_up = told["errorDistribution"].pop("aborted due to deadline", 0)
    assert given_up <= connections
    return {
        "server": f"{peer.name}, a connection each, oha",
        "connections": connections,
        "rate": (requests - again) / seconds,
        "p99_ms": told["latencyPercentiles"]["p99"] * 1000,
        "errors": requests - answers.get("200", 0) - answers.get("201", 0) + sum(told["errorDistribution"].values()),
        "requests": requests,
        "processor_us": used / requests * 1e6,
        "memory_mb": peer.memory(),
    }


def socket_errors(told: str) -> int:
    found = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)
    return sum(map(int, found.groups())) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cvm", type=Path, default=ROOT / "target" / "server" / "cvm")
    parser.add_argument("--devices", type=int, default=300_000)
    parser.add_argument("--seconds", type=int, default=8, help="of each load")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    for tool in ["wrk", "cfssl"]:
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is not installed")
    results: list[dict] = []
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        folder = Path(folder)
        csr = signing_request(folder)
        headers = {"Content-Type": "application/json"}
        authorized = headers | {"Authorization": f"Bearer {TOKEN}"}
        close = {"Connection": "close"}
        lua = lambda values: "{" + ", ".join(f'["{name}"]="{value}"' for name, value in values.items()) + "}"
        escaped = json.dumps(csr).replace("\\", "\\\\")
        vend, vend_once, sign, sign_once = (folder / f"{name}.lua" for name in ["vend", "vend_once", "sign", "sign_once"])
        vend.write_text(VEND.format(headers=lua(authorized), csr=escaped))
        vend_once.write_text(VEND.format(headers=lua(authorized | close), csr=escaped))
        body = json.dumps({"certificate_request": csr}).replace("\\", "\\\\")
        sign.write_text(SIGN.format(body=body, headers=lua(headers)))
        sign_once.write_text(SIGN.format(body=body, headers=lua(headers | close)))
        with (
            cfssl(folder / "cfssl", with_tls=False) as plain,
            cfssl(folder / "cfssl-tls", with_tls=True) as tls,
            cvm(folder / "cvm", arguments.cvm, arguments.devices) as own,
        ):
            first, devices = 0, arguments.devices
            for _ in range(arguments.runs):
                # In turn, so that whatever else the machine does meets them all.
                for connections in [8, 32, 64, 128]:
                    results.append(load(plain, sign, "/api/v1/cfssl/sign", connections, arguments.seconds))
                    results.append(load(tls, sign, "/api/v1/cfssl/sign", connections, arguments.seconds))
                    results.append(load(own, vend, "/v1/certificates", connections, arguments.seconds, first, 2, devices))
                    first += results[-1]["requests"] + 1_000
                once = load(tls, sign_once, "/api/v1/cfssl/sign", 16, arguments.seconds)
                results.append(once | {"server": f"{once['server']}, a connection each"})
                once = load(own, vend_once, "/v1/certificates", 16, arguments.seconds, first, 2, devices)
                results.append(once | {"server": f"{once['server']}, a connection each"})
                first += results[-1]["requests"] + 1_000
                if not shutil.which("oha"):
                    continue
                for connections in [16, 64]:
                    bodies = folder / "bodies"
                    bodies.write_text(json.dumps({"certificate_request": csr}) + "\n")
                    seconds = arguments.seconds
                    results.append(load_with_oha(tls, bodies, "/api/v1/cfssl/sign", connections, seconds, headers))
                    drawn = range(first, first + DRAWN * seconds)
                    bodies.write_text("".join(asked(number * 7919 % devices, csr) for number in drawn))
                    results.append(load_with_oha(own, bodies, "/v1/certificates", connections, seconds, authorized))
                    first = drawn.stop
            if first > arguments.devices:
                print(f"only {arguments.devices} devices for {first} vends: give more --devices", file=sys.stderr)
    report(results)


def report(results: list[dict]) -> None:
    print("| server | connections | a second | p99, ms | processor, µs | memory, MB | errors |")
    print("|---|---|---|---|---|---|---|")
    for name, connections in dict.fromkeys((result["server"], result["connections"]) for result in results):
        runs = [result for result in results if (result["server"], result["connections"]) == (name, connections)]
        middle = lambda value: statistics.median(run[value] for run in runs)
        errors = sum(run["errors"] for run in runs)
        print(
            f"| {name} | {connections} | {middle('rate'):,.0f} | {middle('p99_ms'):.1f} | {middle('processor_us'):.0f} "
            f"| {max(run['memory_mb'] for run in runs):.0f} | {errors} |"
        )


if __name__ == "__main__":
    main()
