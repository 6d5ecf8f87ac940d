"""What stands behind Vault's logins as a role: a Kubernetes that reviews tokens, the login
`aws` with an STS behind it, Google's metadata server and IAM.

OpenBao has the method `kubernetes`, and its `jwt` answers what Vault's `gcp` is asked. It
has no `aws`: `AwsLogin` stands in for that route and hands out real tokens.
"""

import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from tests.openbao import Bao
from tests.servers import Front, stop

from svsync.embedded.openbao import TlsFiles

_NUMBERS = count(1)
AUDIENCE: Final = "https://vault.internal"


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: rsa.RSAPrivateKey) -> str:
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@asynccontextmanager
async def served(app: web.Application, tls: TlsFiles | None = None) -> AsyncIterator[str]:
    """The address of an application, with a certificate for 127.0.0.1 or without one."""
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    try:
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"{'https' if tls else 'http'}://{host}:{port}"
    finally:
        await stop(runner, site)


# --- kubernetes -----------------------------------------------------------------------


@dataclass
class Cluster:
    """Issues tokens of service accounts, and reviews them as the API server does.

    "TokenReview", kubernetes.io/docs/reference/kubernetes-api/authentication-resources/
    token-review-v1: a token is authenticated where it is signed, has not expired, and is
    for one of the audiences asked about; the answer tells which of them.
    """

    key: rsa.RSAPrivateKey = field(default_factory=new_key, repr=False)
    reviewer: str = "reviewer-token"
    reviewed: list[str] = field(default_factory=list, repr=False)
    deleted: set[str] = field(default_factory=set)

    def token(
        self,
        account: str = "svsync",
        *,
        audience: str = AUDIENCE,
        since: timedelta = timedelta(),
        life: timedelta = timedelta(hours=1),
    ) -> str:
        """ "Service account tokens", kubernetes.io/docs/reference/access-authn-authz/
        service-accounts-admin, "Schema for service account private claims"."""
        begins = datetime.now(UTC) + since
        claims = {
            "iss": "https://kubernetes.default.svc",
            "sub": f"system:serviceaccount:vaulted:{account}",
            "aud": [audience],
            "iat": begins,
            "nbf": begins,
            "exp": begins + life,
            "jti": f"{next(_NUMBERS)}",
            "kubernetes.io": {
                "namespace": "vaulted",
                "serviceaccount": {"name": account, "uid": f"uid-{account}"},
            },
        }
        return jwt.encode(claims, self.key, "RS256")

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", self._review)
        return app

    async def _review(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.reviewer}":
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        spec = (await request.json())["spec"]
        self.reviewed.append(spec["token"])
        return web.json_response(
            {
                "kind": "TokenReview",
                "apiVersion": "authentication.k8s.io/v1",
                "status": self._status(spec["token"], spec.get("audiences") or []),
            },
            status=201,
        )

    def _status(self, token: str, asked: list[str]) -> dict[str, Any]:
        try:
            claims = jwt.decode(
                token, self.key.public_key(), ["RS256"], options={"verify_aud": False}
            )
        except jwt.InvalidTokenError:
            return {"authenticated": False, "error": "invalid bearer token"}
        told = [audience for audience in claims["aud"] if not asked or audience in asked]
        if not told:
            return {"authenticated": False, "error": "token audiences are invalid"}
        account = claims["kubernetes.io"]["serviceaccount"]
        if account["name"] in self.deleted:
            return {"authenticated": False, "error": "service account is gone"}
        user = {"username": claims["sub"], "uid": account["uid"], "groups": []}
        return {"authenticated": True, "user": user, "audiences": told}


@asynccontextmanager
async def kubernetes(
    bao: Bao, tls: TlsFiles, policy: str, *, audience: str = AUDIENCE
) -> AsyncIterator[tuple[Cluster, str]]:
    """A cluster, and where OpenBao has its login, with a role `svsync` for its account."""
    cluster, mount = Cluster(), f"kubernetes{next(_NUMBERS)}"
    async with served(cluster.app(), tls) as url:
        await bao.request("POST", f"sys/auth/{mount}", {"type": "kubernetes"})
        config = {
            "kubernetes_host": url,
            "kubernetes_ca_cert": tls.ca.read_text(),
            "token_reviewer_jwt": cluster.reviewer,
            "disable_local_ca_jwt": True,
        }
        await bao.request("POST", f"auth/{mount}/config", config)
        role = {
            "bound_service_account_names": "svsync",
            "bound_service_account_namespaces": "vaulted",
            "audience": audience,
            "token_policies": await bao.policy(policy),
            "token_ttl": "1h",
        }
        await bao.request("POST", f"auth/{mount}/role/svsync", role)
        yield cluster, mount


