"""First TLS connects: the event of AWS IoT's own broker, through the rule and the queue, to the function and back."""

import json
import uuid
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from factory import Factory, connect, connect_refused, mosquitto_pub, provision, status
from mqtt_device import Refused
from stack import Stack, until


@pytest.fixture(scope="module")
def works(stack: Stack) -> Factory:
    """A factory whose CA is known."""
    return Factory(stack, "works").register()


# --- What an allowlisted device gets ---


def test_the_first_connect_provisions_and_the_second_is_let_in(stack: Stack, works: Factory, device_id):
    device = works.allowlisted(device_id)
    connect_refused(stack, device)
    until(lambda: status(stack, device.certificate_id) == "ACTIVE", "an active certificate")
    connect(stack, device)

    thing = stack.aws.client("iot").describe_thing(thingName=device_id)
    assert thing["attributes"] == {"provisionedBy": "cvm", "firmwareVersion": "unknown"}
    assert stack.attached(device_id) == [device.certificate_id]
    item = until(lambda: stack.used(device_id), "a note that the certificate is in use")
    assert item["state"] == "provisioned"


def test_mosquitto_is_a_client(stack: Stack, works: Factory, device_id):
    device = works.allowlisted(device_id)
    assert mosquitto_pub(stack, device).returncode != 0
    until(lambda: status(stack, device.certificate_id) == "ACTIVE", "an active certificate")
    second = mosquitto_pub(stack, device)
    assert second.returncode == 0, second.stderr


def test_a_registered_certificate_is_taken_whoever_signed_it_among_ours(stack: Stack, works: Factory, device_id):
    device = works.make(device_id)
    stack.cvm("device", "add", device_id, "--certificate", device.certificate_id)
    provision(stack, device)
    connect(stack, device)


def test_parameters_are_those_of_the_registry(stack: Stack, works: Factory, device_id):
    provision(stack, works.allowlisted(device_id, "--parameter", "FirmwareVersion=7"))
    assert stack.aws.client("iot").describe_thing(thingName=device_id)["attributes"]["firmwareVersion"] == "7"


def test_it_may_not_publish_under_another_name(stack: Stack, works: Factory, device_id):
    device = works.allowlisted(device_id)
    provision(stack, device)
    with stack.mqtt(device, device.certificate_pem).connect(stack.broker) as connection:
        with pytest.raises(Refused, match="Not authorized"):
            connection.publish("devices/another/telemetry", "forged")


# --- Who gets nothing ---


def test_threat_49_a_device_that_is_not_on_the_allowlist_stays_powerless(stack: Stack, works: Factory, device_id):
    device = works.make(device_id)
    refused = refusal(stack, device)
    assert refused["reason"] == "unknown-device"
    assert_powerless(stack, device)
    assert things(stack, device_id) == []


def test_another_ca_of_ours_does_not_vouch_for_a_device(stack: Stack, works: Factory, device_id):
    other = Factory(stack, "other-works").register()
    works.allowlisted(device_id)
    device = other.make(device_id)
    assert refusal(stack, device)["reason"] == "wrong-proof"
    assert_powerless(stack, device)


def test_threat_49_a_ca_that_the_registry_does_not_know_vouches_for_nobody(stack: Stack, works: Factory, device_id):
    stranger = Factory(stack, "strange-works")
    register_with_aws_iot_alone(stack, stranger)
    works.allowlisted(device_id)
    device = stranger.make(device_id)
    refusal(stack, device)
    assert_powerless(stack, device)


def test_a_disabled_device_stays_out_until_it_is_enabled(stack: Stack, works: Factory, device_id):
    device = works.allowlisted(device_id)
    stack.cvm("device", "disable", device_id, "--reason", "stolen")
    assert refusal(stack, device)["reason"] == "disabled"
    assert_powerless(stack, device)
    stack.cvm("device", "enable", device_id)

    def is_let_in() -> bool:
        try:
            connect(stack, device)
            return True
        except Refused:
            return False

    until(is_let_in, "a device that is let in")


