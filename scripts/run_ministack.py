"""MiniStack with what it lacks: two operations of AWS IoT, and an answer that SDKs can read.

The first operation is DeleteConnection of the IoT data plane.

AWS IoT closes the connection of a client id (AWS IoT data plane API reference, DeleteConnection). MiniStack does the same
to the older of two connections with one client id, so that is what is called here. The caller's role has to allow it on
`client/<client id>`, as the service authorization reference says.

The second one is CreateCertificateFromCsr over MQTT (AWS IoT developer guide, *Device provisioning MQTT API*): a device that
claims keeps its own key. The certificate waits for RegisterThing, as one of CreateKeysAndCertificate does.

The answer is DescribeTable's: of a table that CloudFormation has made, it has parameters of the template as they came,
which are texts where SDKs take nothing but true and false.
"""

import json
import secrets
import sys
import time
from urllib.parse import unquote

from ministack.app import main
from ministack.core import iam_actions
from ministack.core.responses import error_response_json, get_account_id, get_region, json_response
from ministack.services import dynamodb, iot, iot_data

PREFIX = "/connections/"
FROM_CSR = "$aws/certificates/create-from-csr/json"
others = {name: getattr(iam_actions, name) for name in ("extract_iam_action", "extract_resource_arn")}
answer_all_others = iot_data.handle_request
describe_table = dynamodb._table_description
parse_fleet_topic = iot._parse_fleet_provisioning_topic
reply_to_fleet = iot._fleet_provisioning_reply


def is_deletion(method: str, path: str) -> bool:
    return method == "DELETE" and path.startswith(PREFIX)


async def handle_request(method, path, headers, body, query_params):
    if not is_deletion(method, path):
        return await answer_all_others(method, path, headers, body, query_params)
    client_id = unquote(path.removeprefix(PREFIX))
    if await iot._force_disconnect_duplicate(get_account_id(), get_region(), client_id) is None:
        return error_response_json("ResourceNotFoundException", "There is no such connection.", 404)
    return json_response({})


def extract_iam_action(service, method, path, *rest, **named):
    if service == "iot-data" and is_deletion(method, path):
        return "iot:DeleteConnection"
    return others["extract_iam_action"](service, method, path, *rest, **named)


def extract_resource_arn(service, method, path, *rest, **named):
    if service == "iot-data" and is_deletion(method, path):
        return f"arn:aws:iot:{get_region()}:{get_account_id()}:client/{unquote(path.removeprefix(PREFIX))}"
    return others["extract_resource_arn"](service, method, path, *rest, **named)


def table_description(name):
    told = describe_table(name)
    return told | {"DeletionProtectionEnabled": str(told["DeletionProtectionEnabled"]).lower() == "true"}


def fleet_topic(topic):
    return (FROM_CSR, None) if topic == FROM_CSR else parse_fleet_topic(topic)


async def fleet_reply(account, region, operation, template, payload, connection):
    if operation != FROM_CSR:
        return await reply_to_fleet(account, region, operation, template, payload, connection)
    try:
        request = {"certificateSigningRequest": json.loads(payload)["certificateSigningRequest"]}
    except (ValueError, TypeError, KeyError):
        return iot._fleet_rejected("InvalidPayload", "Message cannot be parsed")
    with iot.request_scope(account, region):
        status, _, body = iot._create_certificate_from_csr(request, {})
        if status != 200:
            return iot._fleet_rejected("InvalidCertificateSigningRequest", "CSR violates constraints", status)
        made, token = json.loads(body), secrets.token_urlsafe(48)
        id = made["certificateId"]
        iot._certificates[id] = {**iot._certificates[id], "status": "PENDING_ACTIVATION"}
        iot._ownership_tokens[token] = {
            "certificateId": id,
            "expiration": time.time() + iot._OWNERSHIP_TOKEN_SECONDS,
        }
    named = {"certificateId": id, "certificatePem": made["certificatePem"]}
    return "accepted", named | {"certificateOwnershipToken": token}


if __name__ == "__main__":
    iot._fleet_provisioning_reply = fleet_reply
    iot._parse_fleet_provisioning_topic = fleet_topic
    dynamodb._table_description = table_description
    iot_data.handle_request = handle_request
    iam_actions.extract_iam_action = extract_iam_action
    iam_actions.extract_resource_arn = extract_resource_arn
    sys.exit(main())
