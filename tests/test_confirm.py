"""After the first connect: reservations become final, and what lost against them goes."""

import json
import uuid

import pytest

from claims import Claim, allowlist, connect, provision, question
from factory import status
from mqtt_device import Refused
from stack import Device, Stack, until


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Claim:
    return Claim.shared(stack)


def test_the_first_certificate_to_connect_wins(stack: Stack, shared: Claim, device_id):
    """Two certificates were let through for one device, because the first came too late."""
    allowlist(stack, device_id)
    first = provision(stack, shared, device_id)
    stack.expire_reservation(device_id)
    second = provision(stack, shared, device_id)
    assert (first.error, second.error) == (None, None)
    assert sorted(stack.attached(device_id)) == sorted([first.certificate_id, second.certificate_id])

    connect(stack, first)
    until(lambda: stack.used(device_id), "a confirmation by the first connect")
    assert stack.item(device_id)["credential"]["certificateId"] == first.certificate_id
    until(lambda: stack.attached(device_id) == [first.certificate_id], "an end of the other certificate")
    with pytest.raises(Refused):
        connect(stack, second)
    connect(stack, first)


def test_a_connect_that_is_reported_again_changes_nothing(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    claimed = provision(stack, shared, device_id)
    event = presence(device_id, claimed.certificate_id)
    assert stack.call("Confirm", event) == {"batchItemFailures": []}
    confirmed = stack.item(device_id)
    assert confirmed["state"] == "provisioned"
    assert stack.call("Confirm", event) == {"batchItemFailures": []}
    assert stack.item(device_id) == confirmed
    assert len(stack.audit("confirm", device=device_id)) == 1


def test_threat_47_a_forged_connect_confirms_no_certificate_without_power(stack: Stack, shared: Claim, device_id):
    """The hook said yes, and AWS IoT has not provisioned the device yet."""
    allowlist(stack, device_id)
    asked = question(stack, shared, Device(device_id))
    assert stack.call("Hook", asked)["allowProvisioning"]
    assert stack.call("Confirm", presence(device_id, asked["certificateId"])) == {"batchItemFailures": []}
    assert stack.item(device_id)["state"] == "reserved"


def test_a_claim_that_connects_confirms_nothing(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    assert stack.call("Confirm", presence(device_id, shared.id)) == {"batchItemFailures": []}
    assert stack.item(device_id)["state"] == "registered"
    assert status(stack, shared.id) == "ACTIVE"


def test_one_message_that_makes_no_sense_fails_alone(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    claimed = provision(stack, shared, device_id)
    event = presence(device_id, claimed.certificate_id)
    event["Records"].append({**event["Records"][0], "messageId": "garbage", "body": "{"})
    assert stack.call("Confirm", event) == {"batchItemFailures": [{"itemIdentifier": "garbage"}]}
    assert stack.item(device_id)["state"] == "provisioned"


def presence(client_id: str, principal: str) -> dict:
    """What AWS IoT publishes when a client connects, in a message from the queue."""
    body = {
        "clientId": client_id,
        "timestamp": 1767225600000,
        "eventType": "connected",
        "sessionIdentifier": str(uuid.uuid4()),
        "principalIdentifier": principal,
        "ipAddress": "192.0.2.0",
        "versionNumber": 0,
    }
    return {"Records": [{"messageId": str(uuid.uuid4()), "body": json.dumps(body), "eventSource": "aws:sqs"}]}
