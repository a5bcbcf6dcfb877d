"""One local AWS with the stack of template.yaml on it, for all end-to-end tests of a run."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import claims
import local_aws
from local_aws import ROOT
from mariadb import empty_database
from operators import Operator
from server import start
from stack import CVM, Stack
from trusted_user import add_user

FUNCTIONS = [folder.name for folder in (ROOT / "functions").iterdir()]
BUILT = [*(ROOT / "target" / "lambda" / function / "bootstrap.zip" for function in FUNCTIONS), CVM, claims.PYTHON, claims.NODE_MODULES]


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    with deployed(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@contextmanager
def deployed(folder: Path, **parameters: str) -> Iterator[Stack]:
    """A local AWS of its own with the stack on it."""
    missing = [str(path.relative_to(ROOT)) for path in BUILT if not path.exists()]
    if missing:
        advice = "run 'make tools package ARCH=host PROFILE=dev' first"
        pytest.exit(f"{', '.join(missing)} missing: {advice}", returncode=2)
    aws = local_aws.start(folder / "aws")
    # The reconciler runs when a test says so, and a trusted user's quota is small enough to be used up.
    parameters |= {"LogLevel": "debug", "ReconcileSchedule": "rate(1 day)", "ClaimsPerUserPerDay": "3"}
    try:
        yield Stack(aws, aws.deploy(**parameters, **own_ca(aws, folder)), folder)
    finally:
        aws.stop()


def own_ca(aws: local_aws.LocalAws, folder: Path) -> dict[str, str]:
    """A CA whose key is in AWS KMS, as somebody makes it with the command."""
    key = aws.client("kms").create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    command = [CVM, "ca", "create", "--name", "Devices 1", "--out", folder / "ca", "--kms-key", key]
    subprocess.run(command, env=os.environ | aws.environment, check=True)
    return {"CaKeyArn": key, "CaCertificatePem": (folder / "ca" / "ca.pem").read_text()}


@pytest.fixture(scope="session")
def operator(stack: Stack) -> Operator:
    """Somebody who may ask everything of the registry's API."""
    arn = stack.outputs["ClaimsArn"].removesuffix("POST/v1/claims")
    return Operator(stack, add_user(stack.aws.client("iam"), "registry-operator", f"{arn}*"))


@pytest.fixture
def device_id(request, _numbers=itertools.count(1)):
    """A device id that no other test has."""
    return f"{request.node.originalname.removeprefix('test_').replace('_', '-')[:40]}-{next(_numbers)}"


@pytest.fixture
def server(tmp_path):
    server = start(tmp_path / "data", tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def database(tmp_path):
    with empty_database(tmp_path) as options:
        yield options
