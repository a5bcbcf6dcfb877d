"""`cvm device` on many devices at once, `cvm device list` with filters and sorting, `cvm audit` with filters, `cvm job`."""

import json
import os
import pty
import subprocess
import time
from pathlib import Path

import pytest

from server import Server
from stack import CVM
from test_operate_server import Desk, desk_of, serving

ALL = [f"sn-{number:02}" for number in range(12)]


@pytest.fixture
def desk(server: Server) -> Desk:
    """An operator of a server with twelve devices, of which six are of the group berlin."""
    desk = desk_of(server)
    rows = "".join(f"{device},{'berlin' if number % 2 else ''}\n" for number, device in enumerate(ALL))
    (desk.folder / "serials.csv").write_text(f"serial,group\n{rows}")
    desk.text("device", "import", "serials.csv", "--tokens", "tokens.jsonl")
    return desk


def disabled(desk: Desk) -> list[str]:
    return sorted(device["deviceId"] for device in desk.lines("device", "list", "--status", "disabled"))


def vend(server: Server, desk: Desk, device: str) -> None:
    kept = [json.loads(line) for line in (desk.folder / "tokens.jsonl").read_text().splitlines()]
    [token] = [line["token"] for line in kept if line["deviceId"] == device]
    file = desk.folder / f"{device}.token"
    file.touch(mode=0o600)
    file.write_text(token)
    server.vend(device, file)


def test_devices_of_a_filter_are_changed_after_a_preview_and_each_is_reported(server: Server, desk: Desk):
    berlin = ALL[1::2]
    words = ["device", "disable", "--group", "berlin", "--reason", "recall 12"]
    preview = desk.lines(*words, "--dry-run")
    assert [line["deviceId"] for line in preview] == berlin and {line["status"] for line in preview} == {"enabled"}
    assert disabled(desk) == []
    # Without a terminal nobody can be asked.
    asked = desk.error(*words, code=2)
    assert "disable 6 devices (sn-01, sn-03, " in asked["message"] and "--yes" in asked["advice"], asked
    assert disabled(desk) == []

    report = desk.lines(*words, "--yes")
    assert [(line["deviceId"], line["outcome"], line["status"]) for line in report] == [
        (device, "disabled", "disabled") for device in berlin
    ]
    assert disabled(desk) == berlin
    trail = desk.lines("audit", "--reason", "recall")
    assert sorted(entry["deviceId"] for entry in trail if entry["action"] == "disabled") == berlin
    text = desk.text("device", "enable", "--group", "berlin", "--status", "disabled", "-y")
    assert "✔ sn-01 enabled" in text and "6 devices enabled, 0 failed" in text
    assert desk.run("device", "enable", "--status", "disabled", "-y").stderr == "! no device matches; nothing was done\n"


