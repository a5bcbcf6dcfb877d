"""Deploy template.yaml with `sam deploy`; the zips must have been built with `make package`.

    python scripts/deploy.py --stack-name cvm --architecture arm64 LogLevel=debug AlarmTopicArn=arn:aws:sns:...
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import boto3

ROOT = Path(__file__).resolve().parent.parent


def deploy(stack: str, parameters: dict[str, str], environment: dict[str, str] | None = None, log: Path | None = None):
    """Creates or updates the stack. What `sam` says goes to `log`, or to the terminal."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as overrides:
        # As a file (JSON is YAML), because the command line takes no quotes.
        json.dump({name: without_escaped_quotes(value) for name, value in parameters.items()}, overrides)
        overrides.flush()
        command = [
            Path(sys.executable).parent / "sam",
            "deploy",
            *("--template-file", "template.yaml", "--stack-name", stack, "--capabilities", "CAPABILITY_IAM"),
            *("--resolve-s3", "--no-progressbar", "--no-confirm-changeset", "--no-fail-on-empty-changeset"),
            *("--parameter-overrides", f"file://{overrides.name}"),
        ]
        with open(log, "wb") if log else nullcontext() as output:
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    if done.returncode != 0:
        said = f"; its log is {log}:\n{log.read_text()[-3000:]}" if log else ""
        raise SystemExit(f"sam deploy failed{said}")


def without_escaped_quotes(value: str) -> str:
    """The same JSON, if it is JSON, with its \\" written as \\u0022: sam takes the backslash away."""
    return re.sub(r'\\["\\]', lambda escape: f"\\u{ord(escape[0][1]):04x}", value)


def outputs(cloudformation, stack: str) -> dict[str, str]:
    """The outputs of a deployed stack by their names."""
    described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


def host_architecture() -> str:
    """This machine's architecture by Lambda's name for it."""
    return "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack-name", default="cvm")
    parser.add_argument("--architecture", default="arm64", choices=["arm64", "x86_64"])
    parser.add_argument("parameters", nargs="*", metavar="Name=value", help="parameters of the template; @file is what is in the file")
    arguments = parser.parse_args()
    parameters = {"Architecture": arguments.architecture}
    for parameter in arguments.parameters:
        name, separator, value = parameter.partition("=")
        if not separator:
            parser.error(f"expected Name=value, got {parameter}")
        parameters[name] = Path(value[1:]).read_text() if value.startswith("@") else value
    if "IotEndpoint" not in parameters:
        endpoint = boto3.client("iot").describe_endpoint(endpointType="iot:Data-ATS")
        parameters["IotEndpoint"] = endpoint["endpointAddress"]
    deploy(arguments.stack_name, parameters)
    deployed = outputs(boto3.client("cloudformation"), arguments.stack_name)
    print(
        f"""
Deployed. Next, put a device on the allowlist and let it ask for its certificate:

    export CVM_TABLE={deployed["TableName"]} CVM_AUDIT_TABLE={deployed["AuditTableName"]}
    cvm device add my-device --token-out my-device.token
    cvm vend --url {deployed["ApiUrl"]} --device my-device --token-file my-device.token --out my-device"""
    )


if __name__ == "__main__":
    main()
