"""The tables of a backend's settings: every key, what it takes, what it is for.

Defaults stand here as a person would write them, for the reference page and the
schema; those that `BackendSpec` fills in are the same (a test compares them).
"""

from dataclasses import replace

from svsync.config.backend_types import TYPES
from svsync.config.document import Node
from svsync.config.kinds import (
    ANY_TEXT,
    BOOLEAN,
    TENANT,
    Key,
    Kind,
    choice,
    duration,
    integer,
    list_of,
    mapping_of,
    number,
    object_schema,
    read_object,
    record,
    sequence,
    size,
    table,
    text,
    text_of,
)
from svsync.domain.federation import (
    ConflictPolicy,
    HistoryMode,
    Mode,
    OnRemoteDelete,
    Overrides,
    RemoteChanges,
    RuleSpec,
    TagTransform,
    Writes,
)
from svsync.domain.tags import format_problem

DAY = 86400

BACKEND_ID = text(r"[A-Za-z0-9][A-Za-z0-9_-]*", "letters, digits, `_` and `-`", max_length=64)
BACKEND_NAME = text(r"[A-Za-z0-9][A-Za-z0-9._-]*", "letters, digits, `.`, `_`, `-`", max_length=128)


# --- one rule -----------------------------------------------------------------------

_PATTERN = text(r"[^\x00-\x1f\x7f]+", "a pattern such as `team/**`")


def _read_format(node: Node) -> str:
    value = text_of(node, "a format")
    if problem := format_problem(value):
        raise node.error(problem)
    return value


_TAG_NAMES = sequence(ANY_TEXT, "a list of tag keys")

TAGS = (
    Key(
        "format",
        Kind(_read_format, {"type": "string"}, "a text with `{key}`, `{value}` or both"),
        "How a remote key/value tag is written as one tag here. Where both stand in it, with a "
        "text between, it can be read back, and write-through writes tags too.",
        default="{key}={value}",
    ),
    Key("include", _TAG_NAMES, "Only these keys.", default_words="all"),
    Key("exclude", _TAG_NAMES, "Not these keys.", default=[]),
    Key("rename", table(ANY_TEXT, "old keys and new ones"), "Keys to rename.", default={}),
    Key("drop", BOOLEAN, "Leave all tags out.", default=False),
)

TRANSFORM = (
    Key("tags", record(TAGS, "tag settings"), "How tags are translated.", keys=TAGS),
    Key(
        "separator",
        text(r"[^/\x00-\x1f\x7f]+", "the text that stands for /", max_length=16),
        "What stands for `/` in a store whose names hold none, such as `--`.",
    ),
    Key(
        "escape",
        BOOLEAN,
        "Escape, reversibly, what the other side forbids in names.",
        default=False,
    ),
)

_MODE = Key("mode", choice(Mode), "`proxy` forwards each read and stores nothing; `sync` pulls.")
_WRITES = Key(
    "writes",
    choice(Writes),
    "Whether a federated path may be written here, and whether that also lands in the backend.",
)
_CONFLICT_RESOLUTION = Key(
    "conflict_resolution",
    choice(ConflictPolicy),
    "Who wins where both sides changed to different values.",
)
_ON_REMOTE_DELETE = Key(
    "on_remote_delete",
    choice(OnRemoteDelete),
    "What a remote delete does here: keep the value, or delete it recoverably.",
)
_REMOTE_CHANGES = Key(
    "remote_changes",
    choice(RemoteChanges),
    "`pull` takes remote changes over; `hold` leaves them there and shows them as drift.",
)
_OVERRIDABLE = (_MODE, _WRITES, _CONFLICT_RESOLUTION, _ON_REMOTE_DELETE, _REMOTE_CHANGES)

RULE = (
    Key(
        "local",
        _PATTERN,
        "Paths here. `*` is one segment or part of one, `**` one or more, `{name}` one by name.",
        default_words="**required**, but for an exclude",
    ),
    Key(
        "remote",
        _PATTERN,
        "Paths in the backend, with the same wildcards.",
        default_words="**required**, but for an exclude",
    ),
    Key(
        "exclude",
        BOOLEAN,
        "Stop here: a path that matches is not federated, whatever later rules say.",
        default=False,
    ),
    Key(
        "transform",
        record(TRANSFORM, "transformations"),
        "How names and tags are translated.",
        keys=TRANSFORM,
    ),
    *(replace(key, default_words="as the backend has it") for key in _OVERRIDABLE),
)


