"""Several servers on one MySQL (Debian: mariadb-server), which is what one has behind a load balancer."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

from mqtt_device import CERTIFICATE
from server import openssl, start
from stack import CVM, until
from test_operate_server import Desk


def number(crl: Path) -> int:
    """The number of the first list in a file."""
    return int(openssl("crl", "-noout", "-crlnumber", "-in", crl).partition("=")[2], 16)


def test_servers_on_one_database_are_one(database, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one = start(folders[0] / "data", folders[0], *database)
    for shared in ["ca", "operators"]:
        shutil.copytree(one.data / shared, folders[1] / "data" / shared)
    two = start(folders[1] / "data", folders[1], *database)
    try:
        assert two.token is None
        two.token = one.token
        token = one.register("sn-0001")
        certificate = (two.vend("sn-0001", token) / CERTIFICATE).read_text()
        shutil.copytree(two.folder / "sn-0001", one.folder / "sn-0001")
        assert (one.vend("sn-0001", token) / CERTIFICATE).read_text() == certificate, "the same key, the same answer"
        serial = openssl("x509", "-noout", "-serial", "-in", two.folder / "sn-0001" / CERTIFICATE).strip()[7:]
        before = [number(server.crl) for server in (one, two)]
        assert two.ask("PUT", "/devices/sn-0001", {"status": "disabled"}, if_match="*").status == 200
        for server in (one, two):
            until(lambda server=server: serial in openssl("crl", "-noout", "-text", "-in", server.crl), "both lists")
            assert serial in openssl("crl", "-noout", "-text", "-in", server.crl)
        after = [number(server.crl) for server in (one, two)]
        assert min(after) > max(before) and after[0] == after[1], (before, after)
        stranger = subprocess.run(
            [CVM, "serve", "--data", tmp_path / "stranger", "--listen", "127.0.0.1:0", *database],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert stranger.returncode == 1 and "put the folder ca/ of that CA" in stranger.stderr, stranger.stderr
        verify = [CVM, "audit", "verify", *database]
        whole = subprocess.run(verify, capture_output=True, text=True, timeout=30)
        assert whole.returncode == 0 and "3 entries verified" in whole.stdout, whole
        for server in (one, two):
            assert not (server.data / "registry").exists()
            shown = Path(f"/proc/{server.process.pid}/cmdline").read_bytes().decode() + server.log.read_text()
            assert "marked" not in shown
            assert server.end() == 0
    finally:
        for server in (one, two):
            server.process.kill()
            server.process.wait()


def test_it_is_operated_and_copied_as_one_on_sqlite(database, tmp_path):
    server = start(tmp_path / "data", tmp_path, *database)
    try:
        desk = Desk(tmp_path, server.url, server.ca, server.token)
        for number in range(3):
            desk.text("device", "add", f"sn-{number}", "--token-out", tmp_path / f"sn-{number}.token")
        server.vend("sn-1", tmp_path / "sn-1.token")
        desk.text("device", "disable", "sn-2", "--reason", "lost")
        assert [row["deviceId"] for row in desk.lines("device", "list", "--state", "registered")] == ["sn-0", "sn-2"]
        assert [row["deviceId"] for row in desk.lines("device", "list", "--status", "disabled")] == ["sn-2"]
        fleet = desk.json("status")
        assert (fleet["devices"], fleet["states"]["provisioned"]) == (3, 1), fleet
        assert {row["action"] for row in desk.lines("audit", "sn-2")} == {"created", "disabled"}
        made = desk.run("backup", "--data", server.data, "--out", tmp_path / "kept")
        assert made.returncode == 0 and "the database's own tools" in made.stderr, made.stderr
        assert server.end() == 0
        again = start(tmp_path / "kept", tmp_path, *database)
        assert "are those of a backup" in again.log.read_text()
        assert again.end() == 0
    finally:
        server.process.kill()
        server.process.wait()


def test_a_job_is_gone_on_with_by_another_server_when_its_own_is_killed(database, tmp_path):
    folders, jobs = [tmp_path / "one", tmp_path / "two"], tmp_path / "jobs"
    for folder in folders:
        folder.mkdir()
    shared = [*database, "--job-folder", jobs, "--rate-per-source", "1000000/s"]
    one = start(folders[0] / "data", folders[0], *shared)
    for folder in ["ca", "operators"]:
        for data in ["data", "other"]:
            shutil.copytree(one.data / folder, folders[1] / data / folder)
    two = start(folders[1] / "data", folders[1], *shared)
    # Whose folder of jobs is another one leaves the job alone.
    three = start(folders[1] / "other", folders[1], *database)
    two.token = one.token
    devices = [f"sn-{number:05}" for number in range(10_000)]
    try:
        (jobs / "serials.csv").write_text("serial\n" + "\n".join(devices))
        made = one.ask("POST", "/jobs/create", {"type": "import", "inputBlobName": "serials.csv"}).json
        read = lambda: two.ask("GET", f"/jobs/{made['jobId']}").json
        until(lambda: read()["progress"] > 0, "a first portion", seconds=60)
        one.end(signal.SIGKILL)
        assert read()["status"] == "running"
        until(lambda: read()["status"] != "running", "an end of the job", seconds=180)
        job = read()
        assert (job["status"], job["cvm"]["lines"]["created"]) == ("completed", 10_000), job
        kept = [file.read_text().splitlines() for file in (jobs / made["jobId"]).glob("tokens-*.jsonl")]
        tokens = {line["deviceId"]: line["token"] for lines in kept for line in map(json.loads, lines)}
        assert (sorted(tokens), sum(map(len, kept))) == (devices, 10_000)
        trail = two.ask("GET", "/audit?device=sn-02048").json
        assert [entry["action"] for entry in trail] == ["created"]
        token = two.folder / "token"
        token.write_text(tokens["sn-09999"])
        token.chmod(0o600)
        two.vend("sn-09999", token)
        assert list((three.data / "jobs").iterdir()) == [three.data / "jobs" / ".cvm"]
    finally:
        for server in (one, two, three):
            server.process.kill()
            server.process.wait()


def test_a_password_is_not_shown(tmp_path):
    (tmp_path / "serve.toml").write_text('listen = "127.0.0.1:1"\ndatabase = "mysql://cvm:marked@db/cvm\n')
    command = [CVM, "serve", "--config", tmp_path / "serve.toml", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and "line 2" in done.stderr and "marked" not in done.stderr, done.stderr
    address = "mysql://cvm:marked@127.0.0.1:1/cvm"
    for more, code in [(["--check"], 0), ([], 1)]:
        command = [CVM, "serve", "--data", tmp_path / "data", "--database", address, *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == code and "can be read by everybody" in done.stderr, done.stderr
        assert "marked" not in done.stdout + done.stderr
