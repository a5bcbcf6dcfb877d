"""The first minute with cvm: a local AWS, the stack on it, and a device by each door that gets its certificate."""

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

import local_aws
from local_aws import LOCAL, REGION, ROOT, USUAL_MQTT_PORT, USUAL_PORT, LocalAws, usual_or_free_port
from mqtt_device import CA, CERTIFICATE, PRIVATE_KEY, MqttDevice, Refused
from trusted_user import add_user, signed_headers

CVM = ROOT / "target" / "debug" / "cvm"
FUNCTIONS = [folder.name for folder in (ROOT / "functions").iterdir()]
CLAIM_PYTHON = ROOT / ".venv-device" / "bin" / "python"
ACTIVATION_SECONDS = 20
COLOURS = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def door(title: str) -> None:
    print(f"\n\033[1m{title}\033[0m" if COLOURS else f"\n{title}", flush=True)


def step(text: str) -> None:
    mark = "\033[32m✔\033[0m" if COLOURS else "✔"
    print(f"  {mark} {text}", flush=True)


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
    # Those of a server that "make run" has started would be meant instead.
    forget = ["unset CVM_SERVER CVM_SERVER_CA CVM_OPERATOR_TOKEN"]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    (LOCAL / "env").write_text("\n".join([*forget, *exports, f'export PATH="{path}"', ""]))


def main() -> None:
    door("A local AWS")
    aws = local_aws.start(port=usual_or_free_port(USUAL_PORT), mqtt_port=usual_or_free_port(USUAL_MQTT_PORT))
    step(f"It answers at {aws.url}, and its MQTT broker at {broker(aws)}")

    outputs = aws.deploy()
    url = aws.api_url(outputs)
    tables = {"CVM_AUDIT_TABLE": outputs["AuditTableName"], "CVM_TABLE": outputs["TableName"]}
    environment = aws.environment | tables | {"CVM_URL": url}
    functions: dict[str, str] = {}
    for name in sorted(output for output in outputs if output.endswith("FunctionName")):
        functions |= aws.function_environment(outputs[name])
    write_environment(environment | functions)
    (LOCAL / "ca.pem").write_text(aws.root_ca())
    step(f"template.yaml is deployed to it: {len(FUNCTIONS)} functions, an API, and the table {outputs['TableName']}")

    folder = vend(environment, url)
    first_connect(aws, environment)
    claim(aws, environment, outputs)
    trusted_user(aws, environment, outputs)
    local, files = (os.path.relpath(path, ROOT) for path in (LOCAL, folder))
    print(BY_HAND.format(device=f"hand-{secrets.token_hex(3)}", local=local, folder=files, port=aws.mqtt_port))


def vend(environment: dict[str, str], url: str) -> Path:
    door("A device with an enrolment token asks for a certificate over HTTPS")
    device, folder = new_device("demo")
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(cvm(environment, "device", "add", device)["token"])
    step(f"{device} is on the allowlist, and has its enrolment token")

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
    door("A device that left its factory with a certificate connects for the first time")
    device, folder = new_device("factory")
    ca = LOCAL / "devices" / f"{device}-ca"
    files = ["--ca-cert", str(ca / "ca.pem"), "--ca-key", str(ca / "ca.key")]
    cvm(environment, "ca", "create", "--name", f"Factory of {device}", "--out", str(ca))
    cvm(environment, "ca", "register", *files)
    step("The factory's CA is registered with AWS IoT")

    cvm(environment, "ca", "issue", *files, "--device", device, "--out", str(folder.parent / f"{device}-issued"))
    issued = folder.parent / f"{device}-issued" / device
    write_files(folder, (issued / "device.key").read_text(), (issued / "device.pem").read_text())
    cvm(environment, "device", "add", device, "--ca", certificate_id(ca / "ca.pem"))
    step(f"{device} has a certificate of this CA, and is on the allowlist")

    try:
        MqttDevice(folder, device).connect(broker(aws)).close()
    except Refused:
        step("It connected and was turned away, as everybody is the first time; AWS IoT told cvm of it")
    else:
        raise SystemExit("It was let in at once; this is a bug, please report it.")
    await_activation(aws, certificate_id(folder / CERTIFICATE))
    step("cvm found it on the allowlist, made its thing and activated its certificate")
    publish(folder, device, broker(aws), f"devices/{device}")