def _read_rule(node: Node) -> RuleSpec:
    given = read_object(node, RULE)
    exclude = given.get("exclude", False)
    sides = given.keys() & {"local", "remote"}
    if exclude and given.keys() - {"local", "remote", "exclude"}:
        raise node.error("excludes its paths and takes local and remote only; remove the rest")
    if not sides or (len(sides) < 2 and not exclude):
        missing = "local" if "local" not in sides else "remote"
        raise node.error(f"has no {missing}; a rule needs local and remote, an exclude one of them")
    transform = given.get("transform", {})
    tags = transform.get("tags", {})
    return RuleSpec(
        local=given.get("local", ""),
        remote=given.get("remote", ""),
        exclude=exclude,
        separator=transform.get("separator"),
        escape=transform.get("escape", False),
        tags=TagTransform(**tags),
        overrides=Overrides(**{key.name: given.get(key.name) for key in _OVERRIDABLE}),
    )


def _read_path_mapping(node: Node) -> tuple[RuleSpec, ...]:
    if isinstance(node.value, dict):
        rules = tuple(
            RuleSpec(
                _PATTERN.read(Node(local, remote.path, remote.source, remote.line)),
                _PATTERN.read(remote),
            )
            for local, remote in node.value.items()
        )
    else:
        rules = tuple(_read_rule(item) for item in list_of(node))
    if not rules:
        raise node.error("is empty; add at least one rule with local and remote")
    if len(rules) > 1000:
        raise node.error("has more than 1,000 rules; use wildcards")
    return rules


