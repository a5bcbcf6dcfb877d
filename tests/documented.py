"""The brokers of docs/brokers.md, with the configurations that it has: only paths, ports and the server's URL are others."""

import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import paho.mqtt.client as mqtt

from broker import MOSQUITTO
from claims import NODE_MODULES
from local_aws import ROOT, free_port
from mqtt_device import MqttDevice
from server import Server
from stack import CVM, until

REFRESH = "/etc/cvm-broker/refresh"
PATH = f"/usr/lib/rabbitmq/bin:{CVM.parent}:{os.environ['PATH']}:/usr/sbin"


def documented() -> dict[str, str]:
    """The files on the page, by their paths. The first comment of a block is the path of its file."""
    page = (ROOT / "docs" / "brokers.md").read_text()
    blocks = re.findall(r"^```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    named = ((re.match(r"(?:#!/bin/sh\n)?(?:#|//|%%) (/\S+)\n", block), block) for block in blocks)
    return {name[1]: block for name, block in named if name}


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=PATH)
    assert found, f"{name} is missing: install it (Debian: {package})"
    return found


@dataclass
class Daemon:
    """A program that is started again when it ends, as systemd does it with a service."""

    command: list[object]
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen | None = None

    @property
    def pid(self) -> Path:
        return self.log.with_suffix(".pid")

    def start(self) -> None:
        again = 'trap "kill \\$!; wait; exit" TERM; while :; do "$@" & echo $! > "$0"; wait $!; done'
        command = ["sh", "-c", again, self.pid, *self.command]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=30)

    def signal(self, name: str) -> str:
        return f"kill -{name} $(cat {self.pid})"


@dataclass
class Documented:
    """A broker whose files are below `root`, as those of the page are below /."""

    server: Server
    root: Path
    port: int = field(default_factory=free_port)
    inner: int = field(default_factory=free_port)
    daemons: list[Daemon] = field(default_factory=list)

    # The files of the page that it needs, besides those of all.
    names: ClassVar[list[str]] = []

    # What the page says of the broker.
    protocols = (mqtt.MQTTv311,)
    refuses_other_client_ids = True
    keeps_connections_of_others = True

    @property
    def files(self) -> Path:
        return self.root / "etc" / "cvm-broker"

    @property
    def environment(self) -> dict[str, str]:
        server = {"CVM_SERVER": self.server.url, "CVM_SERVER_CA": str(self.server.ca)}
        return os.environ | server | {"PATH": PATH, "CVM_OPERATOR_TOKEN": self.server.token} | self.commands

    @property
    def commands(self) -> dict[str, str]:
        """What the scripts of the page call to make the broker read its files."""
        if not self.daemons:
            return {}
        return {"RELOAD": self.daemons[-1].signal(self.reload_signal), "RESTART": self.daemons[-1].signal("TERM")}

    reload_signal = "HUP"

    def prepare(self) -> None:
        """Makes the folder of the page, and writes the files."""
        self.files.mkdir(parents=True)
        issue = [CVM, "ca", "issue-server", "localhost", "--data", self.server.data, "--out", self.files]
        subprocess.run(issue, check=True, capture_output=True, timeout=60)
        shutil.copy(self.server.data / "ca" / "root.pem", self.files)
        written = documented()
        for name in [REFRESH, *self.names]:
            path = self.root / name[1:]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.here(written[name]))
            if written[name].startswith("#!"):
                path.chmod(0o755)

    def here(self, text: str) -> str:
        text = re.sub(r"(?<![\w/])(?=/(?:etc/(?!nginx/modules-enabled)|var/lib/|var/log/|run/))", str(self.root), text)
        text = re.sub(r"\b8883\b", str(self.port), text)
        text = re.sub(r"\b(1883|4222|5672)\b", str(self.inner), text)
        return text.replace("https://cvm.example.com", self.server.url)

    def daemon(self, *command: object) -> None:
        log = self.root / f"{Path(command[0]).name}.log"
        self.daemons.append(Daemon(list(command), log, os.environ | {"PATH": PATH}))

    def script(self, name: str, *arguments: str, **variables: str) -> None:
        """Runs a script of the page."""
        command = [self.files / name, *arguments]
        subprocess.run(command, check=True, env=self.environment | variables, timeout=60)

    def reload(self) -> None:
        subprocess.run(self.commands["RELOAD"], shell=True, check=True, timeout=60)

    def start(self) -> None:
        for daemon in self.daemons:
            daemon.start()

    def wait(self) -> None:
        until(self.is_up, "a broker", seconds=60)

    def stop(self) -> None:
        for daemon in self.daemons:
            daemon.stop()

    def is_up(self) -> bool:
        for daemon in self.daemons:
            assert daemon.process.poll() is None, daemon.log.read_text()
        try:
            for port in self.ports:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return True
        except OSError:
            return False

    @property
    def ports(self) -> list[int]:
        return [self.port, self.inner]

    def refresh(self) -> None:
        """What is run every minute."""
        self.script("refresh")

    def learn(self) -> None:
        """Makes the broker know the devices that are registered."""

    def connect(self, folder: Path, client_id: str, protocol: int = mqtt.MQTTv311, keep: bool = False) -> MqttDevice:
        return MqttDevice(folder, client_id, protocol, keep).connect(f"localhost:{self.port}")


