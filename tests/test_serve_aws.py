"""`cvm serve --platform aws`: AWS IoT's certificates, with the registry in SQLite or in the table of a stack."""

import base64
import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

import local_aws
from local_aws import ROOT, LocalAws, free_port
from mqtt_device import CERTIFICATE, MqttDevice, Refused
from server import Server, openssl, start
from stack import CVM, Device, Stack, until
from test_reconcile import FAKETIME
from trusted_user import add_user

ACCOUNT = "000000000000"
EVERYTHING = ["--rate-per-source", "1000000/s", "--rate-per-device", "1000000/s"]
NOWHERE = "http://127.0.0.1:9"
DEVICES = 48
KILLS = 8
CALLERS = 4


@dataclass
class Aws:
    """A local AWS without a stack, and what a server has to be told about it."""

    local: LocalAws
    folder: Path
    environment: dict[str, str]

    @classmethod
    def of(cls, local: LocalAws, folder: Path, policy: str, *tables: dict, claims: str = "none") -> "Aws":
        """The files that a server is told of, and credentials that allow what its documentation asks for."""
        (folder / "template.json").write_text(json.dumps(template(policy)))
        (folder / "broker-ca.pem").write_text(local.root_ca())
        iam = local.client("iam")
        user = add_user(iam, f"server-{folder.name}", None)
        told = (ROOT / "docs" / "serve-aws-policy.json").read_text()
        for placeholder, name in {"REGION": local_aws.REGION, "ACCOUNT": ACCOUNT, "CLAIM_TEMPLATE": claims}.items():
            told = told.replace(placeholder, name)
        allowed = json.loads(told)
        for statement in allowed["Statement"]:
            if statement["Sid"] == "Certificates":
                statement["Resource"] = "*"  # MiniStack checks AttachPolicy on it, where AWS checks the certificate.
        allowed["Statement"] += tables
        iam.put_user_policy(UserName=f"server-{folder.name}", PolicyName="serve", PolicyDocument=json.dumps(allowed))
        keys = {"AWS_ACCESS_KEY_ID": user.access_key, "AWS_SECRET_ACCESS_KEY": user.secret_key}
        return cls(local, folder, local.environment | keys)

    @classmethod
    def of_stack(cls, stack: Stack, folder: Path) -> tuple["Aws", list[str]]:
        """One with a stack, and the options by which the server takes its registry."""
        devices, audit = stack.outputs["TableName"], stack.outputs["AuditTableName"]
        reads, writes = ["BatchGetItem", "DescribeTable", "GetItem", "Scan"], ["DeleteItem", "PutItem", "UpdateItem"]
        rights = [allowed(devices, *reads, *writes), allowed(audit, "Query")]
        aws = cls.of(stack.aws, folder, stack.outputs["DevicePolicyName"], *rights, claims=stack.outputs["FleetTemplateName"])
        return aws, ["--database", f"dynamodb:{devices}", "--audit-table", audit]

    @property
    def options(self) -> list[object]:
        told = ["--platform", "aws", "--template", self.template]
        return [*told, "--broker", self.broker, "--broker-ca", self.folder / "broker-ca.pem", *EVERYTHING]

    @property
    def template(self) -> Path:
        return self.folder / "template.json"

    @property
    def broker(self) -> str:
        return f"localhost:{self.local.mqtt_port}"

    def serve(self, folder: Path, *options: object, minutes: int = 0) -> Server:
        """A server whose clock is ahead by some minutes (Debian: libfaketime)."""
        variables = dict(self.environment)
        if minutes:
            assert FAKETIME, "libfaketime is missing: apt-get install libfaketime"
            variables |= {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": f"+{minutes}m", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return start(folder / "data", folder, *self.options, *options, **variables)

    def certificates(self) -> dict[str, str]:
        """The certificates that there are, and how they stand."""
        pages = self.local.client("iot").get_paginator("list_certificates").paginate()
        return {it["certificateId"]: it["status"] for page in pages for it in page["certificates"]}

    def things(self) -> set[str]:
        pages = self.local.client("iot").get_paginator("list_things").paginate()
        return {it["thingName"] for page in pages for it in page["things"]}

    def attached(self, thing: str) -> list[str]:
        iot = self.local.client("iot")
        try:
            return [arn.rpartition("/")[2] for arn in iot.list_thing_principals(thingName=thing)["principals"]]
        except iot.exceptions.ResourceNotFoundException:
            return []


@pytest.fixture(scope="module")
def aws(tmp_path_factory) -> Iterator[Aws]:
    folder = tmp_path_factory.mktemp("served")
    local = local_aws.start(folder / "aws")
    try:
        local.client("iot").create_policy(policyName="served", policyDocument=json.dumps(device_policy()))
        yield Aws.of(local, folder, "served")
    finally:
        local.stop()


def device_policy() -> dict:
    """What is of the attached thing alone."""
    thing, arn = "${iot:Connection.Thing.ThingName}", f"arn:aws:iot:{local_aws.REGION}:{ACCOUNT}"
    allowed = [("iot:Connect", f"{arn}:client/{thing}"), ("iot:Publish", f"{arn}:topic/devices/{thing}/*")]
    statements = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in allowed]
    return {"Version": "2012-10-17", "Statement": statements}


