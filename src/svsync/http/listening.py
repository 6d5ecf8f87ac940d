"""Where the API listens: TCP, with TLS where there is a certificate; and how it stops.

When the block ends nothing is accepted any more, idle connections are closed, and requests
under way are answered within the grace. What is not done then is cut off.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from svsync.app import new_id
from svsync.config.model import Settings
from svsync.domain.errors import ConfigError, SetupError
from svsync.http.connections import HEAD_S, Connections
from svsync.http.server import SHORT_WAY
from svsync.observe.logs import get_logger

_BACKLOG: Final = 128
"""Connections that wait to be taken."""


class Listener:
    """The open door of one process.

    Attributes:
        host, port: where it listens, the port as it was given where 0 was asked for.
    """

    def __init__(self, settings: Settings, context: ssl.SSLContext | None) -> None:
        self._settings = settings
        self._context = context
        self.host, self.port = "", 0

    @property
    def url(self) -> str:
        """The address for a client on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self._context is None else 'https'}://{host}:{self.port}"

    def reload_certificate(self) -> None:
        """Use the certificate and key that the files hold now, for connections from now on.

        The CA of client certificates is that of the start.

        Raises:
            ConfigError: the files do not hold a pair; what was in use stays so.
        """
        if self._context is not None:
            _load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._settings)
            _load_pair(self._context, self._settings)


@asynccontextmanager
async def listening(
    app: web.Application, settings: Settings, *, grace: float, shared: bool = False
) -> AsyncIterator[Listener]:
    """Serve the application at `bind_address` until the block ends, and then `grace` seconds
    at most for what is under way. `shared`: other processes listen there too.

    Raises:
        ConfigError: certificate, key or client CA cannot be used.
        SetupError: the address cannot be listened on.
    """
    context = _context(settings)
    listener = Listener(settings, context)
    runner = web.AppRunner(app, shutdown_timeout=grace)
    await runner.setup()
    try:
        assert runner.server is not None
        made = Connections(runner.server, new_id, app.get(SHORT_WAY))
        server = await _listen(made, settings, context, shared=shared)
        try:
            listener.host, listener.port = server.sockets[0].getsockname()[:2]
            get_logger().info("listening", address=listener.url)
            yield listener
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def _listen(
    made: Connections, settings: Settings, context: ssl.SSLContext | None, *, shared: bool
) -> asyncio.Server:
    host, _, port = settings.bind_address.rpartition(":")
    tls_s = None if context is None else HEAD_S
    try:
        return await asyncio.get_running_loop().create_server(
            made,
            host.removeprefix("[").removesuffix("]"),
            int(port),
            ssl=context,
            ssl_handshake_timeout=tls_s,
            ssl_shutdown_timeout=tls_s,
            backlog=_BACKLOG,
            reuse_port=shared or None,
        )
    except OSError as error:
        raise SetupError(
            f"nobody can listen on {settings.bind_address} ({error.strerror or 'no reason'}):"
            " set bind_address to an address of this machine, and to a port that is free",
            code="cannot_listen",
        ) from None


def _context(settings: Settings) -> ssl.SSLContext | None:
    """None where TLS ends before svsync."""
    if settings.tls_cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, settings)
    if settings.tls_client_ca_file is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca_file)
        except OSError as error:  # ssl.SSLError too
            raise _unusable("tls_client_ca_file", settings.tls_client_ca_file, error) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_pair(context: ssl.SSLContext, settings: Settings) -> None:
    assert settings.tls_cert_file is not None
    try:
        # A key with a pass phrase would make OpenSSL ask for it at the terminal.
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password="")
    except OSError as error:
        files = f"{settings.tls_cert_file} and {settings.tls_key_file}"
        raise _unusable("tls_cert_file", files, error) from None


def _unusable(key: str, files: str, error: OSError) -> ConfigError:
    why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return ConfigError(
        f"{files} cannot be used ({why or type(error).__name__}): PEM files are needed that this"
        " process may read, the key without a pass phrase and that of the certificate",
        where=key,
    )
