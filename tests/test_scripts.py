"""The scripts that no other test runs, each in a short form: those of "make measure" and "make local", and the rest."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import FUNCTIONS
from local_aws import ROOT
from measure_cases import NOT_MEASURED
from stack import CVM


def run(script: str, *options: object, **variables: str) -> str:
    """What a script says."""
    command = [sys.executable, ROOT / "scripts" / f"{script}.py", *map(str, options)]
    environment = os.environ | variables
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_function_is_measured_or_there_is_a_reason():
    lines = run("measure", "--cold", 1, "--warm", 2, "--any-build").splitlines()
    measured = {line.split("|")[1].strip() for line in lines[2:]} - {"the same in Python, boto3"}
    assert measured == set(FUNCTIONS) - set(NOT_MEASURED) and set(NOT_MEASURED) <= set(FUNCTIONS)


def test_the_server_is_measured_beside_cfssl():
    table = run("measure_serve", "--cvm", CVM, "--devices", 300, "--seconds", 1, "--runs", 1)
    servers = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| c")}
    assert {"cfssl", "cfssl, TLS", "cvm serve, TLS", "cvm serve, TLS, a connection each"} <= servers, table


def test_what_response_times_reveal_is_measured_for_each_kind_of_device():
    table = run("measure_refusals", "--cvm", CVM, "--requests", 10)
    kinds = [re.split(r"\s{2,}", line)[0] for line in table.splitlines()]
    assert kinds == ["kind", "unknown", "unknown again", "registered", "provisioned", "disabled"], table


def test_the_folder_of_a_server_is_kept_for_later_versions(tmp_path):
    run("keep_serve_data", "short", tmp_path)
    kept = tmp_path / "serve-short"
    assert json.loads((kept / "expected.json").read_text())["entries"] > 0
    assert (kept / "data" / "registry" / "registry.sqlite").is_file()


def test_the_first_minute_ends_with_lines_that_a_shell_takes(tmp_path: Path):
    """What `make local` runs, and what it says to paste."""
    local = {"CVM_LOCAL": str(tmp_path / "local")}
    try:
        said = run("demo", **local)
        lines = [line.removeprefix("    ") for line in said.splitlines() if line.startswith("    ")]
        script = "\n".join(["set -eu", *lines])
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)
    finally:
        run("local_aws", "stop", **local)
    assert done.returncode == 0, script + done.stderr
    device = re.search(r"DEVICE=(\S+)", script).group(1)
    assert f"subject=CN = {device}" in done.stdout and "PUBACK" in done.stdout, done.stdout
