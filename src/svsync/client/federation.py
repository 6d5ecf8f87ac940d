"""Backends, their runs, and the paths on which both sides disagree."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from svsync.client.calls import Calls, at_revision, body_text, new_key, segment
from svsync.client.errors import SvsyncError, unusable
from svsync.client.exact import encode
from svsync.client.feeds import FeedSecrets
from svsync.client.records import (
    Backend,
    BackendInBrief,
    BackendLook,
    Conflict,
    FederatedSecret,
    LastRuns,
    MadeBackend,
    MappingTest,
    Migration,
    Overview,
    PairStatus,
    Plan,
    RemovedBackend,
    ResolutionKind,
    Resolved,
    Run,
    RunPage,
    StateOfBackend,
    Status,
    TestedBackend,
    Triggered,
)

_BACKENDS: Final = "/v1/federation/backends"
_RUNS: Final = "/v1/federation/runs"
_OVERVIEW: Final = "/v1/federation/status"
_PAGE: Final = 1000
_REVEALED: Final = 50
"""Conflicts of one page with their values."""


class Backends:
    """`client.federation.backends`. Each method raises SvsyncError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self) -> tuple[BackendInBrief, ...]:
        """Every backend with the heart of its status, by id."""
        return tuple(await every(self._calls, _BACKENDS, "backends"))

    async def get(self, backend: str) -> Backend:
        """A backend's configuration in the words of the configuration file; of a credential
        the reference, never itself. Raises SvsyncError: `backend_not_found`."""
        found: Backend = await self._calls.get(_one(backend))
        return found

    async def create(
        self, document: Mapping[str, Any], *, require_healthy: bool = False
    ) -> MadeBackend:
        """Make a backend, once a real connection was tried; what that showed.

        Args:
            document: the keys of a backend in the configuration file.
            require_healthy: make it only if it is healthy.

        Raises:
            SvsyncError: `forbidden`, `invalid_field` and its kin, `backend_exists`,
                `mapping_overlap`, `backend_not_healthy`.
        """
        made: MadeBackend = await self._calls.send(
            "POST", _BACKENDS, document, key=new_key(), require_healthy=require_healthy or None
        )
        return made

    async def patch(
        self, backend: str, changes: Mapping[str, Any], *, rev: int | None = None
    ) -> Backend:
        """Merge changes into a backend's configuration, as RFC 7396 does; what it is then.

        Args:
            rev: only if it is at this revision, the `rev` of `get`.

        Raises:
            SvsyncError: `managed_by_file`, `version_conflict`, and as `create`.
        """
        changed: Backend = await self._calls.send(
            "PATCH", _one(backend), changes, headers=at_revision(rev)
        )
        return changed

    async def delete(
        self, backend: str, *, local_copies: Literal["keep", "purge"] = "keep"
    ) -> RemovedBackend:
        """Remove a backend; nothing is deleted in the remote store.

        Args:
            local_copies: `keep`: they become ordinary local secrets. `purge`: they are
                destroyed, but for what is here alone.
        """
        gone: RemovedBackend = await self._calls.send(
            "DELETE", _one(backend), local_copies=local_copies
        )
        return gone

    async def test(self, backend: str) -> TestedBackend:
        """Sign in now, and look what is granted."""
        found: TestedBackend = await self._calls.send("POST", f"{_one(backend)}/test")
        return found

    async def pause(self, backend: str) -> StateOfBackend:
        """Begin no run any more; one under way ends as ever."""
        done: StateOfBackend = await self._calls.send("POST", f"{_one(backend)}/pause")
        return done

    async def resume(self, backend: str) -> StateOfBackend:
        """Begin runs again."""
        done: StateOfBackend = await self._calls.send("POST", f"{_one(backend)}/resume")
        return done


