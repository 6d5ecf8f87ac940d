"""Does the local key file keep its key to itself, and its word?"""

import asyncio
import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from svsync.domain.errors import ConfigError, KeyServiceError, SetupError
from svsync.kms.local import LocalKeyService, key_file
from svsync.ports import KeyService

KEY = bytes(range(32))
CONTEXT = {"purpose": "root", "root_id": "1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "kms.key"


@pytest.fixture
def service(path: Path) -> LocalKeyService:
    return LocalKeyService.open(path, create=True)


async def test_what_was_wrapped_opens_after_a_restart(path: Path, service: KeyService) -> None:
    wrapped = await service.wrap(KEY, CONTEXT)
    assert KEY not in wrapped
    again = LocalKeyService.open(path, create=False)
    assert await again.unwrap(wrapped, dict(reversed(CONTEXT.items()))) == KEY


async def test_wrapping_twice_gives_two_blobs(service: KeyService) -> None:
    assert await service.wrap(KEY, CONTEXT) != await service.wrap(KEY, CONTEXT)


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"purpose": "root"},
        {"purpose": "root", "root_id": "2"},
        {"purpose": "rootr", "oot_id": "1"},
    ],
)
async def test_another_context_does_not_open_it(service: KeyService, other: dict[str, str]) -> None:
    wrapped = await service.wrap(KEY, CONTEXT)
    with pytest.raises(KeyServiceError, match="does not open"):
        await service.unwrap(wrapped, other)


async def test_no_changed_or_shortened_blob_opens(service: KeyService) -> None:
    wrapped = await service.wrap(KEY, CONTEXT)
    for at in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[at] ^= 1
        for damaged in (bytes(changed), wrapped[:at]):
            with pytest.raises(KeyServiceError):
                await service.unwrap(damaged, CONTEXT)


async def test_another_key_file_is_told_from_a_damaged_blob(
    service: KeyService, tmp_path: Path
) -> None:
    other = LocalKeyService.open(tmp_path / "other.key", create=True)
    with pytest.raises(KeyServiceError, match="put the key file back that belongs"):
        await other.unwrap(await service.wrap(KEY, CONTEXT), CONTEXT)


def test_new_file_is_private_and_nothing_else_is_left(path: Path, service: KeyService) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["kms.key"]
    assert service.reference == f"local:{path}"


def test_key_shows_neither_in_repr_nor_in_errors(path: Path, service: LocalKeyService) -> None:
    text = path.read_text().partition(":")[2].strip()
    path.write_text("svsync-key-1:" + text + "AAAA")
    with pytest.raises(KeyServiceError) as caught:
        LocalKeyService.open(path, create=False)
    for shown in (repr(service), str(service), str(caught.value)):
        assert text not in shown
        assert base64.b64decode(text).hex() not in shown


def test_processes_that_start_at_once_end_with_one_key(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        services = list(pool.map(lambda _: LocalKeyService.open(path, create=True), range(8)))
    wrapped = asyncio.run(services[0].wrap(KEY, CONTEXT))
    for service in services:
        assert asyncio.run(service.unwrap(wrapped, CONTEXT)) == KEY
    assert os.listdir(path.parent) == ["kms.key"]


def test_missing_file_is_not_replaced_once_the_database_holds_keys(path: Path) -> None:
    with pytest.raises(KeyServiceError, match=f"{path} is missing.*from your backup"):
        LocalKeyService.open(path, create=False)
    assert not path.exists()


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_file_that_others_can_use_is_refused_with_what_to_type(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(KeyServiceError, match=f"type `chmod 600 {path}`"):
        LocalKeyService.open(path, create=True)


@pytest.mark.usefixtures("service")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_is_refused(path: Path) -> None:
    os.chown(path, 12345, 12345)
    with pytest.raises(KeyServiceError, match=f"type `chown 0 {path}`"):
        LocalKeyService.open(path, create=False)


@pytest.mark.usefixtures("service")
def test_systemd_credential_may_be_opened_by_an_access_list(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    LocalKeyService.open(path, create=False)
    path.chmod(0o444)
    with pytest.raises(KeyServiceError, match="other users"):
        LocalKeyService.open(path, create=False)


@pytest.mark.parametrize("content", [b"", b"svsync-key-1:", b"svsync-key-1:!!!\n", b"x" * 44])
def test_file_that_holds_no_key_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyServiceError, match="is not a key file of svsync"):
        LocalKeyService.open(path, create=True)
    assert path.read_bytes() == content


def test_pipe_and_folder_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(KeyServiceError, match="is not a file"):
            LocalKeyService.open(path, create=True)


def test_folder_that_cannot_hold_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SetupError, match="cannot be made"):
        LocalKeyService.open(Path("/proc/self/kms.key"), create=True)
    with pytest.raises(KeyServiceError, match="cannot be read"):
        LocalKeyService.open(tmp_path / "state" / "kms.key", create=True)


def test_key_id_names_a_file_or_nothing() -> None:
    assert key_file(None, Path("/state")) == Path("/state/kms.key")
    assert key_file("file:/run/c/kms.key", Path("/state")) == Path("/run/c/kms.key")
    for wrong in ("file:kms.key", "/run/c/kms.key", "alias/key"):
        with pytest.raises(ConfigError, match=r"^KMS_KEY_ID: the provider local takes file:"):
            key_file(wrong, Path("/state"))
