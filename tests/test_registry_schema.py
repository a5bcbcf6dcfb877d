"""The registry's API against its OpenAPI document: schemathesis asks whatever the document allows, and a good deal of what
it does not, and the deployed function has to answer as the document says.

API Gateway's authorizer is left out of it: the event says who asks, as it does behind the gateway.
"""

import io
import json
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
import urllib3
from hypothesis import HealthCheck, Phase, settings
from requests.adapters import HTTPAdapter

from local_aws import ROOT
from stack import Stack

SAMPLE = json.loads((ROOT / "events" / "registry" / "list.json").read_text())
SCHEMA = schemathesis.openapi.from_path(ROOT / "schemas" / "registry.openapi.json")


class Function(HTTPAdapter):
    """Carries a request to the deployed function as API Gateway does."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack

    def send(self, request: requests.PreparedRequest, **_) -> requests.Response:
        address = urlsplit(request.url)
        body = request.body or b""
        body = body if isinstance(body, str) else body.decode(errors="replace")
        http = SAMPLE["requestContext"]["http"] | {"method": request.method, "path": address.path}
        event = SAMPLE | {
            "rawPath": address.path,
            "rawQueryString": address.query,
            "headers": {name.lower(): str(value) for name, value in request.headers.items()},
            "requestContext": SAMPLE["requestContext"] | {"http": http},
            "body": body,
        }
        answer = self.stack.call("Registry", event)
        raw = urllib3.HTTPResponse(
            body=io.BytesIO((answer.get("body") or "").encode()),
            headers=answer.get("headers", {}),
            status=answer["statusCode"],
            preload_content=False,
        )
        return self.build_response(request, raw)


@pytest.fixture(scope="module")
def session(stack: Stack) -> requests.Session:
    session = requests.Session()
    session.mount("http://", Function(stack))
    return session


@SCHEMA.parametrize()
@settings(
    max_examples=10,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_the_document_says(session: requests.Session, case: schemathesis.Case):
    response = case.call(base_url="http://registry", session=session)
    checks = schemathesis.checks
    # Whether a device is there is not for the document to say, and who asks is said by the event.
    excluded = [checks.positive_data_acceptance, checks.ignored_auth]
    if case.operation.path in ("/devices/export", "/devices/query", "/devices/{id}"):
        # A device may be called "query", so that these addresses have the methods of each other.
        excluded += [checks.unsupported_method, checks.allow_header_conformance]
    case.validate_response(response, excluded_checks=excluded)
