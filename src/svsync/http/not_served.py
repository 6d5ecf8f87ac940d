"""Names of the API that belong to other parts of ScaiVault: their routes are not here."""

from typing import Final

_ELSEWHERE: Final = {
    "rotation": "rotation policies",
    "dynamic": "dynamic engines",
    "pki": "PKI",
    "transit": "transit encryption",
    "certificates": "certificate storage",
}
"""What the segment after `/v1/` stands for."""


def not_served(path: str) -> str | None:
    """What somebody is told who asks for a path of another part; None: it is none."""
    segments = path.split("/", 3)
    name = _ELSEWHERE.get(segments[2]) if segments[:2] == ["", "v1"] and segments[2:] else None
    if name is None:
        return None
    return f"svsync does not serve {name}, which another part of ScaiVault does: ask that one"
