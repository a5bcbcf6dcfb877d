"""The vending API as it is deployed: the template, the function's own binary, IAM and AWS IoT policies enforced."""

import base64
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from mqtt_device import CA, CERTIFICATE, PRIVATE_KEY, Refused
from stack import Device, Stack, secret_lines, send


# --- What an allowlisted device gets ---


def test_an_allowlisted_device_gets_a_certificate_for_its_own_key(stack: Stack, device_id):
    device = stack.device(device_id)
    answer = stack.vend(device)
    assert answer.status == 201
    certificate = x509.load_pem_x509_certificate(answer.json["certificatePem"].encode())
    assert certificate.public_key() == device.key.public_key()
    assert answer.json["deviceId"] == answer.json["thingName"] == device_id
    assert answer.json["endpoint"] == stack.broker
    assert answer.json["caPem"].strip() == stack.aws.root_ca().strip()
    assert answer.json["deviceConfiguration"] == {"topicPrefix": f"devices/{device_id}"}
    assert answer.json["notAfter"] == certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_it_connects_and_publishes_under_its_own_name(stack: Stack, device_id):
    device, answer = stack.provisioned(device_id)
    topic = f"{answer['deviceConfiguration']['topicPrefix']}/telemetry"
    with stack.mqtt(device, answer["certificatePem"]).connect(answer["endpoint"]) as connection:
        connection.subscribe(topic)
        connection.publish(topic, "hello")
        assert connection.receive() == (topic, b"hello")


def test_the_cvm_command_plays_a_device(stack: Stack, device_id):
    device = stack.device(device_id)
    folder = stack.folder / f"{device_id}-files"
    folder.mkdir()
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(device.token)
    token = str(folder / "token")
    vend = ["vend", "--url", stack.url, "--device", device_id, "--token-file", token, "--out", str(folder)]
    first, again = stack.cvm(*vend), stack.cvm(*vend)
    assert first["certificateId"] == again["certificateId"], "asked again, it kept its key"
    assert (folder / CERTIFICATE).read_text() == first["certificatePem"]
    assert (folder / CA).exists()
    assert (folder / PRIVATE_KEY).stat().st_mode & 0o777 == 0o600
    stack.secrets += secret_lines((folder / PRIVATE_KEY).read_text())


def test_openssl_and_curl_alone_are_a_client(stack: Stack, device_id, tmp_path):
    key, csr, thumbprint = tmp_path / "key.pem", tmp_path / "request.der", tmp_path / "public.der"
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", f"/CN={device_id}", "-keyout", key, "-outform", "DER", "-out", csr)  # fmt: skip
    run("openssl", "pkey", "-in", key, "-pubout", "-outform", "DER", "-out", thumbprint)
    digest = run("openssl", "dgst", "-sha256", "-r", thumbprint).split()[0]
    stack.cvm("device", "add", device_id, "--public-key", digest)
    stack.secrets += secret_lines(key.read_text())

    answer = run("curl", "-sS", "--fail-with-body", stack.url, "--data-binary", f"@{csr}",
                 "-H", "Content-Type: application/pkcs10", "-H", "Accept: application/x-pem-file")  # fmt: skip
    (tmp_path / "certificate.pem").write_text(answer)
    public = run("openssl", "pkey", "-in", key, "-pubout")
    assert run("openssl", "x509", "-in", tmp_path / "certificate.pem", "-noout", "-pubkey") == public


@pytest.mark.parametrize("encode", [bytes, base64.b64encode, base64.encodebytes], ids=["der", "base64", "wrapped"])
def test_pkcs10_may_be_der_or_base64(stack: Stack, device_id, encode):
    device = Device(device_id)
    stack.cvm("device", "add", device_id, "--public-key", device.thumbprint)
    body = encode(device.csr().public_bytes(Encoding.DER))
    assert stack.post(body, content_type="application/pkcs10").status == 201


def test_est_is_another_door_to_the_same_decision(stack: Stack, device_id, tmp_path):
    device = stack.device(device_id)
    est = stack.url.removesuffix("/v1/certificates") + "/.well-known/est"
    request = base64.b64encode(device.csr().public_bytes(Encoding.DER))
    basic = base64.b64encode(f"{device_id}:{device.token}".encode()).decode()
    stack.secrets.append(basic)
    headers = {"content-type": "application/pkcs10", "authorization": f"Basic {basic}"}
    enrolled = send(f"{est}/simpleenroll", request, headers)
    assert enrolled.status == 200, enrolled.body
    assert send(f"{est}/simpleenroll", request, headers).body == enrolled.body, "the answer was lost"
    (tmp_path / "enrolled.p7").write_bytes(base64.b64decode(enrolled.body))
    pem = run("openssl", "pkcs7", "-inform", "DER", "-in", tmp_path / "enrolled.p7", "-print_certs")
    certificate = x509.load_pem_x509_certificate(pem[pem.index("-----BEGIN") :].encode())
    assert certificate.public_key() == device.key.public_key()
    assert stack.vend(device).json["certificateId"] == certificate.fingerprint(SHA256()).hex()

    asked = send(f"{est}/simpleenroll", request, {"content-type": "application/pkcs10"})
    assert asked.status == 401 and asked.headers["www-authenticate"].startswith("Basic")
    wrong = base64.b64encode(f"{device_id}:{'x' * 40}".encode()).decode()
    assert send(f"{est}/simpleenroll", request, headers | {"authorization": f"Basic {wrong}"}).status == 403