def test_devices_of_a_file_are_changed_and_those_that_cannot_be_are_named(server: Server, desk: Desk):
    (desk.folder / "list.txt").write_text("# recall\nsn-00\nsn-99\n\nsn-01\nsn-00\n")
    preview = desk.run("device", "delete", "--file", "list.txt", "--dry-run")
    assert preview.returncode == 1 and "sn-99   not-found" in preview.stdout, preview
    done = desk.run("device", "delete", "--file", "list.txt", "--yes", "--output", "json")
    assert done.returncode == 1
    report = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["deviceId"], line["outcome"]) for line in report] == [
        ("sn-00", "deleted"), ("sn-99", "failed"), ("sn-01", "deleted"),
    ]  # fmt: skip
    assert report[1]["error"]["code"] == "not-found"
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "devices-failed"
    assert [device["deviceId"] for device in desk.lines("device", "list", "--sort", "id")] == ALL[2:]

    (desk.folder / "list.txt").write_text("sn-02\nno id\n")
    bad = desk.error("device", "delete", "--file", "list.txt", "--yes")
    assert bad["code"] == "file" and "line 2" in bad["message"] and "nothing was done" in bad["message"], bad
    missing = desk.error("device", "delete", "--file", "nowhere.txt", "--yes")
    assert missing["code"] == "file" and "nowhere.txt" in missing["message"], missing
    assert desk.json("device", "show", "sn-02")["state"] == "registered"
    piped = subprocess.run(
        [CVM, "device", "delete", "--file", "-", "-y"], input="sn-02\nsn-03\n", env=desk.environment, text=True,
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert piped.returncode == 0 and "2 devices deleted" in piped.stdout, piped


def test_every_change_is_made_to_many(server: Server, desk: Desk):
    for device in ALL[:3]:
        vend(server, desk, device)
    states = lambda: [desk.json("device", "show", device)["state"] for device in ALL[:3]]  # noqa: E731
    assert "3 devices may renew" in desk.text("device", "renew", "--state", "provisioned", "--yes")
    assert states() == ["registered"] * 3
    some = desk.run("device", "approve", *ALL[:2])
    assert some.returncode == 1 and some.stdout.count("not in quarantine but registered") == 2, some
    several = desk.run("device", "revoke", *ALL[:4], "--reason", "leaked")
    assert several.returncode == 1 and several.stdout.count("✔") == 3 and "✘ device sn-03" in several.stdout, several
    assert states() == ["revoked"] * 3
    assert "2 devices deleted" in desk.text("device", "delete", *ALL[:2])


def test_what_is_meant_has_to_be_clear(server: Server, desk: Desk):
    assert "--file" in desk.error("device", "delete", code=2)["advice"]
    assert "either" in desk.error("device", "delete", "sn-00", "--group", "berlin", code=2)["advice"]
    both = desk.run("device", "delete", "sn-00", "--file", "list.txt")
    assert both.returncode == 2 and len(desk.lines("device", "list")) == len(ALL)


def test_a_device_that_has_changed_since_it_was_chosen_is_not_deleted(server: Server, desk: Desk):
    """The question is answered after somebody else has changed one of the devices."""
    leader, follower = pty.openpty()
    words = ["device", "delete", "--prefix", "sn-0"]
    with subprocess.Popen([CVM, *words], env=desk.environment, stdin=follower, stdout=follower, stderr=follower) as process:
        os.close(follower)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(leader, 4096)
        assert b"delete 10 devices (sn-00, sn-01, " in said, said
        desk.text("device", "disable", "sn-03", "--reason", "evidence")
        os.write(leader, b"y\n")
        while b"failed" not in said.partition(b"[y/N]")[2].rpartition(b"devices deleted")[2]:
            said += os.read(leader, 4096)
        process.wait(timeout=60)
    os.close(leader)
    assert process.returncode == 1, said
    assert sorted(device["deviceId"] for device in desk.lines("device", "list")) == ["sn-03", "sn-10", "sn-11"]


def test_nothing_is_done_without_a_yes(server: Server, desk: Desk):
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [CVM, "device", "delete", "--prefix", "sn-0"], env=desk.environment, stdin=follower, stderr=follower,
        stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(follower)
        os.write(leader, b"\n")
        assert process.wait(timeout=60) == 1
    os.close(leader)
    assert len(desk.lines("device", "list")) == len(ALL)


def test_a_list_is_filtered_and_sorted(server: Server, desk: Desk):
    ids = lambda *words: [device["deviceId"] for device in desk.lines("device", "list", *words)]  # noqa: E731
    assert sorted(ids("--prefix", "sn-1")) == ["sn-10", "sn-11"]
    assert ids("--prefix", "sn-1", "--group", "berlin") == ["sn-11"]
    assert ids("--sort", "id", "--limit", "3") == ALL[:3]
    assert ids("--sort", "id", "--reverse", "--limit", "2") == ["sn-11", "sn-10"]

    for device in ["sn-04", "sn-02"]:
        vend(server, desk, device)
        time.sleep(1.1)  # A time in the registry has whole seconds.
    assert sorted(ids("--expires-within", "3650d")) == ["sn-02", "sn-04"]
    assert ids("--expires-within", "1d") == []
    assert ids("--sort", "expires", "--limit", "2") == ["sn-04", "sn-02"]
    assert ids("--sort", "expires", "--reverse", "--limit", "2") == ["sn-02", "sn-04"]
    assert ids("--sort", "changed", "--limit", "1") == ["sn-02"]
    assert ids("--refused") == []
    wrong = desk.folder / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("a" * 43)
    refused = desk.run("vend", "--url", server.url, "--root-ca", server.ca, "--device", "sn-07", "--token-file", wrong)
    assert refused.returncode == 1, refused
    assert ids("--refused") == ids("--refused-within", "1h", "--prefix", "sn-") == ["sn-07"]
    assert ids("--sort", "refused", "--limit", "1") == ["sn-07"]
    assert ids("--refused", "--group", "nowhere") == []
    exported = desk.text("device", "export", "--prefix", "sn-1", "--format", "csv")
    assert len(exported.splitlines()) == 3


def test_the_trail_is_searched(server: Server, desk: Desk):
    vend(server, desk, "sn-00")
    desk.text("device", "disable", "sn-00", "--reason", "stolen, ticket 4711")
    actions = lambda *words: [(entry["deviceId"], entry["action"]) for entry in desk.lines("audit", *words)]  # noqa: E731
    assert actions("--door", "vend") == [("sn-00", "provisioned")]
    assert actions("--reason", "4711") == actions("sn-00", "--reason", "stolen") == [("sn-00", "disabled")]
    assert len(actions("--since", "2026-01-01")) == len(ALL) + 2
    assert actions("--until", "2026-01-01") == [] and actions("--since", "2999-01-01", "--until", "2999-01-02") == []
    assert actions("--since", "2026-01-01", "--limit", "1", "--door", "vend") == [("sn-00", "provisioned")]
    assert "--since" in desk.error("audit", "--since", "2026-01-02", "--until", "2026-01-01", code=2)["advice"]
    wrong = desk.run("audit", "--since", "yesterday")
    assert wrong.returncode == 2 and "2026-01-31" in wrong.stderr


def test_lists_fit_a_terminal(server: Server, desk: Desk):
    long = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6-" + "x" * 40
    desk.text("device", "add", long, "--trusted-user")
    desk.text("device", "disable", long, "--reason", "because " * 20)
    for words in [["device", "list"], ["audit"], ["token", "list", "--data", server.data]]:
        leader, follower = pty.openpty()
        with subprocess.Popen([CVM, *words], env=desk.environment, stdout=follower, stderr=follower) as process:
            os.close(follower)
            said = b""
            try:
                while part := os.read(leader, 65536):
                    said += part
            except OSError:  # The terminal is closed.
                pass
            assert process.wait(timeout=60) == 0, said
        os.close(leader)
        lines = said.decode().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
        assert lines and all(len(line) <= 80 for line in lines), lines
        assert words[0] == "token" or long in lines, "no id is cut"


def test_jobs_are_started_watched_and_ended(server: Server, desk: Desk):
    files = server.data / "jobs"
    (files / "more.csv").write_text("serial\nsn-20\nsn-21\n")
    made = desk.json("job", "import", "more.csv", "--group", "hamburg", "--wait")
    assert (made["status"], made["cvm"]["lines"]["created"]) == ("completed", 2)
    assert desk.json("device", "show", "sn-20")["group"] == "hamburg"
    assert "2 created" in desk.text("job", "show", made["jobId"])
    (files / "bad.csv").write_text("serial\nsn-22\nno id\n")
    assert desk.error("job", "import", "bad.csv", "--wait")["code"] == "lines-failed"

    exported = desk.json("job", "export", "--out", "some.txt", "--prefix", "sn-2", "--wait")
    assert exported["cvm"]["devices"] == 3 and len((files / "some.txt").read_text().splitlines()) == 3
    listed = desk.lines("job", "list")
    assert [job["type"] for job in listed] == ["export", "import", "import"]
    assert "completed" in desk.text("job", "list")
    assert desk.json("job", "cancel", made["jobId"])["status"] == "completed", "it is at its end"

    missing = desk.error("job", "import", "nowhere.csv", "--wait")
    assert missing["code"] == "not-completed", missing
    assert "cvm job list" in desk.error("job", "show", "0" * 32)["advice"]
    outside = desk.error("job", "import", "../secret.csv")
    assert "correct" in outside["advice"], outside
    mode = desk.error("job", "import", "more.csv", "--mode", "sometimes")
    assert "correct" in mode["advice"], mode
    desk.environment["CVM_SERVER"] = ""
    assert "--server" in desk.error("job", "list", code=2)["advice"]


def test_a_server_that_goes_away_ends_a_change_of_many_with_its_place(tmp_path: Path):
    with serving(tmp_path / "server") as server:
        desk = desk_of(server)
        (desk.folder / "serials.csv").write_text("serial\n" + "".join(f"sn-{number:04}\n" for number in range(400)))
        desk.text("device", "import", "serials.csv", "--tokens", "tokens.jsonl")
        words = [CVM, "device", "delete", "--prefix", "sn-", "--yes", "--output", "json"]
        errors = tmp_path / "errors"
        with (
            errors.open("w") as stderr,
            subprocess.Popen(words, env=desk.environment, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
        ):
            first = [process.stdout.readline() for _ in range(20)]
            server.process.kill()
            done = len(first) + len(process.stdout.readlines())
            assert process.wait(timeout=120) == 1
        stopped = json.loads(errors.read_text().splitlines()[-1])["error"]
        assert f"stopped after {done} of 400 devices" in stopped["message"], stopped
        assert "run the same command again" in stopped["advice"], stopped
