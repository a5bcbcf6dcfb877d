"""The first minute with cvm: a local AWS, the stack on it, and a device by each door that gets its certificate."""

import itertools
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

import local_aws
from local_aws import LOCAL, ROOT, USUAL_MQTT_PORT, USUAL_PORT, LocalAws, usual_or_free_port
from mqtt_device import CA, CERTIFICATE, PRIVATE_KEY, MqttDevice, Refused

CVM = ROOT / "target" / "debug" / "cvm"
CLAIM_PYTHON = ROOT / ".venv-device" / "bin" / "python"
ACTIVATION_SECONDS = 20
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
    """Writes a file to source: for the cvm command, and for functions that run under `cargo lambda watch`."""
    path = ":".join([str(CVM.parent), str(ROOT / ".venv" / "bin"), "$PATH"])
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    (LOCAL / "env").write_text("\n".join([*exports, f'export PATH="{path}"', ""]))


def main() -> None:
    aws = local_aws.start(port=usual_or_free_port(USUAL_PORT), mqtt_port=usual_or_free_port(USUAL_MQTT_PORT))
    step(f"A local AWS answers at {aws.url}, its MQTT broker at localhost:{aws.mqtt_port}")

    outputs = aws.deploy()
    url = aws.api_url(outputs)
    environment = aws.environment | {"CVM_TABLE": outputs["TableName"], "CVM_URL": url}
    functions: dict[str, str] = {}
    for name in sorted(output for output in outputs if output.endswith("FunctionName")):
        functions |= aws.function_environment(outputs[name])
    write_environment(environment | functions)
    (LOCAL / "ca.pem").write_text(aws.root_ca())
    step(f"template.yaml is deployed to it: table {outputs['TableName']}, POST {url}")

    folder = vend(environment, url)
    first_connect(aws, environment)
    claim(aws, environment, outputs)
    print(BY_HAND.format(device=f"hand-{secrets.token_hex(3)}", folder=folder.relative_to(ROOT), port=aws.mqtt_port))


def vend(environment: dict[str, str], url: str) -> Path:
    """A device with an enrolment token makes a key and asks for a certificate."""
    device, folder = new_device("demo")
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(cvm(environment, "device", "add", device)["token"])
    step(f"Device {device} is on the allowlist, and has its enrolment token")

    ask = ["vend", "--url", url, "--device", device, "--token-file", str(token), "--out", str(folder)]
    answer = cvm(environment, *ask)
    step(f"It made a key of its own, asked for a certificate and got {answer['certificateId'][:16]}…")

    again = cvm(environment, *ask)
    if again["certificateId"] != answer["certificateId"]:
        raise SystemExit("Asking again gave another certificate; this is a bug, please report it.")
    step("It asked again, as if the answer had been lost, and got the same certificate")

    publish(folder, answer["thingName"], answer["endpoint"], answer["deviceConfiguration"]["topicPrefix"])
    return folder


def first_connect(aws: LocalAws, environment: dict[str, str]) -> None:
    """A device that left its factory with a certificate connects for the first time."""
    device, folder = new_device("factory")
    ca = LOCAL / "devices" / f"{device}-ca"
    files = ["--ca-cert", str(ca / "ca.pem"), "--ca-key", str(ca / "ca.key")]
    cvm(environment, "ca", "create", "--name", f"Factory of {device}", "--out", str(ca))
    cvm(environment, "ca", "register", *files)
    step("A factory's CA is registered with AWS IoT")

    cvm(environment, "ca", "issue", *files, "--device", device, "--out", str(folder.parent / f"{device}-issued"))
    issued = folder.parent / f"{device}-issued" / device
    shutil.copy(issued / "device.key", folder / PRIVATE_KEY)
    shutil.copy(issued / "device.pem", folder / CERTIFICATE)
    shutil.copy(LOCAL / "ca.pem", folder / CA)
    cvm(environment, "device", "add", device, "--ca", certificate_id(ca / "ca.pem"))
    step(f"Device {device} has a certificate of this CA, and is on the allowlist")

    endpoint = f"localhost:{aws.mqtt_port}"
    try:
        MqttDevice(folder, device).connect(endpoint).close()
    except Refused:
        step("It connected for the first time, and was turned away: nobody had let it in yet")
    else:
        raise SystemExit("It was let in at once; this is a bug, please report it.")
    await_activation(aws, certificate_id(folder / CERTIFICATE))
    step("The event reached the function, which found it on the allowlist and let it in")
    publish(folder, device, endpoint, f"devices/{device}")


