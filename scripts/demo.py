"""The first minute with cvm: a local AWS, the stack on it, and a device that gets its certificate and uses it."""

import itertools
import json
import os
import secrets
import shlex
import subprocess
import sys

import local_aws
from local_aws import LOCAL, ROOT, USUAL_MQTT_PORT, USUAL_PORT, usual_or_free_port
from mqtt_device import MqttDevice

CVM = ROOT / "target" / "debug" / "cvm"
NUMBERS = itertools.count(1)


def step(text: str) -> None:
    mark = "\033[32m✔\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else "✔"
    print(f" {next(NUMBERS)}. {mark} {text}", flush=True)


def cvm(environment: dict[str, str], *arguments: str) -> dict:
    """Runs the cvm command and returns what it says as JSON."""
    command = [CVM, *arguments, "--output", "json"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"cvm {shlex.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def write_environment(variables: dict[str, str]) -> None:
    """Writes a file to source: for the cvm command, and for a function that runs under `cargo lambda watch`."""
    path = ":".join([str(CVM.parent), str(ROOT / ".venv" / "bin"), "$PATH"])
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    (LOCAL / "env").write_text("\n".join([*exports, f'export PATH="{path}"', ""]))


def main() -> None:
    aws = local_aws.start(port=usual_or_free_port(USUAL_PORT), mqtt_port=usual_or_free_port(USUAL_MQTT_PORT))
    step(f"A local AWS answers at {aws.url}, its MQTT broker at localhost:{aws.mqtt_port}")

    outputs = aws.deploy()
    url = aws.api_url(outputs)
    environment = aws.environment | {"CVM_TABLE": outputs["TableName"], "CVM_URL": url}
    write_environment(environment | aws.function_environment(outputs["VendFunctionName"]))
    (LOCAL / "ca.pem").write_text(aws.root_ca())
    step(f"template.yaml is deployed to it: table {outputs['TableName']}, POST {url}")

    device = f"demo-{secrets.token_hex(3)}"
    folder = LOCAL / "devices" / device
    folder.mkdir(parents=True)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(cvm(environment, "device", "add", device)["token"])
    step(f"Device {device} is on the allowlist, and has its enrolment token")

    vend = ["vend", "--url", url, "--device", device, "--token-file", str(token), "--out", str(folder)]
    answer = cvm(environment, *vend)
    step(f"It made a key of its own, asked for a certificate and got {answer['certificateId'][:16]}…")

    again = cvm(environment, *vend)
    if again["certificateId"] != answer["certificateId"]:
        raise SystemExit("Asking again gave another certificate; this is a bug, please report it.")
    step("It asked again, as if the answer had been lost, and got the same certificate")

    topic = f"{answer['deviceConfiguration']['topicPrefix']}/telemetry"
    with MqttDevice(folder, answer["thingName"]).connect(answer["endpoint"]) as connection:
        step(f"It is connected to {answer['endpoint']} over mTLS as {answer['thingName']}")
        connection.subscribe(topic)
        connection.publish(topic, "hello")
        received = connection.receive()
        if received != (topic, b"hello"):
            raise SystemExit(f"The message did not come back: expected {topic}, got {received}.")
    step(f"It published to {topic}, and the message came back")

    print(BY_HAND.format(device=f"hand-{secrets.token_hex(3)}", folder=folder.relative_to(ROOT), port=aws.mqtt_port))


BY_HAND = """
The same by hand, with nothing but openssl and curl; paste it into a shell in this folder:

    . .local/env
    DEVICE={device}
    TOKEN=$(cvm device add $DEVICE --output json | sed -n 's/.*"token": *"\\([^"]*\\)".*/\\1/p')
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$DEVICE \\
        -keyout .local/$DEVICE.key -outform DER -out .local/$DEVICE.csr
    curl -sS "$CVM_URL" --data-binary @.local/$DEVICE.csr -H "Authorization: Bearer $TOKEN" \\
        -H "Content-Type: application/pkcs10" -H "Accept: application/x-pem-file" -o .local/$DEVICE.pem
    openssl x509 -in .local/$DEVICE.pem -noout -subject -dates

And with the mosquitto clients, where you have them:

    mosquitto_pub -h localhost -p {port} -i $DEVICE --cafile .local/ca.pem --cert .local/$DEVICE.pem \\
        --key .local/$DEVICE.key -t devices/$DEVICE/telemetry -m hello -q 1 -d

Files of the device   {folder}/
Log of the local AWS  .local/ministack.log, with the function's own log in it
Log of the deployment .local/deploy.log
To end it             make local-down
"""


if __name__ == "__main__":
    main()
