"""Does what the how-to pages have people type and write work as it stands there?"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.docs.cli_page import commands
from tests.docs.test_docs import ROOT, code_blocks, text_of

from svsync.cli.main import build_parser
from svsync.cli.opening import compiled
from svsync.config import load as loading

SYSTEMD, CONTAINER, KUBERNETES = (
    f"docs/how-to/{name}.md" for name in ("systemd", "container", "kubernetes")
)
OTHERS = [
    f"docs/how-to/{name}.md" for name in ("doctor", "back-up-and-recover", "upgrade-and-roll-back")
]
COMMAND = r"(?:/opt/svsync/bin/svsync|-- svsync|exec svsync svsync|svsync:[\d.]+|^svsync|`svsync) "


def block(page: str, language: str, word: str) -> str:
    """The one block of a page that has a word in it."""
    [found] = [text for text in code_blocks(page, language) if word in text]
    return found


@pytest.mark.parametrize("page", [SYSTEMD, CONTAINER, KUBERNETES, *OTHERS])
def test_each_command_is_there_with_its_flags(page: str) -> None:
    there = {" ".join(words): parser for words, parser, _ in commands(build_parser())}
    told = re.findall(rf"{COMMAND}([a-z][^`\n]*)", text_of(page), re.MULTILINE)
    assert told
    for line in told:
        names = [name for name in there if f"{line} ".startswith(f"{name} ")]
        assert names, line
        flags = there[max(names, key=len)].format_help()
        assert all(flag in flags for flag in re.findall(r"--[a-z-]+", line)), line


def test_configuration_of_the_service_is_one_and_names_what_its_units_are_lent(
    tmp_path: Path,
) -> None:
    text = block(SYSTEMD, "yaml", "backends:")
    file = tmp_path / "svsync.yaml"
    file.write_text(text)
    settings = loading.load(str(file), {"HOME": str(tmp_path)})
    assert [spec.id for spec, _ in compiled(settings)] == ["fed_vault"]
    lent = set(re.findall(r"LoadCredential=([a-z-]+):", block(SYSTEMD, "ini", "LoadCredential")))
    assert set(re.findall(r"file:/run/svsync-credentials/([a-z-]+)", text)) == lent
    assert settings.allowed_file_roots == ("/run/svsync-credentials",)
    made = re.findall(r"/dev/stdin /etc/svsync/credentials/([a-z-]+)", text_of(SYSTEMD))
    assert set(made) == lent | {"database-url"}


def test_units_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"\b(svsync[a-z-]*@?)[a-z_]*\.(?:timer|service)\b", text_of(SYSTEMD)))
    assert len(named) > 2
    there = {path.name for path in (ROOT / "systemd").iterdir()}
    of_one_command = {"svsync-once"}
    assert {f"{name}.service" for name in named - of_one_command} <= there


def test_container_is_started_as_the_account_that_its_folders_are_made_for() -> None:
    user = text_of("Dockerfile").partition("\nUSER ")[2].partition(":")[0]
    assert f"uid={user},gid={user},mode=0700" in block(CONTAINER, "sh", "--read-only")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_overlay_of_the_page_is_built_with_its_own_image_and_configuration(tmp_path: Path) -> None:
    base = tmp_path / "svsync/config"
    shutil.copytree(ROOT / "config/kubernetes", base / "kubernetes")
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(block(KUBERNETES, "yaml", "Kustomization"))
    (overlay / "svsync.yaml").write_text("log_level: debug\n")
    built = subprocess.run(
        ["kubectl", "kustomize", overlay], capture_output=True, text=True, check=False
    )
    assert (built.returncode, built.stderr) == (0, "")
    found = {one["kind"]: one for one in yaml.safe_load_all(built.stdout)}
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.example.com/svsync:0.1.0"
    assert found["ConfigMap"]["data"] == {"svsync.yaml": "log_level: debug\n"}
    assert found["ConfigMap"]["metadata"]["name"] in {
        volume.get("configMap", {}).get("name") for volume in pod["volumes"]
    }
    assert {one["metadata"]["namespace"] for one in found.values()} == {"svsync"}
