"""`cvm serve` as somebody runs it on a machine of their own: devices, operators, a broker, and an end at any time."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from local_aws import free_port
from mqtt_device import CA, CERTIFICATE, PRIVATE_KEY, MqttDevice, Refused
from server import Server, openssl, start
from stack import CVM, until

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")


def test_what_is_said_at_the_first_start_can_be_pasted(tmp_path):
    command = [CVM, "serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path) as process:
        try:
            said = []
            while not said or "show what there is" not in said[-1]:
                assert (line := process.stdout.readline()), said
                said.append(line)
            lines = "".join(line.removeprefix("    ") for line in said if line.startswith("    "))
            pasted = subprocess.run(["sh", "-eux", "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert pasted.returncode == 0 and "sn-0001/certificate.pem: OK" in pasted.stdout, pasted
        finally:
            process.terminate()


def test_a_newcomer_has_a_certificate_and_keeps_it_where_the_answer_is_lost(server: Server):
    token = server.register("sn-0001")
    device = server.vend("sn-0001", token)
    assert "OK" in openssl("verify", "-CAfile", server.ca, "-purpose", "sslclient", device / CERTIFICATE)
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


def test_with_a_ca_of_its_own_there_are_no_claims(server: Server):
    for token in ("", server.token):
        nothing = server.ask("POST", "/v1/claims", {"deviceId": "sn-1"}, token=token)
        assert (nothing.status, nothing.json["code"]) == (404, "not-found")
        assert "--claim-template" in nothing.json["detail"]


@dataclass
class Broker:
    """Debian's mosquitto, which lets in who has a certificate of the server's CA that is in no revocation list."""

    server: Server
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    def start(self) -> None:
        key, certificate = self.folder / "broker.key", self.folder / "broker.pem"
        name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *curve, *name, "-days", "2", "-keyout", key, "-out", certificate)
        configuration = self.folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        configuration.write_text(
            f"{user}listener {self.port} 127.0.0.1\ncafile {self.server.ca}\ncrlfile {self.server.crl}\n"
            f"keyfile {key}\ncertfile {certificate}\nrequire_certificate true\nuse_identity_as_username true\n"
        )
        with open(self.folder / "mosquitto.log", "ab") as log:
            self.process = subprocess.Popen([MOSQUITTO, "-c", configuration], stdout=log, stderr=log)
        until(self.is_up, "a broker")

    def is_up(self) -> bool:
        log = (self.folder / "mosquitto.log").read_text()
        assert self.process.poll() is None, log
        return "running" in log

    def reload(self) -> None:
        """Has it read the revocation list again."""
        self.process.send_signal(signal.SIGHUP)

    def device(self, folder: Path, device_id: str) -> MqttDevice:
        shutil.copy(self.folder / "broker.pem", folder / CA)
        return MqttDevice(folder, device_id)


def test_a_broker_lets_a_device_in_until_it_is_disabled_or_revoked(server: Server, tmp_path):
    assert MOSQUITTO, "mosquitto is missing: install it (Debian: mosquitto)"
    folder = server.vend("sn-0001", server.register("sn-0001"))
    assert (folder / PRIVATE_KEY).exists()
    broker = Broker(server, tmp_path)
    broker.start()
    try:
        device = broker.device(folder, "sn-0001")
        with device.connect(f"localhost:{broker.port}"):
            pass
        leaked = {"reason": "leaked"}
        for verb, body, is_listed in [("disable", leaked, True), ("enable", {}, False), ("revoke", leaked, True)]:
            before = server.crl.read_text()
            assert server.ask("POST", f"/devices/sn-0001/{verb}", body).status == 200
            until(lambda before=before: server.crl.read_text() != before, "a new revocation list")
            broker.reload()

            def as_expected(is_listed=is_listed) -> bool:
                try:
                    with device.connect(f"localhost:{broker.port}"):
                        return not is_listed
                except (Refused, OSError):
                    return is_listed

            until(as_expected, f"a broker that knows of {verb}")
    finally:
        broker.process.kill()
        broker.process.wait()
