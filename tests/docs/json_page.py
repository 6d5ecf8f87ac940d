"""The page `docs/reference/json.md`, made from the schemas: `python -m tests.docs.json_page`."""

import sys
from collections.abc import Iterator
from typing import Any

from tests.docs.cli_page import commands

from svsync.cli.main import build_parser
from svsync.cli.schema import schema_of

_OPENED = ("BackendLookFields", "PolicyFields")
"""Objects of the API to which a command adds something."""

_HEAD = """\
# What commands print for programs

Made from the schemas: `python -m tests.docs.json_page > docs/reference/json.md`.

With `--json` a command prints one object on stdout, whatever its exit code, but for 2 (wrong usage or configuration): then one sentence on stderr is all. Log lines go to stderr. `serve` prints an object only where it fails; `status --watch` prints one a line.

`svsync schema COMMAND` prints the JSON Schema (2020-12) of that object, which stands by itself; `svsync schema` prints those of every command, each under the command's name:

```sh
svsync schema secrets get > secret.schema.json
svsync schema | jq '.properties | keys'
```

Where a command tells what the API tells, the object is the API's ([openapi.json](api.md)). A schema knows every field that this version prints, and a test holds each output of each test to it. A later version may print further fields: let them pass, by dropping `additionalProperties` and `unevaluatedProperties` where a program validates what it gets.

A command that fails prints `{"error": {"code", "message"}}`, the codes being those of [errors](errors.md); with it come `holder` and `expires_at` (in place of the message) where somebody else runs the backend, `conflict` where a conflict is another one now, and `push_id` where nobody knows whether a write was made. `run-once` and `plan` print `run_id` (null) beside it where no run came of it, and the run as it failed where one did; `copy`, `import env` and `verify` print beside it what they did until then.

| command | fields |
| --- | --- |
"""  # noqa: E501


def page() -> str:
    """The whole page."""
    lines = [_HEAD]
    for words, _, _ in commands(build_parser()):
        schema = schema_of(f"svsync {' '.join(words)}")
        forms = (", ".join(_told(form, schema)) for form in _forms(schema, schema))
        told = [form for form in forms if "`error`" not in form.split(", ")]
        lines.append(f"| `{' '.join(words)}` | {'; or '.join(told) or 'none'} |\n")
    return "".join(lines)


def _forms(schema: Any, whole: Any) -> Iterator[Any]:
    """What it may be, one by one."""
    if "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from _forms(one, whole)
    else:
        yield schema


def _told(schema: Any, whole: Any) -> Iterator[str]:
    """The names of its fields; of an object of the API that object's name."""
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if name.startswith("api.") or name in _OPENED:
        yield f"the API's `{name.removeprefix('api.').removesuffix('Fields')}`"
    elif name:
        yield from _told(whole["$defs"][name], whole)
    for part in schema.get("allOf", ()):
        yield from _told(part, whole)
    yield from (f"`{field}`" for field in schema.get("properties", ()))


if __name__ == "__main__":
    sys.stdout.write(page())