def test_a_lost_answer_is_given_again(stack: Stack, device_id):
    device = stack.device(device_id)
    first, again = stack.vend(device), stack.vend(device)
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json


def test_many_callers_at_once_get_one_certificate(stack: Stack, device_id):
    device = stack.device(device_id)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: stack.vend(device), range(8)))
    told_to_wait = [answer for answer in answers if answer.status in (409, 503)]
    assert all("retry-after" in answer.headers for answer in told_to_wait)
    served = [answer for answer in answers if answer not in told_to_wait]
    assert {answer.status for answer in served} <= {200, 201}
    final = stack.vend(device)
    assert final.status in (200, 201)
    assert {answer.json["certificateId"] for answer in served} <= {final.json["certificateId"]}
    assert principals(stack, device_id) == [final.json["certificateId"]]


def test_a_device_that_cannot_make_a_key_gets_one_once(stack: Stack, device_id):
    token = stack.cvm("device", "add", device_id, "--key-origin", "service")["token"]
    ask = {"body": json.dumps({"deviceId": device_id}).encode(), "content_type": "application/json"}
    first = stack.post(**ask, authorization=f"Bearer {token}")
    again = stack.post(**ask, authorization=f"Bearer {token}")
    stack.secrets += [token, *secret_lines(first.json["privateKeyPem"]), *secret_lines(again.json["privateKeyPem"])]
    assert (first.status, again.status) == (201, 201)
    assert first.json["privateKeyPem"] != again.json["privateKeyPem"]
    assert principals(stack, device_id) == [again.json["certificateId"]], "the unused certificate is retired"
    device = Device(device_id, token, load_pem_private_key(again.json["privateKeyPem"].encode(), None))
    with stack.mqtt(device, again.json["certificatePem"]).connect(again.json["endpoint"]) as connection:
        connection.publish(f"devices/{device_id}/telemetry", "hello")


def test_threat_33_what_a_dead_attempt_left_is_taken_up_again(stack: Stack, device_id):
    device = stack.device(device_id)
    left = stack.leave_dead_attempt(device, device)
    answer = stack.vend(device)
    assert (answer.status, answer.json["certificateId"]) == (201, left)
    assert principals(stack, device_id) == [left]


def test_threat_33_what_a_dead_attempt_left_for_another_key_is_retired(stack: Stack, device_id):
    device = stack.device(device_id)
    left = stack.leave_dead_attempt(device, Device(device_id, device.token))
    answer = stack.vend(device)
    assert answer.status == 201
    assert principals(stack, device_id) == [answer.json["certificateId"]]
    iot = stack.aws.client("iot")
    try:
        assert iot.describe_certificate(certificateId=left)["certificateDescription"]["status"] == "INACTIVE"
    except iot.exceptions.ResourceNotFoundException:
        pass


def test_threat_16_a_csr_that_asks_for_more_gets_no_more(stack: Stack, device_id):
    device = stack.device(device_id)
    greedy = device.csr(
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("other.example")]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    )
    body = json.dumps({"deviceId": device_id, "csr": greedy.public_bytes(Encoding.PEM).decode()}).encode()
    answer = stack.post(body, content_type="application/json", authorization=f"Bearer {device.token}")
    assert answer.status in (201, 400)
    if answer.status == 201:
        extensions = x509.load_pem_x509_certificate(answer.json["certificatePem"].encode()).extensions
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not {"subjectAltName", "extendedKeyUsage"} & {extension.oid._name for extension in extensions}


# --- What it may not do ---


def test_it_may_not_publish_or_listen_under_another_name(stack: Stack, device_id):
    device, answer = stack.provisioned(device_id)
    other, others = stack.provisioned(f"{device_id}-other")
    with (
        stack.mqtt(other, others["certificatePem"]).connect(stack.broker) as victim,
        stack.mqtt(device, answer["certificatePem"]).connect(stack.broker) as connection,
    ):
        victim.subscribe(f"devices/{other.id}/#")
        with pytest.raises(Refused, match="Not authorized"):
            connection.publish(f"devices/{other.id}/telemetry", "forged")
        with pytest.raises(Refused, match="Not authorized"):
            connection.subscribe(f"devices/{other.id}/#")
        victim.publish(f"devices/{other.id}/telemetry", "real")
        assert victim.receive() == (f"devices/{other.id}/telemetry", b"real")


