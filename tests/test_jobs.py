"""Imports and exports as jobs: files in S3, asked for through the registry's API, worked off by the deployed function."""

import json
import os
import signal

import pytest

from operators import Operator
from stack import Device, Stack, until

ENDED = {"completed", "failed", "cancelled"}


class Files:
    """The bucket of the jobs."""

    def __init__(self, stack: Stack) -> None:
        self.bucket = stack.outputs["JobBucketName"]
        self.s3 = stack.aws.client("s3")

    def put(self, name: str, text: str) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=name, Body=text.encode())

    def get(self, name: str) -> str:
        return self.s3.get_object(Bucket=self.bucket, Key=name)["Body"].read().decode()

    def lines(self, job: dict, kind: str) -> list[dict]:
        """The lines of the objects of this kind that an import has written."""
        folder = job["outputBlobContainerUri"].removeprefix(f"s3://{self.bucket}/")
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"{folder}{kind}-").get("Contents", [])
        return [json.loads(line) for found in listed for line in self.get(found["Key"]).splitlines()]


@pytest.fixture(scope="module")
def files(stack: Stack) -> Files:
    return Files(stack)


def ended(operator: Operator, made: dict) -> dict:
    """The job, when it is at its end."""

    def found() -> dict | None:
        job = operator("GET", f"/jobs/{made['jobId']}").json
        return job if job["status"] in ENDED else None

    return until(found, "an end of the job", seconds=60)


def test_an_import_registers_devices_whose_tokens_vend(stack: Stack, operator: Operator, files: Files, device_id):
    rows = [f"{device_id}-{number},berlin" for number in range(30)]
    rows.insert(10, "=1,berlin")
    files.put("monday/serials.csv", "\ufeff" + "\r\n".join(["Serial Number,Group", *rows, ""]))
    asked = {"type": "import", "inputBlobContainerUri": f"s3://{files.bucket}/monday", "inputBlobName": "serials.csv"}
    made = operator("POST", "/jobs/create", asked)
    assert (made.status, made.json["status"]) == (200, "enqueued"), made.body
    job = ended(operator, made.json)
    assert (job["status"], job["progress"]) == ("completed", 100), job
    assert (job["cvm"]["lines"]["created"], job["cvm"]["lines"]["failed"]) == (30, 1)
    assert job["jobId"] in [listed["jobId"] for listed in operator("GET", "/jobs").json]

    assert [failed["line"] for failed in files.lines(job, "errors")] == [12]
    tokens = {line["deviceId"]: line["token"] for line in files.lines(job, "tokens")}
    stack.secrets += tokens.values()
    assert sorted(tokens) == sorted(f"{device_id}-{number}" for number in range(30))
    name, token = next(iter(tokens.items()))
    assert stack.vend(Device(name, token)).status == 201
    entries = until(lambda: operator("GET", f"/audit?device={name}").json, "an entry of the audit trail")
    assert entries[-1]["door"] == "job" and entries[-1]["requestId"] == job["jobId"]
    assert entries[-1]["actor"] == "arn:aws:iam::000000000000:user/registry-operator"

    # The same file as it is deleted again, in the identity registry's lines.
    gone = [json.dumps({"id": device, "importMode": "delete"}) for device in tokens]
    files.put("monday/devices.txt", "\n".join(gone))
    asked = {"type": "import", "inputBlobContainerUri": f"s3://{files.bucket}/monday"}
    job = ended(operator, operator("POST", "/jobs/create", asked).json)
    assert job["cvm"]["lines"]["deleted"] == 30, job


def test_an_import_whose_worker_is_killed_goes_on(stack: Stack, operator: Operator, files: Files, device_id):
    devices = [f"{device_id}-{number:03}" for number in range(200)]
    files.put("killed.csv", "serial\n" + "\n".join(devices))
    made = operator("POST", "/jobs/create", {"type": "import", "inputBlobName": "killed.csv"}).json
    until(lambda: stack.item(devices[0]), "a first device")
    for process in stack.processes("Jobs"):
        os.kill(process, signal.SIGKILL)
    job = ended(operator, made)
    assert (job["status"], job["cvm"]["lines"]["failed"]) == ("completed", 0), job
    tokens = {line["deviceId"]: line["token"] for line in files.lines(job, "tokens")}
    stack.secrets += tokens.values()
    assert sorted(tokens) == devices
    assert {stack.item(device)["version"] for device in devices} == {1}
    assert stack.vend(Device(devices[0], tokens[devices[0]])).status == 201
    assert stack.vend(Device(devices[-1], tokens[devices[-1]])).status == 201


def test_an_export_is_what_an_import_takes(stack: Stack, operator: Operator, files: Files, device_id):
    for number in range(5):
        stack.device(f"{device_id}-{number}", "--group", device_id)
    asked = {"type": "export", "cvm": {"group": device_id}}
    job = ended(operator, operator("POST", "/jobs/create", asked).json)
    assert (job["status"], job["cvm"]["devices"]) == ("completed", 5), job
    exported = files.get(job["outputBlobName"])
    assert sorted(json.loads(line)["id"] for line in exported.splitlines()) == [f"{device_id}-{n}" for n in range(5)]
    assert "symmetricKey" in exported and not any(secret in exported for secret in stack.secrets)

    again = {"type": "import", "inputBlobName": job["outputBlobName"], "cvm": {"mode": "update"}}
    job = ended(operator, operator("POST", "/jobs/create", again).json)
    assert (job["status"], job["cvm"]["lines"]["unchanged"]) == ("completed", 5), job


def test_an_export_of_nothing_is_an_empty_file(operator: Operator, files: Files, device_id):
    asked = {"type": "export", "outputBlobContainerUri": f"s3://{files.bucket}/nothing", "cvm": {"group": device_id}}
    job = ended(operator, operator("POST", "/jobs/create", asked).json)
    assert (job["status"], job["cvm"]["devices"]) == ("completed", 0), job
    assert files.get("nothing/devices.txt") == ""


def test_a_job_whose_file_is_not_there_fails_and_says_so(operator: Operator, files: Files):
    job = ended(operator, operator("POST", "/jobs/create", {"type": "import", "inputBlobName": "other.csv"}).json)
    assert (job["status"], job["failureReason"]) == (
        "failed",
        f"s3://{files.bucket}/other.csv: there is no such object",
    )


def test_a_job_that_is_cancelled_is_at_its_end(operator: Operator, files: Files, device_id):
    files.put("cancelled.csv", "serial\n" + "\n".join(f"{device_id}-{number}" for number in range(50_000)))
    asked = {"type": "import", "inputBlobName": "cancelled.csv", "cvm": {"dryRun": True}}
    made = operator("POST", "/jobs/create", asked).json
    assert operator("DELETE", f"/jobs/{made['jobId']}").status == 204
    job = operator("GET", f"/jobs/{made['jobId']}").json
    assert job["status"] == "cancelled" and job["endTimeUtc"] >= job["startTimeUtc"]
    assert operator("DELETE", f"/jobs/{made['jobId']}").status == 204
