"""What template.yaml makes of the functions: their roles, their environments, their queues."""

import json
import re

import pytest

from local_aws import ROOT
from stack import Stack

READ_AND_WRITE = {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}
ISSUE = "iot:CreateCertificateFromCsr"
THINGS = {"iot:CreateThing", "iot:DescribeThing", "iot:UpdateThing", "iot:AddThingToThingGroup"}
RETIRE = {"iot:DescribeCertificate", "iot:UpdateCertificate", "iot:DeleteCertificate", "iot:DetachThingPrincipal"}
LISTS = {"iot:ListAttachedPolicies", "iot:ListCertificates", "iot:ListPrincipalThings", "iot:ListThings"}
QUEUE = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
STREAM = {"dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"}
LOGS = {"logs:CreateLogStream", "logs:PutLogEvents"}

# The calls that each function's code makes, and no more.
ACTIONS = {
    "Vend": READ_AND_WRITE | {ISSUE}
    | {"iot:AttachPolicy", "iot:AttachThingPrincipal", "iot:ListThingPrincipals"}
    | THINGS
    | RETIRE,
    "Jitr": READ_AND_WRITE
    | {"iot:DescribeCertificate", "iot:UpdateCertificate", "iot:AttachPolicy", "iot:AttachThingPrincipal"}
    | {"iot:ListThingPrincipals"}
    | THINGS
    | QUEUE,
    "Hook": READ_AND_WRITE | {"dynamodb:BatchGetItem"},
    "CertificateProvider": {"kms:Sign"},
    "Claim": READ_AND_WRITE | {"iot:CreateProvisioningClaim"},
    "Confirm": READ_AND_WRITE
    | {"dynamodb:Query"}
    | {"iot:DeleteConnection", "iot:ListPrincipalThings", "iot:ListThingPrincipals"}
    | RETIRE
    | QUEUE,
    "Jobs": STREAM
    | READ_AND_WRITE
    | {"dynamodb:DeleteItem", "dynamodb:Scan", "sqs:SendMessage"}
    | {"s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject"},
    "Lifecycle": STREAM
    | {"dynamodb:BatchWriteItem", "dynamodb:DeleteItem", "dynamodb:GetItem", "events:PutEvents", "sqs:SendMessage"}
    | {"iot:DeleteConnection", "iot:DeleteThing", "iot:ListPrincipalThings", "iot:ListThingPrincipals"}
    | RETIRE,
    "Reconcile": READ_AND_WRITE
    | {"dynamodb:DeleteItem", "dynamodb:Query", "dynamodb:Scan"}
    | {"iot:DeleteConnection", "iot:DeleteThing", "iot:ListThingPrincipals"}
    | RETIRE
    | LISTS,
    "Registry": READ_AND_WRITE | {"dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:Query", "dynamodb:Scan"},
}
# What takes no resource, or not always; and what the local AWS checks on "*" (see local_aws.py).
ON_EVERYTHING = {ISSUE, *LISTS, "dynamodb:ListStreams", "iot:AttachPolicy"}

COMMON = {"DEVICE_TABLE", "RUST_LOG"}
VARIABLES = {
    "Vend": {"CSR_DEVICE_ID_FROM", "IOT_ENDPOINT", "PROVISIONING_TEMPLATE", "REFUSED_KEYS", "ROOT_CA_PEM"},
    "Jitr": {"DEVICE_ID_FROM", "DEVICE_ID_PATTERN", "PROVISIONING_TEMPLATE", "REFUSED_CERTIFICATES", "REFUSED_KEYS"},
    "Hook": {"CLIENT_ID", "CSR_DEVICE_ID_FROM", "FLEET_TEMPLATE", "PROVISIONING_TEMPLATE", "REFUSED_KEYS"},
    "CertificateProvider": {"CA_CERTIFICATE_PEM", "CA_KEY_ARN", "CERTIFICATE_DAYS", "REFUSED_KEYS"}
    | {"CLIENT_ID", "CSR_DEVICE_ID_FROM"},
    "Claim": {"CLAIMS_PER_USER_PER_DAY", "FLEET_TEMPLATE", "IOT_ENDPOINT", "ROOT_CA_PEM"},
    "Confirm": {"IOT_ENDPOINT"},
    "Jobs": {"JOB_TABLE"},
    "Lifecycle": {"AUDIT_RETENTION_DAYS", "AUDIT_TABLE", "EVENT_BUS", "IOT_ENDPOINT"},
    "Reconcile": {"IOT_ENDPOINT"},
    "Registry": {"AUDIT_TABLE", "JOB_BUCKET", "JOB_TABLE"},
}


@pytest.mark.parametrize("function", ACTIONS)
def test_threat_51_a_role_allows_the_calls_of_its_function_and_no_others(stack: Stack, function):
    assert {action for action, _ in allowed(stack, function)} == ACTIONS[function] | LOGS


