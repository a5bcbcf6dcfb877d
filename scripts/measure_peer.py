"""What a Python function with boto3 costs for the same calls: the peer of `measure.py`, for comparison only."""

import json
import os
import sys
from http.client import HTTPConnection

import boto3

RUNTIME = "/2018-06-01/runtime/invocation"
TABLE = os.environ["DEVICE_TABLE"]
dynamodb = boto3.client("dynamodb")


def vend(event: dict) -> dict:
    """A read that finds nothing, and a conditional write that is refused."""
    key = {"deviceId": {"S": json.loads(event["body"])["deviceId"]}}
    if "Item" in dynamodb.get_item(TableName=TABLE, Key=key, ConsistentRead=True):
        return {"statusCode": 200, "body": "{}"}
    try:
        dynamodb.update_item(
            TableName=TABLE,
            Key=key,
            UpdateExpression="SET refusedFor = :value",
            ConditionExpression="attribute_exists(deviceId)",
            ExpressionAttributeValues={":value": {"S": "unknown-device"}},
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        pass
    return {"statusCode": 403, "body": json.dumps({"code": "refused"})}


def hook(event: dict) -> dict:
    """Claim and device in one read, and both in one conditional write."""
    serial = event["parameters"]["SerialNumber"]
    keys = [{"deviceId": {"S": f"claim/{event['claimCertificateId']}"}}, {"deviceId": {"S": serial}}]
    got = dynamodb.batch_get_item(RequestItems={TABLE: {"Keys": keys, "ConsistentRead": True}})
    items = {item["deviceId"]["S"]: item for item in got["Responses"][TABLE]}
    device = items.get(serial)
    if len(items) != len(keys) or device["state"]["S"] != "registered":
        return {"allowProvisioning": False}
    version = device["version"]
    reserved = {"state": {"S": "reserved"}, "reservedCertificate": {"S": event["certificateId"]}}
    count = {
        "TableName": TABLE,
        "Key": keys[0],
        "UpdateExpression": "ADD used :one",
        "ConditionExpression": "#status = :enabled",
        "ExpressionAttributeNames": {"#status": "status"},
        "ExpressionAttributeValues": {":one": {"N": "1"}, ":enabled": {"S": "enabled"}},
    }
    put = {
        "TableName": TABLE,
        "Item": device | reserved | {"version": {"N": str(int(version["N"]) + 1)}},
        "ConditionExpression": "version = :version",
        "ExpressionAttributeValues": {":version": version},
    }
    dynamodb.transact_write_items(TransactItems=[{"Update": count}, {"Put": put}])
    return {"allowProvisioning": True, "parameterOverrides": {"SerialNumber": serial}}


HANDLERS = {"vend": vend, "pre-provisioning-hook": hook}


def main() -> None:
    handle = HANDLERS[sys.argv[1]]
    runtime = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        runtime.request("GET", f"{RUNTIME}/next")
        event = runtime.getresponse()
        request_id = event.headers["Lambda-Runtime-Aws-Request-Id"]
        answer = handle(json.loads(event.read()))
        runtime.request("POST", f"{RUNTIME}/{request_id}/response", json.dumps(answer))
        runtime.getresponse().read()


if __name__ == "__main__":
    main()
