"""Operators, who sign what they ask of the registry's API."""

import json
import urllib.error
import urllib.request

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local_aws import REGION
from stack import Answer, Stack, lower


class Operator:
    """Somebody with a tool; a request without a signature is nobody's."""

    def __init__(self, stack: Stack, credentials: Credentials | None) -> None:
        self.stack = stack
        self.credentials = credentials

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        url = self.stack.aws.api_url(self.stack.outputs, path)
        sent = b"" if body is None else json.dumps(body).encode()
        names = {"content-type": "application/json"} | {name.replace("_", "-"): it for name, it in headers.items()}
        request = AWSRequest(method, url, data=sent, headers=names)
        if self.credentials:
            SigV4Auth(self.credentials, "execute-api", REGION).add_auth(request)
        asked = urllib.request.Request(url, data=sent or None, headers=dict(request.headers), method=method)
        try:
            with urllib.request.urlopen(asked, timeout=30) as done:
                return Answer(done.status, lower(done.headers), done.read())
        except urllib.error.HTTPError as refused:
            return Answer(refused.code, lower(refused.headers), refused.read())
