"""The deployed stack as the tests use it: its API, its registry through the cvm command, and devices."""

import base64
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import jsonschema
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
        """Posts to the API as it stands in the template, and checks the answer against its schema."""
        request = urllib.request.Request(self.url, data=body, method="POST")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=30) as done:
                return checked(Answer(done.status, lower(done.headers), done.read()))
        except urllib.error.HTTPError as refused:
            return checked(Answer(refused.code, lower(refused.headers), refused.read()))

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

    def invoke(self, event: dict) -> Answer:
        """Calls the function with an event, as `cargo lambda invoke` does."""
        done = self.aws.client("lambda").invoke(
            FunctionName=self.outputs["VendFunctionName"], Payload=json.dumps(event).encode()
        )
        answer = json.loads(done["Payload"].read())
        assert "FunctionError" not in done, answer
        body = answer.get("body") or ""
        headers = {name.lower(): value for name, value in answer.get("headers", {}).items()}
        return checked(
            Answer(
                answer["statusCode"],
                headers,
                base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode(),
            )
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
            "attempts = :one ADD attemptedKeys :keys",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={
                ":reserved": {"S": "reserved"},
                ":owner": {"S": "0" * 32},
                ":key": {"S": key.thumbprint},
                ":keys": {"SS": [key.thumbprint]},
                ":past": {"N": "1"},
                ":one": {"N": "1"},
            },
        )
        return made["certificateId"]

    def restart_function(self) -> None:
        """Ends the processes that serve the function, by setting its configuration to what it is."""
        function = self.outputs["VendFunctionName"]
        self.aws.client("lambda").update_function_configuration(FunctionName=function, Timeout=15)
        deadline = time.monotonic() + 10
        while self.function_processes() and time.monotonic() < deadline:
            time.sleep(0.1)

    def function_processes(self) -> set[int]:
        """The processes that serve the function: one, and more while calls come at the same time."""
        listing = ["ps", "-eww", "-o", "pid=,command="]
        listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        marker = str(self.aws.state / "tmp" / "ministack-provided-code")
        return {int(line.split()[0]) for line in listed.splitlines() if marker in line}

    def logs(self) -> str:
        """All that was logged: by the function, the API and the local AWS itself."""
        logs = self.aws.client("logs")
        lines = [self.aws.log.read_text(errors="replace")]
        for group in logs.describe_log_groups()["logGroups"]:
            for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                lines += [event["message"] for event in page["events"]]
        return "\n".join(lines)


def checked(answer: Answer) -> Answer:
    """The answer, when it is what its content type promises."""
    content_type = answer.headers.get("content-type", "")
    if answer.status >= 400:
        assert content_type == "application/problem+json", (answer.status, answer.headers, answer.body)
        jsonschema.validate(answer.json, schema("problem"))
        assert answer.json["status"] == answer.status
    elif content_type == "application/json":
        jsonschema.validate(answer.json, schema("vend-answer"))
    else:
        assert content_type == "application/x-pem-file", answer.headers
    return answer


def lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def secret_lines(pem: str) -> list[str]:
    """The lines of a PEM that hold its content."""
    return [line for line in pem.splitlines() if line and not line.startswith("-----")]
