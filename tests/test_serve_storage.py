"""What a server keeps: a registry that was lost, whose files are whose, a disk that is full, and a clock that is wrong."""

import json
import os
import shutil
import sqlite3
import ssl
import stat
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from server import Server, openssl, start
from stack import CVM, until
from test_reconcile import FAKETIME
from test_serve_backup import backup, crl_number

NOT_STARTED = 1


def refused(data: Path, *options: object, **variables: str) -> str:
    """What a server says that does not start."""
    command = [CVM, "serve", "--data", data, "--listen", "127.0.0.1:0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | variables)
    assert done.returncode == NOT_STARTED, done.stdout + done.stderr
    return done.stderr


def lists(data: Path) -> list[x509.CertificateRevocationList]:
    end = "-----END X509 CRL-----\n"
    texts = (data / "ca" / "crl.pem").read_text().split(end)
    return [x509.load_pem_x509_crl(f"{text}{end}".encode()) for text in texts if text]


def place(data: Path, name: str, value: str) -> None:
    with sqlite3.connect(data / "registry" / "registry.sqlite") as registry:
        changed = registry.execute("UPDATE places SET place = ? WHERE name = ?", (value, name))
    assert changed.rowcount == 1


@pytest.mark.parametrize("loss", ["folder", "file", "content"])
def test_threat_56_a_server_whose_registry_was_lost_publishes_no_empty_list(server: Server, tmp_path, loss):
    server.vend("sn-1", server.register("sn-1"))
    assert server.ask("POST", "/devices/sn-1/disable", {"reason": "stolen"}).status == 200
    until(lambda: "Serial Number" in openssl("crl", "-in", server.crl, "-noout", "-text"), "a revocation")
    assert server.end() == 0
    published, number = server.crl.read_bytes(), crl_number(server.data)
    registry = server.data / "registry"
    match loss:
        case "folder":
            shutil.rmtree(registry)
        case "file":
            (registry / "registry.sqlite").unlink()
        case "content":
            (registry / "registry.sqlite").write_bytes(b"")

    said = refused(server.data)
    assert "the registry was lost" in said and f"--accept-lost-registry {number}" in said
    # Not the next time either, and not with the number of another loss.
    assert "the registry was lost" in refused(server.data, "--accept-lost-registry", str(number - 1))
    assert server.crl.read_bytes() == published

    accepted = start(server.data, tmp_path, "--accept-lost-registry", str(number))
    assert "what the CA had revoked is valid again" in accepted.log.read_text()
    assert crl_number(server.data) > number
    assert accepted.end() == 0
    again = start(server.data, tmp_path)
    assert again.end() == 0


def test_threat_56_the_numbers_of_lists_go_on_after_a_registry_of_long_ago_was_restored(server: Server, tmp_path):
    assert server.end() == 0
    # The lists were made under a clock that was ahead.
    ahead = int(time.time()) + 10_000_000
    place(server.data, "crl-number", str(ahead))
    assert start(server.data, tmp_path).end() == 0
    published = crl_number(server.data)
    assert published > ahead
    place(server.data, "crl-number", "7")
    before = server.crl.read_bytes()
    said = refused(server.data)
    assert "the registry is older than the published revocation lists" in said and server.crl.read_bytes() == before
    assert f"--accept-lost-registry {published} once" in said
    assert start(server.data, tmp_path, "--accept-lost-registry", str(published)).end() == 0
    assert crl_number(server.data) > published
    assert start(server.data, tmp_path).end() == 0


def test_threat_59_the_files_of_the_registry_are_for_their_owner_whatever_was_there(tmp_path):
    data = tmp_path / "data"
    registry = data / "registry"
    registry.mkdir(parents=True)
    registry.chmod(0o777)
    (registry / "registry.lock").touch(0o666)
    # Whoever can write here can make an operator.
    (data / "operators").mkdir()
    for folder in (data, data / "operators"):
        folder.chmod(0o777)
    before = os.umask(0)
    try:
        server = start(data, tmp_path)
    finally:
        os.umask(before)
    try:
        assert [stat.S_IMODE((data / name).stat().st_mode) for name in ("registry", "operators", "")] == [0o700, 0o700, 0o755]
        modes = {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in registry.iterdir()}
        assert set(modes) >= {"registry.lock", "registry.sqlite", "registry.sqlite-wal"}
        assert set(modes.values()) == {"0o600"}, modes
    finally:
        server.end()


def test_a_backup_is_not_made_inside_the_folder_of_the_server(server: Server, tmp_path):
    (tmp_path / "link").symlink_to(server.data)
    for out in [server.data / "backup", server.data / "jobs" / "new" / "backup", tmp_path / "link" / "backup"]:
        made = backup(server.data, out)
        assert made.returncode != 0 and "inside the server's folder" in made.stderr, made.stderr
    assert not (server.data / "backup").exists() and not (server.data / "jobs" / "new").exists()


def test_threat_34_a_server_that_cannot_write_is_not_ready_and_logs_why(tmp_path, monkeypatch):
    # With a limit on the size of files, writes fail as on a full disk; without the trap, the process would be ended.
    program = tmp_path / "cvm"
    program.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {CVM} \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setattr("server.CVM", program)
    server = start(tmp_path / "data", tmp_path)
    ready = lambda: server.ask("GET", "/readyz", token="")
    limit = lambda size: subprocess.run(["prlimit", "--pid", str(server.process.pid), f"--fsize={size}:"], check=True)
    try:
        assert ready().status == 200
        limit(16 * 1024)
        until(lambda: ready().status == 503, "a server that is not ready")
        assert ready().body == b"the registry does not answer\n"
        assert server.ask("PUT", "/devices/sn-1", {}).status == 503
        limit("unlimited")
        until(lambda: ready().status == 200, "a server that is ready again")
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        told = [line["error.sources"] for line in lines if line.get("message") == "the server is not ready"]
        assert len(told) == 1 and "disk" in told[0][-1], told
    finally:
        server.end()


def test_readiness_is_limited_by_source_and_apart_from_everything_else(tmp_path):
    server = start(tmp_path / "data", tmp_path, "--rate-per-source", "5/h")
    try:
        statuses = [server.ask("GET", "/readyz", token="").status for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        assert server.ask("GET", "/ca.pem", token="").status == 200
        assert server.ask("GET", "/livez", token="").status == 200
    finally:
        server.end()


class Clock:
    """A clock that is set while a server runs (Debian: libfaketime)."""

    def __init__(self, folder: Path, shows: str):
        assert FAKETIME, "libfaketime is missing: apt-get install libfaketime"
        self.file = folder / "clock"
        self.set(shows)

    def set(self, shows: str) -> None:
        self.file.write_text(shows)

    @property
    def variables(self) -> dict[str, str]:
        faked = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_TIMESTAMP_FILE": str(self.file)}
        return faked | {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def server_certificate(server: Server) -> x509.Certificate:
    host, port = server.url.removeprefix("https://").split(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())


def test_threat_38_what_was_made_while_the_clock_was_ahead_is_made_again(tmp_path):
    clock = Clock(tmp_path, "+0")
    server = start(tmp_path / "data", tmp_path, **clock.variables)
    soon = lambda: datetime.now(UTC) + timedelta(seconds=1)
    are_early = lambda: [crl.last_update_utc > soon() for crl in lists(server.data)]
    is_early = lambda: server_certificate(server).not_valid_before_utc > soon()
    try:
        assert are_early() == [False, False] and not is_early()
        clock.set("+800d")
        until(lambda: all(are_early()), "lists of the future")
        until(is_early, "a certificate of the future")
        clock.set("+0")
        until(lambda: not any(are_early()), "lists that are valid now")
        until(lambda: not is_early(), "a certificate that is valid now")
        assert server.ask("GET", "/readyz", token="").status == 200
    finally:
        server.end()


def test_threat_38_no_ca_is_made_under_a_wrong_clock_and_a_server_with_one_is_not_ready(tmp_path):
    clock, data = Clock(tmp_path, "@2001-01-01 00:00:00"), tmp_path / "data"
    assert "the clock of this machine is wrong" in refused(data, **clock.variables)
    assert not (data / "ca" / "root.key").exists()
    clock.set("+0")
    server = start(data, tmp_path, **clock.variables)
    try:
        assert server.ask("GET", "/readyz", token="").status == 200
        clock.set("@2001-01-01 00:00:00")
        unready = lambda: server.ask("GET", "/readyz", token="")
        until(lambda: unready().status == 503, "a server that is not ready")
        assert unready().body == b"the clock of the server is wrong\n"
    finally:
        clock.set("+0")
        server.end()


def test_threat_60_the_end_of_the_trail_is_logged_and_a_trail_that_was_written_again_does_not_continue_it(tmp_path):
    data = tmp_path / "data"
    server = start(data, tmp_path)
    server.register("sn-1")
    assert server.end() == 0
    token = server.token
    server = start(data, tmp_path)
    server.token = token
    server.register("sn-2")
    assert server.end() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    ends = [line["end"] for line in lines if line.get("message") == "end of the audit trail"]
    assert len(ends) == 1 and ends[0].endswith("@1"), ends

    def verify(*expected: str) -> subprocess.CompletedProcess:
        options = [option for end in expected for option in ("--expect", end)]
        command = [CVM, "audit", "verify", "--data", data, *options]
        return subprocess.run(command, capture_output=True, text=True)

    shown = verify(*ends)
    assert shown.returncode == 0, shown.stderr
    end = shown.stdout.splitlines()[-1].strip()
    assert end.endswith("@2") and verify(end, end.partition("@")[0]).returncode == 0
    other = verify("0" * 64)
    assert other.returncode == 1 and "does not continue" in other.stderr
    assert verify("0").returncode == 2
    with sqlite3.connect(data / "registry" / "registry.sqlite") as registry:
        registry.execute("UPDATE devices SET last_entry = NULL WHERE id = 'sn-1'")
    hidden = verify()
    assert hidden.returncode == 1 and "does not show entry 1" in hidden.stderr, hidden.stderr


def test_entries_of_the_trail_that_are_older_than_the_retention_are_removed_and_what_is_left_is_verified(tmp_path):
    clock, data = Clock(tmp_path, "+0"), tmp_path / "data"
    server = start(data, tmp_path, "--audit-retention", "30d", **clock.variables)
    server.register("sn-1")
    assert server.end() == 0
    history = [CVM, "audit", "sn-1", "--data", data]
    assert "created" in subprocess.run(history, capture_output=True, text=True).stdout
    clock.set("+31d")
    server = start(data, tmp_path, "--audit-retention", "30d", **clock.variables)
    until(lambda: "old entries of the audit trail were removed" in server.log.read_text(), "a trail without old entries")
    assert server.end() == 0
    assert "created" not in subprocess.run(history, capture_output=True, text=True).stdout
    command = [CVM, "audit", "verify", "--data", data]
    verified = subprocess.run(command, capture_output=True, text=True)
    assert verified.returncode == 0, verified.stderr
    assert "1 older entry removed, as --audit-retention of `cvm serve` does" in verified.stderr
    with sqlite3.connect(data / "registry" / "registry.sqlite") as registry:
        registry.execute("UPDATE chains SET removed = removed + 1")
    assert subprocess.run(command, capture_output=True).returncode == 1
    with pytest.raises(AssertionError, match="give 1d or more"):
        start(tmp_path / "other", tmp_path, "--audit-retention", "23h")
