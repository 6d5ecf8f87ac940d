"""The tables of settings, as a JSON Schema for editors and a page for people.

`python -m svsync.config.schema` prints the schema, with `--markdown` the page;
a test holds `config/svsync.schema.json` and `docs/reference/configuration.md`
equal to them.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from svsync.config.anchors import ANCHOR
from svsync.config.api_rates import API_RATES
from svsync.config.backend_keys import (
    BACKEND,
    CALL_BUDGET,
    GUARD,
    LIMIT,
    RATE_LIMIT,
    RULE,
    TAGS,
    TRANSFORM,
)
from svsync.config.backend_types import TYPES
from svsync.config.feed_types import FEEDS
from svsync.config.key_services import ACCESS
from svsync.config.kinds import Key, object_schema
from svsync.config.model import ROWS


def json_schema() -> dict[str, Any]:
    """The configuration file as JSON Schema 2020-12."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "svsync configuration",
        **object_schema(list(ROWS.values())),
    }
    schema["properties"]["backends"]["items"] = _backend_schema()
    return schema


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _backend_schema() -> dict[str, Any]:
    schema = object_schema(BACKEND)
    schema["properties"]["events"]["items"] = {"oneOf": [_feed_schema(feed) for feed in FEEDS]}
    schema["allOf"] = [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {
                "properties": {
                    "config": object_schema(known.keys),
                    "filters": object_schema(known.filters),
                }
            },
        }
        for name, known in TYPES.items()
    ]
    return schema


def _feed_schema(feed: str) -> dict[str, Any]:
    schema = object_schema(FEEDS[feed][1])
    schema["properties"] = {"feed": {"const": feed}, **schema["properties"]}
    schema["required"] = ["feed", *schema.get("required", [])]
    return schema


# --- the page -------------------------------------------------------------------------

_INTRODUCTION = """\
# Configuration

svsync reads one YAML file, and then the environment. The file is the one that `--config` names, \
else `/etc/svsync/svsync.yaml`, else `./config/svsync.yaml`; there need be none. A variable that \
is set replaces the file's value of its key. `svsync config check` says what is wrong, with file \
and line; `svsync config schema` prints the JSON Schema that editors complete from \
(`config/svsync.schema.json`).

- **Durations** are `30s`, `15m`, `1h` or `7d`; a bare number is seconds. **Sizes** are `64KiB` \
or `1MiB`; a bare number is bytes. `true` and `false` are written so, and words of a list of \
choices in lower case.
- **Credentials are references only**: a ScaiVault path, `env:NAME`, or `file:/path`. A \
credential written out is refused with the line that holds it. A file that other users may read \
or change is refused, as ssh does; a group may read a file that belongs to another user, as \
mounted Kubernetes secrets do.
- **A key that is not given is not stored**: its default follows the settings it depends on.
- An unknown key, a key that stands twice, and YAML's aliases, anchors and tags are refused. A \
pattern that begins with `*` needs quotes.
- A variable that is set but empty counts as not given; `DATABASE_URL`, `KMS_PROVIDER`, \
`KMS_KEY_ID` and `SVSYNC_STATE_DIR` are refused when empty. Lists are separated by commas; \
`SVSYNC_BACKENDS` and `SVSYNC_AUDIT_ANCHORS` hold their lists as YAML or JSON.
- SIGHUP reads the file again; one that is invalid changes nothing, and the log says why.

This page is made from the code: `python -m svsync.config.schema --markdown`.
"""


def reference_page() -> str:
    """`docs/reference/configuration.md`."""
    parts = [_INTRODUCTION]
    parts += ["## Top level\n", _top_level_table(ROWS.values())]
    parts.append(
        "Variables that begin with `SVSYNC_`, and `METRICS_ADDRESS`, are svsync's own; the others "
        "are those of ScaiVault's deployment guide.\n"
    )
    parts += [
        "## `api_rate_limits`\n",
        "In the variable: `secrets_read=500,admin=off`.\n",
        _table(API_RATES),
    ]
    parts += ["## `audit_anchors`\n", "A list of these.\n", _table(ANCHOR)]
    parts += [
        "## `kms_access`\n",
        "And `kms_access_secondary`. In the variable as YAML or JSON. See "
        "[the page on keys](../keys.md).\n",
        _table(ACCESS),
    ]
    parts += [
        "## A backend\n",
        "The same in the file (`backends`, a list) and in the API. The API takes ScaiVault paths "
        "of the caller's tenant only, and no key that is marked *file only*.\n",
        _table(BACKEND),
    ]
    sections: Mapping[str, tuple[str, Sequence[Key]]] = {
        "`path_mapping`": (
            'A list of these, or a mapping of local to remote patterns (`"external/**": '
            '"kv/data/**"`), in textual order.',
            RULE,
        ),
        "`transform`": ("", TRANSFORM),
        "`transform.tags`": ("", TAGS),
        "`guard`": ("", GUARD),
        "`rate_limit`": ("Each takes calls a second, or an object.", RATE_LIMIT),
        "One limit": ("", LIMIT),
        "`call_budget`": ("", CALL_BUDGET),
    }
    for title, (words, keys) in sections.items():
        parts += [f"### {title}\n", *([words + "\n"] if words else []), _table(keys)]
    for name, known in TYPES.items():
        parts += [f"## `config` of `{name}`\n", _table(known.keys)]
        if known.filters:
            parts += [f"### `filters` of `{name}`\n", _table(known.filters)]
    parts.append("## `events`\n")
    for feed, (type_name, keys) in FEEDS.items():
        parts.append(f"### `feed: {feed}`\n")
        whose = f"`{type_name}`" if type_name else "a backend of any type"
        parts.append(f"For {whose}." + ("" if keys else " It takes no other key.") + "\n")
        if keys:
            parts.append(_table(keys))
    return "\n".join(parts)


def _top_level_table(rows: Iterable[Key]) -> str:
    lines = ["| key | variable | takes | default | what |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| `{row.name}` | `{row.variable}` | {_cell(row.kind.words)} | {_default(row)} "
        f"| {_cell(row.sentence)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _table(rows: Iterable[Key]) -> str:
    lines = ["| key | takes | default | what |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{row.name}` | {_cell(row.kind.words)} | {_default(row)} | {_cell(row.sentence)}"
        f"{' *File only.*' if row.file_only else ''} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _default(row: Key) -> str:
    if row.required:
        return "**required**"
    if row.default_words:
        return _cell(row.default_words)
    if row.default is None:
        return "not set"
    shown = row.default if isinstance(row.default, str) else json.dumps(row.default)
    return f"`{shown}`"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def main(arguments: Sequence[str]) -> None:
    """Print the schema, or with `--markdown` the reference page."""
    sys.stdout.write(reference_page() if "--markdown" in arguments else schema_text())


if __name__ == "__main__":
    main(sys.argv[1:])
