"""Measure the functions under a Lambda Runtime API: cold start, warm latency, peak memory and size.

Those that a device waits for have a Python handler with boto3 beside them, which makes the same calls, in the same run
and on the same table. Build first: make package ARCH=host.
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
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import local_aws
from local_aws import LOCAL, ROOT
from measure_cases import ENVIRONMENT, NOT_MEASURED, cases
from zip_functions import LARGEST_OF_OTHERS

PEER = ROOT / "scripts" / "measure_peer.py"


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
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 60_000))
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

    def call(self, question: dict, expected: dict) -> float:
        """Milliseconds from the event to the answer."""
        event = json.dumps(question).encode()
        began = time.perf_counter()
        self.events.put(event)
        answered = self.answers.get(timeout=30)
        duration = (time.perf_counter() - began) * 1000
        answer = json.loads(answered)
        if not expected.items() <= answer.items():
            raise SystemExit(f"expected {expected}, got {answer}")
        return duration


def measure(
    command: list[str], environment: dict[str, str], questions: Iterator[dict], expected: dict, cold: int, warm: int
) -> list[str]:
    colds, warms, peak = [], [], 0
    for _ in range(cold):
        api = RuntimeApi()
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=environment | {"AWS_LAMBDA_RUNTIME_API": api.address},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            api.call(next(questions), expected)
            colds.append((time.perf_counter() - began) * 1000)
            warms += [api.call(next(questions), expected) for _ in range(warm)]
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
    parser.add_argument("--any-build", action="store_true", help="take debug builds, too: to try this script")
    arguments = parser.parse_args()
    zips = sorted((ROOT / "target" / "lambda").glob("*/bootstrap.zip"))
    if not zips or not arguments.any_build and any(packed.stat().st_size > LARGEST_OF_OTHERS for packed in zips):
        sys.exit("There are no release builds to measure; build first: make package ARCH=host")

    aws = local_aws.start(LOCAL / "measure")
    try:
        # A function and its peer.
        asked = cases(aws, most=2 * arguments.cold * (1 + arguments.warm))
        environment = aws.environment | ENVIRONMENT | {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_FUNCTION_NAME": "measured",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        }
        print("| function | calls | cold start, ms | warm, ms | warm p99, ms | peak memory, MB | zip, MB |")
        print("|---|---|---|---|---|---|---|")
        for packed in zips:
            name = packed.parent.name
            if name in NOT_MEASURED:
                print(f"{name} is not measured: {NOT_MEASURED[name]}", file=sys.stderr)
                continue
            case = asked[name]
            ask = (environment, case.questions, case.answer, arguments.cold, arguments.warm)
            with tempfile.TemporaryDirectory() as folder:
                zipfile.ZipFile(packed).extract("bootstrap", folder)
                bootstrap = Path(folder) / "bootstrap"
                bootstrap.chmod(0o755)
                row = measure([str(bootstrap)], *ask)
            print("|", " | ".join([name, case.calls, *row, f"{packed.stat().st_size / 1e6:.1f}"]), "|", flush=True)
            if case.has_peer:
                row = measure([sys.executable, str(PEER), name], *ask)
                print("|", " | ".join(["the same in Python, boto3", case.calls, *row, ""]), "|", flush=True)
    finally:
        aws.stop()


if __name__ == "__main__":
    main()
