"""What `measure.py` asks each function: a question that can be put as often as one likes, and the table behind it."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from local_aws import ROOT, LocalAws

TABLE = "measured"
JOB_TABLE = "measured-jobs"
FLEET_TEMPLATE = "cvm-fleet"  # As the sample events of the hook have it.
TEMPLATE = {
    "Parameters": {"SerialNumber": {"Type": "String"}},
    "Resources": {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}}},
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "measured"}},
    },
}
# Functions without a case, and why.
NOT_MEASURED = {"certificate-provider": "it signs with a CA in AWS KMS, whose answer is most of the time"}
# What any of the functions reads; to the others it is nothing.
ENVIRONMENT = {
    "AUDIT_RETENTION_DAYS": "1",
    "AUDIT_TABLE": "measured-audit",
    "CLAIMS_PER_USER_PER_DAY": "100",
    "DEVICE_TABLE": TABLE,
    "EVENT_BUS": "default",
    "FLEET_TEMPLATE": FLEET_TEMPLATE,
    "IOT_ENDPOINT": "localhost:8883",
    "JOB_BUCKET": "measured-jobs",
    "JOB_TABLE": JOB_TABLE,
    "PROVISIONING_TEMPLATE": json.dumps(TEMPLATE),
    "RUST_LOG": "info",
}


@dataclass(frozen=True)
class Case:
    """`answer` is what the answer has to have in it; `has_peer` is whether `measure_peer.py` does the same in Python."""

    calls: str
    questions: Iterator[dict]
    answer: dict
    has_peer: bool = False


def cases(aws: LocalAws, most: int) -> dict[str, Case]:
    """The cases by the names of the functions; those that use something up can be asked `most` times."""
    make_tables(aws)
    registered = sample("pre-provisioning-hook", "keys")
    register(aws, registered["claimCertificateId"], most)
    same = itertools.repeat
    return {
        "vend": Case(
            "GetItem, UpdateItem", same(sample("vend", "unknown-device")), {"statusCode": 403}, has_peer=True
        ),
        "pre-provisioning-hook": Case(
            "BatchGetItem, TransactWriteItems",
            (of_device(registered, number) for number in range(most)),
            {"allowProvisioning": True},
            has_peer=True,
        ),
        "claim": Case("GetItem", same(sample("claim", "unknown-device")), {"statusCode": 403}),
        "jitr": Case("DescribeCertificate", same(sample("jitr", "registered")), {"batchItemFailures": []}),
        "confirm": Case("Query, GetItem", same(sample("confirm", "connected")), {"batchItemFailures": []}),
        "jobs": Case("GetItem", same(sample("jobs", "forgotten")), {"batchItemFailures": []}),
        "lifecycle": Case("none", same(sample("lifecycle", "no-device")), {"batchItemFailures": []}),
        "registry": Case("GetItem", same(sample("registry", "unknown-device")), {"statusCode": 404}),
        "reconcile": Case(
            "10, with nothing to settle", same(sample("reconcile", "schedule")), {"removed": 0, "released": 0}
        ),
    }


def sample(function: str, name: str) -> dict:
    return json.loads((ROOT / "events" / function / f"{name}.json").read_text())


def of_device(question: dict, number: int) -> dict:
    """The same question about another device and its key: each can be reserved once."""
    device = f"measured-{number}"
    certificate = self_signed(device)
    return question | {
        "clientId": device,
        "parameters": {"SerialNumber": device},
        "certificateId": certificate.fingerprint(hashes.SHA256()).hex(),
        "certificatePem": certificate.public_bytes(Encoding.PEM).decode(),
    }


def self_signed(name: str) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


def make_tables(aws: LocalAws) -> None:
    """The device registry and the table of jobs as template.yaml has them."""
    aws.client("dynamodb").create_table(
        TableName=JOB_TABLE,
        KeySchema=[{"AttributeName": "jobId", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "jobId", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    keys = {"deviceId": "S", "certificateId": "S", "unsettledSince": "N"}
    indexes = {"certificates": "certificateId", "unsettled": "unsettledSince"}
    aws.client("dynamodb").create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "deviceId", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in keys.items()],
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
            for index, key in indexes.items()
        ],
        BillingMode="PAY_PER_REQUEST",
    )


def register(aws: LocalAws, claim: str, devices: int) -> None:
    """Puts the claim and the devices into the table, as `cvm claim add` and `cvm device add --claim` do."""
    now = {"createdAt": {"N": "1767225600"}, "updatedAt": {"N": "1767225600"}}
    items = [{"deviceId": {"S": f"claim/{claim}"}, "claimCertificate": {"S": claim}, "status": {"S": "enabled"}, **now}]
    for number in range(devices):
        device = {"deviceId": f"measured-{number}", "generation": "0" * 32, "status": "enabled"}
        device |= {"attestation": "claim", "keyOrigin": "device", "state": "registered"}
        items.append({name: {"S": value} for name, value in device.items()} | {"version": {"N": "1"}} | now)
    for start in range(0, len(items), 25):
        batch = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
        aws.client("dynamodb").batch_write_item(RequestItems={TABLE: batch})
