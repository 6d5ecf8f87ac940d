"""Are the wheel and the sdist whole, and is there nothing in them that does not belong there?"""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from tests.docs.test_docs import ROOT, text_of

from svsync import __version__

WHEEL = f"svsync-{__version__}-py3-none-any.whl"


def built(source: Path, to: Path, *kinds: str) -> None:
    targets = [word for kind in kinds for word in ("-t", kind)]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *targets, "-d", to],
        cwd=source,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of the tree as it is."""
    folder = tmp_path_factory.mktemp("sdist")
    built(ROOT, folder, "sdist")
    with tarfile.open(folder / f"svsync-{__version__}.tar.gz") as archive:
        # Debian's 3.11.2 knows no filters, and 3.12 warns where there is none.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return folder / f"svsync-{__version__}"


@pytest.fixture(scope="module")
def wheel(unpacked: Path) -> Path:
    """The wheel, from the sdist and nothing else."""
    built(unpacked, unpacked.parent, "wheel")
    return unpacked.parent / WHEEL


def test_sdist_has_what_an_operator_and_a_distributor_need(unpacked: Path) -> None:
    for name in (
        *("Dockerfile", ".dockerignore", "Makefile", "LICENSE", "README.md", "CHANGELOG.md"),
        *("requirements/lock.txt", "requirements/run.txt", "requirements/build.txt"),
        *("systemd/svsync.service", "config/svsync.example.yaml", "config/alerts.yml"),
        "config/recovery-test.sh",
        *("config/kubernetes/service/kustomization.yaml", "docs/how-to/systemd.md"),
        "tests/conftest.py",
    ):
        assert (unpacked / name).is_file(), name


def test_sdist_takes_along_nothing_that_lies_about_in_a_clone(unpacked: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    known = {name.split("/")[0] for name in tracked}
    assert {path.name for path in unpacked.iterdir()} - known == {"PKG-INFO"}
    assert not list(unpacked.rglob("__pycache__"))


def test_wheel_is_the_package_and_all_of_it(unpacked: Path, wheel: Path) -> None:
    """Statements, migrations and the document too, which no import would miss."""
    package = unpacked / "src"
    there = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    about = f"svsync-{__version__}.dist-info/"
    manual = f"svsync-{__version__}.data/data/share/man/man1/svsync.1"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read(manual).decode() == text_of("docs/reference/svsync.1")
    assert {name for name in names if not name.startswith(about)} == there | {manual}
    assert f"{about}licenses/LICENSE" in names
    shipped = {"svsync/py.typed", "svsync/store/sql/secrets.sql", "svsync/http/assets/console.js"}
    assert shipped <= names


def test_wheel_is_installed_without_anything_of_a_clone_and_starts(
    wheel: Path, tmp_path: Path
) -> None:
    """Its dependencies are those of this environment, to which the clone does not belong."""
    place = tmp_path / "empty"
    venv.create(place, with_pip=False)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(next((place / "lib").glob("python*/site-packages")))
    [packages] = [path for path in sys.path if path.startswith(sys.prefix) and "site-pack" in path]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": packages, "HOME": str(tmp_path)}
    for words, expected in (
        (("--version",), f"svsync {__version__}\n"),
        (("config", "schema"), text_of("config/svsync.schema.json")),
    ):
        ran = subprocess.run(
            [place / "bin/python", "-m", "svsync", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, expected, "")
    where = "import svsync; print(svsync.__file__)"
    found = subprocess.run(
        [place / "bin/python", "-c", where],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(place))
