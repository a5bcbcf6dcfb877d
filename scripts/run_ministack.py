"""MiniStack with what it lacks: an operation that a device's end needs, and an answer that SDKs can read.

The operation is DeleteConnection of the IoT data plane.

AWS IoT closes the connection of a client id (AWS IoT data plane API reference, DeleteConnection). MiniStack does the same
to the older of two connections with one client id, so that is what is called here. The caller's role has to allow it on
`client/<client id>`, as the service authorization reference says.

The answer is DescribeTable's: of a table that CloudFormation has made, it has parameters of the template as they came,
which are texts where SDKs take nothing but true and false.
"""

import sys
from urllib.parse import unquote

from ministack.app import main
from ministack.core import iam_actions
from ministack.core.responses import error_response_json, get_account_id, get_region, json_response
from ministack.services import dynamodb, iot, iot_data

PREFIX = "/connections/"
others = {name: getattr(iam_actions, name) for name in ("extract_iam_action", "extract_resource_arn")}
answer_all_others = iot_data.handle_request
describe_table = dynamodb._table_description


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


if __name__ == "__main__":
    dynamodb._table_description = table_description
    iot_data.handle_request = handle_request
    iam_actions.extract_iam_action = extract_iam_action
    iam_actions.extract_resource_arn = extract_resource_arn
    sys.exit(main())