class Proxy(Documented):
    """A proxy that ends TLS, before mosquitto."""

    protocols = (mqtt.MQTTv311, mqtt.MQTTv5)

    names: ClassVar = ["/etc/mosquitto/mosquitto.conf", "/etc/mosquitto/devices.acl"]

    def prepare(self) -> None:
        super().prepare()
        (self.root / "var" / "lib" / "mosquitto").mkdir(parents=True)
        configuration = self.root / "etc" / "mosquitto" / "mosquitto.conf"
        if os.geteuid() == 0:
            # Or it runs as the user mosquitto, who may not read the folder.
            configuration.write_text(configuration.read_text() + "user root\n")
        assert MOSQUITTO, "mosquitto is missing: install it (Debian: mosquitto)"
        self.daemon(MOSQUITTO, "-c", configuration)
        self.script("refresh", RELOAD="true", RESTART="true")


class HaProxy(Proxy):
    names: ClassVar = [*Proxy.names, "/etc/haproxy/haproxy.cfg"]
    reload_signal = "USR2"

    def prepare(self) -> None:
        super().prepare()
        (self.files / "server.pem.key").symlink_to("server.key")
        configuration = self.root / "etc" / "haproxy" / "haproxy.cfg"
        if os.geteuid() != 0:
            configuration.write_text(re.sub(r" +(user|group) haproxy\n", "", configuration.read_text()))
        self.daemon(program("haproxy", "haproxy"), "-W", "-f", configuration)


class Nginx(Proxy):
    names: ClassVar = [*Proxy.names, "/etc/nginx/nginx.conf", "/etc/nginx/cvm.js"]

    def prepare(self) -> None:
        super().prepare()
        for folder in ("run", "var/log/nginx"):
            (self.root / folder).mkdir(parents=True)
        configuration = self.root / "etc" / "nginx" / "nginx.conf"
        options = ["-c", configuration, "-e", self.root / "nginx-start.log", "-g", "daemon off;"]
        self.daemon(program("nginx", "nginx libnginx-mod-stream libnginx-mod-stream-js"), *options)


class RabbitMq(Documented):
    names: ClassVar = [
        *(f"/etc/rabbitmq/{name}" for name in ("rabbitmq.conf", "advanced.config", "enabled_plugins")),
        *(f"/etc/cvm-broker/{name}" for name in ("users", "users.jq", "crls.sh")),
    ]
    keeps_connections_of_others = False

    def prepare(self) -> None:
        super().prepare()
        self.daemon(program("rabbitmq-server", "rabbitmq-server"))
        # A node of its own, beside one that the package may have started.
        self.node = {
            "HOME": str(self.root),
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_NODENAME": "cvm@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(self.root / "etc" / "rabbitmq" / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.root / "etc" / "rabbitmq" / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.root / "etc" / "rabbitmq" / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.root / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.root / "log"),
            "RABBITMQ_PID_FILE": str(self.root / "rabbitmq.pid"),
        }
        self.daemons[-1].environment |= self.node
        self.script("refresh")
        self.script("users", "start")

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.node

    @property
    def commands(self) -> dict[str, str]:
        return {"RELOAD": str(self.files / "crls.sh")}

    def learn(self) -> None:
        self.script("users")

    def refresh(self) -> None:
        super().refresh()
        self.learn()

    def stop(self) -> None:
        super().stop()
        subprocess.run([program("epmd", "erlang-base"), "-kill"], env=os.environ | self.node, capture_output=True)


class Nats(Documented):
    names: ClassVar = ["/etc/nats-server.conf", "/etc/cvm-broker/accounts", "/etc/cvm-broker/accounts.jq"]
    refuses_other_client_ids = False

    def prepare(self) -> None:
        super().prepare()
        self.daemon(program("nats-server", "nats-server"), "-c", self.root / "etc" / "nats-server.conf")
        self.daemons[-1].environment |= {"SERVICES_PASSWORD": "secret"}
        self.script("accounts", RELOAD="true")

    def learn(self) -> None:
        self.script("accounts")

    def refresh(self) -> None:
        self.learn()


class Aedes(Documented):
    names: ClassVar = ["/etc/cvm-broker/broker.mjs"]
    refuses_other_client_ids = False

    def prepare(self) -> None:
        super().prepare()
        assert NODE_MODULES.exists(), f"{NODE_MODULES} is missing: run `make tests/node/node_modules/installed`"
        (self.files / "node_modules").symlink_to(NODE_MODULES)
        self.script("refresh", RELOAD="true", RESTART="true")
        self.daemon(program("node", "nodejs"), self.files / "broker.mjs")

    @property
    def ports(self) -> list[int]:
        return [self.port]
