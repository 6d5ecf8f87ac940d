"""Who svsync is in AWS, as Vault's `aws` login wants it proved.

It takes a request to STS, GetCallerIdentity, that is signed and not sent: Vault sends it,
and STS tells Vault whose it is. Nothing else can be done with it, and it is good for a
quarter of an hour. What Vault takes is in its documentation, "AWS auth method (API)",
vault/api-docs/auth/aws, "Login"; of the headers it wants a list of values each.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Final

from svsync.clients.aws.session import AwsSession
from svsync.clients.aws.settings import AwsSettings
from svsync.domain.errors import LoginError
from svsync.domain.values import Credential, SecretValue
from svsync.network import NetworkPolicy

_GLOBAL: Final = "https://sts.amazonaws.com/"
_GLOBAL_REGION: Final = "us-east-1"
"""For which requests to the global STS are signed."""
_BODY: Final = "Action=GetCallerIdentity&Version=2011-06-15"
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
_SERVER_ID: Final = "X-Vault-AWS-IAM-Server-ID"
_AMBIENT: Final = "svsync's own identity in AWS"


class AwsAttestor:
    """See `ports.Attestor`.

    Args:
        region: whose STS is to be asked; empty: the global one.
        server_id: names the Vault that the proof is for, so that no other can use it;
            empty: it says nothing of that.
    """

    def __init__(self, region: str, server_id: str, policy: NetworkPolicy) -> None:
        self._region = region
        self._server_id = server_id
        self._policy = policy

    async def attest(self, role: str, credential: Credential | None) -> Credential:
        url = _sts(self._region) if self._region else _GLOBAL
        headers = {**_FORM, **({_SERVER_ID: self._server_id} if self._server_id else {})}

        async def given() -> Credential:
            if credential is None:
                raise LoginError("there is no credential", operation="login", sent=False)
            return credential

        settings = AwsSettings(self._region or _GLOBAL_REGION, static=credential is not None)
        async with AwsSession(settings, given, self._policy) as session:
            signed = await session.sign("sts", url, _BODY, headers)
        lists = json.dumps({name: [value] for name, value in signed.items()})
        fields = {
            "iam_http_request_method": "POST",
            "iam_request_url": _encoded(url),
            "iam_request_body": _encoded(_BODY),
            "iam_request_headers": _encoded(lists),
        }
        where = _AMBIENT if credential is None else credential.where
        return Credential({key: SecretValue(text) for key, text in fields.items()}, where)


def attestor(config: Mapping[str, object], policy: NetworkPolicy) -> AwsAttestor:
    """As a Vault backend's configuration says."""
    return AwsAttestor(
        str(config.get("aws_region", "")), str(config.get("aws_server_id", "")), policy
    )


def _sts(region: str) -> str:
    """The address of a region's STS ("AWS Security Token Service endpoints and quotas",
    general/latest/gr/sts); in China it ends in another way."""
    return f"https://sts.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}/"


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()
