"""The console: one page with its script and its style, out of the wheel, for people who would
rather look.

It needs no token and knows nothing: whatever it shows it asks of `/v1/` with the token of who
looks, which lives in the memory of the page. So it is the same for everybody, and may be kept
until its `ETag` is another.
"""

import gzip
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Final

from aiohttp import web

TYPES: Final = {
    "index.html": "text/html",
    "console.js": "text/javascript",
    "console.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_KEEP: Final = "no-cache"
"""Kept, and asked about each time: a page never meets the script of another release."""


@dataclass(frozen=True, slots=True)
class Console:
    """How people sign in, besides by a token.

    Attributes:
        issuer: the origin of ScaiKey; None: by tokens alone.
        client_id: as what the console is known there; it is a public client.
    """

    issuer: str | None = None
    client_id: str | None = None


def headers_of(console: Console) -> dict[str, str]:
    """What a browser is told of the page: nothing comes from elsewhere, nothing goes anywhere
    but here and, for signing in, to ScaiKey, and no text becomes markup."""
    issuer = f" {console.issuer}" if console.issuer and console.client_id else ""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self'{issuer}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "X-Frame-Options": "DENY",
    }


def routes(console: Console) -> list[web.RouteDef]:
    headers = headers_of(console)

    async def moved(_request: web.Request) -> web.Response:
        return web.Response(status=308, headers={"Location": "/ui/", **headers})

    async def sign_in(_request: web.Request) -> web.Response:
        known = console.issuer and console.client_id
        told = {"issuer": console.issuer, "client_id": console.client_id} if known else None
        return web.json_response({"scaikey": told}, headers={"Cache-Control": _KEEP, **headers})

    return [
        web.get("/ui", moved),
        web.get("/ui/", _serving("index.html", headers)),
        web.get("/ui/config.json", sign_in),
        *(
            web.get(f"/ui/{name}", _serving(name, headers))
            for name in TYPES
            if name != "index.html"
        ),
    ]


def _serving(
    name: str, headers: dict[str, str]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    plain = resources.files("svsync.http").joinpath("assets", name).read_bytes()
    packed = gzip.compress(plain, mtime=0)
    tag = hashlib.sha256(plain).hexdigest()[:32]
    kept = {**headers, "Cache-Control": _KEEP, "Vary": "Accept-Encoding"}

    async def served(request: web.Request) -> web.Response:
        small = "gzip" in request.headers.get("Accept-Encoding", "")
        # Two forms are two tags: a cache between them mixes them up otherwise.
        own = f'"{tag}-gzip"' if small else f'"{tag}"'
        told = {**kept, "ETag": own}
        if own in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=told)
        if small:
            told["Content-Encoding"] = "gzip"
        return web.Response(
            body=packed if small else plain,
            content_type=TYPES[name],
            charset="utf-8",
            headers=told,
        )

    return served
