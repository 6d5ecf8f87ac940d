"""The part of a backend's configuration that a session with Google Cloud needs."""

import logging
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Service:
    """One service of Google Cloud, and the SDK's classes for it, loaded when it is called.

    Attributes:
        host: what its certificate must be made out to.
        client, transport: `module:attribute` of the asynchronous client, and of its
            transport over gRPC.
    """

    host: str
    client: str
    transport: str

    def client_over(self, channel: Any) -> Any:
        """The SDK's client on a channel, with no credentials of its own.

        Its log is off: at debug it holds whole requests and answers, with tokens and values.
        """
        transport = _named(self.transport)
        # By the module that it is of: `transport` may name a package that hands it on.
        logging.getLogger(transport.__module__).disabled = True
        return _named(self.client)(transport=transport(channel=channel))


def _named(target: str) -> Any:
    module, attribute = target.split(":")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True, slots=True)
class GcpSettings:
    """As whom to call.

    Attributes:
        static: the identity comes from a credential; else from this process: a file named
            by GOOGLE_APPLICATION_CREDENTIALS, or the machine's metadata server.
        federated: a credential may be one of workload identity federation, which names
            files and addresses of this machine: the operator's alone.
        timeout: seconds for one call, connecting included.
    """

    static: bool = True
    federated: bool = False
    timeout: float = 30.0
