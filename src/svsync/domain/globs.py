"""A path or a glob over local paths, as people type it after `--path`."""

from typing import final

from svsync.domain.errors import UsageError
from svsync.domain.patterns import Pattern, PatternError


@final
class Glob:
    """Matches local paths; `*`, `**` and `{name}` are those of the mapping."""

    def __init__(self, text: str) -> None:
        """Raises UsageError for a text that is no pattern."""
        try:
            self._pattern = Pattern.parse(text)
        except PatternError as problem:
            raise UsageError(f"--path {text!r}: {problem}") from None
        self.text = text
        ends = [at for at in (text.find("*"), text.find("{")) if at >= 0]
        self.is_literal = not ends
        self.literal_prefix = text[: min(ends)] if ends else text

    def __call__(self, path: str) -> bool:
        return self._pattern.read(path.split("/")) is not None
