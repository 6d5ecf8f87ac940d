"""Tells a story: makes its steps happen in a house, and holds what is seen to what it says."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.house import BACKEND, ENDINGS, TENANT, WORK, House, counts, failure, skips
from tests.scenarios.story import (
    HERE,
    Step,
    Story,
    StoryError,
    by_path,
    check_keys,
    paths_of,
    payload_of,
    word_of,
)

from svsync.domain.changes import RemoteUnknown
from svsync.domain.envelope import Purpose
from svsync.domain.errors import BackendUnreachableError, NotFoundError, SvsyncError
from svsync.domain.federation import (
    BackendSpec,
    ConflictPolicy,
    Guard,
    HistoryMode,
    OnRemoteDelete,
    Overrides,
    RemoteChanges,
    RuleSpec,
    TagTransform,
    Writes,
)
from svsync.domain.guards import Allow
from svsync.domain.ids import LocalPath, SecretId
from svsync.domain.resolutions import Resolution
from svsync.ports import CallGuard, Features
from svsync.services.sealing import Sealed
from svsync.services.write_rows import Put
from svsync.testing.memory import FEATURES, MemoryBackend, MemoryStore

_LOOSE: Final = frozenset({"listed", "unchanged"})
"""Counts that a report need not name."""
_ACTIVE = "status NOT IN ('detached', 'standby')"


# --- settings ---------------------------------------------------------------------


def flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise StoryError(f"{text!r} is neither true nor false")
    return text == "true"


_OVERRIDES: Final[dict[str, Callable[[str], Any]]] = {
    "writes": Writes,
    "conflict_resolution": ConflictPolicy,
    "on_remote_delete": OnRemoteDelete,
    "remote_changes": RemoteChanges,
}
_GUARD: Final[dict[str, Callable[[str], Any]]] = {
    "max_delete_ratio": float,
    "max_delete_count": int,
    "max_overwrite_ratio": float,
    "max_regress_ratio": float,
}
_SETTINGS: Final[dict[str, Callable[[Any], Any]]] = {
    **_OVERRIDES,
    "propagate_deletes": flag,
    "seed_remote": flag,
    "history": HistoryMode,
    "max_versions": int,
    "max_value_bytes": int,
    "max_error_ratio": float,
    "guard": lambda given: Guard(**_each(given, _GUARD, "guard")),
    "path_mapping": lambda given: tuple(_rule(one) for one in given),
    "consistency_window": float,
}
_FEATURES: Final[dict[str, Callable[[str], Any]]] = {
    "compare_and_set": flag,
    "history": flag,
    "ordered_tokens": flag,
    "json_doubles": flag,
    "tags": flag,
    "push_interval_s": float,
    "max_value": int,
}


def _each(given: Any, kinds: Mapping[str, Callable[[Any], Any]], where: str) -> dict[str, Any]:
    named = check_keys(given, set(kinds), where)
    return {key: kinds[key](value) for key, value in named.items()}


def _rule(given: Any) -> RuleSpec:
    known = {"local", "remote", "exclude", "drop_tags", *_OVERRIDES}
    rule = check_keys(given, known, "path_mapping")
    over = {key: value for key, value in rule.items() if key in _OVERRIDES}
    return RuleSpec(
        local=rule.get("local", ""),
        remote=rule.get("remote", ""),
        exclude=flag(rule.get("exclude", "false")),
        tags=TagTransform(drop=flag(rule.get("drop_tags", "false"))),
        overrides=Overrides(**_each(over, _OVERRIDES, "path_mapping")),
    )


def settings_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """A story's settings as `BackendSpec` takes them."""
    settings = _each(given, _SETTINGS, "backend")
    if "path_mapping" in settings:
        settings["rules"] = settings.pop("path_mapping")
    if "consistency_window" in settings:
        settings["extra"] = {"consistency_window": settings.pop("consistency_window")}
    return settings