@pytest.mark.parametrize("function", ACTIONS)
def test_threat_51_a_role_reaches_no_more_than_it_has_to(stack: Stack, function):
    describe = stack.aws.client("dynamodb").describe_table
    jobs = stack.aws.function_environment(stack.outputs["JobsFunctionName"])["JOB_TABLE"]
    names = [stack.outputs["TableName"], stack.outputs["AuditTableName"], jobs]
    tables = [describe(TableName=name)["Table"]["TableArn"] for name in names]
    bucket = f"arn:aws:s3:::{stack.outputs['JobBucketName']}"
    for action, resource in allowed(stack, function):
        if action in ON_EVERYTHING:
            continue
        if action.startswith("dynamodb:"):
            parts = [table for table in tables if resource.startswith((f"{table}/index/", f"{table}/stream/"))]
            assert resource in tables or parts, action
        elif action.startswith("s3:"):
            assert resource in (bucket, f"{bucket}/*"), action
        else:
            assert resource.count(":") >= 5, f"{action} on {resource}"


@pytest.mark.parametrize("function", VARIABLES)
def test_a_function_is_told_what_it_reads(stack: Stack, function):
    environment = stack.aws.function_environment(stack.outputs[f"{function}FunctionName"])
    assert set(environment) == VARIABLES[function] | COMMON


def test_aws_iot_and_the_functions_have_the_same_provisioning_template(stack: Stack):
    name = stack.outputs["FleetTemplateName"]
    template = stack.aws.client("iot").describe_provisioning_template(templateName=name)
    for function in ("Vend", "Jitr", "Hook", "Claim"):
        environment = stack.aws.function_environment(stack.outputs[f"{function}FunctionName"])
        body = environment.get("PROVISIONING_TEMPLATE", template["templateBody"])
        assert json.loads(body) == json.loads(template["templateBody"])
        assert environment.get("FLEET_TEMPLATE", name) == name


@pytest.mark.parametrize(("function", "queue"), [("Jitr", "JitrQueue"), ("Confirm", "ConnectedQueue")])
def test_a_message_is_not_delivered_again_while_it_is_worked_on(stack: Stack, function, queue):
    client = stack.aws.client("sqs")
    url = stack.outputs[f"{queue}Url"]
    attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    name = stack.outputs[f"{function}FunctionName"]
    configuration = stack.aws.client("lambda").get_function_configuration(FunctionName=name)
    assert int(attributes["VisibilityTimeout"]) >= configuration["Timeout"]
    assert stack.outputs["DeadLetterQueueUrl"].rpartition("/")[2] in attributes["RedrivePolicy"]
    mappings = stack.aws.client("lambda").list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    assert [mapping["FunctionResponseTypes"] for mapping in mappings] == [["ReportBatchItemFailures"]]
    assert [mapping["ScalingConfig"] for mapping in mappings] == [{"MaximumConcurrency": 2}]


def resources(kind: str) -> dict[str, str]:
    """The text of each resource of this type in the template, by its name."""
    found = re.findall(r"^  (\w+):\n    Type: AWS::(\S+)\n((?:    .*\n|\n)*)", (ROOT / "template.yaml").read_text(), re.M)
    return {name: text for name, type_, text in found if type_ == kind}


@pytest.mark.parametrize("function", ACTIONS)
def test_each_function_has_alarms_for_errors_and_throttles(function):
    alarms = resources("CloudWatch::Alarm")
    for name in (f"{function}ErrorAlarm", f"{function}ThrottleAlarm"):
        assert f"!Ref {function}Function" in alarms[name]


@pytest.mark.parametrize("function", ["Vend", "Jitr", "Hook", "Confirm"])
def test_threat_04_a_quarantine_raises_the_alarm_in_each_function_that_quarantines(function):
    assert f"!Ref {function}LogGroup" in resources("Logs::MetricFilter")[f"{function}QuarantinedMetric"]


def test_the_table_forgets_counters_of_a_day():
    """As the template says it: the local AWS does not do it at a deployment."""
    expiry = re.search(r"TimeToLiveSpecification:.*\n +AttributeName: (\w+)\n", (ROOT / "template.yaml").read_text())
    code = (ROOT / "crates" / "aws" / "src" / "claims.rs").read_text()
    assert expiry and f"SET {expiry[1]} = :end" in code


def test_threat_47_only_aws_iot_for_this_template_may_call_the_hook(stack: Stack):
    policy = stack.aws.client("lambda").get_policy(FunctionName=stack.outputs["HookFunctionName"])["Policy"]
    (statement,) = json.loads(policy)["Statement"]
    assert statement["Principal"] == {"Service": "iot.amazonaws.com"}
    condition = json.dumps(statement["Condition"])
    assert f"provisioningtemplate/{stack.outputs['FleetTemplateName']}" in condition
    assert "000000000000" in condition and "SourceAccount" in condition


def allowed(stack: Stack, function: str) -> list[tuple[str, str]]:
    """Each action with each resource that the function's role allows it on."""
    cloudformation = stack.aws.client("cloudformation")
    role = cloudformation.describe_stack_resource(StackName="cvm", LogicalResourceId=f"{function}Role")
    name = role["StackResourceDetail"]["PhysicalResourceId"]
    iam = stack.aws.client("iam")
    (policy,) = iam.list_role_policies(RoleName=name)["PolicyNames"]
    document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
    return [
        (action, resource)
        for statement in document["Statement"]
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]


def as_list(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]
