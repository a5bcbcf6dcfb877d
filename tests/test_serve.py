"""`cvm serve` as somebody runs it on a machine of their own: devices, operators, a broker, and an end at any time."""

import json
import os
import signal
import sqlite3
import subprocess
from pathlib import Path

from local_aws import free_port
from mqtt_device import CERTIFICATE, PRIVATE_KEY
from server import Server, openssl, start
from stack import CVM, until

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def test_what_is_said_at_the_first_start_can_be_pasted(tmp_path):
    broker = ["--broker", f"localhost:{free_port()}"]
    command = [CVM, "serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", *broker]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path) as process:
        try:
            said = []
            while not said or "show what there is" not in said[-1]:
                assert (line := process.stdout.readline()), said
                said.append(line)
            lines = "".join(line.removeprefix("    ") for line in said if line.startswith("    "))
            pasted = subprocess.run(["sh", "-eux", "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert pasted.returncode == 0 and "sn-0001/certificate.pem: OK" in pasted.stdout, pasted
            assert "received PUBACK (Mid: 1, RC:0)" in pasted.stdout, "the first message"
        finally:
            if (running := tmp_path / "broker" / "run.pid").exists():
                os.kill(int(running.read_text()), signal.SIGTERM)
            process.terminate()


def test_a_newcomer_has_a_certificate_and_keeps_it_where_the_answer_is_lost(server: Server):
    token = server.register("sn-0001")
    device = server.vend("sn-0001", token)
    # The root is all that a broker has to trust: the device sends the CA between them.
    chain = ["-CAfile", server.data / "ca" / "root.pem", "-untrusted", device / CERTIFICATE]
    assert "OK" in openssl("verify", *chain, "-purpose", "sslclient", device / CERTIFICATE)
    assert len((device / CERTIFICATE).read_text()) < 4096, "small devices have little room"
    text = openssl("x509", "-noout", "-text", "-in", device / CERTIFICATE)
    assert "CN = sn-0001" in text and "CA:FALSE" in text and "TLS Web Client Authentication" in text
    shown = server.ask("GET", "/devices/sn-0001").json
    assert shown["cvm"]["state"] == "provisioned"
    # The answer was lost, and the same key asks again.
    before = (device / CERTIFICATE).read_text()
    assert (server.vend("sn-0001", token) / CERTIFICATE).read_text() == before
    trail = [entry["action"] for entry in server.ask("GET", "/audit?device=sn-0001").json]
    assert trail == ["provisioned", "created"]


def test_a_server_that_is_killed_has_everything_when_it_comes_back(server: Server, tmp_path):
    token = server.register("sn-0001")
    device = server.vend("sn-0001", token)
    before = (device / CERTIFICATE).read_text()
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    again = start(server.data, tmp_path)
    try:
        assert again.token is None, "a token is shown on the first start alone"
        again.token = server.token
        assert (again.vend("sn-0001", token) / CERTIFICATE).read_text() == before
        assert again.end() == 0, again.log.read_text()
    finally:
        again.process.kill()
        again.process.wait()


def test_a_server_that_is_told_to_end_as_soon_as_it_says_that_it_runs_ends_well(tmp_path):
    for number in range(8):
        server = start(tmp_path / "data", tmp_path)
        try:
            assert server.end([signal.SIGTERM, signal.SIGINT][number % 2]) == 0, server.log.read_text()
        finally:
            server.process.kill()
            server.process.wait()


def test_a_trail_that_was_changed_is_told(server: Server):
    def verify() -> subprocess.CompletedProcess:
        return subprocess.run([CVM, "audit", "verify", "--data", server.data], capture_output=True, text=True)

    server.vend("sn-0001", server.register("sn-0001"))
    whole = verify()
    assert whole.returncode == 0 and "2 entries" in whole.stdout + whole.stderr, whole
    with sqlite3.connect(server.data / "registry" / "registry.sqlite") as file:
        file.execute("UPDATE entries SET document = replace(document, 'sn-0001', 'sn-0002') WHERE sequence = 2")
    changed = verify()
    assert changed.returncode == 1 and "at entry 2" in changed.stderr, changed


def test_a_second_server_on_one_folder_does_not_start(server: Server):
    second = subprocess.run(
        [CVM, "serve", "--data", server.data, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=20
    )
    assert second.returncode == 1 and "another server" in second.stderr, second.stderr
    assert "stop that server" in second.stderr and "--data" in second.stderr, second.stderr


def test_a_second_start_says_how_to_make_a_token(server: Server, tmp_path):
    assert server.end() == 0
    command = [CVM, "serve", "--data", server.data, "--listen", "localhost:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path) as process:
        try:
            said = ""
            while "token create" not in said:
                assert (line := process.stdout.readline()), said
                said += line
            [line] = [line.strip() for line in said.splitlines() if "token create" in line]
            made = subprocess.run(["sh", "-euc", line.replace("NAME", "anna")], capture_output=True, text=True, timeout=60)
            assert made.returncode == 0 and made.stdout.startswith("cvm_"), made
        finally:
            process.terminate()


def test_a_folder_without_a_server_is_no_servers_and_is_not_made(tmp_path):
    for words in [
        ["token", "create", "--name", "anna", "--role", "viewer"],
        ["token", "list"],
        ["token", "revoke", "0123456789abcdef"],
        ["backup", "--out", tmp_path / "copy"],
    ]:
        done = subprocess.run(
            [CVM, *words, "--data", tmp_path / "wrong"], capture_output=True, text=True, timeout=20, cwd=tmp_path
        )
        assert done.returncode == 1 and "not the folder of a server" in done.stderr, done
        assert "cvm serve" in done.stderr, done
        assert list(tmp_path.iterdir()) == [], words


def test_a_registry_is_not_served_without_the_ca_of_its_certificates(server: Server, tmp_path):
    assert server.end() == 0
    authority, kept = server.data / "ca", server.data / "kept"
    authority.rename(kept)
    command = [CVM, "serve", "--data", server.data, "--listen", "127.0.0.1:0"]
    without = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert without.returncode == 1 and "put the folder ca/ of that CA" in without.stderr, without.stderr
    assert not authority.exists(), "another CA was begun"
    kept.rename(authority)
    again = start(server.data, tmp_path)
    try:
        assert again.end() == 0, again.log.read_text()
    finally:
        again.process.kill()
        again.process.wait()


def audited(server: Server, outcome: str) -> list[dict]:
    """The lines of the log about operators, by what became of their requests."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    by_operators = {"operator", "registry"}
    return [line for line in lines if line.get("outcome") == outcome and line.get("door") in by_operators]


def test_what_operators_decide_and_are_refused_is_logged(server: Server):
    viewer = server.ask("POST", "/tokens", {"name": "vera", "role": "viewer"}).json
    twice = server.ask("POST", "/tokens", b'{"name": "vera", "role": "viewer", "role": "admin"}')
    assert twice.status == 400 and "duplicate field" in twice.json["detail"], twice.body
    refused = [
        (server.ask("GET", "/devices", token=""), "no-token", None),
        (server.ask("DELETE", "/devices/sn-marked", token=f"cvm_{'0' * 16}_marked"), "wrong-token", None),
        (server.ask("PUT", "/devices/sn-1", {}, token=viewer["token"]), "role", "/devices/sn-1"),
        (server.ask("POST", "/devices/export", {}, token=viewer["token"]), "role", "/devices/export"),
        (server.ask("GET", "/tokens", token=viewer["token"]), "role", "/tokens"),
        (server.ask("GET", "/tokens", token=""), "no-token", None),
    ]
    lines = audited(server, "refused")
    assert [(line["reason"], line.get("path")) for line in lines] == [(reason, path) for _, reason, path in refused]
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"] for answer, _, _ in refused]
    assert {line["source"] for line in lines} == {"127.0.0.1"}
    assert [line.get("actor") for line in lines] == [None, None, *[f"{viewer['id']}:vera"] * 3, None]
    assert "marked" not in server.log.read_text(), "what somebody unknown sends is not repeated"

    decided = [
        ("create", server.ask("PUT", "/devices/sn-1", {})),
        ("change", server.ask("PUT", "/devices/sn-1", {"cvm": {"group": "berlin"}}, if_match="*")),
        ("disable", server.ask("POST", "/devices/sn-1/disable", {"reason": "lost"})),
        ("enable", server.ask("POST", "/devices/sn-1/enable")),
        ("create", server.ask("PUT", "/devices/sn-1/modules/m-1", {})),
        ("change", server.ask("POST", "/devices", [{"id": "sn-1", "importMode": "update", "status": "disabled"}])),
        ("delete", server.ask("DELETE", "/devices/sn-1", if_match="*")),
    ]
    assert [answer.status for _, answer in decided] == [200] * 6 + [204]
    lines = audited(server, "decided")
    assert [line["action"] for line in lines] == [action for action, _ in decided]
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"] for _, answer in decided]
    assert all(line["device"] == "sn-1" and line["actor"].endswith(":first") for line in lines)
    assert [line.get("module") for line in lines].count("m-1") == 1
    for digests in [True, False]:
        assert server.ask("POST", "/devices/export", {"excludeDigests": not digests}).status == 200
    assert [(line["digests"], line["devices"]) for line in audited(server, "exported")] == [(True, 0), (False, 0)]


def test_a_token_lets_its_owner_do_what_its_role_says(server: Server):
    def token(*arguments: object) -> dict:
        command = [CVM, "token", *arguments, "--data", server.data, "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    viewer = token("create", "--name", "vera", "--role", "viewer")
    assert server.ask("GET", "/devices", token=viewer["token"]).status == 200
    assert server.ask("PUT", "/devices/sn-1", {}, token=viewer["token"]).status == 403
    operator = token("create", "--name", "anna", "--role", "operator", "--ttl", "1h")
    assert server.ask("PUT", "/devices/sn-1", {}, token=operator["token"]).status == 200
    assert server.ask("GET", "/audit?device=sn-1").json[0]["actor"] == f"{operator['id']}:anna"
    token("revoke", operator["id"])
    for nobody in [operator["token"], "", "cvm_0_1", viewer["token"][:-1]]:
        refused = server.ask("GET", "/devices", token=nobody)
        assert (refused.status, refused.headers["iothub-errorcode"]) == (401, "IotHubUnauthorizedAccess")
    files = [file for file in (server.data / "operators").iterdir()]
    secrets = [token["token"].split("_", 2)[2] for token in (viewer, operator)]
    assert files and not any(secret in file.read_text() for file in files for secret in secrets)


def test_admins_alone_make_and_revoke_tokens(server: Server):
    made = server.ask("POST", "/tokens", {"name": "anna", "role": "operator", "validFor": "1h"})
    assert (made.status, made.headers["cache-control"]) == (201, "no-store")
    anna = made.json["token"]
    assert server.ask("PUT", "/devices/sn-1", {}, token=anna).status == 200
    listed = server.ask("GET", "/tokens")
    assert sorted(token["role"] for token in listed.json) == ["admin", "operator"]
    assert not any(secret.split("_", 2)[2] in listed.body.decode() for secret in [anna, server.token])
    for method, path, body in [("GET", "/tokens", None), ("POST", "/tokens", {"name": "x", "role": "admin"})]:
        assert server.ask(method, path, body, token=anna).json["code"] == "not-allowed"
        nobody = server.ask(method, path, body, token="")
        assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert server.ask("DELETE", f"/tokens/{made.json['id']}", token=anna).status == 403
    for wrong in [{}, {"name": "", "role": "viewer"}, {"name": "x", "role": "root"}, {"name": "x", "role": "viewer", "a": 1}]:
        assert server.ask("POST", "/tokens", wrong).json["code"] == "body-invalid"
    assert server.ask("DELETE", f"/tokens/{made.json['id']}").status == 204
    assert server.ask("GET", "/devices", token=anna).status == 401
    for gone in [made.json["id"], "..%2f..%2fca%2froot", "x"]:
        assert server.ask("DELETE", f"/tokens/{gone}").status == 404


def test_what_is_asked_without_need_of_a_token(server: Server):
    assert server.ask("GET", "/livez", token="").body == b"ok\n"
    assert server.ask("GET", "/readyz", token="").body == b"ok\n"
    assert server.ask("GET", "/ca.pem", token="").body.decode() == server.ca.read_text()
    lists = server.ask("GET", "/crl.pem", token="").body.decode()
    assert lists.count("BEGIN X509 CRL") == 2 and lists == server.crl.read_text()
    refused = server.ask("POST", "/v1/certificates", {"deviceId": "sn-1"}, token="")
    assert (refused.status, refused.headers["content-type"]) == (403, "application/problem+json")


def test_threat_08_two_devices_do_not_have_one_key(server: Server, tmp_path):
    key = tmp_path / "shared.key"
    openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key)
    csr = openssl("req", "-new", "-key", key, "-subj", "/")
    tokens = {device: server.register(device).read_text() for device in ["sn-0001", "sn-0002"]}

    def ask(device: str):
        return server.ask("POST", "/v1/certificates", {"deviceId": device, "csr": csr}, token=tokens[device])

    assert ask("sn-0001").status == 201
    refused = ask("sn-0002")
    assert (refused.status, refused.json["code"]) == (400, "key-refused")
    told = lambda: server.ask("GET", "/devices/sn-0002").json["cvm"]
    until(lambda: (told()["lastRefusal"] or {}).get("reason") == "key-in-use", "a reason")
    assert told()["state"] == "registered"
    assert ask("sn-0001").status == 200
    etag = server.ask("GET", "/devices/sn-0001").headers["etag"]
    assert server.ask("DELETE", "/devices/sn-0001", if_match=etag).status == 204
    assert ask("sn-0002").status == 201, "the other device is gone"


def test_threat_23_no_device_has_the_key_of_a_ca(server: Server):
    token = server.register("sn-0001").read_text()
    for name in ["root", "issuing"]:
        csr = openssl("req", "-new", "-key", server.data / "ca" / f"{name}.key", "-subj", "/")
        refused = server.ask("POST", "/v1/certificates", {"deviceId": "sn-0001", "csr": csr}, token=token)
        assert (refused.status, refused.json["code"]) == (400, "key-refused"), name


def test_a_device_that_was_off_for_long_comes_back(tmp_path):
    """The clock of the server is put forward (Debian: libfaketime): certificates last an hour, and so does their grace."""
    assert FAKETIME, "libfaketime is missing: apt-get install libfaketime"
    server = start(tmp_path / "data", tmp_path, "--validity", "1h")
    devices = {}
    for device in ["by-token", "by-certificate", "too-late"]:
        token = server.register(device)
        devices[device] = (server.vend(device, token), token.read_text())
    assert server.end() == 0

    def ask(server: Server, device: str, *options: object) -> tuple[int, str]:
        """The status and the certificate; the certificate of the server is one of its own time."""
        folder = devices[device][0]
        csr = openssl("req", "-new", "-key", folder / PRIVATE_KEY, "-subj", "/")
        body = json.dumps({"deviceId": device, "csr": csr})
        typed = ["-H", "Content-Type: application/json", "-H", "Accept: application/x-pem-file", "-d", body]
        command = ["curl", "-sk", "-w", "%{stderr}%{http_code}", *typed, *options, f"{server.url}/v1/certificates"]
        done = subprocess.run(command, capture_output=True, text=True)
        return int(done.stderr), done.stdout

    def at(minutes: int) -> Server:
        variables = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": f"+{minutes}m", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return start(tmp_path / "data", tmp_path, "--validity", "1h", **variables)

    for minutes, expected in [(90, 201), (180, 403)]:
        server = at(minutes)
        try:
            device = "by-certificate" if expected == 201 else "too-late"
            certificate = devices[device][0] / CERTIFICATE
            status, answer = ask(server, device, "--cert", certificate, "--key", certificate.parent / PRIVATE_KEY)
            assert status == expected, answer
            if expected == 201:
                assert answer not in certificate.read_text()
                continue
            folder, token = devices["by-token"]
            bearer = ["-H", f"Authorization: Bearer {token}"]
            renewed, again = ask(server, "by-token", *bearer), ask(server, "by-token", *bearer)
            assert (renewed[0], again) == (201, (200, renewed[1]))
            assert renewed[1] not in (folder / CERTIFICATE).read_text()
        finally:
            assert server.end() == 0


def test_with_a_ca_of_its_own_there_are_no_claims(server: Server):
    for token in ("", server.token):
        nothing = server.ask("POST", "/v1/claims", {"deviceId": "sn-1"}, token=token)
        assert (nothing.status, nothing.json["code"]) == (404, "not-found")
        assert "--claim-template" in nothing.json["detail"]