def test_threat_04_a_clone_is_quarantined_and_the_device_keeps_working(stack: Stack, works: Factory, device_id):
    device = works.allowlisted(device_id)
    provision(stack, device)
    connect(stack, device)
    until(lambda: stack.used(device_id), "a note that the certificate is in use")

    clone = works.make(device_id, "clone")
    connect_refused(stack, clone)
    until(lambda: stack.audit("jitr", outcome="quarantined", device=device_id), "a quarantine")
    assert_powerless(stack, clone)
    assert "quarantined" in json.dumps(stack.cvm("device", "show", device_id))
    assert stack.attached(device_id) == [device.certificate_id]
    connect(stack, device)


def test_threat_49_junk_of_one_ca_leaves_nothing_behind(stack: Stack, works: Factory, device_id):
    iot = stack.aws.client("iot")
    before = (len(iot.list_things()["things"]), len(iot.list_policies()["policies"]))
    junk = [works.make(f"{device_id}-{number}") for number in range(12)]
    for device in junk:
        connect_refused(stack, device)
    for device in junk:
        until(lambda: stack.audit("jitr", outcome="refused", device=device.id), "a refusal")  # noqa: B023
        assert_powerless(stack, device)
    assert (len(iot.list_things()["things"]), len(iot.list_policies()["policies"])) == before


# --- Events that come twice, late, forged or broken ---


def test_threat_47_an_event_that_comes_again_changes_nothing(stack: Stack, works: Factory, device_id):
    device = works.allowlisted(device_id)
    for _ in range(3):
        send(stack, registered(device, works))
    connect_refused(stack, device)
    until(lambda: status(stack, device.certificate_id) == "ACTIVE", "an active certificate")
    send(stack, registered(device, works))
    until(lambda: is_empty(stack), "an empty queue")
    assert status(stack, device.certificate_id) == "ACTIVE"
    assert stack.attached(device_id) == [device.certificate_id]
    assert stack.item(device_id)["reservedCertificate"] == device.certificate_id


def test_threat_47_an_event_after_the_revocation_does_not_bring_the_certificate_back(
    stack: Stack, works: Factory, device_id
):
    device = works.allowlisted(device_id)
    provision(stack, device)
    stack.aws.client("iot").update_certificate(certificateId=device.certificate_id, newStatus="REVOKED")
    send(stack, registered(device, works))
    until(lambda: is_empty(stack), "an empty queue")
    assert status(stack, device.certificate_id) == "REVOKED"


def test_threat_47_a_forged_event_provisions_nobody(stack: Stack, works: Factory, device_id):
    """Its certificate is registered and waits, but is of another CA than the event says."""
    stranger = Factory(stack, "forging-works")
    register_with_aws_iot_alone(stack, stranger)
    works.allowlisted(device_id)
    device = stranger.make(device_id)
    refusal(stack, device)
    assert stack.call("Jitr", sqs(registered(device, works)))["batchItemFailures"] == []
    assert_powerless(stack, device)


def test_a_message_that_makes_no_sense_ends_as_a_dead_letter_and_holds_nobody_up(
    stack: Stack, works: Factory, device_id
):
    marker = f"garbage for {device_id}"
    device = works.allowlisted(device_id)
    with short_visibility(stack):
        send(stack, marker)
        provision(stack, device)
        until(lambda: marker in dead_letters(stack), "a dead letter", seconds=60)
    connect(stack, device)


# --- What happens by configuration ---


@pytest.mark.parametrize(("refused", "becomes"), [("deactivate", "INACTIVE"), ("revoke", "REVOKED")])
def test_refused_certificates_may_be_put_out_of_use(stack: Stack, works: Factory, device_id, refused, becomes):
    stack.configure("Jitr", REFUSED_CERTIFICATES=refused)
    try:
        device = works.make(device_id)
        connect_refused(stack, device)
        until(lambda: status(stack, device.certificate_id) == becomes, f"a certificate that is {becomes}")
    finally:
        stack.configure("Jitr", REFUSED_CERTIFICATES="leave")


