"""MiniStack with the one operation that it lacks and a device's end needs: DeleteConnection of the IoT data plane.

AWS IoT closes the connection of a client id (AWS IoT data plane API reference, DeleteConnection). MiniStack does the same
to the older of two connections with one client id, so that is what is called here.
"""

import sys
from urllib.parse import unquote

from ministack.app import main
from ministack.core.responses import error_response_json, get_account_id, get_region, json_response
from ministack.services import iot, iot_data

PREFIX = "/connections/"
answer_all_others = iot_data.handle_request


async def handle_request(method, path, headers, body, query_params):
    if method != "DELETE" or not path.startswith(PREFIX):
        return await answer_all_others(method, path, headers, body, query_params)
    client_id = unquote(path.removeprefix(PREFIX))
    if await iot._force_disconnect_duplicate(get_account_id(), get_region(), client_id) is None:
        return error_response_json("ResourceNotFoundException", "There is no such connection.", 404)
    return json_response({})


if __name__ == "__main__":
    iot_data.handle_request = handle_request
    sys.exit(main())
