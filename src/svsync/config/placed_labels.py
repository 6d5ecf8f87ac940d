"""What the files of `copy` and `import env` have alike: labels that secrets get, and lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from svsync.config.document import Node, read_yaml
from svsync.config.kinds import Key, Kind, integer, mapping_of, read_object, sequence, text
from svsync.domain.errors import ConfigError

MOST_VERSIONS: Final = 10_000
TYPE: Final = text(r".+", "a word of at most 64 characters, as json or api_key", max_length=64)
_TAG: Final = text(r".+", "a tag of at most 256 characters", max_length=256)
_WORDS: Final = text(r".+", "text of one line", max_length=4096)
LABEL_KEYS: Final = (
    Key("tags", sequence(_TAG, "a list of tags", max_items=100), "Tags that are added."),
    Key("owner", _WORDS, "Who answers for it, as team:billing."),
    Key("description", _WORDS, "What it is for."),
    Key("max_versions", integer(1, MOST_VERSIONS), "How many versions are kept of it."),
)
AS_IT_STANDS: Final = Kind(lambda node: node, {"type": "object"}, "and lines of it below")
"""Lines of which each is read by itself."""


def read_lines(
    name: str, keys: Sequence[Key], of: str, form: str
) -> tuple[dict[str, Any], Node, Mapping[str, Node]]:
    """What a file gives all its secrets, and its lines below the key `of`, which have this form.

    Raises ConfigError: one sentence with the line and the key.
    """
    whole = read_object(read_yaml(_read_file(name), name), keys)
    node = whole.pop(of)
    lines = mapping_of(node)
    if not lines:
        raise node.error(f"is empty; write {form} below it")
    return whole, node, lines


def _read_file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"the file cannot be read ({error.strerror})", where=name) from None
    except ValueError:
        raise ConfigError("the name cannot be that of a file", where=name) from None
