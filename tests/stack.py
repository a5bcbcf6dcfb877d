"""The deployed stack as the tests use it: its API, its functions, its registry through the cvm command, and devices."""

import base64
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import jsonschema
from boto3.dynamodb.types import TypeDeserializer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from local_aws import ROOT, LocalAws
from mqtt_device import CA, CERTIFICATE, PRIVATE_KEY, MqttDevice

CVM = ROOT / "target" / "debug" / "cvm"


def schema(name: str) -> dict:
    return json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text())


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @cached_property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass
class Device:
    """A device that makes its own key; `token` is empty where the public key is the proof."""

    id: str
    token: str = field(default="", repr=False)
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1()), repr=False
    )

    def csr(self, *extensions: x509.ExtensionType) -> x509.CertificateSigningRequest:
        builder = x509.CertificateSigningRequestBuilder()
        builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.id)]))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(self.key, hashes.SHA256())

    @cached_property
    def csr_pem(self) -> str:
        return self.csr().public_bytes(Encoding.PEM).decode()

    @property
    def private_key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def thumbprint(self) -> str:
        digest = hashes.Hash(hashes.SHA256())
        digest.update(self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        return digest.finalize().hex()


@dataclass
class Stack:
    aws: LocalAws
    outputs: dict[str, str]
    folder: Path
    secrets: list[str] = field(default_factory=list, repr=False)

    @property
    def url(self) -> str:
        return self.aws.api_url(self.outputs)

    @property
    def broker(self) -> str:
        return f"localhost:{self.aws.mqtt_port}"

    def cvm(self, *arguments: str) -> dict:
        """Runs the cvm command on the stack's registry."""
        environment = os.environ | self.aws.environment | {"CVM_TABLE": self.outputs["TableName"]}
        done = subprocess.run([CVM, *arguments, "--output", "json"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"cvm {' '.join(arguments)}: {done.stderr}"
        return json.loads(done.stdout or "{}")

    def device(self, device_id: str, *options: str) -> Device:
        """A new device on the allowlist, with an enrolment token."""
        device = Device(device_id, self.cvm("device", "add", device_id, *options)["token"])
        self.secrets += [device.token, *secret_lines(device.private_key_pem)]
        return device

    def post(self, body: bytes, **headers: str) -> Answer:
        """Posts to the vending API as it stands in the template, and checks the answer against its schema."""
        return checked(send(self.url, body, {name.replace("_", "-"): value for name, value in headers.items()}))

    def vend(self, device: Device, token: str | None = None, **more) -> Answer:
        """Asks for a certificate as JSON, by a request that its schema allows."""
        request = {"deviceId": device.id, "csr": device.csr_pem, **more}
        jsonschema.validate(request, schema("vend-request"))
        token = device.token if token is None else token
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.post(json.dumps(request).encode(), content_type="application/json", **headers)

    def provisioned(self, device_id: str) -> tuple[Device, dict]:
        """A device that has its certificate, and the answer that it got."""
        device = self.device(device_id)
        answer = self.vend(device)
        assert answer.status == 201, answer.body
        return device, answer.json

    def mqtt(self, device: Device, certificate_pem: str, client_id: str | None = None) -> MqttDevice:
        """The device, not yet connected, with a certificate."""
        folder = self.folder / device.id
        folder.mkdir(exist_ok=True)
        (folder / PRIVATE_KEY).write_text(device.private_key_pem)
        (folder / CERTIFICATE).write_text(certificate_pem)
        (folder / CA).write_text(self.aws.root_ca())
        return MqttDevice(folder, client_id or device.id)

    def call(self, function: str, event: dict) -> dict:
        """Calls a function by its name in the template's outputs, as `cargo lambda invoke` does."""
        done = self.aws.client("lambda").invoke(
            FunctionName=self.outputs[f"{function}FunctionName"], Payload=json.dumps(event).encode()
        )
        answer = json.loads(done["Payload"].read())
        assert "FunctionError" not in done, answer
        return answer

    def invoke(self, event: dict, function: str = "Vend", success: str = "vend-answer") -> Answer:
        """Calls a function behind the API with an event of API Gateway."""
        answer = self.call(function, event)
        body = answer.get("body") or ""
        headers = {name.lower(): value for name, value in answer.get("headers", {}).items()}
        decoded = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
        return checked(Answer(answer["statusCode"], headers, decoded), success)

    def item(self, key: str) -> dict:
        """An item of the registry, as it is kept."""
        got = self.aws.client("dynamodb").get_item(
            TableName=self.outputs["TableName"], Key={"deviceId": {"S": key}}, ConsistentRead=True
        )
        return {name: TypeDeserializer().deserialize(value) for name, value in got.get("Item", {}).items()}

    def used(self, device_id: str) -> dict:
        """The item of a device whose certificate is known to be in use; else nothing."""
        item = self.item(device_id)
        return item if "usedAt" in item else {}

    def attached(self, thing: str) -> list[str]:
        """The ids of the certificates that are attached to a thing; of a thing that is not there, none."""
        iot = self.aws.client("iot")
        try:
            return [arn.rpartition("/")[2] for arn in iot.list_thing_principals(thingName=thing)["principals"]]
        except iot.exceptions.ResourceNotFoundException:
            return []

    def expire_reservation(self, device_id: str) -> None:
        """Has the lease of whoever holds the device run out long ago."""
        self.aws.client("dynamodb").update_item(
            TableName=self.outputs["TableName"],
            Key={"deviceId": {"S": device_id}},
            UpdateExpression="SET reservedUntil = :past",
            ConditionExpression="attribute_exists(reservedUntil)",
            ExpressionAttributeValues={":past": {"N": "1"}},
        )

    def leave_dead_attempt(self, device: Device, key: Device) -> str:
        """Leaves what an attempt with this key leaves that dies right before its last call: a certificate with all its
        power, and a registry that knows of the attempt alone. Returns the certificate's id."""
        iot = self.aws.client("iot")
        made = iot.create_certificate_from_csr(certificateSigningRequest=key.csr_pem, setAsActive=True)
        attributes = {"provisionedBy": "cvm", "firmwareVersion": "unknown"}
        iot.create_thing(thingName=device.id, attributePayload={"attributes": attributes})
        iot.attach_thing_principal(thingName=device.id, principal=made["certificateArn"])
        iot.attach_policy(policyName=self.outputs["DevicePolicyName"], target=made["certificateArn"])
        self.aws.client("dynamodb").update_item(
            TableName=self.outputs["TableName"],
            Key={"deviceId": {"S": device.id}},
            UpdateExpression="SET #state = :reserved, reservedBy = :owner, reservedKey = :key, reservedUntil = :past, "
            "reservedFrom = :registered, unsettledSince = :past, attempts = :one, version = version + :one "
            "ADD attemptedKeys :keys",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={
                ":registered": {"S": "registered"},
                ":reserved": {"S": "reserved"},
                ":owner": {"S": "0" * 32},
                ":key": {"S": key.thumbprint},
                ":keys": {"SS": [key.thumbprint]},
                ":past": {"N": "1"},
                ":one": {"N": "1"},
            },
        )
        return made["certificateId"]

    def configure(self, function: str, **variables: str | None) -> None:
        """Sets environment variables of a function, or takes them away again, and ends the processes that serve it."""
        name = self.outputs[f"{function}FunctionName"]
        environment = self.aws.function_environment(name) | variables
        kept = {variable: value for variable, value in environment.items() if value is not None}
        self.aws.client("lambda").update_function_configuration(FunctionName=name, Environment={"Variables": kept})
        until(lambda: not self.processes(function), f"an end of the processes of {function}")

    def processes(self, function: str) -> set[int]:
        """The processes that serve a function: one, and more while calls come at the same time."""
        listing = ["ps", "axeww", "-o", "pid=,command="]  # With each process's environment.
        listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        markers = [
            str(self.aws.state / "tmp" / "ministack-provided-code"),
            f"AWS_LAMBDA_FUNCTION_NAME={self.outputs[f'{function}FunctionName']} ",
        ]
        return {int(line.split()[0]) for line in listed.splitlines() if all(marker in f"{line} " for marker in markers)}

    def audit(self, function: str, **fields: str) -> list[dict]:
        """The audit records of a function, named as its folder is, that have these fields."""
        logs = self.aws.client("logs").get_paginator("filter_log_events")
        records = []
        for page in logs.paginate(logGroupName=f"/cvm/cvm/{function}", filterPattern="audit"):
            for line in "\n".join(event["message"] for event in page["events"]).splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if record.get("target") == "audit" and fields.items() <= record.items():
                    records.append(record)
        return records

    def logs(self) -> str:
        """All that was logged: by the functions, the API and the local AWS itself."""
        logs = self.aws.client("logs")
        lines = [self.aws.log.read_text(errors="replace")]
        for group in logs.describe_log_groups()["logGroups"]:
            name = group["logGroupName"]
            for page in logs.get_paginator("describe_log_streams").paginate(logGroupName=name):
                for stream in page["logStreams"]:
                    lines += messages(logs, name, stream["logStreamName"])
        return "\n".join(lines)


def messages(logs, group: str, stream: str) -> Iterator[str]:
    """All of a log stream; there is no paginator for it."""
    place = {}
    while True:
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **place)
        yield from (event["message"] for event in page["events"])
        if place.get("nextToken") == page["nextForwardToken"]:
            return
        place = {"nextToken": page["nextForwardToken"]}


def send(url: str, body: bytes, headers: dict[str, str]) -> Answer:
    """Posts to an API, whatever the answer."""
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as done:
            return Answer(done.status, lower(done.headers), done.read())
    except urllib.error.HTTPError as refused:
        return Answer(refused.code, lower(refused.headers), refused.read())


def checked(answer: Answer, success: str = "vend-answer") -> Answer:
    """The answer, when it is what its content type promises."""
    content_type = answer.headers.get("content-type", "")
    if answer.status >= 400:
        assert content_type == "application/problem+json", (answer.status, answer.headers, answer.body)
        jsonschema.validate(answer.json, schema("problem"))
        assert answer.json["status"] == answer.status
    elif content_type == "application/json":
        jsonschema.validate(answer.json, schema(success))
    else:
        assert content_type == "application/x-pem-file", answer.headers
    return answer


def until(condition: Callable, what: str, seconds: float = 20):
    """Waits for something to come about, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds:g} s"
        time.sleep(0.1)
    return found


def lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def secret_lines(pem: str) -> list[str]:
    """The lines of a PEM that hold its content."""
    return [line for line in pem.splitlines() if line and not line.startswith("-----")]