# --- aws ------------------------------------------------------------------------------


@dataclass
class AwsLogin:
    """Vault's login `aws`, and the STS that it asks.

    Of Vault: "AWS auth method (API)", vault/api-docs/auth/aws, "Login" and "Configure
    client" (`iam_server_id_header_value`, `sts_endpoint`, `sts_region`). Of STS:
    "GetCallerIdentity", STS/latest/APIReference. Of the signature: "Create a signed AWS API
    request", IAM/latest/UserGuide/reference_sigv-create-signed-request: it is made anew
    here, over the host that STS has, and is good for five minutes.
    """

    bao: Bao
    policy: str
    server_id: str = "vault.internal"
    host: str = "sts.amazonaws.com"
    region: str = "us-east-1"
    keys: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    """Secret key and session token by the id of a key."""
    ahead: timedelta = timedelta()
    """How far the clock of STS is ahead of this machine's."""
    logins: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        refused = self._refusal(body)
        if refused:
            return web.json_response({"errors": [refused]}, status=400)
        self.logins += 1
        made = await self.bao.request(
            "POST", "auth/token/create", {"policies": [self.policy], "ttl": "1h"}
        )
        return web.json_response(made)

    def _refusal(self, body: Mapping[str, str]) -> str:
        if body["iam_http_request_method"] != "POST":
            return "invalid iam_http_request_method; currently only 'POST' is supported"
        url = urlsplit(base64.b64decode(body["iam_request_url"]).decode())
        payload = base64.b64decode(body["iam_request_body"]).decode()
        lists = json.loads(base64.b64decode(body["iam_request_headers"]))
        headers = {name.lower(): ",".join(values) for name, values in lists.items()}
        id_header = "X-Vault-AWS-IAM-Server-ID"
        scheme, _, told = headers["authorization"].partition(" ")
        parts = dict(item.strip().split("=", 1) for item in told.split(","))
        if self.server_id:
            if headers.get(id_header.lower()) != self.server_id:
                return f"error validating {id_header} header: expected another value"
            if id_header.lower() not in parts["SignedHeaders"].split(";"):
                return f"error validating {id_header} header: header wasn't signed"
        if parse_qs(payload) != {"Action": ["GetCallerIdentity"], "Version": ["2011-06-15"]}:
            return "iam_request_body is not a GetCallerIdentity request"
        assert (scheme, url.scheme, url.path) == ("AWS4-HMAC-SHA256", "https", "/")
        if error := self._sts(headers, payload, parts):
            return f"error making upstream request: received error code 403 from STS: {error}"
        if body["role"] != "svsync":
            return f"entry for role {json.dumps(body['role'])} not found"
        return ""

    def _sts(self, headers: Mapping[str, str], payload: str, parts: Mapping[str, str]) -> str:
        key_id, date, region, service, _ = parts["Credential"].split("/")
        if key_id not in self.keys:
            return "<Code>InvalidClientTokenId</Code>"
        secret, token = self.keys[key_id]
        if headers.get("x-amz-security-token", "") != token:
            return "<Code>InvalidClientTokenId</Code>"
        signed_at = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        now = datetime.now(UTC) + self.ahead
        if now - signed_at > timedelta(minutes=15):
            return "<Code>SignatureDoesNotMatch</Code><Message>Signature expired: …</Message>"
        if signed_at - now > timedelta(minutes=15):
            return (
                "<Code>SignatureDoesNotMatch</Code><Message>Signature not yet current: …</Message>"
            )
        names = parts["SignedHeaders"].split(";")
        assert {"host", "x-amz-date"} <= set(names)
        shown = "".join(
            f"{name}:{self.host if name == 'host' else headers[name].strip()}\n" for name in names
        )
        hashed = hashlib.sha256(payload.encode()).hexdigest()
        request = "\n".join(["POST", "/", "", shown, ";".join(names), hashed])
        text = "\n".join(
            [
                "AWS4-HMAC-SHA256",
                headers["x-amz-date"],
                f"{date}/{region}/{service}/aws4_request",
                hashlib.sha256(request.encode()).hexdigest(),
            ]
        )
        key = f"AWS4{secret}".encode()
        for part in (date, self.region, "sts", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(signature, parts["Signature"]):
            return "<Code>SignatureDoesNotMatch</Code>"
        return ""


@asynccontextmanager
async def aws_front(bao: Bao, policy: str, **about: Any) -> AsyncIterator[tuple[AwsLogin, Front]]:
    login = AwsLogin(bao, await bao.policy(policy), **about)
    async with Front(bao.url) as front:
        front.answer("POST /v1/auth/aws/login", login.answer)
        yield login, front


# --- gcp ------------------------------------------------------------------------------

ACCOUNT: Final = "svsync@acme-prod.iam.gserviceaccount.com"


async def gcp_mount(
    bao: Bao, key: rsa.RSAPrivateKey, policy: str, *, audience: str = "vault/svsync"
) -> str:
    """Where OpenBao answers as Vault's `gcp` does: a JWT of the key, for the role `svsync`."""
    mount = f"gcp{next(_NUMBERS)}"
    await bao.request("POST", f"sys/auth/{mount}", {"type": "jwt"})
    await bao.request("POST", f"auth/{mount}/config", {"jwt_validation_pubkeys": [public_pem(key)]})
    role = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_subject": ACCOUNT,
        "bound_audiences": [audience],
        "token_policies": await bao.policy(policy),
        "token_ttl": "1h",
    }
    await bao.request("POST", f"auth/{mount}/role/svsync", role)
    return mount


