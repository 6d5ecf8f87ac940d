"""Tags: a backend's key/value pairs as ScaiVault's tag strings, and back.

A backend holds pairs, ScaiVault holds strings, and `transform.tags` of a rule
says how one becomes the other (`key=value` unless it says otherwise). The way
back is narrower: `a=b=c` could be split in two places. So a string that came
from a pair goes back to that very pair, which is kept raw beside the last
settled state; a new string goes back where it can be split in one way only; and
any other stays local (S11). Pairs that the transform hides from ScaiVault are
not touched.
"""

import re
from collections.abc import Iterable, Mapping

from svsync.domain.federation import TagTransform

_PLACEHOLDER = re.compile(r"\{(key|value)\}")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def flatten(tags: Mapping[str, str], transform: TagTransform) -> tuple[str, ...]:
    """The tag strings of these pairs, sorted, each once."""
    if transform.drop:
        return ()
    return tuple(
        sorted(
            {_write(key, value, transform) for key, value in tags.items() if _shown(key, transform)}
        )
    )


def unflatten(
    strings: Iterable[str], raw_base: Mapping[str, str], transform: TagTransform
) -> Mapping[str, str] | None:
    """The pairs that the backend should hold for these strings.

    Args:
        strings: the tags that the local secret has now.
        raw_base: the backend's pairs when both sides last agreed.

    Returns:
        raw_base without the pairs whose string is gone, with the pairs that new
        strings stand for; None where the format cannot be inverted.
    """
    if not invertible(transform):
        return None
    wanted = set(strings)
    pairs: dict[str, str] = {}
    known: set[str] = set()
    for key, value in raw_base.items():
        text = _write(key, value, transform) if _shown(key, transform) else None
        if text is None or text in wanted:
            pairs[key] = value
        if text is not None:
            known.add(text)
    added: dict[str, set[str]] = {}
    for text in wanted - known:
        if pair := _read(text, raw_base, transform):
            added.setdefault(pair[0], set()).add(pair[1])
    for key, values in added.items():
        if key not in pairs and len(values) == 1:  # else two strings ask for one key
            pairs[key] = values.pop()
    return pairs


def merge(
    local: Iterable[str],
    base: Mapping[str, str],
    remote: Mapping[str, str],
    transform: TagTransform,
) -> tuple[str, ...]:
    """The local tag strings once the remote side's changes since base have been taken.

    What the remote side added is added, what it removed is removed, and what was
    added or removed locally stays so: strings are a set, so nothing can conflict.
    """
    before, now = set(flatten(base, transform)), set(flatten(remote, transform))
    return tuple(sorted((set(local) - (before - now)) | (now - before)))


def merge_fields(
    local: Mapping[str, str],
    base: Mapping[str, str],
    remote: Mapping[str, str],
    *,
    local_wins: bool,
) -> dict[str, str]:
    """Custom metadata, field by field: a field that changed on one side only follows
    it; one that changed on both sides follows the policy."""
    merged = dict(local)
    for key in {*base, *remote}:
        before, now = base.get(key), remote.get(key)
        changed_here = local.get(key) not in (before, now)
        if before == now or (changed_here and local_wins):
            continue
        if now is None:
            merged.pop(key, None)
        else:
            merged[key] = now
    return merged


def invertible(transform: TagTransform) -> bool:
    """Whether strings can be turned back into pairs at all."""
    holders = _PLACEHOLDER.findall(transform.format)
    return (
        not transform.drop
        and sorted(holders) == ["key", "value"]
        and _PLACEHOLDER.split(transform.format)[2] != ""
        and len(set(transform.rename.values())) == len(transform.rename)
    )


def format_problem(text: str) -> str | None:
    """What is wrong with a `transform.tags.format`; None when it can be used."""
    if not _PLACEHOLDER.search(text):
        return "the tag format holds neither {key} nor {value}, so all tags would be the same"
    if "{" in (rest := _PLACEHOLDER.sub("", text)) or "}" in rest:
        return "the tag format has braces other than {key} and {value}; leave them out"
    if _UNFIT.search(text):
        return "the tag format holds a control character; leave it out"
    return None


def tag_problem(tags: Mapping[str, str]) -> str | None:
    """Why these tags cannot be stored: the sentence, which holds no tag's value."""
    for key, value in tags.items():
        for what, text in (("key", key), ("value", value)):
            if bad := _UNFIT.search(text):
                return (
                    f"the {what} of tag {key!a} holds U+{ord(bad[0]):04X} at offset "
                    f"{bad.start()}; control characters and lone surrogates cannot be stored"
                )
    return None


def _shown(key: str, transform: TagTransform) -> bool:
    return key not in transform.exclude and (transform.include is None or key in transform.include)


def _write(key: str, value: str, transform: TagTransform) -> str:
    held = {"key": transform.rename.get(key, key), "value": value}
    return _PLACEHOLDER.sub(lambda found: held[found[1]], transform.format)


def _read(
    text: str, raw_base: Mapping[str, str], transform: TagTransform
) -> tuple[str, str] | None:
    """The pair that `text` stands for, if there is exactly one."""
    head, first, between, _, tail = _PLACEHOLDER.split(transform.format)
    if not (text.startswith(head) and text.endswith(tail)):
        return None
    body = text[len(head) : len(text) - len(tail)]
    at = body.find(between)
    if at < 0 or body.find(between, at + 1) >= 0:
        return None
    left, right = body[:at], body[at + len(between) :]
    name, value = (left, right) if first == "key" else (right, left)
    candidates = [old for old, new in transform.rename.items() if new == name]
    if transform.rename.get(name, name) == name:
        candidates.append(name)
    # Where a renamed key and another one both show as `name`, the one that the
    # backend has is meant, and before there is any, the renamed one.
    key = next((key for key in candidates if key in raw_base), next(iter(candidates), ""))
    return (key, value) if key and _shown(key, transform) else None
