"""What a Python function with boto3 costs for the same event: the peer of `measure.py`, for comparison only."""

import json
import os
from http.client import HTTPConnection

import boto3

RUNTIME = "/2018-06-01/runtime/invocation"
dynamodb = boto3.client("dynamodb")


def handle(event: dict) -> dict:
    device = json.loads(event["body"])["deviceId"]
    try:
        update(device, "SET reservedBy = :value", "key")
    except dynamodb.exceptions.ConditionalCheckFailedException:
        try:
            update(device, "SET refusedFor = :value", "unknown-device")
        except dynamodb.exceptions.ConditionalCheckFailedException:
            pass
        return {"statusCode": 403, "body": json.dumps({"code": "refused"})}
    return {"statusCode": 200, "body": "{}"}


def update(device: str, expression: str, value: str) -> None:
    dynamodb.update_item(
        TableName=os.environ["DEVICE_TABLE"],
        Key={"deviceId": {"S": device}},
        UpdateExpression=expression,
        ConditionExpression="attribute_exists(deviceId)",
        ExpressionAttributeValues={":value": {"S": value}},
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )


def main() -> None:
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