def service_account(key: rsa.RSAPrivateKey) -> dict[str, str]:
    """A key file, as "Create and delete service account keys" of IAM describes it."""
    return {
        "type": "service_account",
        "project_id": "acme-prod",
        "private_key_id": "key-1",
        "private_key": private_pem(key),
        "client_email": ACCOUNT,
        "token_uri": "https://oauth2.googleapis.com/token",
    }


@dataclass
class Google:
    """The metadata server ("Verify the identity of a VM", compute/docs/instances/
    verifying-instance-identity) and IAM's signJwt ("Method:
    projects.serviceAccounts.signJwt", iam/docs/reference/credentials/rest/v1)."""

    key: rsa.RSAPrivateKey = field(repr=False)
    may_sign: bool = True
    flavor: str = "Google"
    asked: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        place = "/computeMetadata/v1/instance/service-accounts/default"
        app.router.add_get(f"{place}/identity", self._identity)
        app.router.add_get(f"{place}/token", self._token)
        app.router.add_post("/v1/projects/-/serviceAccounts/{call}", self._sign)
        return app

    def _is_metadata(self, request: web.Request) -> bool:
        self.asked.append(request.path)
        return request.headers.get("Metadata-Flavor") == "Google"

    async def _identity(self, request: web.Request) -> web.Response:
        if not self._is_metadata(request) or request.query.get("format") != "full":
            return web.Response(status=403)
        now = datetime.now(UTC)
        claims = {
            "aud": request.query["audience"],
            "sub": ACCOUNT,
            "iss": "https://accounts.google.com",
            "iat": now,
            "exp": now + timedelta(hours=1),
        }
        text = jwt.encode(claims, self.key, "RS256")
        return web.Response(text=text, headers={"Metadata-Flavor": self.flavor})

    async def _token(self, request: web.Request) -> web.Response:
        if not self._is_metadata(request):
            return web.Response(status=403)
        token = {"access_token": "ya29.machine", "expires_in": 3599, "token_type": "Bearer"}
        return web.json_response(token, headers={"Metadata-Flavor": self.flavor})

    async def _sign(self, request: web.Request) -> web.Response:
        account, _, verb = unquote(request.match_info["call"]).rpartition(":")
        allowed = request.headers.get("Authorization") == "Bearer ya29.machine"
        if verb != "signJwt" or account != ACCOUNT or not (self.may_sign and allowed):
            return web.json_response({"error": {"code": 403}}, status=403)
        claims = json.loads((await request.json())["payload"])
        signed = jwt.encode(claims, self.key, "RS256", {"kid": "google-managed"})
        return web.json_response({"keyId": "google-managed", "signedJwt": signed})
