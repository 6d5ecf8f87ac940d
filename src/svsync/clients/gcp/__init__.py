"""A session with Google Cloud, shared by whatever talks to one of its services."""

from svsync.clients.gcp.addresses import Dial
from svsync.clients.gcp.refusals import GcpRefusedError, OutOfTimeError, no_answer
from svsync.clients.gcp.session import GcpSession
from svsync.clients.gcp.settings import GcpSettings, Service

__all__ = [
    "Dial",
    "GcpRefusedError",
    "GcpSession",
    "GcpSettings",
    "OutOfTimeError",
    "Service",
    "no_answer",
]
