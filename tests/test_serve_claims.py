"""Claims of `cvm serve --platform aws`: operators are the trusted users, and the hook of a stack lets their devices in."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from claims import Claim, connect, provision
from server import Server
from stack import Answer, Stack, checked, secret_lines, until
from test_serve_aws import Aws, run


@dataclass
class Claims:
    """A server in front of a stack, where operators ask for claims."""

    stack: Stack
    server: Server

    def token(self, name: str, role: str) -> str:
        made = self.server.ask("POST", "/tokens", {"name": name, "role": role})
        assert made.status == 201, made.body
        return made.json["token"]

    def ask(self, device_id: str, token: str) -> Answer:
        answer = self.server.ask("POST", "/v1/claims", {"deviceId": device_id}, token=token)
        if answer.status == 201:
            self.stack.secrets += secret_lines(answer.json["privateKeyPem"])
            return checked(answer, "claim-answer")
        return checked(answer)


@pytest.fixture
def claims(stack: Stack, tmp_path: Path) -> Iterator[Claims]:
    aws, tables = Aws.of_stack(stack, tmp_path)
    wanted = ["--claim-template", stack.outputs["FleetTemplateName"], "--claims-per-user-per-day", "2"]
    server = aws.serve(tmp_path, *tables, *wanted)
    try:
        yield Claims(stack, server)
    finally:
        server.end(signal.SIGKILL)


def test_an_operator_vouches_for_a_device_which_provisions_itself(claims: Claims, device_id):
    stack, anna = claims.stack, claims.token(f"anna-{device_id}", "operator")
    for device in (device_id, f"{device_id}-other"):
        stack.cvm("device", "add", device, "--trusted-user")
    answer = claims.ask(device_id, anna)
    assert answer.status == 201, answer.body
    assert answer.json["endpoint"] == stack.broker
    made_out = stack.item(f"claim/{answer.json['claimCertificateId']}")
    assert (made_out["madeOutTo"], made_out["madeOutFor"]) == (f"anna-{device_id}", device_id)

    claim = Claim.of(answer.json)
    assert provision(stack, claim, f"{device_id}-other").error == "AccessDenied"
    claimed = provision(stack, claim, device_id)
    assert claimed.error is None
    connect(stack, claimed)
    until(lambda: stack.used(device_id), "a confirmation by the first connect")
    again = claims.ask(device_id, anna)
    assert (again.status, again.json["code"]) == (403, "refused"), "it is set up"


def test_a_claim_is_for_operators_alone(claims: Claims, device_id):
    claims.stack.cvm("device", "add", device_id, "--trusted-user")
    viewer = claims.ask(device_id, claims.token("vera", "viewer"))
    assert (viewer.status, viewer.json["code"]) == (403, "not-allowed")
    blank = claims.ask(device_id, claims.token("Anna Maria", "operator"))
    assert (blank.status, blank.json["code"]) == (403, "not-allowed")
    assert "another name" in blank.json["detail"]
    for nobody in ("", "cvm_0_1"):
        refused = claims.ask(device_id, nobody)
        assert (refused.status, refused.json["code"]) == (401, "unauthenticated")
        assert refused.headers["www-authenticate"] == "Bearer"
    assert claims.ask(device_id, claims.server.token).status == 201, "an admin is an operator"


def test_an_operator_has_a_quota_whichever_token_it_is(claims: Claims, device_id):
    claims.stack.cvm("device", "add", device_id, "--trusted-user")
    tokens = [claims.token(f"bert-{device_id}", "operator") for _ in range(3)]
    answers = [claims.ask(device_id, token) for token in tokens]
    assert [answer.status for answer in answers] == [201, 201, 429]
    assert answers[2].json["code"] == "quota-reached" and int(answers[2].headers["retry-after"]) > 0
    assert claims.ask(device_id, claims.token(f"carla-{device_id}", "operator")).status == 201


def test_without_a_template_there_are_no_claims(stack: Stack, tmp_path):
    aws, tables = Aws.of_stack(stack, tmp_path)
    server = aws.serve(tmp_path, *tables)
    try:
        nothing = server.ask("POST", "/v1/claims", {"deviceId": "sn-1"})
        assert (nothing.status, nothing.json["code"]) == (404, "not-found")
        assert "--claim-template" in nothing.json["detail"]
    finally:
        server.end(signal.SIGKILL)


def test_a_template_whose_hook_nobody_asks_is_refused_at_the_start(stack: Stack, tmp_path):
    iot = stack.aws.client("iot")
    ours = iot.describe_provisioning_template(templateName=stack.outputs["FleetTemplateName"])
    kept = {key: ours[key] for key in ("templateBody", "provisioningRoleArn")}
    iot.create_provisioning_template(templateName="hookless", enabled=True, **kept)
    aws, tables = Aws.of_stack(stack, tmp_path)
    root = replace(aws, environment=stack.aws.environment)
    hookless = run(root, tmp_path, *aws.options, *tables, "--claim-template", "hookless")
    assert hookless.returncode == 1 and "hookless has no pre-provisioning hook" in hookless.stderr, hookless.stderr
    missing = run(root, tmp_path, *aws.options, *tables, "--claim-template", "nobody")
    assert missing.returncode == 1 and "template nobody cannot be looked at" in missing.stderr, missing.stderr


def test_with_a_database_of_its_own_a_template_is_refused(stack: Stack, tmp_path):
    aws, _ = Aws.of_stack(stack, tmp_path)
    refused = run(aws, tmp_path, *aws.options, "--claim-template", stack.outputs["FleetTemplateName"])
    assert refused.returncode == 2 and "the hook of a stack" in refused.stderr, refused.stderr