def claim(aws: LocalAws, environment: dict[str, str], outputs: dict[str, str]) -> None:
    door("A device with the claim certificate of its product line has AWS IoT make one of its own")
    device, folder = new_device("claim")
    made = folder / "claim"
    cvm(environment, "claim", "create", "--policy", outputs["ClaimPolicyName"], "--out", str(made))
    step("A claim certificate is registered; all that it can do is to ask for another certificate")

    cvm(environment, "device", "add", device, "--claim")
    write_files(folder, (made / "claim.key").read_text(), (made / "claim.pem").read_text())
    step(f"{device} has a copy of it, as its whole product line has, and is on the allowlist")
    provision(aws, outputs, device, folder)


def trusted_user(aws: LocalAws, environment: dict[str, str], outputs: dict[str, str]) -> None:
    door("A device with nothing at all is set up by an installer with an app")
    device, folder = new_device("installed")
    installer = add_user(aws.client("iam"), f"installer-of-{device}", outputs["ClaimsArn"])
    cvm(environment, "device", "add", device, "--trusted-user")
    step(f"{device} is on the allowlist; its installer may vouch for such devices, and do nothing else")

    url, body = aws.api_url(outputs, "/v1/claims"), json.dumps({"deviceId": device}).encode()
    request = urllib.request.Request(url, data=body, headers=signed_headers(installer, url, body, REGION))
    with urllib.request.urlopen(request, timeout=30) as answer:
        told = json.load(answer)
    write_files(folder, told["privateKeyPem"], told["certificatePem"])
    step(f"The app asked for a claim, good for this device and until {told['expiresAt']}, and passed it on")
    provision(aws, outputs, device, folder)


def provision(aws: LocalAws, outputs: dict[str, str], device: str, folder: Path) -> None:
    """Exchanges the claim certificate in the folder for the device's own, with AWS's own SDK."""
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
    step(f"It asked AWS IoT, AWS IoT asked cvm, and it got a certificate of its own, {told['certificateId'][:16]}…")
    publish(folder, answer["thingName"], broker(aws), answer["deviceConfiguration"]["topicPrefix"])


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
        connection.subscribe(topic)
        connection.publish(topic, "hello")
        received = connection.receive()
        if received != (topic, b"hello"):
            raise SystemExit(f"The message did not come back: expected {topic}, got {received}.")
    step(f"It is connected over mTLS as itself, and its message to {topic} came back")


def broker(aws: LocalAws) -> str:
    return f"localhost:{aws.mqtt_port}"


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
The first of these by hand, with nothing but openssl and curl; paste it into a shell in this folder:

    . {local}/env
    DEVICE={device}
    TOKEN=$(cvm device add $DEVICE --output json | sed -n 's/.*"token": *"\\([^"]*\\)".*/\\1/p')
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$DEVICE \\
        -keyout {local}/$DEVICE.key -outform DER -out {local}/$DEVICE.csr
    curl -sS "$CVM_URL" --data-binary @{local}/$DEVICE.csr -H "Authorization: Bearer $TOKEN" \\
        -H "Content-Type: application/pkcs10" -H "Accept: application/x-pem-file" -o {local}/$DEVICE.pem
    openssl x509 -in {local}/$DEVICE.pem -noout -subject -dates

And with the mosquitto clients, where you have them:

    mosquitto_pub -h localhost -p {port} -i $DEVICE --cafile {local}/ca.pem --cert {local}/$DEVICE.pem \\
        --key {local}/$DEVICE.key -t devices/$DEVICE/telemetry -m hello -q 1 -d

What happened to a device    cvm device show DEVICE
Files of the first device    {folder}/
Log of the local AWS         {local}/ministack.log, with the functions' own logs in it
Log of the deployment        {local}/deploy.log
To end it                    make local-down
"""


if __name__ == "__main__":
    main()
