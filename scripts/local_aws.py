"""A local AWS (MiniStack) with IAM and AWS IoT policies enforced: start it, deploy the stack to it, stop it.

    python scripts/local_aws.py stop
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

import boto3

import deploy

ROOT = Path(__file__).resolve().parent.parent
# The state of `make local`. The tests have one of their own.
LOCAL = Path(os.environ.get("CVM_LOCAL", ROOT / ".local"))
STACK = "cvm"
REGION = "eu-central-1"
USUAL_PORT = 4566
USUAL_MQTT_PORT = 8883
START_SECONDS = 60
STOP_SECONDS = 10


@dataclass(frozen=True)
class LocalAws:
    """A running MiniStack; `state` is the folder that holds its log, its temporary files and who it is."""

    state: Path
    pid: int
    port: int
    mqtt_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.state / "ministack.log"

    @property
    def environment(self) -> dict[str, str]:
        """What makes an AWS SDK or tool talk to this AWS, as the account's root."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def client(self, service: str):
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def root_ca(self) -> str:
        """The CA that signs the broker's certificate and those of the devices, as PEM."""
        with urllib.request.urlopen(f"{self.url}/_ministack/iot/ca.pem", timeout=10) as answer:
            return answer.read().decode()

    def api_url(self, outputs: dict[str, str], path: str = "/v1/certificates") -> str:
        """The stack's ApiUrl, or its ClaimsUrl by the `path`, in the form that needs no name of its own in the DNS."""
        return f"{self.url}/_aws/execute-api/{outputs['ApiId']}/$default{path}"

    def deploy(self, stack: str = STACK, **parameters: str) -> dict[str, str]:
        """Deploys template.yaml with `sam deploy`, built for this machine, and returns the stack's outputs."""
        deploy.deploy(
            stack,
            {
                "Architecture": deploy.host_architecture(),
                "IotEndpoint": f"localhost:{self.mqtt_port}",
                "RootCaPem": self.root_ca(),
                **parameters,
            },
            environment=clean_environment(self.state) | self.environment,
            log=self.state / "deploy.log",
        )
        self._check_policy_attachment_as_here(stack)
        return deploy.outputs(self.client("cloudformation"), stack)

    def function_environment(self, function: str) -> dict[str, str]:
        """What the template tells a function in its environment."""
        return self.client("lambda").get_function_configuration(FunctionName=function)["Environment"]["Variables"]

    def _check_policy_attachment_as_here(self, stack: str) -> None:
        """MiniStack checks AttachPolicy on "*", where AWS checks it on the certificate.

        The roles of the template are right for AWS, so they are widened here, and only where they grant this action.
        """
        iam = self.client("iam")
        resources = self.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        for role in (it["PhysicalResourceId"] for it in resources if it["ResourceType"] == "AWS::IAM::Role"):
            for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
                document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
                attaching = [it for it in document["Statement"] if it["Action"] == "iot:AttachPolicy"]
                for statement in attaching:
                    statement["Resource"] = "*"
                if attaching:
                    iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))

    def is_running(self) -> bool:
        try:
            os.waitpid(self.pid, os.WNOHANG)  # If it was this process that started it.
        except ChildProcessError:
            pass
        command = subprocess.run(["ps", "-o", "command=", "-p", str(self.pid)], capture_output=True, text=True)
        return "ministack" in command.stdout

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_ministack/ready", timeout=2) as answer:
                return json.load(answer).get("iot_mtls") == "listening"
        except (OSError, urllib.error.URLError, ValueError):
            return False

    def stop(self) -> None:
        """Ends it and the functions it runs."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + STOP_SECONDS
            while self.is_running() and time.monotonic() < deadline:
                try:
                    os.killpg(self.pid, kind)
                except ProcessLookupError:
                    break
                time.sleep(0.2)
        who_file(self.state).unlink(missing_ok=True)
        shutil.rmtree(self.state / "tmp", ignore_errors=True)


def start(state: Path = LOCAL, port: int | None = None, mqtt_port: int | None = None) -> LocalAws:
    """Starts MiniStack, or returns the one that runs already with this `state`. Ports are free ones unless given."""
    running = find(state)
    if running and running.is_ready():
        return running
    if running:
        running.stop()
    (state / "tmp").mkdir(parents=True, exist_ok=True)
    port, mqtt_port = port or free_port(), mqtt_port or free_port()
    with open(state / "ministack.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "run_ministack.py"],
            cwd=state,
            env=clean_environment(state)
            | {
                "AUTH": "true",
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(port),
                "IOT_MTLS_PORT": str(mqtt_port),
                "MINISTACK_REGION": REGION,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_DEFAULT_REGION": REGION,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    aws = LocalAws(state, process.pid, port, mqtt_port)
    who_file(state).write_text(json.dumps({name: value for name, value in asdict(aws).items() if name != "state"}))
    deadline = time.monotonic() + START_SECONDS
    while not aws.is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            aws.stop()
            raise SystemExit(f"The local AWS did not start; its log is {aws.log}:\n{aws.log.read_text()[-2000:]}")
        time.sleep(0.1)
    return aws


def find(state: Path = LOCAL) -> LocalAws | None:
    """The local AWS that runs with this `state`, if one does, ready or not."""
    try:
        aws = LocalAws(state, **json.loads(who_file(state).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return aws if aws.is_running() else None


def who_file(state: Path) -> Path:
    return state / "local-aws.json"


def clean_environment(state: Path) -> dict[str, str]:
    """As little as possible of the user's own: functions inherit it here, and an AWS_PROFILE would mislead them."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SSL_CERT_FILE") if name in os.environ}
    return kept | {"HOME": str(state), "TMPDIR": str(state / "tmp"), "SAM_CLI_TELEMETRY": "0", "PYTHONUNBUFFERED": "1"}


def usual_or_free_port(usual: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", usual))
        except OSError:
            return free_port()
    return usual


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["start", "stop"])
    verb = parser.parse_args().verb
    if verb == "start":
        aws = start(port=usual_or_free_port(USUAL_PORT), mqtt_port=usual_or_free_port(USUAL_MQTT_PORT))
        print("\n".join(f"export {name}={value}" for name, value in aws.environment.items()))
        return
    aws = find()
    if aws:
        aws.stop()
    print("The local AWS is stopped." if aws else "No local AWS is running.")


if __name__ == "__main__":
    main()
