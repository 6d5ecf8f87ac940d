"""Does the page of the doctor name each thing that it looks at, and nothing else?"""

import ast
import re
from pathlib import Path

from tests.docs.test_docs import text_of

import svsync

PAGE = "docs/how-to/doctor.md"
SOURCE = Path(svsync.__file__).parent


def checks() -> set[str]:
    """The names in the code; `ID` stands for what differs."""
    files = [SOURCE / "cli/doctor.py", SOURCE / "services/doctor.py"]
    files += [SOURCE / "services/machine.py", *(SOURCE / "services").glob("*_findings.py")]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name("ok" | "warning" | "wrong"), args=[first, *_]):
                    found.add(first)
                case ast.Assign(targets=[ast.Name("check")], value=made):
                    found.add(made)
    words: set[str] = set()
    for part in found:
        for node in ast.walk(part):
            match node:
                case ast.JoinedStr(values=[ast.Constant(str(begins)), *_]):
                    words.add(f"{begins}ID")
                case ast.IfExp(body=ast.Constant(str(name)), orelse=ast.Constant(str(other))):
                    words |= {name, other}
        if isinstance(part, ast.Constant):
            words.add(str(part.value))
    return words


def test_each_check_of_the_doctor_has_its_row() -> None:
    told = re.findall(r"^\| `([^`]+)` \|", text_of(PAGE), re.MULTILINE)
    assert len(told) == len(set(told))
    assert set(told) == checks()
