"""What follows from a write to the registry: the audit trail, events on the bus, and what operators decide."""

import json
import os
import subprocess

import jsonschema
import pytest

from factory import Factory, connect_refused, provision, status
from mqtt_device import Refused
from stack import CVM, Stack, schema, until


class Listener:
    """A queue that has every event of the stack's bus."""

    def __init__(self, stack: Stack) -> None:
        self.sqs = stack.aws.client("sqs")
        self.queue = self.sqs.create_queue(QueueName="listener")["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        events = stack.aws.client("events")
        events.put_rule(Name="listener", EventPattern=json.dumps({"source": ["cvm"]}))
        target = {"Id": "listener", "Arn": attributes["Attributes"]["QueueArn"]}
        events.put_targets(Rule="listener", Targets=[target])
        self.heard: list[dict] = []

    def events(self, device_id: str) -> list[dict]:
        """What was told of a device until now."""
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                self.heard.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return [event for event in self.heard if event["detail"].get("deviceId") == device_id]

    def actions(self, device_id: str) -> list[str]:
        return [event["detail"]["action"] for event in self.events(device_id)]


@pytest.fixture(scope="module")
def listener(stack: Stack) -> Listener:
    return Listener(stack)


def audit(stack: Stack, *arguments: str) -> list[dict]:
    """What `cvm audit` says, the latest first."""
    environment = os.environ | stack.aws.environment | {"CVM_AUDIT_TABLE": stack.outputs["AuditTableName"]}
    command = [CVM, "audit", *arguments, "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- Status ---


def test_disabling_a_connected_device_cuts_it_off_and_enabling_gives_it_back(stack: Stack, device_id):
    device, vended = stack.provisioned(device_id)
    with stack.mqtt(device, vended["certificatePem"]).connect(stack.broker) as connected:
        connected.publish(f"devices/{device_id}/state", "here")
        stack.cvm("device", "disable", device_id, "--reason", "stolen, ticket 4711")
        assert connected.ended(), "the connection goes on"
    until(lambda: status(stack, vended["certificateId"]) == "INACTIVE", "a certificate without power")
    with pytest.raises(Refused):
        stack.mqtt(device, vended["certificatePem"]).connect(stack.broker)
    assert stack.vend(device).status == 403

    stack.cvm("device", "enable", device_id)
    until(lambda: status(stack, vended["certificateId"]) == "ACTIVE", "a certificate with power")
    with stack.mqtt(device, vended["certificatePem"]).connect(stack.broker) as connected:
        connected.publish(f"devices/{device_id}/state", "back")
    assert stack.vend(device).json["certificateId"] == vended["certificateId"]


def test_a_factory_certificate_is_cut_off_and_given_back_like_any_other(stack: Stack, device_id):
    device = Factory(stack, "lifecycle").register().allowlisted(device_id)
    provision(stack, device)
    stack.cvm("device", "disable", device_id, "--reason", "on hold")
    until(lambda: status(stack, device.certificate_id) == "INACTIVE", "a certificate without power")
    connect_refused(stack, device)
    stack.cvm("device", "enable", device_id)
    until(lambda: status(stack, device.certificate_id) == "ACTIVE", "a certificate with power")


def test_a_revoked_device_is_out_for_good(stack: Stack, device_id):
    device, vended = stack.provisioned(device_id)
    with stack.mqtt(device, vended["certificatePem"]).connect(stack.broker) as connected:
        connected.publish(f"devices/{device_id}/state", "here")
        stack.cvm("device", "revoke", device_id, "--reason", "key leaked, ticket 4712")
        assert connected.ended(), "the connection goes on"
    until(lambda: status(stack, vended["certificateId"]) == "REVOKED", "a certificate that is revoked")
    until(lambda: audit(stack, device_id)[0]["action"] == "revoked", "an entry of the trail")
    by_operator = {"device": device_id, "outcome": "revoked", "door": "cvm"}
    until(lambda: stack.audit("lifecycle", **by_operator), "a line of the log that says who revoked it")
    stack.cvm("device", "disable", device_id, "--reason", "on hold")
    stack.cvm("device", "enable", device_id)
    assert stack.vend(device).status == 403
    stack.cvm("device", "delete", device_id)
    until(lambda: status(stack, vended["certificateId"]) is None, "an end of the certificate")


# --- Deletion ---


def test_a_device_that_is_deleted_and_registered_again_cannot_use_its_old_certificate(stack: Stack, device_id):
    device, vended = stack.provisioned(device_id)
    before = stack.cvm("device", "show", device_id)["generation"]
    stack.cvm("device", "delete", device_id)
    again = stack.device(device_id)
    assert stack.cvm("device", "show", device_id)["generation"] != before

    tombstone = f"tombstone/{device_id}/{before}"
    until(lambda: not stack.item(tombstone), "an end of the tombstone")
    until(lambda: status(stack, vended["certificateId"]) is None, "an end of the certificate")
    with pytest.raises(Refused):
        stack.mqtt(device, vended["certificatePem"]).connect(stack.broker)
    assert stack.vend(device).status == 403, "its token is as dead as its certificate"

    answer = stack.vend(again)
    assert answer.status == 201
    assert stack.attached(device_id) == [answer.json["certificateId"]]
    with stack.mqtt(again, answer.json["certificatePem"]).connect(stack.broker) as connected:
        connected.publish(f"devices/{device_id}/state", "new")


def test_nothing_is_left_of_a_device_that_is_deleted(stack: Stack, device_id):
    device, vended = stack.provisioned(device_id)
    with stack.mqtt(device, vended["certificatePem"]).connect(stack.broker) as connected:
        until(lambda: stack.used(device_id), "a note that the certificate is in use")
        stack.cvm("device", "delete", device_id)
        assert connected.ended(), "the connection goes on"
    iot = stack.aws.client("iot")

    def is_gone() -> bool:
        try:
            iot.describe_thing(thingName=device_id)
        except iot.exceptions.ResourceNotFoundException:
            return True
        return False

    until(is_gone, "an end of the thing")
    assert status(stack, vended["certificateId"]) is None


# --- Presence ---


def test_who_is_connected_is_known_and_changes_no_version(stack: Stack, device_id):
    device, vended = stack.provisioned(device_id)
    with stack.mqtt(device, vended["certificatePem"]).connect(stack.broker):
        until(lambda: stack.item(f"presence/{device_id}").get("connected"), "a device that is connected")
        version = until(lambda: stack.used(device_id), "a first use")["version"]
    until(lambda: stack.item(f"presence/{device_id}").get("connected") is False, "a device that is not")
    assert stack.item(device_id)["version"] == version


# --- Events ---


def test_every_step_of_a_device_is_on_the_bus_and_in_the_trail(stack: Stack, listener: Listener, device_id):
    device, vended = stack.provisioned(device_id)
    assert stack.vend(device, token="a-wrong-token-with-enough-entropy-0123456789").status == 403
    stack.cvm("device", "disable", device_id, "--reason", "stolen")
    stack.cvm("device", "delete", device_id)
    steps = ["created", "reserved", "provisioned", "refused", "disabled", "deleted"]
    until(lambda: set(listener.actions(device_id)) == set(steps), "every event")

    events = listener.events(device_id)
    told = {event["detail"]["id"]: event for event in events}
    for event in events:
        jsonschema.validate(event["detail"], schema("lifecycle-event"))
        assert event["detail-type"] == f"Device {event['detail']['action'].capitalize()}"
    by_action = {event["detail"]["action"]: event["detail"] for event in events}
    assert by_action["provisioned"]["certificateId"] == vended["certificateId"]
    assert by_action["provisioned"]["key"] == device.thumbprint
    assert (by_action["refused"]["reason"], by_action["refused"]["door"]) == ("wrong-proof", "vend")
    assert (by_action["disabled"]["reason"], by_action["disabled"]["door"]) == ("stolen", "cvm")
    assert by_action["created"]["opType"] == "createDeviceIdentity"
    assert by_action["deleted"]["opType"] == "deleteDeviceIdentity"

    trail = audit(stack, device_id)
    assert [entry["action"] for entry in reversed(trail)] == steps, "each once, in their order"
    assert {entry["id"] for entry in trail} == set(told)
    refused = next(entry for entry in trail if entry["action"] == "refused")
    (logged,) = stack.audit("vend", device=device_id, outcome="refused")
    assert refused["requestId"] == logged["request_id"], "the trail leads to the log"
    recent = audit(stack, "--within", "1h", "--limit", "100000")
    assert {entry["id"] for entry in trail} <= {entry["id"] for entry in recent}


def test_a_record_that_cannot_be_read_is_put_aside_and_holds_up_no_other(stack: Stack, listener: Listener, device_id):
    table = stack.outputs["TableName"]
    stack.cvm("device", "add", device_id, "--claim")
    item = stack.aws.client("dynamodb").get_item(TableName=table, Key={"deviceId": {"S": device_id}})["Item"]
    broken = item | {"deviceId": {"S": f"{device_id}-newer"}, "state": {"S": "teleported"}}
    stack.aws.client("dynamodb").put_item(TableName=table, Item=broken)
    try:
        stack.cvm("device", "disable", device_id, "--reason", "after it")
        until(lambda: "disabled" in listener.actions(device_id), "the event of the device after it")
        sqs = stack.aws.client("sqs")

        def aside() -> list[str]:
            got = sqs.receive_message(QueueUrl=stack.outputs["DeadLetterQueueUrl"], MaxNumberOfMessages=10)
            bodies = [message["Body"] for message in got.get("Messages", [])]
            return [body for body in bodies if f"{device_id}-newer" in body]

        (letter,) = until(aside, "a letter in the dead-letter queue")
        assert json.loads(letter)["detail-type"] == "Write Put Aside"
    finally:
        stack.aws.client("dynamodb").delete_item(TableName=table, Key={"deviceId": {"S": f"{device_id}-newer"}})
