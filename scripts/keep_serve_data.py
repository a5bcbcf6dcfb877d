"""Keep the folder of a `cvm serve` of this version, for later versions to be tried on: tests/fixtures/serve-VERSION.
A schema of the database that was never released is kept by its number, too.

    cargo build --locked --package cvm
    .venv/bin/python scripts/keep_serve_data.py 0.1-schema-8

A folder behind the version is used in the place of tests/fixtures. In it are devices in the states that there are, operators' tokens, and a CA. Its keys are for these tests alone.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from server import Server, openssl, start  # noqa: E402
from stack import CVM  # noqa: E402

LONG = "3000d"


def main() -> None:
    version, fixtures = sys.argv[1], Path(*sys.argv[2:]) if sys.argv[2:] else ROOT / "tests" / "fixtures"
    kept = fixtures / f"serve-{version}"
    if kept.exists():
        sys.exit(f"{kept} is there already: what was kept once is never made anew")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        server = start(folder / "data", folder, "--validity", LONG)
        expected = fill(server, folder)
        assert server.end() == 0
        made = subprocess.run(
            [CVM, "token", "create", "--data", server.data, "--name", "upgrade", "--role", "admin", "--output", "json"],
            check=True,
            capture_output=True,
        )
        expected["operator"] = json.loads(made.stdout)["token"]
        shutil.copytree(server.data, kept / "data")
    (kept / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
    print(f"{kept} is kept")


def fill(server: Server, folder: Path) -> dict:
    """Makes a device of each kind, and says what is to be found again."""
    vended, request = {}, {}
    for device in ["sn-vended", "sn-renewable", "sn-renewed", "sn-disabled", "sn-revoked"]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        request[device] = openssl("req", "-new", *curve, "-subj", f"/CN={device}", "-keyout", folder / f"{device}.key")
        token = server.register(device).read_text()
        answer = server.ask("POST", "/v1/certificates", {"deviceId": device, "csr": request[device]}, token=token)
        assert answer.status == 201, answer.body
        vended[device] = {"token": token, "csr": request[device], "certificatePem": answer.json["certificatePem"]}
    waiting = server.register("sn-waiting").read_text()
    assert server.ask("POST", "/devices/sn-renewable/renew").status == 200
    disabled = server.ask("GET", "/devices/sn-disabled").json | {"status": "disabled", "statusReason": "stolen"}
    assert server.ask("PUT", "/devices/sn-disabled", disabled, if_match="*").status == 200
    assert server.ask("POST", "/devices/sn-renewed/renew").status == 200
    renewed = vended["sn-renewed"]
    asked = {"deviceId": "sn-renewed", "csr": renewed["csr"]}
    answer = server.ask("POST", "/v1/certificates", asked, token=renewed["token"])
    assert answer.status == 201, answer.body
    renewed["earlier"], renewed["certificatePem"] = renewed["certificatePem"], answer.json["certificatePem"]
    assert server.ask("POST", "/devices/sn-revoked/revoke", {"reason": "its key was published"}).status == 200
    server.register("sn-gone")
    assert server.ask("DELETE", "/devices/sn-gone", if_match="*").status in {200, 204}
    trail = server.ask("GET", "/audit").json
    return {"vended": vended, "waiting": waiting, "entries": len(trail)}


if __name__ == "__main__":
    main()
