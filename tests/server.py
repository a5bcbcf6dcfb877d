"""`cvm serve` as somebody runs it, for the tests of it."""

import json
import os
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from mqtt_device import PRIVATE_KEY
from stack import CVM, Answer, lower


@dataclass
class Server:
    """A running server, and what it said when it began."""

    data: Path
    process: subprocess.Popen
    url: str
    token: str | None
    folder: Path
    log: Path

    @property
    def ca(self) -> Path:
        return self.data / "ca" / "ca.pem"

    @property
    def crl(self) -> Path:
        return self.data / "ca" / "crl.pem"

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str | None = None,
        certificate: Path | None = None,
        **headers: str,
    ) -> Answer:
        """Asks as an operator, or with another `token`; the `certificate` is one in a folder of `cvm vend`."""
        token = self.token if token is None else token
        names = {"content-type": "application/json"} if body is not None else {}
        names |= {name.replace("_", "-"): value for name, value in headers.items()}
        names |= {"authorization": f"Bearer {token}"} if token else {}
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.url}{path}", data=sent, headers=names, method=method)
        context = ssl.create_default_context(cafile=str(self.ca))
        if certificate:
            context.load_cert_chain(certificate, certificate.parent / PRIVATE_KEY)
        try:
            with urllib.request.urlopen(asked, timeout=30, context=context) as done:
                return Answer(done.status, lower(done.headers), done.read())
        except urllib.error.HTTPError as refused:
            return Answer(refused.code, lower(refused.headers), refused.read())

    def register(self, device_id: str) -> Path:
        """Puts a device on the allowlist, and returns the file with its token."""
        made = self.ask("PUT", f"/devices/{device_id}", {})
        assert made.status == 200, made.body
        file = self.folder / f"{device_id}.token"
        file.write_text(made.json["authentication"]["symmetricKey"]["primaryKey"])
        file.chmod(0o600)
        return file

    def vend(self, device_id: str, token_file: Path) -> Path:
        """Has the device ask for its certificate, and returns the folder in which it has it."""
        out = self.folder / device_id
        command = [CVM, "vend", "--url", self.url, "--root-ca", self.ca, "--device", device_id]
        done = subprocess.run([*command, "--token-file", token_file, "--out", out], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return out

    def end(self, kind: int = signal.SIGTERM) -> int:
        self.process.send_signal(kind)
        return self.process.wait(timeout=20)


def start(data: Path, folder: Path, *options: object, listen: str = "127.0.0.1:0", **variables: str) -> Server:
    log = folder / "server.log"
    with open(log, "ab") as errors:
        process = subprocess.Popen(
            [CVM, "serve", "--data", data, "--listen", listen, *options, "--output", "json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | variables,
        )
    line = process.stdout.readline()
    assert line, log.read_text()
    said = line
    while said.count("{") != said.count("}"):
        said += process.stdout.readline()
    began = json.loads(said)
    return Server(data, process, began["url"], began["operatorToken"], folder, log)


def openssl(*arguments: object) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
