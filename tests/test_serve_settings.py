"""What the server is told: by a file, by variables, by options."""

import json
import os
import subprocess
from pathlib import Path

from stack import CVM

ROOT = Path(__file__).parent.parent


def check(*options: object, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [CVM, "serve", "--check", "--output", "json", *options],
        capture_output=True,
        text=True,
        timeout=20,
        env={"PATH": os.environ["PATH"]} | variables,
    )


def test_options_count_more_than_variables_and_these_more_than_the_file(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text('listen = "127.0.0.1:1"\nbroker = "file.example"\nvalidity = "1d"\n')
    done = check("--listen", "127.0.0.1:3", CVM_CONFIG=str(file), CVM_LISTEN="127.0.0.1:2", CVM_VALIDITY="2d")
    assert done.returncode == 0, done.stderr
    settings = json.loads(done.stdout)["settings"]
    assert settings["listen"] == {"value": "127.0.0.1:3", "from": "option"}
    assert settings["validity"] == {"value": "2d", "from": "environment"}
    assert settings["broker"] == {"value": "file.example", "from": "file"}
    assert settings["data"] == {"value": "cvm-data", "from": "default"}


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text('lisen = "127.0.0.1:1"\nbroker = "https://b"\nvalidity = 3\n')
    done = check("--config", file)
    assert done.returncode == 2
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "usage" and "--check" in error["advice"]
    for part in ["lisen: there is no such key; is it `listen`", "broker: an endpoint is", "validity: expected"]:
        assert part in error["message"], error["message"]
    done = check("--tls-key", "/nowhere", "--max-connections", "0", "--name", "a b")
    message = json.loads(done.stderr)["error"]["message"]
    assert done.returncode == 2
    assert all(f"\n  {key}: " in message for key in ["tls-certificate", "max-connections", "name"]), message


def test_an_address_to_listen_on_may_be_a_name():
    done = check("--listen", "localhost:8443", "--metrics-listen", "localhost:9090")
    assert done.returncode == 0, done.stderr
    same = check("--listen", "127.0.0.1:8443", "--metrics-listen", "localhost:8443")
    assert same.returncode == 2 and "metrics-listen: it is that of listen" in json.loads(same.stderr)["error"]["message"]
    for address, advice in [(":8443", "0.0.0.0:8443"), ("8443", "localhost:8443"), ("nowhere.invalid:1", "address itself")]:
        wrong = check("--listen", address)
        assert wrong.returncode == 2 and advice in wrong.stderr, wrong


def test_a_check_makes_nothing(tmp_path):
    data = tmp_path / "data"
    assert check("--data", data).returncode == 0
    assert not data.exists()
    done = subprocess.run([CVM, "serve", "--check", "--data", data], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and "127.0.0.1:8443" in done.stdout


def test_the_sample_is_what_counts_without_it():
    with_file = json.loads(check("--config", ROOT / "docs" / "serve.toml").stdout)["settings"]
    without = json.loads(check().stdout)["settings"]
    assert {key: it["value"] for key, it in with_file.items()} == {key: it["value"] for key, it in without.items()}
