"""GCP Secret Manager."""

from svsync.backends.gcp.driver import GcpDriver

__all__ = ["GcpDriver"]
