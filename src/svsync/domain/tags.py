"""Tags: a backend's key/value pairs as ScaiVault's tag strings, and back.

A backend holds pairs, ScaiVault holds strings, and `transform.tags` of a rule
says how one becomes the other (`key=value` unless it says otherwise). The way
back is narrower: `a=b=c` could be split in two places. So a string that came
from a pair goes back to that very pair, which is kept raw beside the last
settled state; a new string goes back where it can be split in one way only; and
any other stays local (S11). Pairs that the transform hides from ScaiVault are
not touched.

The pairs are shown a second time, as fields of the custom metadata. A change in
either is a change; once it has landed, both follow.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from svsync.domain.federation import TagTransform

MANAGED: Final = "svsync-managed"
"""The key of the pair that says that svsync writes a name. Nobody is shown it, and no
tag and no field of that name makes it."""

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
    *,
    local_wins: bool,
) -> tuple[str, ...]:
    """The local tag strings once the remote side's changes since base have been taken.

    What the remote side added is added, what it removed is removed, and what was
    added or removed locally stays so: strings are a set. Where both sides changed one
    key, which only an invertible format tells, the string of the side that wins stays.
    """
    local = tuple(local)
    before, now = set(flatten(base, transform)), set(flatten(remote, transform))
    merged = (set(local) - (before - now)) | (now - before)
    for key, mine in _changed_strings(local, base, transform).items():
        theirs = remote.get(key)
        if theirs in (base.get(key), mine) or not _is_told_apart(
            key, local, base, remote, transform
        ):
            continue
        loser = theirs if local_wins else mine
        if loser is not None:
            merged.discard(_write(key, loser, transform))
    return tuple(sorted(merged))


def _is_told_apart(
    key: str,
    local: Iterable[str],
    base: Mapping[str, str],
    remote: Mapping[str, str],
    transform: TagTransform,
) -> bool:
    """Does one name show this key alone, and one string at most stand for it here?"""
    name = transform.rename.get(key, key)
    shown = [k for k in {*base, *remote, key} if transform.rename.get(k, k) == name]
    pairs = [_read(text, base, transform) for text in local]
    mine = sum(pair is not None and pair[0] == key for pair in pairs)
    return _may_change(key, transform) and len(shown) == 1 and mine <= 1


def merge_fields(
    local: Mapping[str, str],
    base: Mapping[str, str],
    remote: Mapping[str, str],
    *,
    local_wins: bool,
) -> dict[str, str]:
    """Custom metadata, field by field: a field that changed on one side only follows
    it; one that changed on both sides follows the policy."""
    merged = {key: value for key, value in local.items() if key != MANAGED}
    for key in {*base, *remote} - {MANAGED}:
        before, now = base.get(key), remote.get(key)
        changed_here = local.get(key) not in (before, now)
        if before == now or (changed_here and local_wins):
            continue
        if now is None:
            merged.pop(key, None)
        else:
            merged[key] = now
    return merged


def pairs_to_push(
    local_tags: Sequence[str],
    custom: Mapping[str, str],
    base: Mapping[str, str],
    remote: Mapping[str, str],
    transform: TagTransform,
    *,
    local_wins: bool,
) -> dict[str, str] | None:
    """All the pairs that the backend should hold: those there now, with what changed here.

    Args:
        local_tags, custom: the tag strings and custom fields that the local secret has.
        base: the backend's pairs when both sides last agreed.
        remote: the backend's pairs now.
        local_wins: whose value stays where both sides changed one key.

    Returns None where nothing is to be written. Keys that the transform hides are left
    as they are; where its format cannot be inverted, only custom fields count.
    """
    pairs = dict(remote)
    for key, wanted in _changed_here(local_tags, custom, base, transform).items():
        if remote.get(key) != base.get(key) and not local_wins:
            continue
        if wanted is None:
            pairs.pop(key, None)
        else:
            pairs[key] = wanted
    return None if pairs == dict(remote) else pairs


def after_push(
    local_tags: Sequence[str],
    custom: Mapping[str, str],
    base: Mapping[str, str],
    pushed: Mapping[str, str],
    transform: TagTransform,
    *,
    local_wins: bool = True,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The local tag strings and custom fields once base is `pushed`, so that both agree.

    A key that was changed here and is not as pushed stays where the local side wins:
    it was changed again meanwhile. Where it does not, the backend had changed it.
    """
    strings = _changed_strings(local_tags, base, transform)
    mine = dict(base)
    for key, wanted in _changed_here(local_tags, custom, base, transform).items():
        if wanted is None:
            mine.pop(key, None)
        else:
            mine[key] = wanted
    pairs = merge_fields(mine, base, pushed, local_wins=local_wins)
    if invertible(transform):
        # The strings that stand for no pair, and those of the pairs as they are now.
        asked = {
            _write(key, value, transform) for key, value in strings.items() if value is not None
        }
        own = set(local_tags) - asked - set(flatten(base, transform))
        tags = tuple(sorted(own.union(flatten(pairs, transform))))
    else:
        tags = merge(local_tags, base, pairs, transform, local_wins=local_wins)
    fields = merge_fields(custom, base, pushed, local_wins=local_wins)
    hidden = {key: value for key, value in fields.items() if not _may_change(key, transform)}
    shown = {key: value for key, value in pairs.items() if _may_change(key, transform)}
    return tags, hidden | shown


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
    included = transform.include is None or key in transform.include
    return included and key not in transform.exclude and key != MANAGED


def _may_change(key: str, transform: TagTransform) -> bool:
    return _shown(key, transform) and not transform.drop


def _changed_strings(
    local_tags: Iterable[str], base: Mapping[str, str], transform: TagTransform
) -> dict[str, str | None]:
    """What the tag strings ask for, by key; None: that there be no such pair."""
    pairs = unflatten(local_tags, base, transform)
    return {} if pairs is None else _differences(base, pairs)


def _changed_here(
    local_tags: Iterable[str],
    custom: Mapping[str, str],
    base: Mapping[str, str],
    transform: TagTransform,
) -> dict[str, str | None]:
    """The same of tag strings and custom fields together; a field wins over a string."""
    strings = _changed_strings(local_tags, base, transform)
    fields = _differences(base, custom)
    return {k: v for k, v in (strings | fields).items() if _may_change(k, transform)}


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str | None]:
    return {key: new.get(key) for key in {*old, *new} if old.get(key) != new.get(key)}


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