PATH_MAPPING = Kind(
    _read_path_mapping,
    {
        "anyOf": [
            {"type": "array", "items": object_schema(RULE), "minItems": 1, "maxItems": 1000},
            {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
        ]
    },
    "a list of rules, or a mapping of local to remote patterns in order",
)


# --- limits -------------------------------------------------------------------------

GUARD = (
    Key(
        "max_delete_ratio",
        number(0, 1),
        "Share of the known secrets that one run may find unlisted (at least 3 are allowed); "
        "remote deletes about to be made are counted apart.",
        default=0.1,
    ),
    Key("max_delete_count", integer(0, 10_000_000), "The same as a number.", default=50),
    Key(
        "max_overwrite_ratio",
        number(0, 1),
        "Share of existing values that one run may overwrite, either way (at least 20).",
        default=0.5,
    ),
    Key(
        "max_regress_ratio",
        number(0, 1),
        "Share of ordered version tokens that may go backwards in one run (at least 5).",
        default=0.1,
    ),
)

LIMIT = (
    Key("per_second", number(0.001, 100_000), "Calls a second, on average."),
    Key("concurrency", integer(1, 256), "Calls under way at a time."),
)

OPERATIONS = ("list", "metadata", "read", "write", "delete", "login")


def _read_limit(node: Node) -> dict[str, float]:
    if isinstance(node.value, (int, float)):
        return {"per_second": LIMIT[0].kind.read(node)}
    return read_object(node, LIMIT)


_LIMIT = Kind(
    _read_limit,
    {"anyOf": [LIMIT[0].kind.schema, object_schema(LIMIT)]},
    "calls a second, or an object",
)

RATE_LIMIT = tuple(
    Key(operation, _LIMIT, f"Limit of {operation} calls.", keys=LIMIT if not i else ())
    for i, operation in enumerate(OPERATIONS)
)

CALL_BUDGET = (
    Key(
        "per_day",
        integer(1, 10**12),
        "Calls of all kinds, logins too, that runs and reads that pass through may make in any "
        "24 hours. The next one is refused with `call_budget_spent`; what was committed stays. A "
        "tenth is kept for reads and for runs that somebody asked for: the schedule's are put "
        "off until enough calls are older than a day. Runs and reads are given some calls at a "
        "time, which count at once; those of connection tests and of writes that pass through "
        "count as well, and are never refused.",
    ),
)


# --- one backend --------------------------------------------------------------------


TYPE = Kind(
    text(r"[a-z0-9][a-z0-9-]*", "a type's name", max_length=64).read,
    {"anyOf": [{"enum": list(TYPES)}, {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]*$"}]},
    f"{', '.join(TYPES)}, or a type of `allowed_plugins`",
)


def _read_later(node: Node) -> Node:
    mapping_of(node)
    return node


_BY_TYPE = Kind(_read_later, {"type": "object"}, "a mapping; its keys depend on the type")
_FEEDS = Kind(
    lambda node: tuple(_read_later(item) for item in list_of(node)),
    {"type": "array", "items": {"type": "object"}},
    "a list of change feeds",
)

EXTRA = (
    Key(
        "consistency_window",
        duration(0, DAY),
        "For how long after a change a listing that contradicts it is not believed.",
        default_words="`10m` for AWS and GCP, else `0s`",
    ),
    Key(
        "trim_grace",
        duration(0, 365 * DAY),
        "Versions that have been here for less outlive `max_versions`.",
        default_words="as the top level has it",
    ),
    Key(
        "proxy_purge_after",
        duration(0, 365 * DAY),
        "When local copies are destroyed after a flip from sync to proxy; 0 is at once.",
        default="7d",
    ),
    Key(
        "feed_min_interval",
        duration(1, DAY),
        "Shortest time between two runs that change feeds ask for.",
        default="2s",
    ),
    Key(
        "allow_blind_push",
        BOOLEAN,
        "Allow write-through to Vault KV v1, which knows neither condition nor history.",
        default=False,
    ),
    Key(
        "allow_hide",
        BOOLEAN,
        "Allow a proxied rule to hide secrets that exist here.",
        default=False,
    ),
    Key(
        "standby_for",
        BACKEND_ID,
        "Id of a backend of the same type that this one stands in for, in reads, "
        "while that is unreachable.",
    ),
    Key(
        "delete_only_owned",
        BOOLEAN,
        "Delete remotely only what carries the tag `svsync-managed`.",
        default=False,
    ),
)
"""Settings that not every backend needs; kept in `BackendSpec.extra` where given."""

BACKEND = (
    Key(
        "id",
        BACKEND_ID,
        "How everything else names it. Give one: a name may change, an id may not.",
        default_words="`fed_` and 12 characters worked out from tenant and name",
    ),
    Key("tenant", TENANT, "The tenant whose secrets these are.", default="default"),
    Key("name", BACKEND_NAME, "Its name for people, unique in its tenant.", required=True),
    Key("type", TYPE, "What kind of store it is.", required=True),
    Key("config", _BY_TYPE, "Address and login, by type; see below.", required=True),
    Key(
        "path_mapping",
        PATH_MAPPING,
        "Which paths here are which paths there; the first rule that matches wins.",
        required=True,
        keys=RULE,
    ),
    replace(_MODE, default="proxy"),
    Key(
        "sync_interval",
        duration(30, 7 * DAY),
        "Time between the starts of two cycles; up to a tenth shorter, never longer. A change "
        "to one that is too short for a cycle's calls under `rate_limit` is refused.",
        default="15m",
    ),
    replace(_CONFLICT_RESOLUTION, default="backend_wins"),
    replace(
        _REMOTE_CHANGES,
        default_words="`hold` where `conflict_resolution` is `local_wins`, else `pull`",
    ),
    replace(_WRITES, default="local"),
    Key("write_through", BOOLEAN, "`true` is the same as `writes: write_through`."),
    Key(
        "propagate_deletes",
        BOOLEAN,
        "With write-through: a local delete deletes remotely, recoverably.",
        default=False,
    ),
    Key(
        "seed_remote",
        BOOLEAN,
        "With write-through: also create remotely what was here before the mapping.",
        default=False,
    ),
    replace(_ON_REMOTE_DELETE, default="retain"),
    Key(
        "history",
        choice(HistoryMode),
        "Whether earlier remote versions are imported.",
        default_words="`full` for Vault KV v2, else `current`",
    ),
    Key(
        "max_versions",
        integer(1, 10_000),
        "Versions of a secret that are kept; what base, a conflict or a push needs stays.",
        default=10,
    ),
    Key("guard", record(GUARD, "limits"), "What stops a run before its first write.", keys=GUARD),
    Key(
        "max_error_ratio",
        number(0, 1),
        "Share of its secrets that may fail before a run counts as failed.",
        default=0.5,
    ),
    Key(
        "max_staleness",
        duration(1, 365 * DAY),
        "Event, alert and metric when the last good cycle is older.",
    ),
    Key(
        "max_value_bytes",
        size(1, 4 * 1024**2),
        "Largest value; a larger one is skipped and reported.",
        default="1MiB",
    ),
    Key(
        "max_secrets",
        integer(1, 100_000_000),
        "A listing with more ends the run: a listing without end must not fill the store.",
        default=1_000_000,
    ),
    Key("filters", _BY_TYPE, "What the backend itself is asked to leave out, by type."),
    Key(
        "rate_limit",
        record(RATE_LIMIT, "limits by kind of call"),
        "Outgoing calls, for each kind of call.",
        default_words="by type: 16 at a time for Vault, the clouds' published quotas with headroom",
        keys=RATE_LIMIT,
    ),
    Key(
        "call_budget",
        record(CALL_BUDGET, "a budget"),
        "Calls that may be made; where calls are billed.",
        keys=CALL_BUDGET,
    ),
    Key("events", _FEEDS, "Change feeds that make runs start before their time.", default=[]),
    *EXTRA,
)
