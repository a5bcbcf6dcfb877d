"""The sample events: each is what API Gateway sends for one case, as `cargo lambda invoke vend --data-file` takes it.

Each has a device of its own, named after its file, so that the order does not matter. Tokens cannot be in a file before
they are made, so the test puts in the one that the registry gave out.
"""

import base64
import hashlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from local_aws import ROOT
from stack import Answer, Stack

EVENTS = ROOT / "events"
PROVISIONED = {200, 201}

BY_TOKEN = {
    "token": PROVISIONED,
    "token-parameters": PROVISIONED,
    "token-crlf": PROVISIONED,
    "token-der": PROVISIONED,
    "token-pem-answer": PROVISIONED,
    "malformed-csr": {400},
    "forged-csr": {400},
    "trailing-bytes-csr": {400},
    "weak-key": {400},
    "greedy-csr": {201, 400},  # Obeyed in nothing, by whichever answer: see threat 16.
    "foreign-name-csr": {400, 403},
    "malformed-json": {400},
    "unknown-field": {400},
    "wrong-content-type": {415},
    "empty-body": {400},
}
BY_PUBLIC_KEY = ["public-key", "public-key-pkcs10-der", "public-key-pkcs10-base64"]
AS_IT_IS = {"unknown-device": {403}, "malformed-device-id": {400}}


@pytest.mark.parametrize("name", BY_TOKEN)
def test_a_device_with_a_token(stack: Stack, name):
    assert send_with_token(stack, name).status in BY_TOKEN[name]


@pytest.mark.parametrize("name", BY_PUBLIC_KEY)
def test_a_device_with_a_registered_public_key(stack: Stack, name):
    stack.cvm("device", "add", f"sample-{name}", "--public-key", thumbprint(event(name)))
    first, again = stack.invoke(event(name)), stack.invoke(event(name))
    assert (first.status, again.status) == (201, 200)


@pytest.mark.parametrize("name", AS_IT_IS)
def test_a_device_that_is_not_on_the_allowlist(stack: Stack, name):
    assert stack.invoke(event(name)).status in AS_IT_IS[name]


def test_a_wrong_token(stack: Stack):
    stack.device("sample-wrong-token")
    assert stack.invoke(event("wrong-token")).status == 403


def test_a_clone(stack: Stack):
    token = stack.device("sample-clone").token
    for name, status in (("clone-original", 201), ("clone", 403)):
        sent = event(name)
        sent["headers"]["authorization"] = f"Bearer {token}"
        assert stack.invoke(sent).status == status


def test_every_event_is_tested():
    tested = {*BY_TOKEN, *BY_PUBLIC_KEY, *AS_IT_IS, "wrong-token", "clone-original", "clone"}
    assert {path.stem for path in EVENTS.glob("*.json")} == tested


def event(name: str) -> dict:
    return json.loads((EVENTS / f"{name}.json").read_text())


def send_with_token(stack: Stack, name: str) -> Answer:
    sent = event(name)
    settable = ["--settable", "FirmwareVersion"] if name == "token-parameters" else []
    sent["headers"]["authorization"] = f"Bearer {stack.device(f'sample-{name}', *settable).token}"
    return stack.invoke(sent)


def thumbprint(sent: dict) -> str:
    """The SHA-256 of the public key (SubjectPublicKeyInfo) in the event's CSR."""
    if sent["isBase64Encoded"]:
        body = base64.b64decode(sent["body"])
        request = x509.load_der_x509_csr(body if body[0] == 0x30 else base64.b64decode(body))
    else:
        request = x509.load_pem_x509_csr(json.loads(sent["body"])["csr"].encode())
    public_key = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public_key).hexdigest()
