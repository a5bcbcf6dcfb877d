"""Measure the functions under a Lambda Runtime API: cold start, warm latency, peak memory and size.

Each function gets an event that ends after two conditional UpdateItems, and so does a Python handler with boto3 beside
it, in the same run and on the same table. Build first: make package ARCH=host.
"""

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import local_aws
from local_aws import LOCAL, ROOT

PEER = ROOT / "scripts" / "measure_peer.py"
TABLE = "measured"
TEMPLATE = {
    "Parameters": {"SerialNumber": {"Type": "String"}},
    "Resources": {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}}},
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "measured"}},
    },
}
EVENTS = {"vend": "unknown-device"}


class RuntimeApi:
    """The part of the Lambda Runtime API that a function needs (AWS Lambda developer guide, "custom runtimes")."""

    def __init__(self) -> None:
        self.events: queue.Queue[bytes] = queue.Queue()
        self.answers: queue.Queue[bytes] = queue.Queue()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # Headers and body go out apart, and would wait 40 ms for each other.

            def do_GET(self):
                self.answer(200, api.events.get())

            def do_POST(self):
                api.answers.put(self.rfile.read(int(self.headers.get("content-length", 0))))
                self.answer(202, b"")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Lambda-Runtime-Aws-Request-Id", "00000000-0000-0000-0000-000000000000")
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 10_000))
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:0:function:it")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # A function that is killed leaves its connection open.
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def call(self, event: bytes) -> float:
        """Milliseconds from the event to the answer."""
        began = time.perf_counter()
        self.events.put(event)
        status = json.loads(self.answers.get(timeout=30)).get("statusCode")
        if status != 403:
            raise SystemExit(f"expected a refusal, 403, got {status}")
        return (time.perf_counter() - began) * 1000


def measure(command: list[str], event: bytes, environment: dict[str, str], cold: int, warm: int) -> list[str]:
    colds, warms, peak = [], [], 0
    for _ in range(cold):
        api = RuntimeApi()
        process = subprocess.Popen(
            command,
            env=environment | {"AWS_LAMBDA_RUNTIME_API": api.address},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            colds.append(api.call(event))
            warms += [api.call(event) for _ in range(warm)]
            peak = max(peak, peak_memory(process.pid))
        finally:
            process.kill()
            process.wait()
    tail = statistics.quantiles(warms, n=100)[98]
    return [*(f"{value:.1f}" for value in (statistics.median(colds), statistics.median(warms), tail)), f"{peak:.0f}"]


def peak_memory(pid: int) -> float:
    """The most memory the process had, in MB, where the system tells."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", type=int, default=20, help="processes started per function")
    parser.add_argument("--warm", type=int, default=50, help="further calls per process")
    arguments = parser.parse_args()
    zips = sorted((ROOT / "target" / "lambda").glob("*/bootstrap.zip"))
    if not zips:
        sys.exit("Nothing to measure; build first: make package ARCH=host")

    aws = local_aws.start(LOCAL / "measure")
    try:
        aws.client("dynamodb").create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "deviceId", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "deviceId", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        environment = aws.environment | {
            "PATH": os.environ["PATH"],
            "DEVICE_TABLE": TABLE,
            "IOT_ENDPOINT": "localhost:8883",
            "PROVISIONING_TEMPLATE": json.dumps(TEMPLATE),
            "ROOT_CA_PEM": "",
            "RUST_LOG": "info",
            "AWS_LAMBDA_FUNCTION_NAME": "measured",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        }
        counts = (arguments.cold, arguments.warm)
        print("| function | cold start, ms | warm, ms | warm p99, ms | peak memory, MB | zip, MB |")
        print("|---|---|---|---|---|---|")
        for packed in zips:
            name = packed.parent.name
            with tempfile.TemporaryDirectory() as folder:
                zipfile.ZipFile(packed).extract("bootstrap", folder)
                bootstrap = Path(folder) / "bootstrap"
                bootstrap.chmod(0o755)
                event = (ROOT / "events" / name / f"{EVENTS[name]}.json").read_bytes()
                row = measure([str(bootstrap)], event, environment, *counts)
            print("|", " | ".join([name, *row, f"{packed.stat().st_size / 1e6:.1f}"]), "|", flush=True)
            row = measure([sys.executable, str(PEER)], event, environment, *counts)
            print("|", " | ".join([f"{name} in Python, boto3", *row, ""]), "|", flush=True)
    finally:
        aws.stop()


if __name__ == "__main__":
    main()
