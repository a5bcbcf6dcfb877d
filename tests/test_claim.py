"""Claims: AWS's own device SDK, AWS IoT's fleet provisioning and the hook that it asks; trusted users and their API."""

import base64
import json
import re
import socket
import time
import uuid

import pytest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from claims import NODE_SDK, PYTHON_SDK, Claim, allowlist, ask, connect, installer, provision, question
from factory import certificate_id, status
from mqtt_device import Refused
from stack import Device, Stack, checked, until


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Claim:
    """A claim certificate that is built into a whole product line."""
    return Claim.shared(stack)


# --- What an allowlisted device gets ---


def test_the_sdk_of_aws_provisions_and_the_device_publishes(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    claimed = provision(stack, shared, device_id)
    topic_prefix = f"devices/{device_id}"
    assert claimed.answer == {"thingName": device_id, "deviceConfiguration": {"topicPrefix": topic_prefix}}
    assert stack.item(device_id)["state"] == "reserved"

    with stack.mqtt(claimed.device, claimed.certificate_pem).connect(stack.broker) as connection:
        connection.subscribe(f"{topic_prefix}/telemetry")
        connection.publish(f"{topic_prefix}/telemetry", "hello")
        assert connection.receive() == (f"{topic_prefix}/telemetry", b"hello")
    item = until(lambda: stack.used(device_id), "a confirmation by the first connect")
    assert item["state"] == "provisioned"
    assert item["credential"]["certificateId"] == claimed.certificate_id
    until(lambda: stack.audit("confirm", outcome="confirmed", device=device_id), "a record of the confirmation")


def test_the_sdk_for_node_provisions_and_the_device_publishes(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    claimed = provision(stack, shared, device_id, sdk=NODE_SDK)
    topic_prefix = f"devices/{device_id}"
    assert claimed.answer == {"thingName": device_id, "deviceConfiguration": {"topicPrefix": topic_prefix}}
    until(lambda: stack.used(device_id), "a confirmation by the first connect")
    assert provision(stack, shared, f"{device_id}-unknown", sdk=NODE_SDK).error == "AccessDenied"


@pytest.mark.parametrize("sdk", [PYTHON_SDK, NODE_SDK], ids=["python", "node"])
@pytest.mark.parametrize("subject", ["its own", "Fleet Provisioning Demo"])
def test_a_device_keeps_the_key_of_its_own_request(stack: Stack, shared: Claim, device_id, subject, sdk):
    """AWS's demos have the same common name for all devices: the serial number comes with the registration."""
    allowlist(stack, device_id)
    device = Device(device_id)
    csr = device.csr_pem if subject == "its own" else Device(subject, key=device.key).csr_pem
    claimed = provision(stack, shared, device_id, device=device, csr=csr, sdk=sdk)
    assert claimed.error is None and claimed.answer["thingName"] == device_id
    connect(stack, claimed)
    until(lambda: stack.used(device_id), "a confirmation by the first connect")


def test_threat_15_a_request_with_another_device_s_name_is_refused(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    device = Device(device_id)
    claimed = provision(stack, shared, device_id, device=device, csr=Device("sn-other", key=device.key).csr_pem)
    assert claimed.error == "AccessDenied"
    assert stack.item(device_id)["state"] == "registered"


def test_threat_08_a_key_of_another_device_is_refused(stack: Stack, shared: Claim, device_id):
    first = Device(f"{device_id}-1")
    second = Device(f"{device_id}-2", key=first.key)
    for device in (first, second):
        allowlist(stack, device.id)
    claimed = provision(stack, shared, first.id, device=first, csr=first.csr_pem)
    assert claimed.error is None
    refused = provision(stack, shared, second.id, device=second, csr=second.csr_pem)
    assert refused.error == "AccessDenied"
    item = stack.item(second.id)
    assert (item["state"], item["refusedFor"]) == ("registered", "key-in-use")
    connect(stack, claimed)
    until(lambda: stack.used(first.id), "a confirmation by the first connect")


def test_a_claim_may_be_limited_to_its_devices(stack: Stack, shared: Claim, device_id):
    other = Claim.shared(stack)
    stack.cvm("device", "add", device_id, "--claim", other.id)
    assert provision(stack, shared, device_id).error == "AccessDenied"
    assert provision(stack, other, device_id).error is None


def test_the_registry_decides_about_parameters_and_not_the_device(stack: Stack, shared: Claim, device_id):
    allowlist(stack, f"{device_id}-fixed", "--parameter", "FirmwareVersion=7")
    allowlist(stack, f"{device_id}-default")
    allowlist(stack, f"{device_id}-settable", "--settable", "FirmwareVersion")
    versions = {}
    for kind in ("fixed", "default", "settable"):
        assert provision(stack, shared, f"{device_id}-{kind}", FirmwareVersion="666").error is None
        thing = stack.aws.client("iot").describe_thing(thingName=f"{device_id}-{kind}")
        versions[kind] = thing["attributes"]["firmwareVersion"]
    assert versions == {"fixed": "7", "default": "unknown", "settable": "666"}


# --- The same device again ---


def test_threat_47_the_same_certificate_passes_again(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    claimed = provision(stack, shared, device_id, times=2)
    assert [answer.get("thingName") for answer in claimed.answers] == [device_id, device_id]
    assert stack.attached(device_id) == [claimed.certificate_id]


def test_a_yes_that_came_to_nothing_holds_the_device_for_a_moment_only(stack: Stack, shared: Claim, device_id):
    """The hook said yes, and AWS IoT then failed: the device comes back with another certificate."""
    allowlist(stack, device_id)
    lost = Device(device_id)
    assert stack.call("Hook", question(stack, shared, lost))["allowProvisioning"]
    assert provision(stack, shared, device_id).error == "AccessDenied"
    stack.expire_reservation(device_id)
    claimed = provision(stack, shared, device_id)
    assert claimed.error is None
    connect(stack, claimed)


def test_threat_04_another_device_with_the_same_serial_is_quarantined(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    claimed = provision(stack, shared, device_id)
    connect(stack, claimed)
    until(lambda: stack.used(device_id), "a confirmation by the first connect")

    assert provision(stack, shared, device_id).error == "AccessDenied"
    until(lambda: stack.audit("pre-provisioning-hook", outcome="quarantined", device=device_id), "a quarantine")
    assert "quarantined" in json.dumps(stack.cvm("device", "show", device_id))
    assert stack.attached(device_id) == [claimed.certificate_id]
    connect(stack, claimed)


def test_a_device_that_lost_its_key_is_let_in_after_an_approval(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    connect(stack, provision(stack, shared, device_id))
    until(lambda: stack.used(device_id), "a confirmation by the first connect")
    assert provision(stack, shared, device_id).error == "AccessDenied"
    stack.cvm("device", "approve", device_id)
    again = provision(stack, shared, device_id)
    assert again.error is None
    connect(stack, again)
    until(lambda: stack.attached(device_id) == [again.certificate_id], "an end of the replaced certificate")


# --- Who gets nothing ---


def test_threat_01_a_device_that_is_not_on_the_allowlist_gets_access_denied(stack: Stack, shared: Claim, device_id):
    claimed = provision(stack, shared, device_id)
    assert claimed.answer == {"statusCode": 403, "errorCode": "AccessDenied", "errorMessage": "Access Denied"}
    assert stack.attached(device_id) == []
    with pytest.raises(Refused):
        connect(stack, claimed)
    refused = stack.audit("pre-provisioning-hook", outcome="refused", device=device_id)
    assert [record["reason"] for record in refused] == ["unknown-device"]


def test_a_device_that_proves_itself_otherwise_is_not_claimed(stack: Stack, shared: Claim, device_id):
    stack.device(device_id)
    assert provision(stack, shared, device_id).error == "AccessDenied"


def test_a_disabled_device_is_not_claimed(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    stack.cvm("device", "disable", device_id, "--reason", "stolen")
    assert provision(stack, shared, device_id).error == "AccessDenied"
    stack.cvm("device", "enable", device_id)
    assert provision(stack, shared, device_id).error is None


def test_threat_15_the_client_id_is_the_serial_number(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    assert provision(stack, shared, device_id, client_id=f"{device_id}-other").error == "AccessDenied"


def test_threat_12_a_claim_certificate_that_is_not_registered_claims_nothing(stack: Stack, device_id):
    stranger = Claim.unregistered(stack)
    allowlist(stack, device_id)
    assert provision(stack, stranger, device_id).error == "AccessDenied"


def test_threat_12_another_template_cannot_use_the_hook(stack: Stack, device_id):
    iot = stack.aws.client("iot")
    ours = iot.describe_provisioning_template(templateName=stack.outputs["FleetTemplateName"])
    with pytest.raises(iot.exceptions.InvalidRequestException, match="lambda validation"):
        iot.create_provisioning_template(
            templateName="another",
            templateBody=ours["templateBody"],
            provisioningRoleArn=ours["provisioningRoleArn"],
            preProvisioningHook=ours["preProvisioningHook"],
            enabled=True,
        )


def test_threat_50_a_claim_certificate_can_do_nothing_else(stack: Stack, shared: Claim, device_id):
    holder = Device(device_id, key=load_pem_private_key(shared.private_key.encode(), None))
    with stack.mqtt(holder, shared.certificate_pem).connect(stack.broker) as connection:
        with pytest.raises(Refused, match="Not authorized"):
            connection.publish(f"devices/{device_id}/telemetry", "forged")
    policy = stack.aws.client("iot").get_policy(policyName=stack.outputs["ClaimPolicyName"])["policyDocument"]
    allowed = re.compile(r":client/|/\$aws/certificates/|/\$aws/provisioning-templates/")
    for statement in json.loads(policy)["Statement"]:
        assert "*" not in statement["Action"]
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert all(allowed.search(resource) for resource in resources)


# --- A claim certificate that leaks ---


def test_threat_11_a_revoked_claim_stops_at_once(stack: Stack, device_id):
    claim = Claim.shared(stack)
    allowlist(stack, f"{device_id}-before")
    allowlist(stack, f"{device_id}-after")
    assert provision(stack, claim, f"{device_id}-before").error is None
    stack.cvm("claim", "revoke", claim.id, "--reason", "it is on the internet", "--registry-only")
    assert provision(stack, claim, f"{device_id}-after").error == "AccessDenied"
    stack.cvm("claim", "revoke", claim.id, "--reason", "it is on the internet")
    assert status(stack, claim.id) == "REVOKED"
    report = json.dumps(stack.cvm("claim", "report", claim.id))
    assert f"{device_id}-before" in report
    assert f"{device_id}-after" not in report


def test_threat_11_a_claim_has_a_quota(stack: Stack, device_id):
    claim = Claim.shared(stack, "--quota", "1")
    allowlist(stack, f"{device_id}-one")
    allowlist(stack, f"{device_id}-two")
    assert [provision(stack, claim, f"{device_id}-one", times=2).error] == [None], "twice the same is once"
    assert provision(stack, claim, f"{device_id}-two").error == "AccessDenied"


# --- One process, one deadline ---


def test_threat_48_yes_no_yes_no_in_one_warm_process(stack: Stack, shared: Claim, device_id):
    allowlist(stack, device_id)
    ours, stranger = (question(stack, shared, Device(asker)) for asker in (device_id, f"{device_id}-stranger"))
    stack.configure("Hook")
    answers, processes = [], set()
    for asked in (ours, stranger, ours, stranger):
        answers.append(stack.call("Hook", asked))
        processes |= stack.processes("Hook")
    assert [answer["allowProvisioning"] for answer in answers] == [True, False, True, False]
    assert len(processes) == 1


def test_threat_46_a_registry_that_hangs_is_a_no_within_three_and_a_half_seconds(
    stack: Stack, shared: Claim, device_id
):
    allowlist(stack, device_id)
    asked = question(stack, shared, Device(device_id))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stack.configure("Hook", AWS_ENDPOINT_URL_DYNAMODB=f"http://127.0.0.1:{silent.getsockname()[1]}")
        try:
            began = time.monotonic()
            assert stack.call("Hook", asked) == {"allowProvisioning": False}
            assert time.monotonic() - began < 4.5, "and a second for the local AWS"
        finally:
            stack.configure("Hook", AWS_ENDPOINT_URL_DYNAMODB=None)
    assert stack.item(device_id)["state"] == "registered"


# --- Trusted users ---


def test_a_trusted_user_sets_up_one_device_and_no_other(stack: Stack, device_id):
    mine, other = f"{device_id}-mine", f"{device_id}-other"
    for device in (mine, other):
        stack.cvm("device", "add", device, "--trusted-user")
    user = installer(stack, device_id)
    answer = checked(ask(stack, user, mine), "claim-answer")
    assert answer.status == 201, answer.body
    assert answer.json["deviceId"] == mine
    assert answer.json["endpoint"] == stack.broker
    assert answer.json["template"] == stack.outputs["FleetTemplateName"]
    assert answer.json["claimCertificateId"] == certificate_id(answer.json["certificatePem"])
    assert [record["user"] for record in stack.audit("claim", outcome="vouched", device=mine)] == [
        f"arn:aws:iam::000000000000:user/{device_id}"
    ]

    claim = Claim.of(answer.json)
    assert provision(stack, claim, other).error == "AccessDenied"
    claimed = provision(stack, claim, mine)
    assert claimed.error is None
    connect(stack, claimed)
    until(lambda: stack.used(mine), "a confirmation by the first connect")
    assert ask(stack, user, mine).status == 403, "it is set up"


def test_a_later_claim_ends_the_earlier_one(stack: Stack, device_id):
    stack.cvm("device", "add", device_id, "--trusted-user")
    user = installer(stack, device_id)
    first, second = (Claim.of(ask(stack, user, device_id).json) for _ in range(2))
    assert provision(stack, first, device_id).error == "AccessDenied"
    assert provision(stack, second, device_id).error is None


def test_a_shared_claim_is_no_trusted_user(stack: Stack, shared: Claim, device_id):
    stack.cvm("device", "add", device_id, "--trusted-user")
    assert provision(stack, shared, device_id).error == "AccessDenied"


def test_threat_01_a_trusted_user_does_not_learn_why(stack: Stack, shared: Claim, device_id):
    user = installer(stack, device_id)
    allowlist(stack, f"{device_id}-claim")
    stack.cvm("device", "add", f"{device_id}-disabled", "--trusted-user")
    stack.cvm("device", "disable", f"{device_id}-disabled", "--reason", "stolen")
    answers = [checked(ask(stack, user, f"{device_id}-{kind}")) for kind in ("unknown", "claim", "disabled")]
    assert [answer.status for answer in answers] == [403] * 3
    assert {answer.body for answer in answers} == {answers[0].body}


def test_a_trusted_user_has_a_quota(stack: Stack, device_id):
    user = installer(stack, device_id)
    devices = [f"{device_id}-{number}" for number in range(4)]
    for device in devices:
        stack.cvm("device", "add", device, "--trusted-user")
    answers = [ask(stack, user, device) for device in devices]
    assert [answer.status for answer in answers] == [201, 201, 201, 429], "the tests' stack allows three"
    assert checked(answers[3]).json["code"] == "quota-reached"
    assert int(answers[3].headers["retry-after"]) > 0
    assert ask(stack, installer(stack, f"{device_id}-another"), devices[3]).status == 201


@pytest.mark.parametrize("kind", ["unsigned", "no-permission", "forged", "bearer"])
def test_nobody_else_gets_a_claim(stack: Stack, device_id, kind):
    stack.cvm("device", "add", device_id, "--trusted-user")
    user = installer(stack, f"{device_id}-user", may_claim=kind != "no-permission")
    forged = Credentials(user.access_key, "x" * 40)
    answer = {
        "unsigned": lambda: ask(stack, None, device_id),
        "no-permission": lambda: ask(stack, user, device_id),
        "forged": lambda: ask(stack, forged, device_id),
        # The local API Gateway lets this one through, without saying who it is.
        "bearer": lambda: ask(stack, None, device_id, authorization="Bearer anything"),
    }[kind]()
    assert answer.status in (401, 403)
    assert stack.audit("claim", outcome="vouched", device=device_id) == []


def test_a_trusted_user_may_have_a_token_instead(stack: Stack, device_id):
    pool = UserPool(stack, device_id)
    other = Stack(
        stack.aws,
        stack.aws.deploy("cvm-jwt", JwtIssuer=pool.issuer, JwtAudience=pool.client, ReconcileSchedule="rate(1 day)"),
        stack.folder,
    )
    other.cvm("device", "add", device_id, "--trusted-user")
    token = pool.token("maria")
    assert ask(other, None, device_id).status == 401
    assert ask(other, None, device_id, authorization=f"Bearer {token[:-4]}AAAA").status == 401
    assert ask(other, installer(stack, device_id), device_id).status == 401
    answer = checked(ask(other, None, device_id, authorization=f"Bearer {token}"), "claim-answer")
    assert answer.status == 201, answer.body
    assert other.item(f"claim/{answer.json['claimCertificateId']}")
    stack.secrets.append(token.rpartition(".")[2])


# --- Helpers ---


class UserPool:
    """Users with tokens: the local AWS has Amazon Cognito, whose keys its API Gateway knows."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._cognito = stack.aws.client("cognito-idp")
        self._pool = self._cognito.create_user_pool(PoolName=name)["UserPool"]["Id"]
        app = {"UserPoolId": self._pool, "ClientName": "app", "ExplicitAuthFlows": ["ADMIN_NO_SRP_AUTH"]}
        self.client = self._cognito.create_user_pool_client(**app)["UserPoolClient"]["ClientId"]
        self.issuer = claims_of(self.token("anybody"))["iss"]

    def token(self, user: str) -> str:
        password = f"A1!{uuid.uuid4()}"
        self._cognito.admin_create_user(UserPoolId=self._pool, Username=user)
        self._cognito.admin_set_user_password(UserPoolId=self._pool, Username=user, Password=password, Permanent=True)
        signed_in = self._cognito.admin_initiate_auth(
            UserPoolId=self._pool,
            ClientId=self.client,
            AuthFlow="ADMIN_NO_SRP_AUTH",
            AuthParameters={"USERNAME": user, "PASSWORD": password},
        )
        return signed_in["AuthenticationResult"]["IdToken"]


def claims_of(token: str) -> dict:
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