def test_the_device_id_may_be_a_part_of_the_name(stack: Stack, works: Factory, device_id):
    stack.configure("Jitr", DEVICE_ID_PATTERN=r"^factory-1\.(.+)$")
    try:
        device = works.make(f"factory-1.{device_id}")
        stack.cvm("device", "add", device_id, "--certificate", device.certificate_id)
        connect_refused(stack, device)
        until(lambda: status(stack, device.certificate_id) == "ACTIVE", "an active certificate")
        assert stack.attached(device_id) == [device.certificate_id]
    finally:
        stack.configure("Jitr", DEVICE_ID_PATTERN="")


# --- Helpers ---


def refusal(stack: Stack, device) -> dict:
    """Connects, and returns the audit record of why that came to nothing."""
    connect_refused(stack, device)
    # Its own: the refusals of another device that connected again may still be on their way.
    refusals = lambda: stack.audit("jitr", outcome="refused", device=device.id)
    return until(refusals, "a refusal")[-1]


def assert_powerless(stack: Stack, device) -> None:
    assert status(stack, device.certificate_id) == "PENDING_ACTIVATION"
    arn = stack.aws.client("iot").describe_certificate(certificateId=device.certificate_id)
    target = arn["certificateDescription"]["certificateArn"]
    assert stack.aws.client("iot").list_attached_policies(target=target)["policies"] == []
    assert device.certificate_id not in stack.attached(device.id)
    connect_refused(stack, device)


def things(stack: Stack, name: str) -> list[str]:
    listed = stack.aws.client("iot").list_things()["things"]
    return [thing["thingName"] for thing in listed if thing["thingName"] == name]


def registered(device, works: Factory) -> str:
    """What AWS IoT publishes when this device connects, as a message."""
    return json.dumps(
        {
            "certificateId": device.certificate_id,
            "caCertificateId": works.ca_id,
            "timestamp": 1767225600000,
            "certificateStatus": "PENDING_ACTIVATION",
            "awsAccountId": "000000000000",
            "certificateRegistrationTimestamp": "1767225600000",
        }
    )


def sqs(*bodies: str) -> dict:
    return {"Records": [{"messageId": str(uuid.uuid4()), "body": body, "eventSource": "aws:sqs"} for body in bodies]}


def send(stack: Stack, body: str) -> None:
    stack.aws.client("sqs").send_message(QueueUrl=stack.outputs["JitrQueueUrl"], MessageBody=body)


def is_empty(stack: Stack) -> bool:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    client = stack.aws.client("sqs")
    found = client.get_queue_attributes(QueueUrl=stack.outputs["JitrQueueUrl"], AttributeNames=names)["Attributes"]
    return all(found[name] == "0" for name in names)


def dead_letters(stack: Stack) -> list[str]:
    client = stack.aws.client("sqs")
    url = stack.outputs["DeadLetterQueueUrl"]
    received = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return [message["Body"] for message in received.get("Messages", [])]


@contextmanager
def short_visibility(stack: Stack):
    """Has failed messages come again after a second, so that five times do not take a quarter of an hour."""
    client, url = stack.aws.client("sqs"), stack.outputs["JitrQueueUrl"]
    before = client.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
    try:
        yield
    finally:
        client.set_queue_attributes(QueueUrl=url, Attributes=before)


def register_with_aws_iot_alone(stack: Stack, works: Factory) -> None:
    """What somebody can do who may register CAs with AWS IoT, but not write to the registry."""
    certificate = load_pem_x509_certificate((works.folder / "ca.pem").read_bytes())
    stack.aws.client("iot").register_ca_certificate(
        caCertificate=certificate.public_bytes(Encoding.PEM).decode(),
        certificateMode="SNI_ONLY",
        setAsActive=True,
        allowAutoRegistration=True,
    )
