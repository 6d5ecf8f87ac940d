"""Does the canary find a marker however it is written?"""

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.canary import Canary


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("raw", lambda text: text),
        ("raw", lambda text: json.dumps({"a": text})),
        ("raw", quote),
        ("raw", lambda text: text.encode("utf-16-le")),
        ("hex", lambda text: text.encode().hex()),
        ("hex", lambda text: text.encode().hex().upper()),
        ("hex", lambda text: text.encode().hex(" ")),
        ("json", lambda text: "".join(f"\\u{ord(c):04x}" for c in text)),
        ("json", lambda text: "".join(f"\\u{ord(c):04X}" for c in text)),
        ("percent", lambda text: "".join(f"%{b:02X}" for b in text.encode())),
        ("percent", lambda text: "".join(f"%{b:02x}" for b in text.encode())),
        ("python", lambda text: "".join(f"\\x{b:02x}" for b in text.encode())),
        ("octal", lambda text: "".join(f"\\{b:03o}" for b in text.encode())),
    ],
)
def test_marker_is_found_in_each_encoding(encoding: str, written) -> None:  # type: ignore[no-untyped-def]
    canary = Canary()
    assert encoding in canary.found_in(written(canary.value("name")))


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("after", range(3))
def test_marker_is_found_in_base64_at_each_alignment(encode, before: int, after: int) -> None:  # type: ignore[no-untyped-def]
    canary = Canary()
    inside = b"~" * (60 + before) + canary.marker.encode() + b"?" * after
    assert canary.found_in(encode(inside)) == {"base64"}
    assert canary.found_in(json.dumps(encode(inside).decode())) == {"base64"}


def test_nothing_is_found_where_there_is_nothing() -> None:
    canary, other = Canary(), Canary()
    assert (
        canary.found_in(other.value() + base64.b64encode(other.value().encode()).decode()) == set()
    )


def test_leak_is_told_by_place_and_encoding_without_the_value(tmp_path: Path) -> None:
    canary = Canary()
    (tmp_path / "clean").write_text("nothing")
    canary.watch_folder(tmp_path)
    canary.check()
    (tmp_path / "dirty").write_text(canary.value())
    with pytest.raises(AssertionError, match=r"\(raw\)") as caught:
        canary.check()
    assert canary.marker not in str(caught.value)


def test_leak_in_a_file_name_is_found(tmp_path: Path) -> None:
    canary = Canary()
    (tmp_path / canary.marker).mkdir()
    canary.watch_folder(tmp_path)
    with pytest.raises(AssertionError):
        canary.check()