class Federation:
    """`client.federation`. Each method raises SvsyncError, `backend_not_found` among others."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.backends = Backends(calls)
        self.feed_secrets = FeedSecrets(calls)

    async def overview(self) -> Overview:
        """How every backend is now, by id; cheap enough to be asked every second."""
        found: list[BackendLook] = []
        cursor: str | None = None
        while True:
            page = await self._calls.get(_OVERVIEW, limit=_PAGE, cursor=cursor)
            found += page["backends"]
            cursor = page["next_cursor"]
            if cursor is None:
                return {"at": page["at"], "runs": page["runs"], "backends": found}

    async def status(self, backend: str) -> Status:
        """How a backend is now; cheap enough to be asked every second."""
        found: Status = await self._calls.get(f"{_one(backend)}/status")
        return found

    async def sync(
        self,
        backend: str,
        *,
        paths: Sequence[str] | None = None,
        allow: Sequence[Literal["mass_delete", "mass_overwrite", "mass_regression"]] = (),
    ) -> Triggered:
        """Ask for a run; its id, under which `run` finds it from now on.

        Args:
            paths: local paths and globs; None: everything.
            allow: guards that this run passes by.

        Raises:
            SvsyncError: `backend_paused`, `not_synced`.
        """
        body: dict[str, Any] = {} if paths is None else {"paths": list(paths)}
        if allow:
            body["allow"] = list(allow)
        made: Triggered = await self._calls.send("POST", f"{_one(backend)}/sync", body)
        return made

    async def plan(self, backend: str, *, paths: Sequence[str] | None = None) -> Plan:
        """What a run would do now, and what its guards would stop; nothing is written. The service
        makes it meanwhile, which may take 50 seconds.

        Args:
            paths: local paths and globs; None: everything.

        Raises:
            SvsyncError: `backend_busy`, `backend_paused`, `plan_too_long`.
        """
        body: dict[str, Any] = {} if paths is None else {"paths": list(paths)}
        found: Plan = await self._calls.send("POST", f"{_one(backend)}/plan", body)
        return found

    async def test_mapping(self, backend: str, paths: Sequence[str]) -> MappingTest:
        """What the mapping in force makes of some paths, each taken as a remote one and as a
        local one; of what the caller may not list it tells nothing.

        Args:
            paths: at most 100.
        """
        body = {"paths": list(paths)}
        found: MappingTest = await self._calls.send("POST", f"{_one(backend)}/map/test", body)
        return found

    async def migration(self, prefix: str = "", *, idle: str | None = None) -> Migration:
        """How far each folder right below one is, and what comes next there; of secrets that the
        caller may list.

        Args:
            prefix: a folder of local paths; empty: the root.
            idle: within what an application must have read here, as `7d`, which it is where
                that is None.

        Raises:
            SvsyncError: `too_many_secrets`, `illegal_path` and others.
        """
        found: Migration = await self._calls.get("/v1/migration", prefix=prefix, idle=idle)
        return found

    async def runs(self, backend: str, *, limit: int = 100, cursor: str | None = None) -> RunPage:
        """A page of its runs, newest first, without the paths that they skipped."""
        page: RunPage = await self._calls.get(f"{_one(backend)}/runs", limit=limit, cursor=cursor)
        return page

    async def last_runs(
        self, backends: Sequence[str], *, last: int | None = None
    ) -> tuple[LastRuns, ...]:
        """The last runs of at most 100 backends, newest first, in a few words; so many of each,
        50 where that is None. A backend that is not there is missing."""
        ids = ",".join(segment(one, "backends") for one in backends)
        return tuple((await self._calls.get(_RUNS, backend_ids=ids, last=last))["backends"])

    async def run(self, backend: str, run_id: str) -> Run:
        """One run, with those paths. Raises SvsyncError: `run_not_found`."""
        found: Run = await self._calls.get(f"{_one(backend)}/runs/{segment(run_id, 'run_id')}")
        return found

    async def secrets(
        self, backend: str, *, state: PairStatus | None = None
    ) -> tuple[FederatedSecret, ...]:
        """The state of each federated secret that the caller may list, by its path.

        `state`: these alone; None: all but those that are detached.
        """
        place = f"{_one(backend)}/secrets"
        return tuple(await every(self._calls, place, "secrets", state=state))

    async def conflicts(
        self, backend: str, *, settled: bool = False, reveal: bool = False
    ) -> tuple[Conflict, ...]:
        """Paths on which both sides disagree.

        Args:
            settled: with those that are settled.
            reveal: with both values, where the caller may reveal the path; recorded for each.
        """
        found: list[Conflict] = await every(
            self._calls,
            f"{_one(backend)}/conflicts",
            "conflicts",
            limit=_REVEALED if reveal else _PAGE,
            state="all" if settled else "open",
            reveal=reveal or None,
        )
        return tuple(found)

    async def conflict(
        self, backend: str, path: str, *, conflict_id: str | None = None, reveal: bool = False
    ) -> Conflict:
        """The open or latest conflict of a path, or the one named, field by field.

        Raises SvsyncError: `conflict_not_found`, also where the caller may not know of it.
        """
        page = await self._calls.get(
            f"{_one(backend)}/conflicts",
            path=path,
            conflict_id=conflict_id,
            reveal=reveal or None,
        )
        if not page["conflicts"]:
            raise SvsyncError(
                f"there is no conflict of {path}, for this caller", code="conflict_not_found"
            )
        found: Conflict = page["conflicts"][0]
        return found

    async def resolve(
        self,
        backend: str,
        path: str,
        resolution: ResolutionKind,
        *,
        data: Mapping[str, Any] | None = None,
        text: str | None = None,
        conflict_id: str | None = None,
        local_version: int | None = None,
        remote_token: str | None = None,
    ) -> Resolved:
        """Settle the open conflict of a path.

        Args:
            data, text: the value of `use_value`, as `secrets.write` takes it.
            conflict_id, local_version, remote_token: what was looked at; left out, the
                conflict is taken as it stands.

        Raises:
            SvsyncError: `conflict_changed`, with `conflict` as it stands now;
                `conflict_not_found`; as `secrets.write`.
        """
        if (data is not None or text is not None) != (resolution == "use_value"):
            raise unusable("a value, as data or as text, is for use_value, which needs one")
        if data is not None and text is not None:
            raise unusable("give the value as data, or as text")
        asked = {"conflict_id": conflict_id, "local_version": local_version}
        asked |= {"remote_token": remote_token}
        members = {"path": path, "resolution": resolution} | {
            name: seen for name, seen in asked.items() if seen is not None
        }
        value = encode(data) if data is not None else text
        answer = await self._calls.call(
            "POST",
            f"{_one(backend)}/conflicts/resolve",
            body=encode(members) if value is None else body_text(members, value),
            key=new_key(),
        )
        done: Resolved = answer.document()
        return done


def _one(backend: str) -> str:
    return f"{_BACKENDS}/{segment(backend, 'the backend')}"


async def every(
    calls: Calls, place: str, items: str, *, limit: int = _PAGE, **query: object
) -> list[Any]:
    """What is on all pages of a list. Raises SvsyncError."""
    found: list[Any] = []
    cursor = None
    while True:
        page = await calls.get(place, limit=limit, cursor=cursor, **query)
        found += page[items]
        if (cursor := page["next_cursor"]) is None:
            return found