def test_it_may_not_connect_as_another_device(stack: Stack, device_id):
    device, answer = stack.provisioned(device_id)
    other, _ = stack.provisioned(f"{device_id}-other")
    for client_id in (other.id, "anyone"):
        with pytest.raises(Refused, match="Not authorized"):
            stack.mqtt(device, answer["certificatePem"], client_id).connect(stack.broker)


def test_a_certificate_without_its_thing_is_powerless(stack: Stack, device_id):
    device = Device(device_id)
    iot = stack.aws.client("iot")
    made = iot.create_certificate_from_csr(certificateSigningRequest=device.csr_pem, setAsActive=True)
    iot.create_thing(thingName=device_id)
    iot.attach_policy(policyName=stack.outputs["DevicePolicyName"], target=made["certificateArn"])
    with pytest.raises(Refused, match="Not authorized"):
        stack.mqtt(device, made["certificatePem"]).connect(stack.broker)
    iot.attach_thing_principal(thingName=device_id, principal=made["certificateArn"])
    stack.mqtt(device, made["certificatePem"]).connect(stack.broker).close()


# --- Who gets nothing ---


def test_threat_01_all_refusals_look_the_same(stack: Stack, device_id):
    unknown = Device(f"{device_id}-unknown", "A" * 43)
    wrong_token = stack.device(f"{device_id}-wrong")
    wrong_token.token = "A" * 43
    no_token = stack.device(f"{device_id}-none")
    no_token.token = ""
    disabled = stack.device(f"{device_id}-disabled")
    stack.cvm("device", "disable", disabled.id, "--reason", "stolen")
    original, _ = stack.provisioned(f"{device_id}-cloned")
    clone = Device(original.id, original.token)

    answers = [stack.vend(device) for device in (unknown, wrong_token, no_token, disabled, clone)]
    assert [answer.status for answer in answers] == [403] * 5
    assert {answer.body for answer in answers} == {answers[0].body}
    assert answers[0].json["code"] == "refused"
    for device in (wrong_token, no_token, disabled):
        assert principals(stack, device.id) == []


def test_threat_04_a_clone_is_quarantined_and_the_device_keeps_working(stack: Stack, device_id):
    device, answer = stack.provisioned(device_id)
    assert stack.vend(Device(device_id, device.token)).status == 403
    assert "quarantined" in json.dumps(stack.cvm("device", "show", device_id))
    assert principals(stack, device_id) == [answer["certificateId"]]
    stack.mqtt(device, answer["certificatePem"]).connect(stack.broker).close()


def test_an_enabled_device_is_served_again(stack: Stack, device_id):
    device = stack.device(device_id)
    stack.cvm("device", "disable", device_id, "--reason", "stolen")
    assert stack.vend(device).status == 403
    stack.cvm("device", "enable", device_id)
    assert stack.vend(device).status == 201


def test_threat_48_yes_no_yes_no_in_one_warm_process(stack: Stack, device_id):
    device, _ = stack.provisioned(device_id)
    stranger = Device(f"{device_id}-stranger", device.token)
    stack.configure("Vend")
    served = [(stack.vend(asker).status, stack.processes("Vend")) for asker in (device, stranger, device, stranger)]
    assert [status for status, _ in served] == [200, 403, 200, 403]
    processes = {process for _, running in served for process in running}
    assert len(processes) == 1


# --- What the stack allows ---


def test_threat_50_the_device_policy_is_narrow(stack: Stack):
    policy = stack.aws.client("iot").get_policy(policyName=stack.outputs["DevicePolicyName"])["policyDocument"]
    assert len("".join(policy.split())) <= 2048
    for statement in json.loads(policy)["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action]
        assert "${iot:Connection.Thing.ThingName}" in statement["Resource"]


# --- Last, over the logs of all the above ---


def test_threat_61_no_secret_is_in_any_log(stack: Stack, device_id):
    device, _ = stack.provisioned(device_id)
    wrong = "MARKED-SECRET-" + "x" * 29
    assert stack.vend(device, token=wrong).status in (200, 403)
    assert stack.post(b'{"deviceId":', content_type="application/json", authorization=f"Bearer {wrong}").status == 400
    secrets = [*stack.secrets, wrong, *secret_lines(device.csr_pem)]
    logs = stack.logs()
    assert device_id in logs, "the audit records are there"
    assert [secret for secret in secrets if secret in logs] == []


def principals(stack: Stack, thing: str) -> list[str]:
    """The ids of the certificates that are attached to the thing and carry the device policy."""
    iot = stack.aws.client("iot")
    try:
        attached = iot.list_thing_principals(thingName=thing)["principals"]
    except iot.exceptions.ResourceNotFoundException:
        return []
    targets = iot.list_targets_for_policy(policyName=stack.outputs["DevicePolicyName"], pageSize=250)["targets"]
    return [arn.rpartition("/")[2] for arn in attached if arn in targets]


def run(*command) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout
