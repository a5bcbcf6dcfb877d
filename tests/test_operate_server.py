"""`cvm device`, `cvm status` and `cvm audit` on a server of one's own: the same commands as on a table, over its API."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509

from local_aws import free_port
from mqtt_device import CERTIFICATE, PRIVATE_KEY
from server import Server, openssl, start
from stack import CVM, Device, until

ROWS = 4_000
"""Rows of an import: a few of the command's batches."""

NAMED = ["CVM_TABLE", "CVM_SERVER", "CVM_SERVER_CA", "CVM_OPERATOR_TOKEN", "CVM_OPERATOR_TOKEN_FILE", "CVM_AUDIT_TABLE"]


class Desk:
    """Somebody who operates a server with the command."""

    def __init__(self, folder: Path, url: str, ca: Path | None = None, token: str | None = None) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if name not in NAMED}
        self.environment |= {"CVM_SERVER": url}
        self.environment |= {"CVM_SERVER_CA": str(ca)} if ca else {}
        self.environment |= {"CVM_OPERATOR_TOKEN": token} if token else {}

    def run(self, *arguments: object) -> subprocess.CompletedProcess:
        command = [str(argument) for argument in (CVM, *arguments)]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=300
        )
        assert "panicked" not in done.stderr, done.stderr
        return done

    def text(self, *arguments: object) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: object) -> dict:
        return json.loads(self.text(*arguments, "--output", "json"))

    def lines(self, *arguments: object) -> list[dict]:
        return [json.loads(line) for line in self.text(*arguments, "--output", "json").splitlines()]

    def error(self, *arguments: object, code: int = 1) -> dict:
        """What a run that must fail complained about."""
        done = self.run(*arguments, "--output", "json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stderr.splitlines()[-1])["error"]


def desk_of(server: Server, token: str | None = None) -> Desk:
    return Desk(server.folder, server.url, server.ca, token or server.token)


@pytest.fixture
def desk(server: Server) -> Desk:
    return desk_of(server)


@contextmanager
def serving(folder: Path, *options: object) -> Iterator[Server]:
    folder.mkdir(exist_ok=True)
    server = start(folder / "data", folder, *options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_a_device_goes_through_its_life(server: Server, desk: Desk):
    assert desk.text("device", "add", "sn-0001", "--token-out", "token", "--group", "berlin").startswith("✔ sn-0001 is")
    device = server.vend("sn-0001", server.folder / "token")
    shown = desk.json("device", "show", "sn-0001")
    assert (shown["state"], shown["group"], shown["attestation"]["kind"]) == ("provisioned", "berlin", "token")
    text = desk.text("device", "show", "sn-0001")
    assert f"certificate   {shown['certificate']['certificateId']}" in text and "changed       " in text
    openssl("x509", "-noout", "-in", device / CERTIFICATE)

    disabled = desk.run("device", "disable", "sn-0001", "--reason", "lost, ticket 7")
    assert disabled.returncode == 0 and "out of power" in disabled.stderr, disabled
    listed = desk.lines("device", "list", "--status", "disabled", "--group", "berlin", "--changed-within", "1h")
    assert [(device["deviceId"], device["statusReason"]) for device in listed] == [("sn-0001", "lost, ticket 7")]
    assert desk.lines("device", "list", "--status", "enabled") == []
    assert "sn-0001  provisioned  disabled" in desk.text("device", "list")
    assert desk.json("device", "enable", "sn-0001")["status"] == "enabled"
    assert desk.json("device", "renew", "sn-0001")["state"] == "registered"
    assert desk.json("device", "delete", "sn-0001") == {"deviceId": "sn-0001", "deleted": True}
    assert desk.error("device", "show", "sn-0001")["code"] == "not-found"
    assert desk.error("device", "delete", "sn-0001")["code"] == "not-found"

    trail = desk.lines("audit", "sn-0001")
    assert [entry["action"] for entry in trail][-2:] == ["provisioned", "created"] and len(trail) >= 5
    assert trail[0]["actor"] == server.ask("GET", "/audit?device=sn-0001").json[0]["actor"]


def test_a_revoked_device_is_out_for_good_and_comes_back_as_another(server: Server, desk: Desk):
    desk.text("device", "add", "sn-0001", "--token-out", "token")
    nothing = desk.error("device", "revoke", "sn-0001", "--reason", "leaked")
    assert nothing["code"] == "nothing-to-revoke" and "cvm device disable sn-0001" in nothing["advice"]
    device = server.vend("sn-0001", server.folder / "token")
    asked = desk.run("device", "revoke", "sn-0001", "--reason", "leaked, ticket 9")
    assert asked.returncode == 0 and "is revoking its certificate" in asked.stderr, asked
    shown = desk.json("device", "show", "sn-0001")
    assert (shown["state"], shown["status"], shown["statusReason"]) == ("revoked", "enabled", "leaked, ticket 9")
    assert desk.lines("device", "list", "--state", "revoked")[0]["deviceId"] == "sn-0001"
    number = x509.load_pem_x509_certificate((device / CERTIFICATE).read_bytes()).serial_number

    def is_listed() -> bool:
        lists = re.findall("-----BEGIN X509 CRL-.+?-END X509 CRL-----", server.crl.read_text(), re.DOTALL)
        found = [x509.load_pem_x509_crl(text.encode()).get_revoked_certificate_by_serial_number(number) for text in lists]
        return any(found)

    until(is_listed, "a list that has it")
    # Neither its token, nor its certificate, nor an operator who thinks again lets a key in.
    desk.json("device", "disable", "sn-0001", "--reason", "on hold")
    desk.json("device", "enable", "sn-0001")
    assert desk.error("device", "renew", "sn-0001")["code"] == "not-provisioned"
    body = {"deviceId": "sn-0001", "csr": Device("sn-0001").csr_pem}
    assert server.ask("POST", "/v1/certificates", body, token=(server.folder / "token").read_text().strip()).status == 403
    assert server.ask("POST", "/v1/certificates", body, token="", certificate=device / CERTIFICATE).status == 403
    assert is_listed()

    desk.text("device", "delete", "sn-0001")
    desk.text("device", "add", "sn-0001", "--token-out", "another")
    server.vend("sn-0001", server.folder / "another")
    assert is_listed(), "of the earlier one nothing is good again"
    [revoked] = [entry for entry in desk.lines("audit", "sn-0001") if entry["action"] == "revoked"]
    assert (revoked["reason"], revoked["certificateId"]) == ("leaked, ticket 9", shown["certificate"]["certificateId"])


def test_what_cannot_be_done_is_told_as_on_a_table(server: Server, desk: Desk):
    token = desk.json("device", "add", "sn-1")["token"]
    taken = desk.error("device", "add", "sn-1", "--token-out", "never")
    assert taken["code"] == "exists" and "cvm device show sn-1" in taken["advice"]
    assert not (server.folder / "never").exists()
    assert token not in desk.text("device", "show", "sn-1", "--output", "json")
    approve = desk.error("device", "approve", "sn-1")
    assert approve["code"] == "not-quarantined" and "not in quarantine but registered" in approve["message"]
    assert desk.error("device", "renew", "sn-1")["code"] == "not-provisioned"
    settable = desk.run("device", "add", "sn-2", "--claim", "--parameter", "SerialNumber=x")
    assert settable.returncode == 2 and "SerialNumber" in settable.stderr
    added = desk.json("device", "add", "sn-2", "--trusted-user", "--parameter", "Site=a", "--template", "cameras")
    assert (added["attestation"]["kind"], added["parameters"], added["template"]) == ("trusted-user", {"Site": "a"}, "cameras")


def rows(folder: Path, count: int = ROWS) -> Path:
    file = folder / "serials.csv"
    file.write_text("serial,group\n" + "".join(f"SN-{row:06},batch-{row % 7}\n" for row in range(count)))
    return file


def tokens(file: Path) -> dict[str, str]:
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({line["deviceId"] for line in kept}) == len(kept), "one token for each device"
    return {line["deviceId"]: line["token"] for line in kept}


def test_an_import_that_is_killed_goes_on_and_does_nothing_twice(server: Server, desk: Desk):
    file = rows(server.folder)
    journal = file.with_name("serials.csv.cvm-import")
    command = [CVM, "device", "import", file, "--tokens", server.folder / "tokens"]
    killed = subprocess.Popen(command, env=desk.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (journal.exists() and json.loads(journal.read_text())["records"] >= 1_024):
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.002)
    # In the middle of the batch that comes next.
    time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert 0 < json.loads(journal.read_text())["records"] < ROWS, "it was cut off too late to say anything"
    assert desk.error("device", "import", file, "--tokens", "tokens")["code"] == "cut-off"
    done = desk.json("device", "import", file, "--tokens", "tokens", "--resume")
    assert (done["created"], done["failed"]) == (ROWS, 0)
    assert not journal.exists()
    kept = tokens(server.folder / "tokens")
    listed = desk.lines("device", "list")
    assert {device["deviceId"] for device in listed} == set(kept) and len(listed) == ROWS
    assert {device["version"] for device in listed} == {1}
    actions = Counter(entry["action"] for entry in desk.lines("audit", "--limit", "100000"))
    assert actions == {"created": ROWS}
    for device in ["SN-000000", "SN-001100", "SN-002000", f"SN-{ROWS - 1:06}"]:
        private = server.folder / f"{device}.token"
        private.touch(mode=0o600)
        private.write_text(kept[device])
        server.vend(device, private)


def test_an_import_that_is_interrupted_says_how_to_resume_it(server: Server, desk: Desk):
    file = rows(server.folder)
    journal = file.with_name("serials.csv.cvm-import")
    command = [CVM, "device", "import", file, "--tokens", server.folder / "tokens"]
    stopped = subprocess.Popen(command, env=desk.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not journal.exists():
        assert stopped.poll() is None, stopped.stderr.read()
        time.sleep(0.002)
    stopped.send_signal(signal.SIGINT)
    said = stopped.stderr.read()
    assert (stopped.wait(), journal.exists()) == (130, True), said
    assert "error: interrupted" in said and "--resume" in said, said
    done = desk.json("device", "import", file, "--tokens", "tokens", "--resume")
    assert (done["created"], done["failed"]) == (ROWS, 0)
    assert set(tokens(server.folder / "tokens")) == {device["deviceId"] for device in desk.lines("device", "list")}


class Cutting:
    """A line to a server on which answers get lost: after a while, each fifth piece of what the server says ends its
    connection instead."""

    def __init__(self, server: Server, cuts: int) -> None:
        self.port = int(server.url.rsplit(":", 1)[1])
        self.left, self.pieces, self.lock = cuts, 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.listener.getsockname()[1]}"

    def accept(self) -> None:
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self.carry, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self.carry, args=(far, near, True), daemon=True).start()

    def carry(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while piece := source.recv(65_536):
                if answers and self.cuts():
                    break
                sink.sendall(piece)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cuts(self) -> bool:
        with self.lock:
            self.pieces += 1
            cut = self.left > 0 and self.pieces > 30 and self.pieces % 5 == 0
            self.left -= cut
            return cut


def test_an_answer_that_was_lost_is_no_error_when_it_is_asked_again(server: Server):
    line = Cutting(server, cuts=4)
    desk = Desk(server.folder, line.url, server.ca, server.token)
    done = desk.json("device", "import", rows(server.folder), "--tokens", "tokens")
    assert line.left == 0, "answers were lost"
    assert (done["created"], done["failed"]) == (ROWS, 0)
    listed = desk.lines("device", "list")
    assert len(listed) == len(tokens(server.folder / "tokens")) == ROWS
    assert {device["version"] for device in listed} == {1}
    others = rows(server.folder, 10)
    again = desk.error("device", "import", others, "--tokens", "more")
    assert again["code"] == "lines-failed", "who registers them anew is told that they are there"


def test_a_server_that_asks_for_a_slower_pace_is_waited_for(tmp_path):
    with serving(tmp_path / "slow", "--rate-per-operator", "10/s") as server:
        done = desk_of(server).json("device", "import", rows(server.folder, 3_000), "--proof", "claim")
        assert (done["created"], done["failed"]) == (3_000, 0)


def test_lines_that_cannot_be_done_are_told_and_the_others_are_done(server: Server, desk: Desk):
    desk.text("device", "add", "sn-1", "--claim")
    module = {"id": "sn-1", "moduleId": "camera", "authentication": {"type": "sas"}}
    lines = [
        {"id": "sn-1", "importMode": "create", "authentication": {"type": "none"}},
        {"id": "sn-2", "status": "disabled", "statusReason": "on hold"},
        module,
        {"id": "sn-3", "importMode": "delete"},
        {"id": "no id"},
    ]
    (server.folder / "lines.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = desk.run("device", "import", "lines.json", "--tokens", "tokens", "--errors", "bad", "--output", "json")
    assert done.returncode == 1, done.stderr
    counts = json.loads(done.stdout)
    assert (counts["created"], counts["failed"]) == (2, 3)
    bad = [json.loads(line) for line in (server.folder / "bad").read_text().splitlines()]
    told = sorted((line["line"], line["deviceId"], line["code"]) for line in bad)
    assert told == [(1, "sn-1", "exists"), (4, "sn-3", "not-found"), (5, None, "invalid")]
    camera = server.ask("GET", "/devices/sn-1/modules/camera").json
    assert camera["authentication"]["type"] == "sas", "it has the token that was made for it"
    assert desk.json("device", "show", "sn-2")["statusReason"] == "on hold"


def test_a_device_that_is_there_keeps_its_proof_when_it_is_said_again(server: Server, desk: Desk):
    desk.text("device", "add", "sn-1", "--token-out", "token")
    lines = [{"id": "sn-1", "cvm": {"group": "berlin"}}, {"id": "sn-2", "cvm": {"group": "berlin"}}]
    (server.folder / "lines.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = desk.json("device", "import", "lines.json", "--tokens", "tokens")
    assert (done["created"], done["updated"]) == (1, 1)
    assert set(tokens(server.folder / "tokens")) == {"sn-2"}
    server.vend("sn-1", server.folder / "token")
    assert desk.json("device", "show", "sn-1")["group"] == "berlin"
    again = desk.json("device", "import", "lines.json", "--tokens", "others")
    assert (again["unchanged"], (server.folder / "others").read_text()) == (2, "")
    assert desk.json("device", "import", "lines.json", "--dry-run")["checked"] == 2


def test_what_was_exported_is_put_back_into_another_server_as_it_was(server: Server, desk: Desk, tmp_path):
    desk.text("device", "import", rows(server.folder, 1_200), "--tokens", "tokens")
    desk.text("device", "add", "sn-1", "--token-out", "token", "--token-ttl", "7d")
    device = server.vend("sn-1", server.folder / "token")
    desk.text("device", "disable", "sn-1", "--reason", "sold")
    assert desk.json("device", "export", "--out", "devices.jsonl")["devices"] == 1_201
    exported = (server.folder / "devices.jsonl").read_text()
    assert exported.count("tokenDigest") == 1_201 and desk.text("device", "export") == exported
    assert "tokenDigest" not in desk.text("device", "export", "--exclude-digests", "--status", "disabled")
    table = desk.text("device", "export", "--format", "csv", "--group", "batch-3").splitlines()
    assert table[0].startswith("deviceId,status,") and len(table) == 1 + len(range(3, 1_200, 7))

    # A certificate of another CA could not be revoked there.
    with serving(tmp_path / "stranger") as stranger:
        (stranger.folder / "devices.jsonl").write_text(exported)
        refused = desk_of(stranger).run("device", "import", "devices.jsonl", "--restore")
        assert refused.returncode == 1 and "no CA of this server has issued" in refused.stderr, refused.stderr
    # A server that has lost its registry, and not its CA.
    ca = tmp_path / "other" / "data" / "ca"
    shutil.copytree(server.data / "ca", ca, ignore=shutil.ignore_patterns("crl.pem"))
    with serving(tmp_path / "other") as other:
        there = desk_of(other)
        (other.folder / "devices.jsonl").write_text(exported)
        operator = other.ask("POST", "/tokens", {"name": "olga", "role": "operator"}).json["token"]
        refused = desk_of(other, operator).run("device", "import", "devices.jsonl", "--restore")
        assert refused.returncode == 1 and "--role admin" in refused.stderr, refused.stderr
        # Nothing was begun, so that an admin can do it.
        done = there.json("device", "import", "devices.jsonl", "--restore")
        assert (done["created"], done["failed"]) == (1_201, 0)
        again = there.json("device", "import", "devices.jsonl", "--restore")
        assert (again["unchanged"], again["failed"]) == (1_201, 0)
        for name in ["sn-1", "SN-000007"]:
            assert there.json("device", "show", name) == desk.json("device", "show", name)
        assert sorted(there.text("device", "export").splitlines()) == sorted(exported.splitlines())
        private = other.folder / "SN-000007.token"
        private.touch(mode=0o600)
        private.write_text(tokens(server.folder / "tokens")["SN-000007"])
        other.vend("SN-000007", private)
    assert device.exists()


def test_a_viewer_looks_and_changes_nothing(server: Server, desk: Desk):
    desk.text("device", "add", "sn-1", "--claim")
    viewer = server.ask("POST", "/tokens", {"name": "vera", "role": "viewer"}).json["token"]
    vera = desk_of(server, viewer)
    assert vera.json("device", "show", "sn-1")["deviceId"] == "sn-1"
    assert vera.text("device", "export", "--format", "csv").count("sn-1") == 1
    assert vera.json("status")["devices"] == 1
    assert vera.lines("audit")[0]["action"] == "created"
    (server.folder / "list.csv").write_text("serial\nsn-2\n")
    for refused in [
        ["add", "sn-2"], ["disable", "sn-1", "--reason", "x"], ["enable", "sn-1"], ["delete", "sn-1"],
        ["import", "list.csv", "--proof", "claim"], ["export"],
    ]:
        error = vera.error("device", *refused)
        assert error["code"] == "not-allowed" and "role operator" in error["advice"], (refused, error)
    assert desk.json("status")["states"]["registered"] == 1
    nobody = desk_of(server, viewer[:-1]).error("device", "list")
    assert nobody["code"] == "unauthenticated" and "cvm token create" in nobody["advice"]


def test_whoever_cannot_be_reached_or_trusted_is_told_and_what_to_do(server: Server, desk: Desk, tmp_path):
    other_ca = tmp_path / "other.pem"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=other", "-keyout", tmp_path / "other.key", "-out", other_ca)
    untrusted = Desk(tmp_path, server.url, other_ca, server.token).error("device", "list")
    assert untrusted["code"] == "no-answer" and "--server-ca" in untrusted["advice"], untrusted
    system = Desk(tmp_path, server.url, None, server.token).error("device", "list")
    assert "--server-ca" in system["advice"], system
    down = Desk(tmp_path, f"https://localhost:{free_port()}", server.ca, server.token).error("device", "list")
    assert "server is running" in down["advice"], down
    elsewhere = Desk(tmp_path, f"{server.url}/nowhere", server.ca, server.token).error("device", "list")
    assert "--server" in elsewhere["advice"], elsewhere
    plain = Desk(tmp_path, "http://cvm.example.com", None, server.token).error("device", "list", code=2)
    assert "plain http" in plain["message"]
    began = time.monotonic()
    tls = Desk(tmp_path, server.url.replace("https", "http"), None, server.token).error("device", "list")
    assert tls["code"] == "no-answer" and "https://" in tls["advice"], tls
    assert time.monotonic() - began < 10, "it is not tried again"
    for url, code, advice in [
        (server.url.replace("https", "http"), 1, "https://"),
        ("http://192.0.2.1", 2, "--insecure"),
    ]:
        device = Desk(tmp_path, "", None).error("vend", "--url", url, "--device", "sn-1", code=code)
        assert advice in device["advice"], device
        assert not (tmp_path / "sn-1" / CERTIFICATE).exists()


def test_advice_fits_what_went_wrong(server: Server, desk: Desk):
    assert "registers one" in desk.run("device", "list").stderr
    desk.text("device", "add", "sn-1", "--token-out", "sn-1.token")
    for options in [["--state", "revoked"], ["--group", "nowhere"]]:
        none = desk.run("device", "list", *options)
        assert none.returncode == 0 and "no device matches" in none.stderr, none
        assert "cvm device add" not in none.stderr, none
    # What is printed as the next step can be pasted.
    said = desk.text("device", "add", "sn-2", "--token-out", "sn-2.token")
    next_step = said.partition("Next:\n")[2].strip().replace("cvm", str(CVM), 1)
    pasted = subprocess.run(["sh", "-euc", next_step], capture_output=True, text=True, cwd=desk.folder, timeout=60)
    assert pasted.returncode == 0 and (desk.folder / "sn-2" / CERTIFICATE).exists(), pasted

    in_use = desk.error("ca", "revoke", desk.folder / "sn-2" / CERTIFICATE, "--reason", "leaked")
    assert "cvm device revoke sn-2" in in_use["message"] and "revoke the device" in in_use["advice"], in_use
    anna = desk.json("token", "create", "--data", server.data, "--name", "anna", "--role", "operator")["token"]
    not_admin = desk_of(server, anna).error("ca", "revoke", desk.folder / "sn-2" / CERTIFICATE, "--reason", "leaked")
    assert "--role admin" in not_admin["advice"], not_admin
    verify = desk.error("audit", "verify", code=2)
    assert "--data" in verify["advice"] and "not the server" in verify["advice"], verify


def test_a_token_is_private_and_one_registry_is_named(server: Server, desk: Desk):
    file = server.folder / "operator.token"
    file.write_text(f"{server.token}\n")
    del desk.environment["CVM_OPERATOR_TOKEN"]
    file.chmod(0o644)
    assert "chmod 600" in desk.error("device", "list", "--operator-token-file", file)["advice"]
    file.chmod(0o600)
    assert desk.lines("device", "list", "--operator-token-file", file) == []
    assert "CVM_OPERATOR_TOKEN" in desk.error("device", "list", code=2)["advice"]
    desk.environment["CVM_OPERATOR_TOKEN_FILE"] = str(file)
    assert desk.lines("device", "list") == []
    explicit = ["--server", server.url]
    for command in [["device", "list"], ["status"]]:
        two = desk.error(*command, *explicit, "--table", "cvm-devices", code=2)
        assert "CVM_TABLE" in two["advice"] and "CVM_SERVER" in two["advice"]
        desk.environment["CVM_TABLE"] = "cvm-devices"
        assert desk.error(*command, code=2)["code"] == "usage", "both are variables"
        del desk.environment["CVM_TABLE"]
    assert desk.error("audit", *explicit, "--audit-table", "cvm-audit", code=2)["code"] == "usage"
    assert desk.error("audit", *explicit, "--data", server.data, code=2)["code"] == "usage"
    assert "as it was written" in desk.text("audit", "verify", "--data", server.data)
    desk.environment["CVM_SERVER"] = ""
    none = desk.error("device", "list", code=2)
    assert "--table" in none["advice"] and "--server" in none["advice"]
    # A table alone can be asked for claims.
    assert "--server" not in desk.error("claim", "list", code=2)["advice"]


def test_an_option_that_names_a_registry_overrides_variables_that_name_others(server: Server, desk: Desk):
    desk.text("device", "add", "sn-1")
    token = {"CVM_OPERATOR_TOKEN": server.token, "CVM_SERVER_CA": str(server.ca)}
    desk.environment |= {"CVM_SERVER": "https://localhost:1", "CVM_TABLE": "none", "CVM_AUDIT_TABLE": "none"}
    desk.environment |= token | {"CVM_DATA": str(server.folder / "none")}
    at_server = ["--server", server.url]
    assert [entry["action"] for entry in desk.lines("audit", "sn-1", "--data", server.data)] == ["created"]
    assert [entry["action"] for entry in desk.lines("audit", "sn-1", *at_server)] == ["created"]
    for command in [["device", "list", *at_server], ["device", *at_server, "list"]]:
        assert [device["deviceId"] for device in desk.lines(*command)] == ["sn-1"]
    assert desk.json("status", *at_server)["devices"] == 1
    desk.environment |= {"AWS_ENDPOINT_URL": "http://localhost:1", "AWS_REGION": "eu-central-1"}
    desk.environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_MAX_ATTEMPTS": "1"}
    for command in [["device", "list", "--table", "x"], ["status", "--table", "x"], ["audit", "--audit-table", "x"]]:
        assert desk.error(*command)["code"] == "registry", "the table is asked"


def test_the_file_of_a_token_is_removed_when_the_server_refuses_the_device(server: Server, desk: Desk, tmp_path):
    made = tmp_path / "sn-1.token"
    viewer = desk.json("token", "create", "--data", server.data, "--name", "vera", "--role", "viewer")["token"]
    add = ["device", "add", "sn-1", "--token-out", made]
    assert desk_of(server, viewer).error(*add)["code"] == "not-allowed" and not made.exists()
    assert desk_of(server, "cvm_0123456789abcdef_none").error(*add)["code"] == "unauthenticated" and not made.exists()
    nobody = Desk(tmp_path, f"https://localhost:{free_port()}", server.ca, server.token)
    assert nobody.error(*add)["code"] == "no-answer" and not made.exists(), "it was never asked"

    class Breaks(BaseHTTPRequestHandler):
        """Fails, or fails as soon as the device is registered."""

        registers = False

        def do_POST(self) -> None:
            done = {"isSuccessful": True, "errors": [], "warnings": [], "cvm": {"entries": ["created"]}}
            self.send_response(200 if self.registers else 500)
            self.end_headers()
            self.wfile.write(json.dumps(done if self.registers else {}).encode())

        def do_GET(self) -> None:
            self.send_response(403)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Breaks) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        broken_desk = Desk(tmp_path, f"http://127.0.0.1:{broken.server_port}", None, server.token)
        failed = broken_desk.run(*add)
        assert failed.returncode == 1 and f"stays in {made}" in failed.stderr, failed
        assert "cvm device show sn-1" in failed.stderr and made.exists()
        desk.text("device", "add", "sn-1", "--token-file", made)
        Breaks.registers, later = True, tmp_path / "sn-2.token"
        unread = broken_desk.run("device", "add", "sn-2", "--token-out", later)
        assert "sn-2 is registered, and cannot be read" in unread.stderr and later.exists(), unread
        broken.shutdown()


def test_threat_08_a_key_of_another_device_is_not_registered(server: Server, desk: Desk, tmp_path):
    folder = server.vend("sn-1", server.register("sn-1"))
    request = tmp_path / "sn-2.csr"
    openssl("req", "-new", "-key", folder / PRIVATE_KEY, "-subj", "/CN=sn-2", "-out", request)
    refused = desk.error("device", "add", "sn-2", "--csr", request)
    assert refused["code"] == "key-in-use" and "sn-1 has this key" in refused["message"], refused
    assert desk.error("device", "show", "sn-2")["code"] == "not-found"
    desk.text("device", "delete", "sn-1", "--yes")
    desk.text("device", "add", "sn-2", "--csr", request)


def test_status_counts_what_there_is(server: Server, desk: Desk):
    server.vend("sn-1", server.register("sn-1"))
    server.register("sn-2")
    desk.text("device", "disable", "sn-2", "--reason", "on hold")
    fleet = desk.json("status", "--expiring", "3650d")
    assert (fleet["devices"], fleet["disabled"], fleet["certificates"]) == (2, 1, 1)
    assert (fleet["certificatesExpiring"], fleet["recently"]["provisionedLastHour"]) == (1, 1)
    assert fleet["states"]["provisioned"] == 1
    assert (fleet["connected"], fleet["certificatesNeverUsed"]) == (None, None), "no broker tells this server"
    text = desk.text("status")
    assert "devices       2" in text and "connected     unknown" in text


def test_status_takes_two_requests_however_many_devices_there_are(tmp_path):
    with serving(tmp_path, "--rate-per-operator", "2/h") as server:
        assert desk_of(server).json("status")["devices"] == 0


def test_a_device_that_is_not_registered_is_seen(server: Server, desk: Desk):
    for device in ["sn-O001", "sn-O001", "other"]:
        assert server.ask("POST", "/v1/certificates", {"deviceId": device}, token="").status == 403
    listed = desk.json("audit", "--unknown")
    assert [(it["deviceId"], it["attempts"], it["door"]) for it in listed["devices"]] in (
        [("other", 1, "vend"), ("sn-O001", 2, "vend")],
        [("sn-O001", 2, "vend"), ("other", 1, "vend")],
    )
    assert listed["devices"][0]["source"] == "127.0.0.1" and listed["attemptsLastDay"] == 3
    assert "sn-O001" in desk.text("audit", "--unknown") and "unregistered  3 requests" in desk.text("status")
    assert "sn-O001 is not registered, and asked 2 times" in desk.run("audit", "sn-O001").stderr
    assert "3 requests" in desk.run("audit").stderr
    shown = desk.error("device", "show", "sn-O001")
    assert shown["code"] == "not-found" and "asked 2 times" in shown["message"] and "cvm device add sn-O001" in shown["advice"]
    assert "asked" not in desk.error("device", "show", "never-heard-of")["message"]
    # The list outlives the server, and can be read without one.
    server.end()
    del desk.environment["CVM_SERVER"]
    kept = desk.json("audit", "--unknown", "--data", server.data)
    assert kept["count"] == 2
    with serving(server.folder) as again:
        desk = desk_of(again, server.token)
        desk.text("device", "add", "sn-O001", "--token-out", "token")
        left = desk.json("status")["unknownDevices"]
        assert [it["deviceId"] for it in left["devices"]] == ["other"] and left["attemptsLastDay"] == 3


def test_threat_02_a_sweep_is_seen_and_hides_nobody(tmp_path):
    with serving(tmp_path, "--trusted-proxy", "127.0.0.1", "--rate-per-source", "9999/s") as server:

        def ask(device: str, source: str) -> None:
            body = {"deviceId": device}
            assert server.ask("POST", "/v1/certificates", body, token="", x_forwarded_for=source).status == 403

        ask("mistyped", "192.0.2.1")
        for number in range(150):
            ask(f"sweep-{number}", f"2001:db8::{number:x}")
        desk = desk_of(server)
        told = desk.run("status").stderr
        assert "sweep" in told and "2001:db8::" in told and "150 devices" in told, told
        assert "asked once" in desk.error("device", "show", "mistyped")["message"]


DEVICE = {"deviceId": "sn-1"}


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {}, b"<html>"),
        (200, {}, b"[" * 100_000),
        (200, {}, b'"' + b"x" * (20 << 20) + b'"'),
        (200, {}, json.dumps([DEVICE]).encode()),
        (200, {"x-ms-continuation": "again"}, b"[]"),
        (302, {"location": "http://127.0.0.1:1/"}, b""),
        (404, {}, b'{"Message": 7}'),
        (418, {"x-request-id": "x" * 9_000}, b'{"Message": "ErrorCode:\\u001b[2J;' + b"x" * 9_000 + b'"}'),
        (400, {}, json.dumps({"isSuccessful": True, "errors": [], "warnings": [], "cvm": {"entries": []}}).encode()),
        (200, {}, json.dumps({"isSuccessful": True, "errors": [], "warnings": [], "cvm": {"entries": [None]}}).encode()),
        (503, {"retry-after": "18446744073709551615"}, b"{}"),
        (429, {"retry-after": "86400"}, b"{}"),
    ],
)
def test_threat_26_whatever_a_server_answers_is_an_error_and_no_more(tmp_path, status, headers, body):
    class Hostile(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, *_):
            pass

    hostile = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=hostile.serve_forever, daemon=True).start()
    desk = Desk(tmp_path, f"http://127.0.0.1:{hostile.server_port}", token="cvm_token")
    (tmp_path / "list.csv").write_text("serial\nsn-1\n")
    for command in [
        ["device", "show", "sn-1"], ["device", "list"], ["device", "export"], ["device", "delete", "sn-1"],
        ["device", "add", "sn-1"], ["device", "import", "list.csv", "--proof", "claim"], ["status"], ["audit"],
    ]:
        (tmp_path / "list.csv.cvm-import").unlink(missing_ok=True)
        done = desk.run(*command)
        assert done.returncode == 1 and "next:" in done.stderr, (command, done)
        assert "\x1b" not in done.stderr and len(done.stderr) < 4_000, done.stderr
    hostile.shutdown()