def backend_with(given: Mapping[str, str]) -> type[MemoryBackend]:
    """A backend in memory that can do what a story says."""
    features: Features = replace(FEATURES, **_each(given, _FEATURES, "features"))

    class Featured(MemoryBackend):
        @property
        def features(self) -> Features:
            return features

        def __init__(self, store: MemoryStore, spec: BackendSpec, guard: CallGuard) -> None:
            super().__init__(store, spec, guard, features)

    return Featured


# --- the telling ------------------------------------------------------------------


@dataclass
class Telling:
    """A story under way.

    Attributes:
        acknowledged: every value that either side took from somebody.
    """

    story: Story
    house: House
    acknowledged: set[str] = field(default_factory=set)
    _events_seen: int = 0
    _lost_at: dict[str, str | None] = field(default_factory=dict)
    _looked_at: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def tell(self) -> None:
        """Every step in its order, and the end that every story has."""
        steps: dict[str, Callable[[Any], Awaitable[None] | None]] = {
            "there": self._there,
            "here": self._here,
            "configure": self._configure,
            "run": self._run,
            "weather": self._weather,
            "time": self._time,
            "expect": self._expect,
        }
        for step in self.story.steps:
            with _Noted(step):
                made = steps[step.verb](step.body)
                if made is not None:
                    await made
        await self._is_quiet()
        await self._is_honest()
        await self._is_kept()

    # --- what people do -----------------------------------------------------------

    def _there(self, body: Mapping[str, Any]) -> None:
        store = self.house.there
        for verb, given in body.items():
            if verb == "put":
                for path, words in by_path(given):
                    for word in [words] if isinstance(words, str) else words:
                        store.put(path, payload_of(word))
                        self.acknowledged.add(word)
            elif verb == "tag":
                for path, tags in by_path(given):
                    store.tag(path, tags)
            elif verb == "rollback":
                for path, number in by_path(given):
                    store.rollback(path, int(number))
            else:
                change: Callable[[str], None] = getattr(store, verb)
                for path in paths_of(given):
                    change(path)

    async def _here(self, body: dict[str, Any]) -> None:
        answers, fails = body.get("answers", {}), body.get("fails")
        check_keys(answers, {"version", "write_through"}, "answers")
        [verb] = [key for key in body if key in HERE]
        writes = {
            "put": self._put,
            "delete": self._delete,
            "restore": self._restore,
            "look": self._look,
            "resolve": self._resolve,
        }
        given = body[verb]
        each = by_path(given) if isinstance(given, dict) else [(p, None) for p in paths_of(given)]
        for path, word in each:
            answer, problem = await _outcome(writes[verb](LocalPath(path), word, body))
            assert (problem.code if problem else None) == fails, f"{path}: {problem or answer}"
            if problem is not None:
                continue
            if verb == "put":
                self.acknowledged.add(str(word))
            seen = {
                "version": str(answer.get("version")),
                "write_through": answer.get("write_through", {}).get("state"),
            }
            assert {key: seen[key] for key in answers} == answers, path

    async def _put(self, path: LocalPath, word: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        tags = body.get("tags")
        put = Put(
            payload_of(word),
            tags=None if tags is None else tuple(tags),
            cas=int(body["cas"]) if "cas" in body else None,
            skip_if_equal=flag(body.get("skip_if_equal", "false")),
        )
        return await self.house.app.writes.put(TENANT, path, put, by="sa:app")

    async def _delete(self, path: LocalPath, _: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        cas = int(body["cas"]) if "cas" in body else None
        return await self.house.app.writes.delete(TENANT, path, by="sa:app", cas=cas)

    async def _restore(self, path: LocalPath, _: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        version = int(body["version"]) if "version" in body else None
        return await self.house.app.writes.restore(TENANT, path, version, by="sa:app")

    async def _look(self, path: LocalPath, _: Any, __: Mapping[str, Any]) -> dict[str, Any]:
        """A person looks at the conflict of a path; what they resolve is what they saw."""
        shown: Any = await self.house.app.conflicts.list_conflicts(TENANT, BACKEND)
        [seen] = [one for one in shown["conflicts"] if one["path"] == path]
        names = ("conflict_id", "local_version", "remote_token")
        self._looked_at[path] = {name: seen[name] for name in names}
        return {}

    async def _resolve(self, path: LocalPath, how: Any, _: Mapping[str, Any]) -> dict[str, Any]:
        payload = None
        if isinstance(how, dict):
            payload, how = payload_of(how["use_value"]), "use_value"
        answer: dict[str, Any] = await self.house.app.conflicts.resolve(
            TENANT, BACKEND, path, Resolution(how),
            payload=payload, by="sa:app", **self._looked_at.get(path, {}),
        )  # fmt: skip
        return answer

    async def _configure(self, body: Mapping[str, Any]) -> None:
        await self.house.configure(**settings_of(body))

    async def _run(self, body: Mapping[str, Any]) -> None:
        allowed = check_keys(
            dict.fromkeys(body.get("allow", ()), True),
            {"mass_delete", "mass_overwrite", "regression"},
            "allow",
        )
        ended = await self.house.run(
            *paths_of(body.get("paths", ())),
            dry=flag(body.get("dry", "false")),
            allow=Allow(**allowed),
        )
        error = ended.record.error
        assert failure(ended) == body.get("error"), error and error.message
        report = {name: int(n) for name, n in body.get("report", {}).items() if int(n)}
        told = {name: n for name, n in counts(ended).items() if name not in _LOOSE - set(report)}
        assert told == report
        skipped = dict(by_path(body.get("skipped", {})))
        assert skips(ended) == skipped
        if "result" in body:
            assert ended.record.result == body["result"]
        if "plan" in body:
            assert {p.path: p.action for p in ended.plan} == dict(by_path(body["plan"]))

    # --- what nobody does ---------------------------------------------------------

    def _weather(self, body: Mapping[str, Any]) -> None:
        store = self.house.there
        sets = {
            "hide": (store.hidden, True),
            "show": (store.hidden, False),
            "deny": (store.denied, True),
            "admit": (store.denied, False),
            "break": (store.failed, True),
            "mend": (store.failed, False),
            "readonly": (store.readonly, True),
            "writable": (store.readonly, False),
        }
        for what, given in body.items():
            if what in sets:
                names, add = sets[what]
                for name in paths_of(given):
                    (names.add if add else names.remove)(name)
            elif what == "unreadable":
                for path, reason in by_path(given):
                    store.unreadable[path] = RemoteUnknown(reason)
            elif what == "readable":
                for path in paths_of(given):
                    del store.unreadable[path]
            elif what == "lag":
                (store.lag if flag(given) else store.catch_up)()
            elif what == "other_store":
                store.identity = given
            elif what == "down":
                store.before = _down if flag(given) else None
            elif what == "lose_answer":
                self._lose_answer(given)
            elif what == "late_call_arrives":
                self._late_call_arrives(given)
            elif what == "meanwhile":
                self._before_write(given)

    def _before_write(self, happens: Mapping[str, Any]) -> None:
        """Somebody does this between the look at a name and the write of it."""
        store = self.house.there

        async def once(operation: str, path: str) -> None:
            if operation in ("write", "delete"):
                store.before = None
                self._there(happens)

        store.before = once

    def _lose_answer(self, when: str) -> None:
        """The answer of the next write never comes, whether it was made or not."""
        store = self.house.there
        if when not in ("before", "after"):
            raise StoryError(f"an answer is lost before or after the write, not {when!r}")

        async def cut(operation: str, path: str) -> None:
            if operation in ("write", "delete"):
                store.before = store.after = None
                secret = store.secret(path)
                self._lost_at[path] = None if secret is None else secret.value_token
                raise BackendUnreachableError("the connection was cut", operation="write")

        if when == "after":
            store.after = cut
        else:
            store.before = cut

    def _late_call_arrives(self, given: Mapping[str, Any]) -> None:
        """A call that was lost on its way reaches the backend after all, on its condition."""
        store = self.house.there
        for path, word in by_path(given):
            secret = store.secret(path)
            token = None if secret is None else secret.value_token
            if (
                token == self._lost_at[path]
                or self.story.features.get("compare_and_set") == "false"
            ):
                store.put(path, payload_of(word))

    async def _time(self, passed: str) -> None:
        long_ago = "now() - interval '1 day'"
        await self.house.admin.execute(
            {
                "pushes overdue": f"UPDATE pushes SET deadline = {long_ago}",
                "interval over": f"UPDATE pushes SET ended_at = {long_ago}",
                "window over": f"UPDATE sync_state SET base_moved_at = {long_ago}",
            }[passed]
        )

    # --- what is to be seen -------------------------------------------------------

    async def _expect(self, body: Mapping[str, Any]) -> None:
        looks: dict[str, Callable[[str], Awaitable[Any]]] = {
            "here": self._value_here,
            "there": self._value_there,
            "status": self._status,
            "versions": self._versions,
            "tags_here": self._tags_here,
            "tags_there": self._tags_there,
            "pushes": self._pushes,
        }
        for what, given in body.items():
            if what in looks:
                wanted = dict(by_path(given))
                assert {path: await looks[what](path) for path in wanted} == wanted, what
            elif what == "conflicts":
                await self._expect_conflicts(given)
            elif what == "events":
                told = await self.house.events()
                new = [event.removeprefix("federation.") for event in told[self._events_seen :]]
                assert new == list(given)
            elif what == "calls":
                made = {name: str(self.house.there.calls[name]) for name in given}
                assert made == given, "calls since the last expectation"
        self._events_seen = len(await self.house.events())
        self.house.there.calls.clear()

    async def _value_here(self, path: str) -> str:
        try:
            _, data = await self.house.app.secrets.get(TENANT, LocalPath(path))
        except NotFoundError:
            rows = await self.house.rows("secrets", path=path)
            return "deleted" if [row["state"] for row in rows] == ["deleted"] else "absent"
        return word_of(data)

    async def _value_there(self, path: str) -> str:
        secret = self.house.there.secret(path)
        if secret is None:
            return "absent"
        if secret.gone:
            return "gone"
        return word_of(secret.versions[secret.current].payload.data_text())

    async def _status(self, path: str) -> str:
        rows = await self.house.rows("sync_state", path=path)
        words = [str(row["status"]) for row in rows]
        active = [word for word in words if word not in ("detached", "standby")]
        return (active or words or ["none"])[0]

    async def _versions(self, path: str) -> list[str]:
        """Every number that was given out: its value, or `-` where it holds none."""
        row = await self.house.row("secrets", path=path)
        found = []
        for number in range(1, row["last_version"] + 1):
            try:
                _, data = await self.house.app.secrets.get(TENANT, LocalPath(path), number)
            except NotFoundError:
                found.append("-")
            else:
                found.append(word_of(data))
        return found

    async def _tags_here(self, path: str) -> list[str]:
        return list((await self.house.row("secrets", path=path))["tags"])

    async def _tags_there(self, path: str) -> dict[str, str]:
        secret = self.house.there.secret(path)
        assert secret is not None, f"{path} is not there"
        return {key: value for key, value in secret.tags.items() if key != "svsync-managed"}

    async def _pushes(self, path: str) -> list[str]:
        rows = await self.house.admin.fetch(
            "SELECT kind, state FROM pushes WHERE path = $1 ORDER BY push_id", path
        )
        return [f"{row['kind']} {row['state']}" for row in rows]

    async def _expect_conflicts(self, given: list[Mapping[str, str]]) -> None:
        """Every record there is, by path; those of one path in the order they were made."""
        rows = await self.house.admin.fetch("SELECT * FROM conflicts ORDER BY path, conflict_id")
        seen = []
        for row, wanted in zip(rows, [*given, *[{}] * len(rows)], strict=False):
            full = {
                "path": row["path"],
                "kind": row["kind"],
                "state": row["state"],
                "here": await self._side(row, "local") or "gone",
                "there": await self._side(row, "remote") or "gone",
            }
            asked = check_keys(dict(wanted), set(full), "conflicts") or full
            seen.append({key: full[key] for key in asked})
        assert seen == [dict(one) for one in given]

    async def _side(self, row: Any, side: str) -> str | None:
        if row[f"{side}_sealed"] is None:
            return None
        purpose = Purpose.CONFLICT_LOCAL if side == "local" else Purpose.CONFLICT_REMOTE
        sealed = Sealed(row[f"{side}_key_id"], row[f"{side}_nonce"], row[f"{side}_sealed"])
        keys = await self.house.app.sealing.for_tenant(TENANT)
        data = await keys.open(
            purpose, SecretId(row["secret_id"]), LocalPath(row["path"]), 0, sealed,
            extra=row["sealed_as"],
        )  # fmt: skip
        return word_of(data)

    # --- how every story ends -----------------------------------------------------

    async def _is_quiet(self) -> None:
        """Two more runs change nothing on either side and say so."""
        there, here = self._all_there(), await self.house.dump(without=WORK | ENDINGS)
        for _ in range(2):
            ended = await self.house.run(allow=Allow())
            assert failure(ended) is None, ended.record.error
            done = {name: n for name, n in counts(ended).items() if name not in _LOOSE}
            assert done == {}, "a run on a still backend did something"
            assert self._all_there() == there, "a run on a still backend wrote to it"
            assert await self.house.dump(without=WORK | ENDINGS) == here

    def _all_there(self) -> dict[str, Any]:
        return dict(self.house.there.listed_names())

    async def _is_honest(self) -> None:
        """What is called in sync is: both sides hold the same, or both hold nothing."""
        rows = await self.house.admin.fetch(
            f"SELECT path, remote_path FROM sync_state WHERE {_ACTIVE} AND status = 'in_sync'"
        )
        for row in rows:
            here = await self._value_here(row["path"])
            there = await self._value_there(row["remote_path"])
            nothing = {"deleted", "gone", "absent"}
            same = here == there or {here, there} <= nothing or _equal(here, there)
            assert same, f"{row['path']} is called in sync: {here} here, {there} there"

    async def _is_kept(self) -> None:
        """Every value that somebody wrote on either side can still be read somewhere."""
        kept = await self._readable()
        lost = self.acknowledged - kept - set(self.story.given_up)
        assert not lost, f"written, and not to be read anywhere: {sorted(lost)}"
        needless = set(self.story.given_up) & kept
        assert not needless, f"given up, and kept all the same: {sorted(needless)}"

    async def _readable(self) -> set[str]:
        found = set()
        for secret in await self.house.rows("secrets"):
            found.update(await self._versions(secret["path"]))
        for conflict in await self.house.rows("conflicts"):
            for side in ("local", "remote"):
                found.add(await self._side(conflict, side) or "-")
        for push in await self.house.rows("pushes"):
            if push["before_sealed"] is not None:
                found.add(await self._before(push))
        for name in self._all_there().values():
            found.update(
                word_of(version.payload.data_text())
                for version in name.versions.values()
                if not version.destroyed
            )
        return found

    async def _before(self, push: Any) -> str:
        keys = await self.house.app.sealing.for_tenant(TENANT)
        sealed = Sealed(push["before_key_id"], push["before_nonce"], push["before_sealed"])
        secret, path = SecretId(push["secret_id"]), LocalPath(push["path"])
        data = await keys.open(Purpose.RAW, secret, path, 0, sealed, extra=push["push_id"])
        return word_of(data)


class _Noted:
    """Says which step an error arose in."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(str(self._step))


async def _outcome(
    write: Awaitable[dict[str, Any]],
) -> tuple[dict[str, Any], SvsyncError | None]:
    """What a write answers, or why it was refused."""
    try:
        return await write, None
    except SvsyncError as problem:
        return {}, problem


async def _down(operation: str, path: str) -> None:
    raise BackendUnreachableError("no route to the backend", operation=operation, sent=False)


def _equal(one: str, other: str) -> bool:
    """The same JSON in another spelling."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False