def template(policy: str) -> dict:
    name = {"Ref": "SerialNumber"}
    return {
        "Parameters": {"SerialNumber": {"Type": "String"}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {"ThingName": name, "AttributePayload": {"provisionedBy": "cvm"}},
                "OverrideSettings": {"AttributePayload": "MERGE"},
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": policy}},
        },
    }


def set_status(server: Server, device_id: str, status: str) -> None:
    changed = server.ask("PUT", f"/devices/{device_id}", {"deviceId": device_id, "status": status}, if_match="*")
    assert changed.status == 200, changed.body


@pytest.fixture
def server(aws: Aws, tmp_path) -> Iterator[Server]:
    server = aws.serve(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


def test_a_device_gets_a_certificate_of_aws_iot_and_connects_with_it(aws: Aws, server: Server, device_id):
    token = server.register(device_id)
    device = server.vend(device_id, token)
    [certificate] = aws.attached(device_id)
    assert aws.certificates()[certificate] == "ACTIVE"
    with MqttDevice(device, device_id).connect(aws.broker) as connected:
        connected.publish(f"devices/{device_id}/up", "hello")
    # The answer was lost, and the same key asks again.
    before = (device / CERTIFICATE).read_text()
    assert (server.vend(device_id, token) / CERTIFICATE).read_text() == before
    assert aws.attached(device_id) == [certificate]
    assert server.ask("GET", f"/devices/{device_id}").json["cvm"]["state"] == "provisioned"
    trail = [entry["action"] for entry in server.ask("GET", f"/audit?device={device_id}").json]
    assert trail == ["provisioned", "reserved", "created"]


def test_an_import_is_a_job_here_too(aws: Aws, server: Server, device_id):
    jobs = server.data / "jobs"
    (jobs / "serials.csv").write_text(f"serial\n{device_id}\n")
    made = server.ask("POST", "/jobs/create", {"type": "import", "inputBlobName": "serials.csv"}).json
    asked = f"/jobs/{made['jobId']}"
    until(lambda: server.ask("GET", asked).json["status"] == "completed", "an end of the job")
    [line] = (jobs / made["jobId"] / "tokens-000000000.jsonl").read_text().splitlines()
    token = server.folder / "token"
    token.write_text(json.loads(line)["token"])
    token.chmod(0o600)
    server.vend(device_id, token)
    [certificate] = aws.attached(device_id)
    # What a file deletes loses its power there.
    (jobs / "devices.txt").write_text(json.dumps({"id": device_id, "importMode": "delete"}))
    assert server.ask("POST", "/jobs/create", {"type": "import"}).status == 200
    until(lambda: aws.certificates().get(certificate) != "ACTIVE", "a certificate without power")


def test_nothing_is_said_in_the_name_of_somebody_elses_ca(aws: Aws, server: Server):
    assert server.ask("GET", "/readyz", token="").body == b"ok\n"
    for path in ["/ca.pem", "/crl.pem", "/ocsp/MAA="]:
        assert server.ask("GET", path, token="").status == 404, path
    told = server.ask("GET", "/.well-known/est/cacerts", token="")
    root = x509.load_pem_x509_certificate(aws.local.root_ca().encode())
    assert pkcs7.load_der_pkcs7_certificates(base64.b64decode(told.body)) == [root]


def test_what_an_operator_decides_is_done_at_aws_iot(aws: Aws, server: Server, device_id):
    device = server.vend(device_id, server.register(device_id))
    [certificate] = aws.attached(device_id)
    connected = MqttDevice(device, device_id).connect(aws.broker)
    set_status(server, device_id, "disabled")
    until(lambda: aws.certificates()[certificate] == "INACTIVE", "an inactive certificate")
    assert connected.ended(), "a connection that is open is ended"
    with pytest.raises((Refused, OSError)):
        MqttDevice(device, device_id).connect(aws.broker)
    set_status(server, device_id, "enabled")
    until(lambda: aws.certificates()[certificate] == "ACTIVE", "an active certificate")
    assert server.ask("DELETE", f"/devices/{device_id}", if_match="*").status == 204
    until(lambda: certificate not in aws.certificates(), "an end of the certificate")
    until(lambda: device_id not in aws.things(), "an end of the thing")


def test_a_device_that_is_revoked_is_revoked_at_aws_iot(aws: Aws, server: Server, device_id):
    server.vend(device_id, server.register(device_id))
    [certificate] = aws.attached(device_id)
    assert server.ask("POST", f"/devices/{device_id}/revoke", {"reason": "leaked"}).status == 200
    until(lambda: aws.certificates()[certificate] == "REVOKED", "a certificate that is revoked")


def test_threat_33_what_aws_iot_was_not_told_it_is_told_by_the_next_start(aws: Aws, server: Server, device_id, tmp_path):
    token = server.register(device_id)
    device = server.vend(device_id, token)
    [certificate] = aws.attached(device_id)
    assert server.end() == 0
    alone = start(server.data, tmp_path, *aws.options, **aws.environment | {"AWS_ENDPOINT_URL": NOWHERE})
    try:
        alone.token = server.token
        before = (device / CERTIFICATE).read_text()
        assert (alone.vend(device_id, token) / CERTIFICATE).read_text() == before, "it is in the registry"
        set_status(alone, device_id, "disabled")
        until(lambda: "a decision was not enforced" in alone.log.read_text(), "a word in the log")
    finally:
        alone.end(signal.SIGKILL)
    assert aws.certificates()[certificate] == "ACTIVE"
    again = aws.serve(tmp_path)
    try:
        until(lambda: aws.certificates()[certificate] == "INACTIVE", "an inactive certificate")
    finally:
        again.end(signal.SIGKILL)


def test_threat_06_a_device_renews_with_the_certificate_that_it_has(aws: Aws, server: Server, device_id, tmp_path):
    device = server.vend(device_id, server.register(device_id))
    [old] = aws.attached(device_id)
    fresh = Device(device_id)
    body = {"deviceId": device_id, "csr": fresh.csr_pem}
    foreign = server.vend(f"{device_id}-other", server.register(f"{device_id}-other")) / CERTIFICATE
    for certificate in [None, foreign]:
        refused = server.ask("POST", "/v1/certificates", body, token="", certificate=certificate)
        assert (refused.status, refused.json["code"]) == (403, "refused"), refused.body
    renewed = server.ask("POST", "/v1/certificates", body, token="", certificate=device / CERTIFICATE)
    assert renewed.status == 201, renewed.body
    new = renewed.json["certificateId"]
    assert {aws.certificates()[it] for it in (old, new)} == {"ACTIVE"}, "the device may not have got the new one"
    assert server.end() == 0
    # The grace of the old one is over.
    later = aws.serve(tmp_path, minutes=7 * 24 * 60 + 1)
    try:
        until(lambda: old not in aws.certificates(), "an end of the old certificate")
        assert aws.certificates()[new] == "ACTIVE" and aws.attached(device_id) == [new]
    finally:
        later.end(signal.SIGKILL)


def test_threat_33_a_server_that_is_killed_leaves_no_certificate_that_nobody_knows_of(aws: Aws, tmp_path):
    storm = Storm(aws, tmp_path)
    others = aws.certificates().keys()
    storm.run()
    assert storm.interrupted, "it was killed, and never in the middle"
    for device_id, certificate in storm.handed_out.items():
        assert aws.attached(device_id) == [certificate]
    orphans = aws.certificates().keys() - others - set(storm.handed_out.values())
    iot = aws.local.client("iot")
    for orphan in orphans:
        arn = iot.describe_certificate(certificateId=orphan)["certificateDescription"]["certificateArn"]
        assert iot.list_principal_things(principal=arn)["things"] == [], "it can do nothing"
    whole = subprocess.run([CVM, "audit", "verify", "--data", storm.server.data], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    storm.server.end(signal.SIGKILL)
    # What was left alone until it was quiet goes with the first run of the reconciler.
    later = aws.serve(tmp_path, minutes=7)
    try:
        until(lambda: not orphans & aws.certificates().keys(), "an end of what was left behind")
        assert {aws.certificates()[certificate] for certificate in storm.handed_out.values()} == {"ACTIVE"}
    finally:
        later.end(signal.SIGKILL)


class Storm:
    """Devices that ask until they are answered, and a server that is killed meanwhile."""

    def __init__(self, aws: Aws, folder: Path):
        self.aws, self.folder = aws, folder
        self.server = aws.serve(folder)
        ids = [f"storm-{number}" for number in range(DEVICES)]
        self.waiting = [Device(device_id, self.server.register(device_id).read_text()) for device_id in ids]
        self.lock = threading.Lock()
        self.handed_out: dict[str, str] = {}
        self.interrupted = 0

    def run(self) -> None:
        callers = [threading.Thread(target=self.ask, daemon=True) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        chance = random.Random(33)
        for kills in range(1, KILLS + 1):
            time.sleep(chance.uniform(0.1, 0.4))
            token = self.server.token
            self.server.end(signal.SIGKILL)
            # At last by a clock by which every lease is over: nobody has to wait for that.
            self.server = self.aws.serve(self.folder, minutes=int(kills == KILLS))
            self.server.token = token
        for caller in callers:
            caller.join(timeout=120)
        assert len(self.handed_out) == DEVICES, self.server.log.read_text()[-2000:]

    def ask(self) -> None:
        while len(self.handed_out) < DEVICES:
            with self.lock:
                device = self.waiting.pop(0) if self.waiting else None
            if device and not self.is_answered(device):
                with self.lock:
                    self.waiting.append(device)
            elif not device:
                time.sleep(0.1)

    def is_answered(self, device: Device) -> bool:
        body = {"deviceId": device.id, "csr": device.csr_pem}
        try:
            answer = self.server.ask("POST", "/v1/certificates", body, token=device.token)
        except (OSError, http.client.HTTPException):
            return False
        if answer.status in (200, 201):
            self.handed_out[device.id] = answer.json["certificateId"]
            return True
        # An attempt that died holds the device until its lease is over.
        assert answer.json["code"] == "in-progress", answer.body
        self.interrupted += 1
        time.sleep(0.2)
        return False


def test_servers_on_one_mysql_are_one_before_aws_iot(aws: Aws, database, device_id, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one = aws.serve(folders[0], *database)
    for shared in ["ca", "operators"]:
        shutil.copytree(one.data / shared, folders[1] / "data" / shared)
    two = aws.serve(folders[1], *database)
    try:
        two.token = one.token
        token = one.register(device_id)
        device = two.vend(device_id, token)
        [certificate] = aws.attached(device_id)
        assert aws.certificates()[certificate] == "ACTIVE"
        shutil.copytree(device, one.folder / device_id)
        before = (device / CERTIFICATE).read_text()
        assert (one.vend(device_id, token) / CERTIFICATE).read_text() == before, "the same key, the same answer"
        # What is decided at one is enforced although that one is gone.
        set_status(one, device_id, "disabled")
        one.end(signal.SIGKILL)
        until(lambda: aws.certificates()[certificate] == "INACTIVE", "an inactive certificate")
        set_status(two, device_id, "enabled")
        until(lambda: aws.certificates()[certificate] == "ACTIVE", "an active certificate")
    finally:
        for server in (one, two):
            server.process.kill()
            server.process.wait()


def test_a_registry_is_of_one_platform_for_good(aws: Aws, tmp_path):
    start(tmp_path / "data", tmp_path).end(signal.SIGKILL)
    refused = run(aws, tmp_path, *aws.options)
    assert refused.returncode == 1 and "is of the platform `own`" in refused.stderr, refused.stderr


def test_a_registry_is_of_one_account_for_good(aws: Aws, tmp_path):
    assert aws.serve(tmp_path).end() == 0
    registry = sqlite3.connect(tmp_path / "data" / "registry" / "registry.sqlite")
    with registry:
        changed = registry.execute("UPDATE places SET place = 'another-ats.iot.example.com' WHERE name = 'account'")
        assert changed.rowcount == 1
    registry.close()
    refused = run(aws, tmp_path, *aws.options)
    assert refused.returncode == 1 and "is of the AWS account at another-ats.iot.example.com" in refused.stderr, refused.stderr


def test_the_endpoint_of_the_account_is_asked_for(aws: Aws, tmp_path, device_id):
    server = start(tmp_path / "data", tmp_path, "--platform", "aws", "--template", aws.template, **aws.environment)
    try:
        device = Device(device_id, server.register(device_id).read_text())
        body = {"deviceId": device.id, "csr": device.csr_pem}
        told = server.ask("POST", "/v1/certificates", body, token=device.token).json
        usual = aws.local.client("iot").describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
        assert told["endpoint"] == usual
        assert x509.load_pem_x509_certificate(told["caPem"].encode()).subject.rfc4514_string().startswith("CN=Amazon Root CA 1")
    finally:
        server.end(signal.SIGKILL)


def test_with_a_certificate_of_somebody_elses_there_is_no_ca_of_its_own(aws: Aws, tmp_path):
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2", "-nodes"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    openssl("req", "-x509", *curve, *name, "-keyout", key, "-out", certificate)
    port = free_port()
    server = aws.serve(
        tmp_path, "--tls-certificate", certificate, "--tls-key", key, "--metrics-listen", f"127.0.0.1:{port}"
    )
    try:
        assert not (server.data / "ca").exists()
        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"{server.url}/readyz", context=context, timeout=10) as ready:
            assert ready.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as metrics:
            assert "\ncvm_ca_end_seconds 0\n" in metrics.read().decode()
    finally:
        server.end(signal.SIGKILL)


def test_in_the_table_of_a_stack_the_stack_follows_up(stack: Stack, tmp_path, device_id):
    of_stack, tables = Aws.of_stack(stack, tmp_path)
    server = of_stack.serve(tmp_path, *tables)
    try:
        token = server.register(device_id)
        device = server.vend(device_id, token)
        before = (device / CERTIFICATE).read_text()
        assert (server.vend(device_id, token) / CERTIFICATE).read_text() == before
        [certificate] = of_stack.attached(device_id)
        assert stack.item(device_id)["certificateId"] == certificate
        connected = MqttDevice(device, device_id).connect(of_stack.broker)
        until(lambda: stack.used(device_id), "a word of the first connection")
        set_status(server, device_id, "disabled")
        until(lambda: of_stack.certificates()[certificate] == "INACTIVE", "an inactive certificate")
        assert connected.ended()
        trail = f"/audit?device={device_id}"
        until(lambda: "disabled" in {entry["action"] for entry in server.ask("GET", trail).json}, "an entry of the trail")
        assert server.ask("GET", "/readyz", token="").status == 200
        assert not (server.data / "registry").exists(), "all of it is in the tables"
        jobs = server.ask("GET", "/jobs")
        assert jobs.status == 404 and "RegistryUrl" in jobs.json["Message"], jobs.body
        assert not (server.data / "jobs").exists()
    finally:
        server.end(signal.SIGKILL)


def allowed(table: str, *actions: str) -> dict:
    arn = f"arn:aws:dynamodb:{local_aws.REGION}:{ACCOUNT}:table/{table}"
    actions = [f"dynamodb:{action}" for action in actions]
    return {"Effect": "Allow", "Action": actions, "Resource": [arn, f"{arn}/index/hours"]}


def test_a_table_that_nobody_follows_up_is_refused(aws: Aws, tmp_path):
    aws.local.client("dynamodb").create_table(
        TableName="lonely",
        AttributeDefinitions=[{"AttributeName": "deviceId", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "deviceId", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    root = replace(aws, environment=aws.local.environment)
    refused = run(root, tmp_path, *aws.options, "--database", "dynamodb:lonely", "--audit-table", "lonely")
    assert refused.returncode == 1 and "lonely is no registry of a stack" in refused.stderr, refused.stderr
    missing = run(root, tmp_path, *aws.options, "--database", "dynamodb:nobody", "--audit-table", "lonely")
    assert missing.returncode == 1 and "nobody cannot be looked at" in missing.stderr, missing.stderr


def run(aws: Aws, folder: Path, *options: object) -> subprocess.CompletedProcess:
    command = [CVM, "serve", "--data", folder / "data", "--listen", "127.0.0.1:0", *options]
    environment = os.environ | aws.environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