def claim(aws: LocalAws, environment: dict[str, str], outputs: dict[str, str]) -> None:
    """A device that shares a claim certificate with others has AWS IoT make one of its own."""
    device, folder = new_device("claim")
    iot = aws.client("iot")
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_policy(policyName=outputs["ClaimPolicyName"], target=made["certificateArn"])
    write_files(folder, made["keyPair"]["PrivateKey"], made["certificatePem"])
    cvm(environment, "claim", "add", made["certificateId"])
    cvm(environment, "device", "add", device, "--claim")
    step(f"Device {device} is on the allowlist, and has the claim certificate of its product line")

    asked = {
        "endpoint": "localhost",
        "port": aws.mqtt_port,
        "certificate": str(folder / CERTIFICATE),
        "privateKey": str(folder / PRIVATE_KEY),
        "ca": str(folder / CA),
        "clientId": device,
        "template": outputs["FleetTemplateName"],
        "parameters": {"SerialNumber": device},
        "times": 1,
    }
    command = [CLAIM_PYTHON, ROOT / "scripts" / "claim_device.py", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"The device could not claim:\n{done.stderr}")
    told = json.loads(done.stdout)
    answer = told["answers"][0]
    if "errorCode" in answer:
        raise SystemExit(f"The device was refused: {answer['errorCode']}. The hook's audit record says why.")
    write_files(folder, told["privateKey"], told["certificatePem"])
    step(f"AWS IoT asked the hook, and gave it a certificate of its own, {told['certificateId'][:16]}…")
    publish(folder, answer["thingName"], f"localhost:{aws.mqtt_port}", answer["deviceConfiguration"]["topicPrefix"])


def new_device(kind: str) -> tuple[str, Path]:
    """A device id that is new, and a folder for its files."""
    device = f"{kind}-{secrets.token_hex(3)}"
    folder = LOCAL / "devices" / device
    folder.mkdir(parents=True)
    return device, folder


def write_files(folder: Path, private_key: str, certificate: str) -> None:
    (folder / PRIVATE_KEY).touch(mode=0o600)
    (folder / PRIVATE_KEY).write_text(private_key)
    (folder / CERTIFICATE).write_text(certificate)
    shutil.copy(LOCAL / "ca.pem", folder / CA)


def publish(folder: Path, client_id: str, endpoint: str, topic_prefix: str) -> None:
    """Connects with the files of the folder, and has a message come back."""
    topic = f"{topic_prefix}/telemetry"
    with MqttDevice(folder, client_id).connect(endpoint) as connection:
        step(f"It is connected to {endpoint} over mTLS as {client_id}")
        connection.subscribe(topic)
        connection.publish(topic, "hello")
        received = connection.receive()
        if received != (topic, b"hello"):
            raise SystemExit(f"The message did not come back: expected {topic}, got {received}.")
    step(f"It published to {topic}, and the message came back")


def await_activation(aws: LocalAws, certificate: str) -> None:
    deadline = time.monotonic() + ACTIVATION_SECONDS
    iot = aws.client("iot")
    while iot.describe_certificate(certificateId=certificate)["certificateDescription"]["status"] != "ACTIVE":
        if time.monotonic() > deadline:
            raise SystemExit(f"Its certificate was not activated; the reason is in {aws.log}.")
        time.sleep(0.2)


def certificate_id(pem: Path) -> str:
    """The id that AWS IoT has for a certificate: the SHA-256 of its DER."""
    return x509.load_pem_x509_certificate(pem.read_bytes()).fingerprint(hashes.SHA256()).hex()


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
