"""From parsed arguments to a service that can be asked, and its errors as those of the house."""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Final

from svsync.cli.arguments import TOKEN, URL, token_of
from svsync.client import Client
from svsync.client import SvsyncError as Answered
from svsync.client.calls import TIMEOUT_S
from svsync.domain.audit import LOOK
from svsync.domain.errors import (
    BackendBusyError,
    BackendUnreachableError,
    ConfigError,
    ConflictChangedError,
    SvsyncError,
    UsageError,
    WriteOutcomeUnknownError,
)

STATES: Final = frozenset(
    {
        "managed_by_file",
        "backend_exists",
        "backend_removed",
        "backend_paused",
        "not_synced",
        "mapping_overlap",
        "authorisation_changed",
        "hides_local_secrets",
        "unpushed_local_changes",
        "endpoint_disabled",
    }
)
"""Codes with which a command on the store itself ends as of a wrong configuration."""
VALUES: Final = frozenset(
    {"undecodable", "too_deep", "value_too_large", "bad_metadata", "number_would_change"}
    | {"name_not_allowed", "backend_not_healthy"}
)
"""Codes of 422 that are about what was to be done, and not about how it was asked for."""


_OPTIONS: Final = (("base_url", "--url"), ("`ca`", "--ca"), ("ca is", "--ca is"))
"""What the client calls its arguments, and how they are called here."""


@asynccontextmanager
async def asked(
    args: argparse.Namespace, *, looks: bool = False, timeout: float = TIMEOUT_S
) -> AsyncIterator[Client]:
    """The service of `--url`. What it answers as an error is raised as the commands on the
    store raise it, so that exit codes and JSON are the same. With `looks` the audit log can tell
    that what is read is looked at by a person. `timeout`: seconds for one call.

    Raises:
        UsageError: there is no token, the address cannot be one, or the token is another
            tenant's than the one that was named.
        SvsyncError: as the service says.
    """
    url = args.service or os.environ[URL]
    token = token_of(args)
    if not token:
        raise UsageError(f"the service asks for a token: set {TOKEN}, or give --token env:NAME")
    try:
        ids = (lambda: LOOK + token_hex(12)) if looks else None
        async with Client(url, token, ca=args.ca, timeout=timeout, request_ids=ids) as client:
            if args.tenant_named:
                await _refuse_another_tenant(client, args.tenant)
            yield client
    except Answered as error:
        raise told(error) from None


async def _refuse_another_tenant(client: Client, tenant: str) -> None:
    whose = (await client.auth.whoami())["tenant"]
    if whose != tenant:
        raise UsageError(f"the token is of the tenant {whose}: over --url its tenant is the one")


def told(error: Answered) -> SvsyncError:
    """What the service, or the way to it, said: as the house says it."""
    message, code = error.message, error.code
    if error.status is None:
        for theirs, ours in _OPTIONS:
            message = message.replace(theirs, ours)
    match code:
        case "backend_busy":
            return BackendBusyError(message, holder="", expires_at=None)
        case "backend_unreachable":
            return BackendUnreachableError(message, operation="connect")
        case "write_outcome_unknown" if error.push_id:
            return WriteOutcomeUnknownError(message, push_id=error.push_id)
        case "conflict_changed" if error.conflict:
            return ConflictChangedError(message, conflict=error.conflict)
    if code == "invalid_argument" or (error.status in (400, 422) and code not in VALUES):
        return UsageError(message, code=code)
    if code in STATES:
        return ConfigError(message, code=code)
    return SvsyncError(message, code=code)
