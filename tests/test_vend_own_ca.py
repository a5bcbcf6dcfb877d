"""The vending API where a CA of one's own signs: its key in AWS KMS, its certificates registered with AWS IoT."""

import base64
import json
import urllib.request

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from conftest import deployed
from stack import Device, Stack, send
from test_template import ACTIONS, COMMON, ISSUE, LOGS, VARIABLES, allowed
from test_vend import principals, run


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with deployed(tmp_path_factory.mktemp("own-ca"), CertificateAuthority="own") as stack:
        yield stack


def authority(stack: Stack) -> x509.Certificate:
    return x509.load_pem_x509_certificate((stack.folder / "ca" / "ca.pem").read_bytes())


def test_a_device_gets_a_certificate_of_the_ca_and_connects_with_it(stack: Stack, device_id):
    device, answer = stack.provisioned(device_id)
    certificate = x509.load_pem_x509_certificate(answer["certificatePem"].encode())
    certificate.verify_directly_issued_by(authority(stack))
    assert certificate.public_key() == device.key.public_key()
    assert certificate.subject.rfc4514_string() == f"CN={device_id}"
    assert answer["certificateId"] == certificate.fingerprint(SHA256()).hex()
    assert answer["caPem"].strip() == stack.aws.root_ca().strip()
    described = stack.aws.client("iot").describe_certificate(certificateId=answer["certificateId"])
    assert described["certificateDescription"]["certificateMode"] == "SNI_ONLY"
    assert described["certificateDescription"]["status"] == "ACTIVE"
    topic = f"devices/{device_id}/telemetry"
    with stack.mqtt(device, answer["certificatePem"]).connect(answer["endpoint"]) as connection:
        connection.subscribe(topic)
        connection.publish(topic, "hello")
        assert connection.receive() == (topic, b"hello")
    again = stack.vend(device)
    assert (again.status, again.json) == (200, answer)


def test_est_names_the_ca_too(stack: Stack, device_id, tmp_path):
    device = stack.device(device_id)
    est = stack.url.removesuffix("/v1/certificates") + "/.well-known/est"
    basic = base64.b64encode(f"{device_id}:{device.token}".encode()).decode()
    request = base64.b64encode(device.csr().public_bytes(Encoding.DER))
    headers = {"content-type": "application/pkcs10", "authorization": f"Basic {basic}"}
    enrolled = send(f"{est}/simpleenroll", request, headers)
    assert enrolled.status == 200, enrolled.body
    (tmp_path / "enrolled.p7").write_bytes(base64.b64decode(enrolled.body))
    with urllib.request.urlopen(f"{est}/cacerts", timeout=30) as answer:
        (tmp_path / "trusted.p7").write_bytes(base64.b64decode(answer.read()))
    for name in ("enrolled", "trusted"):
        pem = run("openssl", "pkcs7", "-inform", "DER", "-in", tmp_path / f"{name}.p7", "-print_certs")
        (tmp_path / f"{name}.pem").write_text(pem)
    run("openssl", "verify", "-partial_chain", "-CAfile", tmp_path / "trusted.pem", tmp_path / "enrolled.pem")


@pytest.mark.parametrize("same_key", [True, False])
def test_threat_33_what_an_attempt_left_that_aws_iot_signed_for_is_retired(stack: Stack, device_id, same_key):
    """As when the CA was changed in between."""
    device = stack.device(device_id)
    left = stack.leave_dead_attempt(device, device if same_key else Device(device_id, device.token))
    answer = stack.vend(device)
    assert answer.status == 201 and answer.json["certificateId"] != left
    assert principals(stack, device_id) == [answer.json["certificateId"]]


def test_threat_33_a_certificate_that_is_recorded_is_registered_whatever_became_of_the_attempt(stack: Stack, device_id):
    """An attempt that may sign and not register ends at that; the next one goes on with what it has signed."""
    device = stack.device(device_id)
    iam, role = stack.aws.client("iam"), role_of_vend(stack)
    (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    before = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    without = [it for it in before["Statement"] if it["Action"] != "iot:RegisterCertificateWithoutCA"]
    assert len(without) == len(before["Statement"]) - 1
    iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=document(before, without))
    try:
        assert stack.vend(device).status == 500
    finally:
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=document(before, before["Statement"]))
    recorded = stack.item(device_id)["leftover"]
    with pytest.raises(stack.aws.client("iot").exceptions.ResourceNotFoundException):
        stack.aws.client("iot").describe_certificate(certificateId=recorded["certificateId"])
    answer = stack.vend(device)
    assert (answer.status, answer.json["certificateId"]) == (201, recorded["certificateId"])
    assert principals(stack, device_id) == [recorded["certificateId"]]


def test_threat_51_the_role_signs_and_registers_and_has_nothing_issued(stack: Stack):
    vend = ACTIONS["Vend"] - {ISSUE} | {"iot:RegisterCertificateWithoutCA", "kms:Sign"}
    assert {action for action, _ in allowed(stack, "Vend")} == vend | LOGS
    (key,) = [resource for action, resource in allowed(stack, "Vend") if action == "kms:Sign"]
    assert key.startswith("arn:aws:kms:") and "*" not in key
    environment = stack.aws.function_environment(stack.outputs["VendFunctionName"])
    own_ca = {"CA_CERTIFICATE_PEM", "CA_KEY_ARN", "CERTIFICATE_ARN_PREFIX", "CERTIFICATE_DAYS"}
    assert set(environment) == VARIABLES["Vend"] | own_ca | COMMON


def role_of_vend(stack: Stack) -> str:
    role = stack.aws.client("cloudformation").describe_stack_resource(StackName="cvm", LogicalResourceId="VendRole")
    return role["StackResourceDetail"]["PhysicalResourceId"]


def document(policy: dict, statements: list[dict]) -> str:
    return json.dumps(policy | {"Statement": statements})
