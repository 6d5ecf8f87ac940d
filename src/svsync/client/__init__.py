"""A client of svsync's HTTP API, for Python programs.

    from svsync.client import SyncClient, SvsyncError

    with SyncClient("https://svsync.internal:8443", token) as client:
        stripe = client.secrets.read("environments/production/billing/stripe")
        key = stripe.data["secret_key"]

`Client` has the same methods to be awaited. What it does on the way to the service, and
what it never does, is told in `svsync.client.calls`; `docs/reference/client.md` is the
guide. Nothing of the service is imported: neither its store nor its backends.
"""

from svsync.client.asynchronous import Client
from svsync.client.blocking import SyncClient
from svsync.client.errors import SvsyncError
from svsync.client.exact import Number
from svsync.client.secrets import Listing, Secret

__all__ = ["Client", "Listing", "Number", "Secret", "SvsyncError", "SyncClient"]
