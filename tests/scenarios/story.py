"""The format of a story: what may stand in a file of `stories/`, and nothing else.

Every scalar of a file is text, so that `on`, `no` and `1.10` are what they look like.
A key that nobody knows, one that stands twice and a step of two kinds are refused with
the place where they stand: a story that checks less than it says is worse than none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from svsync.domain.values import Payload

FOLDER: Final = Path(__file__).with_name("stories")
STATES: Final = frozenset({"deleted", "gone", "absent"})
"""What `expect` says where there is no value; no value of a story reads so."""

_THERE = {"put", "tag", "delete", "undelete", "destroy", "remove", "rollback"}
HERE: Final[dict[str, set[str]]] = {
    "put": {"tags", "cas", "skip_if_equal", "answers", "fails"},
    "delete": {"cas", "answers", "fails"},
    "restore": {"version", "answers", "fails"},
    "look": set(),
    "resolve": {"answers", "fails"},
}
"""What is done here, each with what may be said of it."""
WEATHER: Final = {
    "lose_answer", "late_call_arrives", "meanwhile", "down", "hide", "show", "deny", "admit",
    "break", "mend", "readonly", "writable", "unreadable", "readable", "lag", "other_store",
}  # fmt: skip
TIMES: Final = frozenset({"pushes overdue", "window over", "interval over"})
_STEPS: Final[dict[str, set[str]]] = {
    "there": _THERE,
    "here": set(HERE).union(*HERE.values()),
    "configure": set(),
    "run": {"paths", "dry", "allow", "report", "skipped", "error", "result", "plan"},
    "weather": WEATHER,
    "time": set(),
    "expect": {
        "here", "there", "status", "conflicts", "versions", "events", "tags_here", "tags_there",
        "pushes", "calls",
    },
}  # fmt: skip
_TOP = {"story", "backend", "features", "steps", "pending", "given_up"}
_NEEDED = {"story", "steps"}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class StoryError(Exception):
    """A file that is no story; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its number in the file, its verb and what stands below it."""

    number: int
    verb: str
    body: Any

    def __str__(self) -> str:
        return f"step {self.number}, {self.verb}: {self.body}"


@dataclass(frozen=True, slots=True)
class Story:
    """One file.

    Attributes:
        backend: settings as `BackendSpec` names them, `path_mapping` as the file has it.
        pending: what is wrong with svsync, where the story cannot be true yet.
        given_up: values that a person destroyed, each with the reason.
    """

    name: str
    text: str
    steps: tuple[Step, ...]
    backend: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    pending: str | None = None
    given_up: Mapping[str, str] = field(default_factory=dict)


def stories() -> list[Story]:
    """Every story, by name."""
    return [
        read_story(path.stem, path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.yaml"))
    ]


def read_story(name: str, text: str) -> Story:
    """Read and check one file. Raises StoryError."""
    loader = _Loader(text)
    try:
        raw = loader.get_single_data()
    except yaml.YAMLError as problem:
        raise StoryError(f"{name}: {problem}") from None
    finally:
        loader.dispose()
    top = check_keys(raw, _TOP, name)
    if missing := sorted(_NEEDED - set(top)):
        raise StoryError(f"{name}: lacks {', '.join(missing)}")
    if not isinstance(top["steps"], list) or not top["steps"]:
        raise StoryError(f"{name}: steps is a list of steps")
    steps = tuple(_step(name, number, step) for number, step in enumerate(top["steps"], 1))
    if not any(step.verb == "expect" for step in steps):
        raise StoryError(f"{name}: expects nothing")
    return Story(
        name=name,
        text=top["story"],
        steps=steps,
        backend=top.get("backend", {}),
        features=top.get("features", {}),
        pending=top.get("pending"),
        given_up=top.get("given_up", {}),
    )


def _step(name: str, number: int, raw: Any) -> Step:
    where = f"{name}: step {number}"
    given = check_keys(raw, set(_STEPS), where)
    if len(given) != 1:
        raise StoryError(f"{where}: is one of {', '.join(_STEPS)}, not {len(given)} of them")
    [(verb, body)] = given.items()
    where = f"{where}, {verb}"
    if verb == "time":
        if body not in TIMES:
            raise StoryError(f"{where}: there is no {body!r}; it knows {', '.join(sorted(TIMES))}")
    elif verb == "configure":
        check_keys(body, None, where)
    else:
        body = check_keys(body or {}, _STEPS[verb], where)
    if verb == "here":
        _check_here(body, where)
    if verb == "there" or (verb == "weather" and "meanwhile" in body):
        check_keys(body.get("meanwhile", body), _THERE, where)
    return Step(number, verb, body)


def _check_here(body: Mapping[str, Any], where: str) -> None:
    verbs = [key for key in body if key in HERE]
    if len(verbs) != 1:
        raise StoryError(f"{where}: holds one of {', '.join(HERE)}")
    check_keys(body, {verbs[0], *HERE[verbs[0]]}, where)
    if "fails" in body and "answers" in body:
        raise StoryError(f"{where}: what fails has no answer")


def check_keys(raw: Any, known: set[str] | None, where: str) -> dict[str, Any]:
    """The mapping, if it is one and has no key that is not known (None: any)."""
    if not isinstance(raw, dict):
        raise StoryError(f"{where}: is a mapping, not {raw!r}")
    if known is not None and (odd := sorted(set(raw) - known)):
        raise StoryError(f"{where}: there is no {odd[0]!r}; it knows {', '.join(sorted(known))}")
    return raw


class _Loader(yaml.BaseLoader):
    """Scalars are text, and no key stands twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        line = node.start_mark.line + 1
        raise StoryError(f"line {line}: {', '.join(sorted(twice))} stands twice")
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


# --- words of a story -------------------------------------------------------------


def paths_of(given: str | Sequence[str]) -> list[str]:
    """Paths: one or a list of them, `a{1..3}` standing for three."""
    named = [given] if isinstance(given, str) else given
    return [path for one in named for path, _ in _spread(one)]


def by_path(given: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What is given by path. Below `a{1..3}` a `{n}` in a value is the path's number."""
    return [
        (path, value.replace("{n}", n) if isinstance(value, str) and n else value)
        for key, value in given.items()
        for path, n in _spread(key)
    ]


def _spread(text: str) -> Iterator[tuple[str, str]]:
    found = _RANGE.search(text)
    if found is None:
        yield text, ""
        return
    for n in range(int(found[1]), int(found[2]) + 1):
        yield text[: found.start()] + str(n) + text[found.end() :], str(n)


def payload_of(word: Any) -> Payload:
    """A word is the secret `{"value": word}`; a text that begins with `{` is JSON as it stands."""
    if not isinstance(word, str) or not word:
        raise StoryError(f"a value is a word or a JSON text, not {word!r}")
    if word in STATES or word == "-":
        raise StoryError(f"{word!r} says that there is no value; take another word")
    return Payload.from_json_text(word) if word[0] == "{" else Payload.from_fields({"value": word})


def word_of(data: bytes) -> str:
    """The word that a story has for a value."""
    text = data.decode()
    found = re.fullmatch(r'\{"value":\s?"([^"\\]*)"\}', text)
    return found[1] if found else text
