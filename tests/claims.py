"""Claim certificates, the devices that claim with them, and the trusted users who fetch one for a device."""

import json
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import jsonschema
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from factory import certificate_id
from local_aws import REGION, ROOT
from stack import Answer, Device, Stack, schema, secret_lines, send
from trusted_user import add_user, signed_headers

PYTHON = ROOT / ".venv-device" / "bin" / "python"
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"
# AWS's own device SDKs, for Python and for Node.
PYTHON_SDK = [PYTHON, ROOT / "scripts" / "claim_device.py"]
NODE_SDK = ["node", ROOT / "tests" / "node" / "claim_device.mjs"]


@dataclass
class Claim:
    """A claim certificate in the hands of devices."""

    id: str
    certificate_pem: str
    private_key: str = field(repr=False)

    @classmethod
    def shared(cls, stack: Stack, *options: str) -> "Claim":
        """One for many devices, as an operator makes it with the cvm command."""
        folder = Path(tempfile.mkdtemp(prefix="claim-", dir=stack.folder)) / "made"
        stack.cvm("claim", "create", "--policy", stack.outputs["ClaimPolicyName"], "--out", str(folder), *options)
        pem, key = ((folder / name).read_text() for name in ("claim.pem", "claim.key"))
        stack.secrets += secret_lines(key)
        return cls(certificate_id(pem), pem, key)

    @classmethod
    def unregistered(cls, stack: Stack) -> "Claim":
        """One that AWS IoT knows and the registry does not."""
        iot = stack.aws.client("iot")
        made = iot.create_keys_and_certificate(setAsActive=True)
        iot.attach_policy(policyName=stack.outputs["ClaimPolicyName"], target=made["certificateArn"])
        stack.secrets += secret_lines(made["keyPair"]["PrivateKey"])
        return cls(made["certificateId"], made["certificatePem"], made["keyPair"]["PrivateKey"])

    @classmethod
    def of(cls, answer: dict) -> "Claim":
        """One that a trusted user got."""
        return cls(answer["claimCertificateId"], answer["certificatePem"], answer["privateKeyPem"])


@dataclass
class Claimed:
    """What a device was told. With an error code it got nothing, though AWS IoT has made a certificate for it."""

    device: Device
    certificate_id: str
    certificate_pem: str
    answers: list[dict]

    @property
    def answer(self) -> dict:
        return self.answers[-1]

    @property
    def error(self) -> str | None:
        return self.answer.get("errorCode")


def provision(
    stack: Stack,
    claim: Claim,
    device_id: str,
    client_id: str | None = None,
    times: int = 1,
    template: str | None = None,
    device: Device | None = None,
    csr: str | None = None,
    sdk: list[object] = PYTHON_SDK,
    **parameters: str,
) -> Claimed:
    """Has a device provision itself with AWS's own SDK: with the key of `device` and its `csr`, or with one of AWS IoT's."""
    folder: Path = stack.folder / f"claim-{claim.id}"
    folder.mkdir(exist_ok=True)
    files = {
        "certificate": (folder / "claim.pem", claim.certificate_pem),
        "privateKey": (folder / "claim.key", claim.private_key),
        "ca": (folder / "root-ca.pem", stack.aws.root_ca()),
    }
    for path, content in files.values():
        path.write_text(content)
    asked = {
        "endpoint": "localhost",
        "port": stack.aws.mqtt_port,
        "clientId": client_id or device_id,
        "template": template or stack.outputs["FleetTemplateName"],
        "parameters": {"SerialNumber": device_id, **parameters},
        "times": times,
        **{name: str(path) for name, (path, _) in files.items()},
    }
    if csr:
        (folder / "device.key").write_text(device.private_key_pem)
        asked |= {"csr": csr, "deviceKey": str(folder / "device.key")}
    done = subprocess.run([*sdk, json.dumps(asked)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    if not csr:
        stack.secrets += secret_lines(told["privateKey"])
        device = Device(device_id, key=load_pem_private_key(told["privateKey"].encode(), None))
    return Claimed(device, told["certificateId"], told["certificatePem"], told["answers"])


def installer(stack: Stack, name: str, may_claim: bool = True) -> Credentials:
    """A trusted user with IAM credentials."""
    return add_user(stack.aws.client("iam"), name, stack.outputs["ClaimsArn"] if may_claim else None)


def ask(stack: Stack, user: Credentials | None, device_id: str, **headers: str) -> Answer:
    """Asks for a claim as this user, or with other headers as somebody else."""
    url = stack.aws.api_url(stack.outputs, "/v1/claims")
    body = json.dumps({"deviceId": device_id}).encode()
    signed = signed_headers(user, url, body, REGION) if user else {"content-type": "application/json"}
    answer = send(url, body, signed | headers)
    if answer.status == 201:
        stack.secrets += secret_lines(answer.json["privateKeyPem"])
    return answer


def allowlist(stack: Stack, device_id: str, *options: str) -> None:
    """Puts a device on the allowlist that comes with whichever claim certificate."""
    stack.cvm("device", "add", device_id, *options, "--claim")


def connect(stack: Stack, claimed: Claimed) -> None:
    """Connects with the device's own certificate, publishes and leaves."""
    with stack.mqtt(claimed.device, claimed.certificate_pem).connect(stack.broker) as connection:
        connection.publish(f"devices/{claimed.device.id}/telemetry", "hello")


def question(stack: Stack, claim: Claim, device: Device) -> dict:
    """What AWS IoT would ask about a device that had a certificate made from its CSR."""
    made = stack.aws.client("iot").create_certificate_from_csr(certificateSigningRequest=device.csr_pem)
    template = stack.aws.client("iot").describe_provisioning_template(templateName=stack.outputs["FleetTemplateName"])
    asked = {
        "claimCertificateId": claim.id,
        "certificateId": made["certificateId"],
        "certificatePem": made["certificatePem"],
        "templateArn": template["templateArn"],
        "clientId": device.id,
        "parameters": {"SerialNumber": device.id},
    }
    jsonschema.validate(asked, schema("hook-event"))
    return asked
