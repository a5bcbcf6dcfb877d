"""The measuring script, in a short form: a function that it does not know ends it."""

import subprocess
import sys

from conftest import FUNCTIONS
from local_aws import ROOT
from measure_cases import NOT_MEASURED


def test_each_function_is_measured_or_there_is_a_reason():
    command = [sys.executable, ROOT / "scripts" / "measure.py", "--cold", "1", "--warm", "2", "--any-build"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    measured = {line.split("|")[1].strip() for line in done.stdout.splitlines()[2:]} - {"the same in Python, boto3"}
    assert measured == set(FUNCTIONS) - set(NOT_MEASURED) and set(NOT_MEASURED) <= set(FUNCTIONS)
