"""mosquitto with the folder that `cvm broker mosquitto` writes, as somebody runs it."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from local_aws import free_port
from mqtt_device import MqttDevice
from server import Server
from stack import CVM, until

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")


@dataclass
class Broker:
    server: Server
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    def configure(self, *options: object) -> dict:
        """Writes the folder."""
        command = [CVM, "broker", "mosquitto", "--data", self.server.data, "--out", self.folder]
        listen = ["--listen", f"127.0.0.1:{self.port}", "--server", self.server.url]
        done = subprocess.run([*command, *listen, *options], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done

    def start(self, interval: int = 1) -> None:
        """Runs it until `stop`, with a refresh every `interval` seconds."""
        assert MOSQUITTO, "mosquitto is missing: install it (Debian: mosquitto)"
        with open(self.log_file, "ab") as log:
            environment = os.environ | {"INTERVAL": str(interval)}
            self.process = subprocess.Popen([self.folder / "run"], stdout=log, stderr=log, env=environment)
        until(self.is_up, "a broker")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=20)

    def refresh(self) -> None:
        """What a timer does where `run` is not used."""
        subprocess.run([self.folder / "refresh"], check=True, capture_output=True, timeout=60)

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log
        return " running" in self.log

    @property
    def log_file(self) -> Path:
        return self.folder.with_suffix(".log")

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def endpoint(self) -> str:
        return f"localhost:{self.port}"

    def connect(self, folder: Path, client_id: str) -> MqttDevice:
        """Connects with exactly the files that `cvm vend` wrote to `folder`."""
        return MqttDevice(folder, client_id).connect(self.endpoint)
