"""The programs that ScaiVault's guides print, and somebody who runs them.

A page beside this file holds those of one guide to the letter. They run as they stand, but
for the names of their reader: where ScaiVault and the other store are, which ids were given.
"""

import asyncio
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.patience import PATIENCE_S

SCAIVAULT = "https://scaivault.scailabs.ai"
_BIN = Path(sys.executable).parent

needs_curl_and_jq = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")),
    reason="the guides' programs need curl and jq, and this machine has not both",
)


@dataclass
class Reader:
    """Somebody who follows one guide.

    Attributes:
        names: what stands in place of a text of the guide, the longest first.
        environment: of the programs, beside PATH and HOME.
    """

    guide: str
    folder: Path
    environment: dict[str, str]
    names: dict[str, str] = field(default_factory=dict)

    def program(self, heading: str) -> tuple[str, str]:
        """The language and text of a program, with the reader's names."""
        page = Path(__file__).with_name(self.guide).read_text("utf-8")
        found = re.search(
            rf"^## {re.escape(heading)}\n\n```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
        )
        assert found, f"{self.guide} has no program {heading}"
        language, text = found.groups()
        for name in sorted(self.names, key=len, reverse=True):
            text = text.replace(name, self.names[name])
        return language, text

    async def follow(self, *headings: str, **environment: str) -> str:
        """Run these programs, of one language, one after the other; what they print."""
        programs = [self.program(heading) for heading in headings]
        [language] = {language for language, _ in programs}
        return await self.run(language, "\n".join(text for _, text in programs), **environment)

    async def run(self, language: str, text: str, **environment: str) -> str:
        shell = ("bash", "-e", "-u", "-o", "pipefail")
        process = await asyncio.create_subprocess_exec(
            *(shell if language == "bash" else (sys.executable,)),
            "-c",
            text,
            cwd=self.folder,
            env={**self._own(), **self.environment, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
        assert process.returncode == 0, (text, out.decode(), err.decode())
        return out.decode()

    def _own(self) -> Mapping[str, str]:
        path = f"{self.folder / 'bin'}:{_BIN}:/usr/local/bin:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(self.folder), "COLUMNS": "200"}
