"""From parsed arguments to an open svsync: configuration, logs, store, tenant.

Imported by commands when they run, never before: `svsync --help` loads none of it.
"""

import argparse
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from svsync.app import App, open_app
from svsync.cli.arguments import acting_user
from svsync.config.load import load
from svsync.config.model import LogFormat, Settings
from svsync.domain.audit import Actor, Decision, Entry
from svsync.domain.errors import ConfigError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import TenantId
from svsync.domain.mapping import RuleSet
from svsync.domain.values import Credential
from svsync.observe.logs import configure, log_what_nobody_caught
from svsync.observe.opening import open_tracer
from svsync.registry import Registry
from svsync.services.federation import refuse_overlaps

Compiled = list[tuple[BackendSpec, RuleSet]]


def settings_of(args: argparse.Namespace) -> Settings:
    """File and environment, with what the command line changes; logs are set up by it.

    Raises:
        ConfigError: one sentence with the place.
    """
    settings = read_settings(args)
    configure(settings.log_level, settings.log_format)
    log_what_nobody_caught()
    return settings


def read_settings(args: argparse.Namespace) -> Settings:
    """The same settings, by which nothing is set up yet.

    Raises:
        ConfigError: one sentence with the place.
    """
    settings = load(args.config, os.environ)
    said = "log_format" in settings.places or "LOG_FORMAT" in os.environ
    if not said and sys.stderr.isatty():
        settings = replace(settings, log_format=LogFormat.TEXT)
    if args.no_migrate:
        settings = replace(settings, migrate_on_start=False)
    return settings


@asynccontextmanager
async def opened(args: argparse.Namespace) -> AsyncIterator[tuple[App, TenantId]]:
    """svsync on its store, and the tenant of `--tenant`. Raises as `opened_store`, and as
    `App.tenant`."""
    async with opened_store(args) as app:
        yield app, await app.tenant(args.tenant)


@asynccontextmanager
async def opened_log(args: argparse.Namespace) -> AsyncIterator[tuple[App, TenantId]]:
    """The same of a tenant in whatever state: what was done is to be known of one that was
    shredded, too. Raises as `opened_store`, NotFoundError."""
    async with opened_store(args) as app:
        tenant, _ = await app.tenants.find(args.tenant)
        yield app, tenant


@asynccontextmanager
async def opened_store(args: argparse.Namespace) -> AsyncIterator[App]:
    """svsync on its store, for what is done to no tenant or to one that may be shut.

    What is wrong with a backend of the file is told before anything is started.
    """
    settings = settings_of(args)
    compiled(settings)
    async with open_tracer() as tracer, open_app(settings, tracer=tracer, by=operator()) as app:
        yield app


def operator() -> Actor:
    """Whoever runs this program, as the audit log names them."""
    return Actor("operator", f"cli:{acting_user()}")


async def record(
    app: App,
    tenant: TenantId,
    action: str,
    *,
    path: str | None = None,
    version: int | None = None,
    backend: str | None = None,
    about: Mapping[str, object] | None = None,
) -> None:
    """Let the audit log tell of what whoever runs this program does on the store itself.

    `about` is what the other fields have no place for; never a value or a token.

    Raises AuditUnavailableError: it is not recorded, so it must not be done.
    """
    detail = None if about is None else json.dumps(about)
    await app.recorder.record(
        Entry(tenant, *operator(), action, Decision.ALLOW, path, version, backend, detail=detail)
    )


def compiled(settings: Settings) -> Compiled:
    """The file's backends with their rules, each checked by its own type.

    Raises:
        ConfigError: what is wrong, with file and line.
    """
    registry = Registry(settings, _no_credentials)
    found: Compiled = []
    for spec in settings.backends:
        try:
            rules, _ = registry.rules(spec)
            refuse_overlaps([*found, (spec, rules)])
        except ConfigError as error:
            raise _located(settings, spec, error) from None
        found.append((spec, rules))
    return found


def _located(settings: Settings, spec: BackendSpec, error: ConfigError) -> ConfigError:
    """The same error, where a person finds it."""
    message = error.message.removeprefix(f"{error.where}: ")
    return ConfigError(message, where=settings.place(spec, error.where), code=error.code)


async def _no_credentials(_spec: BackendSpec, _tenant: TenantId) -> Credential:
    raise AssertionError("rules are compiled without signing in")
