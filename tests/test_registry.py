"""The registry's API as an operator's tool uses it: signed requests through API Gateway, on the deployed stack."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from factory import status
from operators import Operator
from stack import Stack, until
from trusted_user import add_user


def test_a_device_lives_and_its_key_vends(stack: Stack, operator: Operator, device_id):
    made = operator("PUT", f"/devices/{device_id}", {"deviceId": device_id, "cvm": {"group": "berlin"}})
    assert made.status == 200, made.body
    assert made.headers["etag"] == f'"{made.json["etag"]}"'
    key = made.json["authentication"]["symmetricKey"]["primaryKey"]
    again = operator("PUT", f"/devices/{device_id}", {"deviceId": device_id})
    assert (again.status, again.headers["iothub-errorcode"]) == (409, "DeviceAlreadyExists")

    shown = operator("GET", f"/devices/{device_id}").json
    assert shown["authentication"]["symmetricKey"] == {"primaryKey": None, "secondaryKey": None}
    assert (shown["status"], shown["connectionState"]) == ("enabled", "Disconnected")
    assert (shown["cvm"]["state"], shown["cvm"]["group"]) == ("registered", "berlin")

    device = type(stack.device(f"{device_id}-other"))(device_id, key)
    vended = stack.vend(device)
    assert vended.status == 201, vended.body
    shown = operator("GET", f"/devices/{device_id}").json
    assert shown["cvm"]["certificate"]["certificateId"] == vended.json["certificateId"]
    with stack.mqtt(device, vended.json["certificatePem"]).connect(stack.broker):
        connected = lambda: operator("GET", f"/devices/{device_id}").json["connectionState"] == "Connected"  # noqa: E731
        until(connected, "a device that is connected")

    change = {"deviceId": device_id, "status": "disabled", "statusReason": "stolen"}
    disabled = operator("PUT", f"/devices/{device_id}", change, if_match="*")
    assert (disabled.status, disabled.json["statusReason"]) == (200, "stolen")
    until(lambda: status(stack, vended.json["certificateId"]) == "INACTIVE", "a certificate without power")
    assert operator("DELETE", f"/devices/{device_id}").status == 400, "without If-Match"
    assert operator("DELETE", f"/devices/{device_id}", if_match='"1-0"').status == 412
    assert operator("DELETE", f"/devices/{device_id}", if_match="*").status == 204
    assert operator("GET", f"/devices/{device_id}").headers["iothub-errorcode"] == "DeviceNotFound"
    until(lambda: status(stack, vended.json["certificateId"]) is None, "an end of the certificate")


def test_of_two_who_write_with_one_tag_one_wins(operator: Operator, device_id):
    etag = operator("PUT", f"/devices/{device_id}", {"deviceId": device_id}).headers["etag"]

    def write(number: int) -> int:
        body = {"deviceId": device_id, "status": "disabled", "statusReason": f"writer {number}"}
        return operator("PUT", f"/devices/{device_id}", body, if_match=etag).status

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write, range(8))) == [200] + 7 * [412]


def test_bulk_does_what_it_can_and_says_what_it_could_not(operator: Operator, device_id):
    lines = [{"id": f"{device_id}-{number}", "importMode": "create", "status": "enabled"} for number in range(20)]
    assert operator("POST", "/devices", lines[:10]).json["isSuccessful"] is True
    answer = operator("POST", "/devices", lines[9:])
    assert (answer.status, answer.json["isSuccessful"]) == (400, False)
    assert [error["deviceId"] for error in answer.json["errors"]] == [f"{device_id}-9"]
    assert all(operator("GET", f"/devices/{line['id']}").status == 200 for line in lines)


def test_modules_stand_on_their_device(operator: Operator, device_id):
    operator("PUT", f"/devices/{device_id}", {"deviceId": device_id})
    path = f"/devices/{device_id}/modules"
    made = operator("PUT", f"{path}/gateway", {"deviceId": device_id, "moduleId": "gateway", "managedBy": "me"})
    assert (made.status, made.json["managedBy"]) == (200, "me")
    assert operator("PUT", f"{path}/gateway", {"moduleId": "gateway"}).status == 409
    assert [module["moduleId"] for module in operator("GET", path).json] == ["gateway"]
    assert operator("DELETE", f"{path}/gateway", if_match="*").status == 204
    assert operator("GET", f"{path}/gateway").headers["iothub-errorcode"] == "ModuleNotFound"


def test_every_device_is_listed_page_after_page(operator: Operator, device_id):
    made = [{"id": f"{device_id}-{number}", "importMode": "create"} for number in range(25)]
    for line in made:
        line["cvm"] = {"group": device_id}
    assert operator("POST", "/devices", made).status == 200
    seen, headers = [], {}
    while True:
        page = operator("GET", f"/devices?top=10&group={device_id}", **headers)
        assert page.status == 200 and len(page.json) <= 10
        seen += [device["deviceId"] for device in page.json]
        if "x-ms-continuation" not in page.headers:
            break
        headers = {"x_ms_continuation": page.headers["x-ms-continuation"]}
    assert sorted(seen) == sorted(line["id"] for line in made)
    counted = operator("GET", "/statistics/devices").json
    assert counted["totalDeviceCount"] == counted["enabledDeviceCount"] + counted["disabledDeviceCount"] >= 25


def test_who_did_what_is_told(operator: Operator, device_id):
    operator("PUT", f"/devices/{device_id}", {"deviceId": device_id})
    operator("PUT", f"/devices/{device_id}", {"status": "disabled", "statusReason": "lost"}, if_match="*")

    def trail() -> list[dict]:
        entries = operator("GET", f"/audit?device={device_id}").json
        entries = entries if isinstance(entries, list) else next(it for it in entries.values() if isinstance(it, list))
        return entries if len(entries) == 2 else []

    disabled, created = until(trail, "both entries")
    assert (created["action"], disabled["action"], disabled["reason"]) == ("created", "disabled", "lost")
    assert disabled["door"] == "registry"
    assert disabled["actor"] == "arn:aws:iam::000000000000:user/registry-operator"


@pytest.mark.parametrize("kind", ["unsigned", "no-permission"])
def test_nobody_else_is_an_operator(stack: Stack, device_id, kind):
    stack.cvm("device", "add", device_id, "--claim")
    stranger = None if kind == "unsigned" else add_user(stack.aws.client("iam"), device_id, None)
    for method, path in [("GET", f"/devices/{device_id}"), ("GET", "/audit"), ("DELETE", f"/devices/{device_id}")]:
        assert Operator(stack, stranger)(method, path, if_match="*").status in (401, 403), (method, path)
    assert stack.cvm("device", "show", device_id)["deviceId"] == device_id
