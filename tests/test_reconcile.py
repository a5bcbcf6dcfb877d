"""The reconciler: what nobody comes back for is settled, and what differs is reported.

It leaves everything alone for five minutes. So its own clock is put forward here (Debian: libfaketime), by less than
the 15 minutes that AWS allows a signature to be off.
"""

import json
import time
from pathlib import Path

import pytest

from claims import Claim, allowlist, connect, provision, question
from local_aws import ROOT
from stack import Device, Stack, until

EVENT = json.loads((ROOT / "events" / "reconcile" / "schedule.json").read_text())
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Claim:
    return Claim.shared(stack)


@pytest.fixture(scope="module", autouse=True)
def own_clock(stack: Stack):
    yield
    stack.configure("Reconcile", LD_PRELOAD=None, FAKETIME=None, FAKETIME_DONT_FAKE_MONOTONIC=None, RUST_LOG="debug")


def run(stack: Stack, minutes: int) -> None:
    """Runs the reconciler so many minutes from now."""
    assert FAKETIME, "libfaketime is missing: apt-get install libfaketime"
    clock = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": f"+{minutes}m", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    # It looks at all that the other tests left, which would be a long story.
    stack.configure("Reconcile", **clock, RUST_LOG="info")
    stack.call("Reconcile", EVENT)


def test_threat_45_a_powerless_certificate_of_a_dead_attempt_is_removed(stack: Stack, device_id):
    device = stack.device(device_id)
    foreign = made(stack, Device(f"{device_id}-foreign"))
    orphan = leave_orphan(stack, device)
    run(stack, 6)
    assert stack.item(device_id)["state"] == "registered", "the dead attempt has lost the device"
    assert exists(stack, orphan), "what was changed just now is left alone"
    run(stack, 12)
    assert not exists(stack, orphan)
    assert exists(stack, foreign)
    assert "unsettledSince" not in stack.item(device_id)
    assert stack.audit("reconcile", outcome="removed", device=device_id)
    assert stack.vend(device).status == 201


def test_a_reservation_that_came_to_nothing_is_released(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    assert stack.call("Hook", question(stack, shared, Device(device_id)))["allowProvisioning"]
    run(stack, 2)
    assert stack.item(device_id)["state"] == "reserved", "it may still be under way"
    run(stack, 6)
    assert stack.item(device_id)["state"] == "registered"
    assert stack.audit("reconcile", outcome="released", device=device_id)


def test_a_reservation_whose_certificate_is_in_place_is_confirmed(stack: Stack, shared: Claim, device_id):
    """Provisioned, and switched off before it ever connected."""
    allowlist(stack, device_id)
    claimed = provision(stack, shared, device_id)
    run(stack, 6)
    assert stack.item(device_id)["state"] == "provisioned"
    assert stack.audit("reconcile", outcome="confirmed", device=device_id)
    connect(stack, claimed)
    assert stack.attached(device_id) == [claimed.certificate_id]


def test_what_differs_is_reported_and_left_as_it_is(stack: Stack, device_id):
    iot = stack.aws.client("iot")
    stray = f"{device_id}-stray"
    iot.create_thing(thingName=stray, attributePayload={"attributes": {"provisionedBy": "cvm"}})
    foreign = made(stack, Device(stray), active=True)
    arn = iot.describe_certificate(certificateId=foreign)["certificateDescription"]["certificateArn"]
    iot.attach_thing_principal(thingName=stray, principal=arn)
    _, answer = stack.provisioned(device_id)
    iot.update_certificate(certificateId=answer["certificateId"], newStatus="INACTIVE")

    def reported(reason: str, **fields: str) -> bool:
        run(stack, 6)
        return bool(stack.audit("reconcile", outcome="drift", reason=reason, **fields))

    until(lambda: reported("thing-without-device", thing=stray), "a report of the thing", seconds=60)
    until(lambda: reported("certificate-without-device", certificate=foreign), "a report of it", seconds=60)
    until(lambda: reported("certificate-not-active", device=device_id), "a report of the device", seconds=60)
    assert exists(stack, foreign)
    assert iot.describe_thing(thingName=stray)
    assert exists(stack, answer["certificateId"])


def made(stack: Stack, device: Device, active: bool = False) -> str:
    """A certificate that nobody has attached anything to."""
    iot = stack.aws.client("iot")
    certificate = iot.create_certificate_from_csr(certificateSigningRequest=device.csr_pem, setAsActive=active)
    return certificate["certificateId"]


def leave_orphan(stack: Stack, device: Device) -> str:
    """Leaves what a vend leaves that dies between making the certificate and writing it down."""
    now = int(time.time())
    stack.aws.client("dynamodb").update_item(
        TableName=stack.outputs["TableName"],
        Key={"deviceId": {"S": device.id}},
        UpdateExpression="SET #state = :reserved, reservedBy = :owner, reservedKey = :key, reservedUntil = :past, "
        "attempts = :one, unsettledSince = :now ADD attemptedKeys :keys",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={
            ":reserved": {"S": "reserved"},
            ":owner": {"S": "0" * 32},
            ":key": {"S": device.thumbprint},
            ":keys": {"SS": [device.thumbprint]},
            ":past": {"N": "1"},
            ":one": {"N": "1"},
            ":now": {"N": str(now)},
        },
    )
    return made(stack, device)


def exists(stack: Stack, certificate: str) -> bool:
    iot = stack.aws.client("iot")
    try:
        iot.describe_certificate(certificateId=certificate)
    except iot.exceptions.ResourceNotFoundException:
        return False
    return True
