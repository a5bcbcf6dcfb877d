"""A device factory: a CA that is registered with AWS IoT, and devices that leave it with a certificate of this CA."""

import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mqtt_device import CA, CERTIFICATE, PRIVATE_KEY, Refused
from stack import Device, Stack, secret_lines, until


@dataclass
class FactoryDevice(Device):
    """A device that has its certificate from the start; the CA's is behind it, as AWS IoT wants to see at a connect."""

    certificate_pem: str = ""

    @cached_property
    def certificate_id(self) -> str:
        return certificate_id(self.certificate_pem)


class Factory:
    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        self.folder = stack.folder / f"factory-{name}"
        stack.cvm("ca", "create", "--name", name, "--out", str(self.folder))
        self._ca = ["--ca-cert", str(self.folder / "ca.pem"), "--ca-key", str(self.folder / "ca.key")]
        self.ca_id = certificate_id((self.folder / "ca.pem").read_text())
        stack.secrets += secret_lines((self.folder / "ca.key").read_text())

    def register(self) -> "Factory":
        """Has AWS IoT take the factory's devices, and the registry trust them."""
        self.stack.cvm("ca", "register", *self._ca)
        return self

    def make(self, device_id: str, unit: str = "first") -> FactoryDevice:
        """A device with this id. Another `unit` of the same id is a clone: it has a key of its own."""
        out = self.folder / unit
        self.stack.cvm("ca", "issue", *self._ca, "--device", device_id, "--out", str(out))
        key = (out / device_id / "device.key").read_bytes()
        self.stack.secrets += secret_lines(key.decode())
        pem = (out / device_id / "device.pem").read_text()
        return FactoryDevice(device_id, key=load_pem_private_key(key, None), certificate_pem=pem)

    def allowlisted(self, device_id: str, *options: str) -> FactoryDevice:
        """A device with this id that the registry takes on the word of this factory."""
        self.stack.cvm("device", "add", device_id, "--ca", self.ca_id, *options)
        return self.make(device_id)


def certificate_id(pem: str) -> str:
    """The id that AWS IoT has for a certificate: the SHA-256 of its DER."""
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()


def status(stack: Stack, certificate: str) -> str | None:
    """The status of a certificate; of one that is gone, none."""
    iot = stack.aws.client("iot")
    try:
        return iot.describe_certificate(certificateId=certificate)["certificateDescription"]["status"]
    except iot.exceptions.ResourceNotFoundException:
        return None


def connect_refused(stack: Stack, device: FactoryDevice) -> None:
    with pytest.raises(Refused):
        stack.mqtt(device, device.certificate_pem).connect(stack.broker)


def connect(stack: Stack, device: FactoryDevice) -> None:
    """Connects, publishes and leaves."""
    with stack.mqtt(device, device.certificate_pem).connect(stack.broker) as connection:
        connection.publish(f"devices/{device.id}/telemetry", "hello")


def provision(stack: Stack, device: FactoryDevice) -> None:
    """Connects for the first time, and waits until the second would be let in."""
    connect_refused(stack, device)
    until(lambda: status(stack, device.certificate_id) == "ACTIVE", f"an active certificate of {device.id}")


def mosquitto_pub(stack: Stack, device: FactoryDevice) -> subprocess.CompletedProcess:
    """Publishes with the client of the mosquitto project (Debian: mosquitto-clients)."""
    folder: Path = stack.folder / device.id
    stack.mqtt(device, device.certificate_pem)  # For its files.
    command = ["mosquitto_pub", "-h", "localhost", "-p", str(stack.aws.mqtt_port), "-i", device.id, "-q", "1"]
    files = ["--cafile", folder / CA, "--cert", folder / CERTIFICATE, "--key", folder / PRIVATE_KEY]
    message = ["-t", f"devices/{device.id}/telemetry", "-m", "hello"]
    return subprocess.run([*command, *files, *message], capture_output=True, text=True, timeout=60)
