"""The sample events: each is what AWS sends to a function for one case, and what `cargo lambda invoke` takes.

Each has a device of its own, named after its file, so that the order does not matter. Tokens cannot be in a file before
they are made, so the test puts in the one that the registry gave out.
"""

import base64
import hashlib
import json

import jsonschema
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from local_aws import ROOT
from stack import Answer, Stack, schema

EVENTS = ROOT / "events"
PROVISIONED = {200, 201}

# POST /v1/certificates: what the answer's status may be.
VEND_BY_TOKEN = {
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
VEND_BY_PUBLIC_KEY = ["public-key", "public-key-pkcs10-der", "public-key-pkcs10-base64"]
VEND_AS_IT_IS = {"unknown-device": {403}, "malformed-device-id": {400}}

# Which messages of the batch are to come again; the certificates are nobody's, so there is nothing to do.
JITR = {
    "registered": [],
    "reconnected": [],
    "documented": [],
    "delivered-twice": [],
    "numeric-account": [],
    "unknown-ca": [],
    "not-json": [0],
    "another-shape": [0],
    "malformed-ids": [0],
}
CONFIRM = {"connected": [], "delivered-twice": [], "not-a-certificate": [], "disconnected": [], "not-json": [1]}

# What is told on the bus; of a record that cannot be read, that it is put aside.
LIFECYCLE = ["created", "disabled", "deleted", "no-device", "unreadable"]

# There is no such job, so that there is nothing to do; a record that cannot be read holds up no other.
JOBS = ["written", "forgotten", "unreadable"]

# The parameters that take the place of the device's; None is a no.
HOOK = {
    "keys": {},
    "csr": {},
    "extra-fields": {},
    "device-id-parameter": {},
    "own-firmware-version": {"FirmwareVersion": "unknown"},
    "unknown-device": None,
    "unknown-claim": None,
    "no-claim": None,
    "foreign-template": None,
    "other-client-id": None,
    "other-common-name": None,
    "other-certificate-id": None,
    "two-serial-numbers": None,
    "no-serial-number": None,
    "malformed-serial-number": None,
    "not-a-certificate": None,
    "numbers-for-strings": None,
    "empty": None,
}
UNLIKE_AWS = {"no-claim", "numbers-for-strings", "empty"}

SIGNED = ["documented", "foreign-names"]
UNSIGNED = ["asks-for-a-ca", "ids-differ", "malformed", "empty"]

# POST /v1/claims.
CLAIM = {
    "iam-user": {201},
    "jwt-user": {201},
    "nobody": {401},
    "no-subject": {401},
    "unknown-device": {403},
    "not-by-trusted-user": {403},
    "malformed-device-id": {400},
    "malformed-json": {400},
    "unknown-field": {400},
    "wrong-content-type": {415},
}

# The registry's API. A device stands there before, where the request is for one that does.
REGISTRY = {
    "create": {200},
    "jwt-operator": {200},
    "update": {200},
    "other-etag": {412},
    "delete": {204},
    "delete-without-etag": {400},
    "unknown-device": {404},
    "malformed-device-id": {400},
    "nobody": {401},
    "list": {200},
    "bulk": {200},
    "module": {200},
    "create-job": {200},
    "jobs": {200},
    "query": {200},
    "approve": {409},
    "statistics": {200},
    "audit": {200},
}
REGISTERED = {"update", "other-etag", "delete", "delete-without-etag", "module", "approve"}


# --- vend ---


@pytest.mark.parametrize("name", VEND_BY_TOKEN)
def test_a_device_with_a_token(stack: Stack, name):
    assert send_with_token(stack, name).status in VEND_BY_TOKEN[name]


@pytest.mark.parametrize("name", VEND_BY_PUBLIC_KEY)
def test_a_device_with_a_registered_public_key(stack: Stack, name):
    sent = event("vend", name)
    stack.cvm("device", "add", f"sample-{name}", "--public-key", thumbprint(sent))
    first, again = stack.invoke(sent), stack.invoke(sent)
    assert (first.status, again.status) == (201, 200)


@pytest.mark.parametrize("name", VEND_AS_IT_IS)
def test_a_device_that_is_not_on_the_allowlist(stack: Stack, name):
    assert stack.invoke(event("vend", name)).status in VEND_AS_IT_IS[name]


def test_a_wrong_token(stack: Stack):
    stack.device("sample-wrong-token")
    assert stack.invoke(event("vend", "wrong-token")).status == 403


def test_a_clone(stack: Stack):
    token = stack.device("sample-clone").token
    for name, status in (("clone-original", 201), ("clone", 403)):
        sent = event("vend", name)
        sent["headers"]["authorization"] = f"Bearer {token}"
        assert stack.invoke(sent).status == status


# --- jitr, confirm, reconcile ---


@pytest.mark.parametrize("name", JITR)
def test_a_certificate_that_was_registered(stack: Stack, name):
    assert failures(stack, "Jitr", event("jitr", name)) == JITR[name]


@pytest.mark.parametrize("name", sorted(name for name, failed in JITR.items() if not failed))
def test_its_event_is_as_the_schema_says(name):
    for record in event("jitr", name)["Records"]:
        jsonschema.validate(json.loads(record["body"]), schema("jitr-event"))


@pytest.mark.parametrize("name", CONFIRM)
def test_a_client_that_connected(stack: Stack, name):
    assert failures(stack, "Confirm", event("confirm", name)) == CONFIRM[name]


def test_a_schedule(stack: Stack):
    stack.call("Reconcile", event("reconcile", "schedule"))


# --- pre-provisioning-hook ---


@pytest.mark.parametrize("name", HOOK)
def test_a_device_with_a_claim_certificate(stack: Stack, hook_claim, name):
    sent = event("pre-provisioning-hook", name)
    if name not in UNLIKE_AWS:
        jsonschema.validate(sent, schema("hook-event"))
    if name != "unknown-device":
        stack.cvm("device", "add", f"sample-{name}", "--claim")
    answer = stack.call("Hook", sent)
    jsonschema.validate(answer, schema("hook-answer"))
    if HOOK[name] is None:
        assert answer == {"allowProvisioning": False}
    else:
        overrides = {"SerialNumber": f"sample-{name}"} | HOOK[name]
        assert answer == {"allowProvisioning": True, "parameterOverrides": overrides}


@pytest.fixture(scope="module")
def hook_claim(stack: Stack):
    """Registers the claim certificate of the samples."""
    stack.cvm("claim", "add", event("pre-provisioning-hook", "keys")["claimCertificateId"])


# --- certificate-provider ---


@pytest.mark.parametrize("name", SIGNED)
def test_a_signing_request_in_fleet_provisioning(stack: Stack, name):
    sent = event("certificate-provider", name)
    jsonschema.validate(sent, schema("certificate-provider-event"))
    answer = stack.call("CertificateProvider", sent)
    jsonschema.validate(answer, schema("certificate-provider-answer"))
    made = x509.load_pem_x509_certificate(answer["certificatePem"].encode())
    authority = x509.load_pem_x509_certificate((stack.folder / "ca" / "ca.pem").read_bytes())
    made.verify_directly_issued_by(authority)
    # The key and the id, and nothing else of what was asked.
    assert made.public_key() == x509.load_pem_x509_csr(sent["certificateSigningRequest"].encode()).public_key()
    assert made.subject.rfc4514_string() == f"CN=sample-{name}"
    names = {"authorityKeyIdentifier", "basicConstraints", "extendedKeyUsage", "keyUsage", "subjectKeyIdentifier"}
    assert {extension.oid._name for extension in made.extensions} == names
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("name", UNSIGNED)
def test_a_request_that_is_not_signed(stack: Stack, name):
    with pytest.raises(AssertionError, match="the request was not signed"):
        stack.call("CertificateProvider", event("certificate-provider", name))


# --- lifecycle ---


@pytest.mark.parametrize("name", LIFECYCLE)
def test_a_write_to_the_registry(stack: Stack, name):
    assert stack.call("Lifecycle", event("lifecycle", name)) == {"batchItemFailures": []}


# --- jobs ---


@pytest.mark.parametrize("name", JOBS)
def test_a_write_of_a_job(stack: Stack, name):
    assert stack.call("Jobs", event("jobs", name)) == {"batchItemFailures": []}


# --- claim ---


@pytest.mark.parametrize("name", CLAIM)
def test_a_trusted_user(stack: Stack, name):
    if name == "not-by-trusted-user":
        stack.device(f"sample-claim-{name}")
    elif name != "unknown-device":
        stack.cvm("device", "add", f"sample-claim-{name}", "--trusted-user")
    answer = stack.invoke(event("claim", name), "Claim", "claim-answer")
    assert answer.status in CLAIM[name]
    if answer.status == 201:
        assert answer.json["deviceId"] == f"sample-claim-{name}"


# --- registry ---


@pytest.mark.parametrize("name", REGISTRY)
def test_an_operator(stack: Stack, name):
    if name in REGISTERED:
        stack.device(f"sample-registry-{name}")
    answer = stack.call("Registry", event("registry", name))
    assert answer["statusCode"] in REGISTRY[name], answer
    assert answer["headers"]["cache-control"] == "no-store"


# --- all ---


def test_every_event_is_tested():
    vend = {*VEND_BY_TOKEN, *VEND_BY_PUBLIC_KEY, *VEND_AS_IT_IS, "wrong-token", "clone-original", "clone"}
    tested = {
        "vend": vend,
        "jitr": set(JITR),
        "pre-provisioning-hook": set(HOOK),
        "certificate-provider": {*SIGNED, *UNSIGNED},
        "claim": set(CLAIM),
        "confirm": set(CONFIRM),
        "jobs": set(JOBS),
        "lifecycle": set(LIFECYCLE),
        "reconcile": {"schedule"},
        "registry": set(REGISTRY),
    }
    assert {folder.name: {path.stem for path in folder.glob("*.json")} for folder in EVENTS.iterdir()} == tested
    assert {folder.name for folder in (ROOT / "functions").iterdir()} == set(tested)


def event(function: str, name: str) -> dict:
    return json.loads((EVENTS / function / f"{name}.json").read_text())


def failures(stack: Stack, function: str, sent: dict) -> list[int]:
    """Which messages of the batch the function wants to see again, by their places."""
    ids = [record["messageId"] for record in sent["Records"]]
    answer = stack.call(function, sent)
    assert set(answer) == {"batchItemFailures"}
    return [ids.index(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]]


def send_with_token(stack: Stack, name: str) -> Answer:
    sent = event("vend", name)
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
