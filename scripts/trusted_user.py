"""A trusted user with IAM credentials, who may ask for claims and do nothing else."""

import json

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def add_user(iam, name: str, claims_arn: str | None) -> Credentials:
    """A new IAM user; `claims_arn` is the output ClaimsArn of the stack that the user may ask."""
    iam.create_user(UserName=name)
    if claims_arn:
        allowed = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": claims_arn}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName=name, PolicyName="claims", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def signed_headers(user: Credentials, url: str, body: bytes, region: str) -> dict[str, str]:
    """The headers of a POST to an API, signed by the user (AWS Signature Version 4)."""
    request = AWSRequest("POST", url, data=body, headers={"content-type": "application/json"})
    SigV4Auth(user, "execute-api", region).add_auth(request)
    return dict(request.headers)
