"""Imports and exports as jobs of `cvm serve`: files in one folder, worked off by the server itself."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from server import Server, start
from stack import CVM, Answer, until

ENDED = {"completed", "failed", "cancelled"}
# More than two portions of 2,048 lines.
MANY = 5_000
BOUNDS = ["--rate-per-source", "1000000/s"]


@pytest.fixture
def server(tmp_path):
    server = start(tmp_path / "data", tmp_path, *BOUNDS)
    yield server
    server.process.kill()
    server.process.wait()


def files(server: Server) -> Path:
    return server.data / "jobs"


def put(server: Server, name: str, text: str) -> None:
    path = files(server) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def create(server: Server, **asked: object) -> dict:
    made = server.ask("POST", "/jobs/create", asked)
    assert (made.status, made.json["status"]) == (200, "enqueued"), made.body
    return made.json


def read(server: Server, made: dict) -> dict:
    return server.ask("GET", f"/jobs/{made['jobId']}").json


def ended(server: Server, made: dict, seconds: float = 120) -> dict:
    """The job, when it is at its end."""

    def found() -> dict | None:
        job = read(server, made)
        return job if job["status"] in ENDED else None

    return until(found, "an end of the job", seconds)


def lines(folder: Path, job: dict, kind: str) -> list[dict]:
    """The lines of the files of this kind that an import has written."""
    found = sorted((folder / job["outputBlobContainerUri"]).glob(f"{kind}-*.jsonl"))
    return [json.loads(line) for file in found for line in file.read_text().splitlines()]


def tokens_of(folder: Path, job: dict) -> dict[str, str]:
    kept = lines(folder, job, "tokens")
    tokens = {line["deviceId"]: line["token"] for line in kept}
    assert len(tokens) == len(kept), "a device has one token"
    return tokens


def vends(server: Server, device: str, token: str) -> None:
    file = server.folder / f"{device}.token"
    file.write_text(token)
    file.chmod(0o600)
    server.vend(device, file)


def restarted(server: Server, *options: object) -> Server:
    """Another one with the same data; the earlier one was killed."""
    again = start(server.data, server.folder, *BOUNDS, *options)
    again.token = server.token
    return again


def test_an_import_registers_devices_whose_tokens_vend(server: Server):
    rows = [f"sn-{number:05},berlin" for number in range(MANY)]
    rows.insert(10, "=1,berlin")
    put(server, "monday/serials.csv", "\ufeff" + "\r\n".join(["Serial Number,Group", *rows, ""]))
    made = create(server, type="import", inputBlobContainerUri="monday", inputBlobName="serials.csv")
    job = ended(server, made)
    assert (job["status"], job["progress"]) == ("completed", 100), job
    assert (job["cvm"]["lines"]["created"], job["cvm"]["lines"]["failed"]) == (MANY, 1)
    assert job["jobId"] in [listed["jobId"] for listed in server.ask("GET", "/jobs").json]
    assert server.ask("GET", "/statistics/devices").json["totalDeviceCount"] == MANY

    assert [failed["line"] for failed in lines(files(server), job, "errors")] == [12]
    tokens = tokens_of(files(server), job)
    assert sorted(tokens) == [f"sn-{number:05}" for number in range(MANY)]
    for device in ["sn-00000", "sn-02048", "sn-04999"]:
        vends(server, device, tokens[device])
    entry = server.ask("GET", "/audit?device=sn-00001").json[-1]
    assert (entry["door"], entry["requestId"]) == ("job", job["jobId"])
    assert entry["actor"] == job["cvm"]["createdBy"]

    # Nobody else reads them, and nothing is left of what was under way.
    for path in [files(server), *files(server).rglob("*")]:
        if path.parent.name != "monday" and path.name != "monday":
            assert path.stat().st_mode & 0o077 == 0, path
    assert [path.name for path in (files(server) / ".cvm").iterdir()] == ["id"]
    shown = server.log.read_text()
    assert not any(token in shown for token in tokens.values())


def test_an_export_is_what_an_import_takes(server: Server):
    for number in range(5):
        server.ask("PUT", f"/devices/sn-{number}", {"cvm": {"group": "berlin"}})
    server.register("other")
    job = ended(server, create(server, type="export", cvm={"group": "berlin"}))
    assert (job["status"], job["cvm"]["devices"]) == ("completed", 5), job
    exported = files(server) / job["outputBlobContainerUri"] / job["outputBlobName"]
    assert exported.stat().st_mode & 0o777 == 0o600
    ids = sorted(json.loads(line)["id"] for line in exported.read_text().splitlines())
    assert ids == [f"sn-{number}" for number in range(5)]
    asked = {"inputBlobContainerUri": job["outputBlobContainerUri"], "inputBlobName": job["outputBlobName"]}
    job = ended(server, create(server, type="import", **asked, cvm={"mode": "update"}))
    assert (job["status"], job["cvm"]["lines"]["unchanged"]) == ("completed", 5), job

    job = ended(server, create(server, type="export", outputBlobContainerUri="./a/b", cvm={"group": "nobody"}))
    assert (job["status"], (files(server) / "a" / "b" / "devices.txt").read_text()) == ("completed", "")


def test_what_a_file_deletes_loses_its_power(server: Server):
    device = server.vend("sn-1", server.register("sn-1"))
    put(server, "devices.txt", json.dumps({"id": "sn-1", "importMode": "delete"}))
    job = ended(server, create(server, type="import"))
    assert job["cvm"]["lines"]["deleted"] == 1, job
    command = ["openssl", "x509", "-noout", "-serial", "-in", device / "certificate.pem"]
    serial = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().partition("=")[2]
    crl = lambda: subprocess.run(
        ["openssl", "crl", "-noout", "-text", "-in", server.crl], check=True, capture_output=True, text=True
    ).stdout
    until(lambda: serial in crl(), "a revocation list with the certificate")


def test_threat_41_an_import_whose_server_is_killed_goes_on(server: Server):
    moments = random.Random(41)
    devices = [f"sn-{number:05}" for number in range(MANY)]
    put(server, "serials.csv", "serial\n" + "\n".join(devices))
    made = create(server, type="import", inputBlobName="serials.csv")
    kills = 0
    while kills < 12 and read(server, made)["status"] not in ENDED:
        time.sleep(moments.uniform(0, 0.4))
        server.end(signal.SIGKILL)
        kills += 1
        server = restarted(server)
    job = ended(server, made)
    assert (job["status"], job["cvm"]["lines"]["created"], job["cvm"]["lines"]["failed"]) == ("completed", MANY, 0), job
    assert kills > 3, "it was done before it could be cut off"
    tokens = tokens_of(files(server), job)
    assert sorted(tokens) == devices
    for device in random.Random(42).sample(devices, 10):
        vends(server, device, tokens[device])
    trail = server.ask("GET", "/audit?device=sn-02048").json
    assert [entry["action"] for entry in trail if entry["action"] != "provisioned"] == ["created"]
    assert server.end() == 0

    # Each was written once, and what is kept of each token is its own.
    found = sqlite3.connect(server.data / "registry" / "registry.sqlite")
    written = Counter(version for (version,) in found.execute("SELECT version FROM devices WHERE state = 'registered'"))
    assert set(written) == {1} and written[1] >= MANY - 10
    created = found.execute("SELECT COUNT(*) FROM entries WHERE document LIKE '%created%'").fetchone()
    assert created == (MANY,)
    verified = subprocess.run([CVM, "audit", "verify", "--data", server.data], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stderr


def test_an_export_whose_server_is_killed_has_every_device_once(server: Server):
    moments = random.Random(43)
    devices = [f"sn-{number:05}" for number in range(MANY)]
    put(server, "serials.csv", "serial\n" + "\n".join(devices))
    ended(server, create(server, type="import", inputBlobName="serials.csv", cvm={"proof": "claim"}))
    made = create(server, type="export")
    kills = 0
    while kills < 8 and read(server, made)["status"] not in ENDED:
        time.sleep(moments.uniform(0, 0.2))
        server.end(signal.SIGKILL)
        kills += 1
        server = restarted(server)
    job = ended(server, made)
    assert (job["status"], job["cvm"]["devices"]) == ("completed", MANY), job
    exported = (files(server) / job["outputBlobName"]).read_text()
    assert sorted(json.loads(line)["id"] for line in exported.splitlines()) == devices
    assert server.end() == 0


def test_a_server_that_is_told_to_end_does_so_between_two_portions(server: Server):
    put(server, "serials.csv", "serial\n" + "\n".join(f"sn-{number}" for number in range(20_000)))
    made = create(server, type="import", inputBlobName="serials.csv")
    until(lambda: read(server, made)["progress"] > 0, "a first portion")
    begun = time.monotonic()
    assert server.end() == 0
    assert time.monotonic() - begun < 9
    server = restarted(server)
    assert 0 < read(server, made)["progress"] < 100
    job = ended(server, made)
    assert (job["status"], job["cvm"]["lines"]["created"]) == ("completed", 20_000), job
    assert server.end() == 0


def test_a_job_that_is_cancelled_is_at_its_end_and_the_next_one_begins(server: Server):
    put(server, "many.csv", "serial\n" + "\n".join(f"sn-{number}" for number in range(200_000)))
    made = create(server, type="import", inputBlobName="many.csv", cvm={"dryRun": True})
    other = create(server, type="export")
    assert server.ask("DELETE", f"/jobs/{made['jobId']}").status == 204
    job = read(server, made)
    assert job["status"] == "cancelled" and job["endTimeUtc"] >= job["startTimeUtc"]
    assert server.ask("DELETE", f"/jobs/{made['jobId']}").status == 204
    assert ended(server, other, 20)["status"] == "completed"
    assert read(server, made)["status"] == "cancelled"
    unknown = server.ask("GET", f"/jobs/{'0' * 32}")
    assert (unknown.status, unknown.headers["iothub-errorcode"]) == (404, "JobNotFound")


def test_a_viewer_looks_and_nobody_else_comes_in(server: Server):
    command = [CVM, "token", "create", "--data", server.data, "--name", "screen", "--role", "viewer", "--output", "json"]
    viewer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["token"]
    made = create(server, type="export")
    uri = f"/jobs/{made['jobId']}"
    assert [server.ask("GET", path, token=viewer).status for path in ["/jobs", uri]] == [200, 200]
    assert server.ask("POST", "/jobs/create", {"type": "export"}, token=viewer).status == 403
    assert server.ask("DELETE", uri, token=viewer).status == 403
    for token in ["", "cvm_wrong"]:
        for method, path in [("GET", "/jobs"), ("POST", "/jobs/create"), ("GET", uri), ("DELETE", uri)]:
            assert server.ask(method, path, {} if method == "POST" else None, token=token).status == 401


def test_threat_59_no_job_leads_out_of_its_folder(server: Server, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("serial\nsn-secret\n")

    def refused(**asked: str) -> Answer:
        answer = server.ask("POST", "/jobs/create", asked)
        assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "BlobContainerValidationError"), asked
        return answer

    for container in ["/", str(tmp_path), "..", "./..", "a/../..", "file:///etc", "s3://fleet", ".cvm", "a\u0000", "a\nb"]:
        refused(type="import", inputBlobContainerUri=container)
        refused(type="export", outputBlobContainerUri=container)
        refused(type="import", outputBlobContainerUri=container)
    for name in [str(secret), "../../secret.csv", "a/../../../secret.csv", ".cvm/id", "a//b", "a\u0007", "\u202ea"]:
        refused(type="import", inputBlobName=name)
        refused(type="export", outputBlobName=name)

    def fails(**asked: str) -> str:
        job = ended(server, create(server, **asked), 20)
        assert job["status"] == "failed", job
        return job["failureReason"]

    folder = files(server)
    (folder / "link.csv").symlink_to(secret)
    (folder / "out").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.csv")
    socket.socket(socket.AF_UNIX).bind(str(folder / "socket.csv"))
    for name in ["link.csv", "out/secret.csv"]:
        assert "a link" in fails(type="import", inputBlobName=name)
    for name in ["pipe.csv", "socket.csv", "out"]:
        assert f"./{name}: it was refused" in fails(type="import", inputBlobName=name)
    assert fails(type="import", inputBlobName="missing.csv") == "./missing.csv: there is no such object"
    before = sorted(tmp_path.iterdir())
    assert "a link" in fails(type="export", outputBlobContainerUri="out", outputBlobName="devices.txt")
    assert "it was refused" in fails(type="export", outputBlobContainerUri=".", outputBlobName="link.csv")
    put(server, "one.csv", "serial\nsn-1\n")
    assert "a link" in fails(type="import", inputBlobName="one.csv", outputBlobContainerUri="out")
    assert sorted(tmp_path.iterdir()) == before
    assert server.ask("GET", "/devices/sn-secret").status == server.ask("GET", "/devices/sn-1").status == 404


def test_the_folder_can_be_another_one_and_none_with_secrets(server: Server, tmp_path):
    server.end()
    other = tmp_path / "elsewhere" / "jobs"
    server = restarted(server, "--job-folder", other)
    try:
        (other / "one.csv").write_text("serial\nsn-1\n")
        job = ended(server, create(server, type="import", inputBlobName="one.csv"))
        assert list(tokens_of(other, job)) == ["sn-1"]
    finally:
        server.process.kill()
        server.process.wait()

    def wrong(folder: Path, *options: object) -> str:
        command = [CVM, "serve", "--check", "--data", server.data, "--job-folder", folder, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 2, folder
        return done.stderr

    (tmp_path / "link").symlink_to(server.data / "ca")
    for folder in [server.data, tmp_path, Path("/"), server.data / "ca", server.data / "operators" / "x", tmp_path / "link"]:
        assert "job-folder: operators read and write in it" in wrong(folder), folder
    (tmp_path / "file").write_text("")
    assert "is no folder" in wrong(tmp_path / "file")
    stack = ["--platform", "aws", "--database", "dynamodb:devices", "--audit-table", "audit"]
    assert "job-folder: the jobs are those of the stack" in wrong(other, *stack)
