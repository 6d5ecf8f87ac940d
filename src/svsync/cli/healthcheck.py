"""`svsync healthcheck`: does the service of this machine answer?

For a container's HEALTHCHECK, where neither curl nor a token is. It reads the same file and
environment as the service, so it knows where that listens, and asks by the routes that need
no token.
"""

import argparse
import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import add_command
from svsync.cli.output import Output
from svsync.domain.errors import ConfigError, SetupError

if TYPE_CHECKING:
    from svsync.config.model import Settings

_PATIENCE_S: Final = 4.0
"""Seconds for the whole question; readiness has an answer after two."""
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - where one listens


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "healthcheck", "say whether the service of this machine answers", healthcheck
    )
    parser.add_argument(
        "--ready",
        action="store_true",
        help="and whether it can work: its database answers, and it has its keys",
    )


async def healthcheck(args: argparse.Namespace) -> int:
    """0 where it answers.

    Raises:
        ConfigError: it listens nowhere that could be asked.
        SetupError: it does not answer, or with `--ready` cannot work.
    """
    import os

    from svsync.config.load import load

    address, path, context = _door(load(args.config, os.environ), ready=args.ready)
    status = await _ask(address, path, context)
    if status != 200 and (args.ready or status != 503):
        raise SetupError(
            f"the service at {address} answers {status}: its log, and `svsync doctor`, say why",
            code="not_ready",
        )
    out: Output = args.out
    if out.json:
        out.document({"address": address, "status": status})
    else:
        out.line("ready" if args.ready else "alive")
    return 0


def _door(settings: "Settings", *, ready: bool) -> tuple[str, str, ssl.SSLContext | None]:
    """Where to ask, what for, and how. A service that wants client certificates is asked at
    its metrics, which need none, and answer 503 where the store is away."""
    if settings.tls_client_ca_file is None:
        context = None
        if settings.tls_cert_file is not None:
            # Nothing is sent that is worth anything, to a port of this machine; and its
            # certificate has the name by which others know the service.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return settings.bind_address, "/readyz" if ready else "/healthz", context
    if settings.metrics_address is None:
        raise ConfigError(
            "is off, and the API wants client certificates: set it, and the check asks there",
            where="metrics_address",
        )
    return settings.metrics_address, "/metrics", None


async def _ask(address: str, path: str, context: ssl.SSLContext | None) -> int:
    """The status of an answer."""
    host, _, port = address.rpartition(":")
    host = _EVERYWHERE.get(host, host)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
            try:
                head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
                protocol, status, *_ = (await reader.readline()).split(b" ", 2)
            finally:
                writer.transport.abort()
        if not protocol.startswith(b"HTTP/1."):
            raise ValueError
        return int(status)
    except (OSError, TimeoutError, ValueError):
        raise SetupError(
            f"nobody answers at {address}: look at the service's log, or start it",
            code="service_unreachable",
        ) from None
