"""One local AWS with the stack of template.yaml on it, for all end-to-end tests of a run."""

import itertools

import pytest

import local_aws
from local_aws import ROOT
from stack import CVM, Stack

BUILT = [ROOT / "target" / "lambda" / "vend" / "bootstrap.zip", CVM]


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    missing = [str(path.relative_to(ROOT)) for path in BUILT if not path.exists()]
    if missing:
        pytest.exit(f"{', '.join(missing)} missing: run 'make package ARCH=host PROFILE=dev' first", returncode=2)
    folder = tmp_path_factory.mktemp("stack")
    aws = local_aws.start(folder / "aws")
    try:
        yield Stack(aws, aws.deploy(LogLevel="debug"), folder)
    finally:
        aws.stop()


@pytest.fixture
def device_id(request, _numbers=itertools.count(1)):
    """A device id that no other test has."""
    return f"{request.node.originalname.removeprefix('test_').replace('_', '-')[:60]}-{next(_numbers)}"
