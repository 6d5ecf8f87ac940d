"""What a process loads: the SDK of a cloud where it is used, and nobody else's."""

import subprocess
import sys
from typing import Final

import pytest

from svsync import registry

SDKS: Final = {
    "aws": {"aiobotocore", "boto3", "botocore"},
    "azure": {"azure", "msal"},
    "gcp": {"google", "grpc", "proto"},
    "pkcs11": {"pkcs11"},
}
"""Packages by the cloud, or the module, that they speak to."""


def loaded(code: str) -> set[str]:
    """Packages of a fresh process after this."""
    code += "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def sdks(packages: set[str]) -> set[str]:
    return {name for name, sdk in SDKS.items() if packages & sdk}


def driver(kind: str) -> str:
    return (
        "from svsync.config.model import Settings\n"
        "from svsync.registry import Registry\n"
        "registry = Registry(Settings(state_dir='.'), lambda spec, tenant: None)\n"
        f"registry.driver({kind!r})"
    )


def test_process_that_speaks_to_vault_alone_loads_no_sdk_of_a_cloud() -> None:
    code = "import svsync.app, svsync.cli.main, svsync.daemon.service\n"
    packages = loaded(code + driver("hashicorp-vault"))
    assert "hvac" in packages
    assert sdks(packages) == set()
    assert sdks(loaded(driver("aws-secrets-manager"))) == {"aws"}, "else this shows nothing"


@pytest.mark.parametrize("kind", sorted(registry._BACKENDS))
def test_type_of_backend_loads_no_other_clouds_sdk(kind: str) -> None:
    own = {cloud for cloud in SDKS if kind.startswith(f"{cloud}-")}
    assert sdks(loaded(driver(kind))) <= own


@pytest.mark.parametrize("feed", sorted({**registry._FEEDS, **registry._ARRIVING}))
def test_change_feed_loads_no_other_clouds_sdk(feed: str) -> None:
    target = {**registry._FEEDS, **registry._ARRIVING}[feed]
    own = {cloud for cloud in SDKS if feed.startswith(f"{cloud}-")}
    assert sdks(loaded(f"import {target.partition(':')[0]}")) <= own


def test_missing_package_is_named_with_what_brings_it() -> None:
    code = (
        "import sys\n"
        "sys.modules['aiobotocore'] = None\n"
        "from svsync.config.model import Settings\n"
        "from svsync.registry import Registry\n"
        "try:\n"
        "    registry = Registry(Settings(state_dir='.'), lambda spec, tenant: None)\n"
        "    registry.driver('aws-secrets-manager')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("ConfigError aws-secrets-manager needs the package aiobotocore")
    assert "svsync[aws]" in run.stdout


@pytest.mark.parametrize(("login", "own"), [("aws", {"aws"}), ("gcp", set())])
def test_login_to_a_vault_loads_what_its_proof_needs_and_no_more(login: str, own: set[str]) -> None:
    target = registry._ATTESTORS["hashicorp-vault", login]
    assert sdks(loaded(f"import {target.partition(':')[0]}")) == own
