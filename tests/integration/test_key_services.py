"""Does svsync start and go on with its key services, and not without them?"""

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.api import Front
from tests.aws import AwsFront
from tests.house import TENANT, House, settings_for
from tests.key_services import Home, aws_home, kms_call

from svsync.app import App, make_doctor, open_app
from svsync.config.model import KmsProvider, Settings
from svsync.domain.errors import KeyServiceAwayError, KeyServiceError, NotFoundError
from svsync.domain.ids import LocalPath
from svsync.domain.values import Payload
from svsync.kms.local import LocalKeyService
from svsync.ports import KeyServices
from svsync.services.key_grace import LOOK_S, SOON_S, KeyGrace
from svsync.services.readiness import Readiness
from svsync.services.root_keys import ROOT_CONTEXT, Word
from svsync.services.sealing import Sealing
from svsync.services.write_rows import Put

PATH = LocalPath("ext/a")


@pytest.fixture
def plain(database_url: str, state_dir: Path) -> Settings:
    """Wrapped by the key file, which is how svsync begins."""
    return settings_for(database_url, state_dir)


def by(settings: Settings, home: Home, second: str | None = None) -> Settings:
    """With this key service as the primary one."""
    return replace(
        settings,
        kms_provider=home.provider,
        kms_key_id=home.key,
        kms_access=home.access,
        kms_key_id_secondary=second,
    )


def also_by(settings: Settings, home: Home, **changes: Any) -> Settings:
    """With this key service as the secondary one."""
    given: dict[str, Any] = {
        "kms_key_id_secondary": f"{home.provider}:{home.key}",
        "kms_access_secondary": home.access,
    }
    return replace(settings, **(given | changes))


async def use(app: App) -> None:
    """The secret opens; where there is none yet, it is written."""
    with suppress(NotFoundError):
        _, data = await app.secrets.get(TENANT, PATH)
        assert data == b'{"k": "1"}'
        return
    await app.writes.put(TENANT, PATH, Put(Payload.from_fields({"k": "1"})), by="sa:test")


async def start(settings: Settings, environ: Mapping[str, str]) -> tuple[list[str], list[Word]]:
    """Start, work, and stop: what people are told, and how each key service stands."""
    async with open_app(settings, environ=environ, pool=2) as app:
        await use(app)
        return list(app.sealing.warnings), [one.word for one in app.sealing.standings]


# --- one key service ------------------------------------------------------------------


async def test_each_kind_wraps_the_root_key_and_opens_it_at_the_next_start(
    plain: Settings, home: Home, house: House, state_dir: Path
) -> None:
    # The house's own start was with the key file: it is taken over first.
    settings = by(plain, home, f"file:{state_dir}/kms.key")
    assert await start(settings, home.environ) == ([], [Word.WRAPPED, Word.OPENS])
    row = await house.row("root_keys")
    assert row["kms_ref"] == home.service(state_dir).reference
    alone = by(plain, home)
    assert await start(alone, home.environ) == ([], [Word.OPENS])
    assert (await house.row("root_keys"))["wrapped"] == row["wrapped"]


async def test_first_start_needs_the_key_service_and_leaves_nothing_behind(
    database_url: str, state_dir: Path, vault_home: Home
) -> None:
    settings = by(settings_for(database_url, state_dir), vault_home)
    away = replace(settings, kms_access=vault_home.away)
    with pytest.raises(KeyServiceAwayError) as refused:
        await start(away, vault_home.environ)
    assert "\n" not in refused.value.message
    assert await start(settings, vault_home.environ) == ([], [Word.OPENS])
    assert not (state_dir / "kms.key").exists()


async def test_start_refuses_while_the_only_key_service_is_away(
    database_url: str, state_dir: Path, vault_home: Home
) -> None:
    settings = by(settings_for(database_url, state_dir), vault_home)
    await start(settings, vault_home.environ)
    with pytest.raises(KeyServiceAwayError, match="takes no connection") as refused:
        await start(replace(settings, kms_access=vault_home.away), vault_home.environ)
    assert refused.value.code == "root_key_unavailable"
    assert vault_home.environ["KMS_TOKEN"] not in str(refused.value)


async def test_start_refuses_with_another_key_and_stores_nothing(
    database_url: str, state_dir: Path, roto_home: Home
) -> None:
    settings = by(settings_for(database_url, state_dir), roto_home)
    await start(settings, roto_home.environ)
    wrong = replace(settings, kms_key_id=roto_home.other)
    with pytest.raises(KeyServiceError, match="bring that key back") as refused:
        await start(wrong, roto_home.environ)
    assert not isinstance(refused.value, KeyServiceAwayError)
    assert await start(settings, roto_home.environ) == ([], [Word.OPENS])


# --- two of different kinds -----------------------------------------------------------


@pytest.mark.parametrize("lost", ["primary", "secondary"])
async def test_either_of_two_kinds_opens_and_the_one_that_is_away_is_told(
    database_url: str, state_dir: Path, roto_home: Home, vault_home: Home, lost: str
) -> None:
    both = also_by(by(settings_for(database_url, state_dir), roto_home), vault_home)
    environ = {**roto_home.environ, **vault_home.environ}
    assert await start(both, environ) == ([], [Word.OPENS, Word.OPENS])
    changes: dict[str, Any] = (
        {"kms_access": roto_home.away}
        if lost == "primary"
        else {"kms_access_secondary": vault_home.away}
    )
    [said], words = await start(replace(both, **changes), environ)
    assert words.count(Word.AWAY) == 1
    assert f"was not opened with the {lost}" in said
    assert await start(both, environ) == ([], [Word.OPENS, Word.OPENS])


async def test_key_that_was_disabled_is_told_while_the_other_opens(
    database_url: str, state_dir: Path, roto_home: Home, vault_home: Home
) -> None:
    both = also_by(by(settings_for(database_url, state_dir), vault_home), roto_home)
    environ = {**roto_home.environ, **vault_home.environ}
    await start(both, environ)
    await roto_home.disable()
    for _ in range(2):
        [said], words = await start(both, environ)
        assert words == [Word.OPENS, Word.SHUT]
        assert "enable it" in said


async def test_secondary_that_is_away_at_the_first_start_wraps_at_a_later_one(
    database_url: str, state_dir: Path, roto_home: Home, vault_home: Home
) -> None:
    settings = by(settings_for(database_url, state_dir), roto_home)
    both, environ = also_by(settings, vault_home), {**roto_home.environ, **vault_home.environ}
    away = replace(both, kms_access_secondary=vault_home.away)
    said, words = await start(away, environ)
    assert words[0] is Word.OPENS
    assert any("not wrapped by vault:" in line for line in said)
    assert await start(both, environ) == ([], [Word.OPENS, Word.WRAPPED])
    assert await start(both, environ) == ([], [Word.OPENS, Word.OPENS])


# --- taking over ----------------------------------------------------------------------


async def test_new_key_takes_over_from_the_old_one_that_is_the_secondary_now(
    plain: Settings, house: House, state_dir: Path, vault_home: Home
) -> None:
    await house.write("ext/b", {"k": "2"})
    old = (await house.row("root_keys"))["wrapped"]
    settings = by(plain, vault_home, f"file:{state_dir}/kms.key")
    assert await start(settings, vault_home.environ) == ([], [Word.WRAPPED, Word.OPENS])
    row = await house.row("root_keys")
    assert row["kms_ref"].startswith("vault:")
    assert (row["kms_ref_2"], row["wrapped_2"]) == (f"local:{state_dir}/kms.key", old)
    (state_dir / "kms.key").unlink()
    assert await start(by(plain, vault_home), vault_home.environ) == ([], [Word.OPENS])


async def test_nothing_is_given_up_before_the_new_key_opens(
    plain: Settings, house: House, state_dir: Path, vault_home: Home
) -> None:
    before = dict(await house.row("root_keys"))
    settings = by(plain, vault_home, f"file:{state_dir}/kms.key")
    [said], words = await start(replace(settings, kms_access=vault_home.away), vault_home.environ)
    assert words == [Word.AWAY, Word.OPENS]
    assert "takes no connection" in said
    assert dict(await house.row("root_keys")) == before
    _, words = await start(settings, vault_home.environ)
    assert words == [Word.WRAPPED, Word.OPENS]


async def test_old_key_may_be_left_out_once_another_one_wraps(
    plain: Settings, house: House, state_dir: Path, vault_home: Home, roto_home: Home
) -> None:
    environ = {**roto_home.environ, **vault_home.environ}
    await start(by(plain, vault_home, f"file:{state_dir}/kms.key"), environ)
    # The file goes, AWS comes: one start, and neither of them is missed afterwards.
    settings = also_by(by(plain, vault_home), roto_home)
    assert await start(settings, environ) == ([], [Word.OPENS, Word.WRAPPED])
    row = await house.row("root_keys")
    assert [row["kms_ref"][:6], row["kms_ref_2"][:4]] == ["vault:", "aws:"]
    changed = replace(also_by(plain, vault_home), kms_key_id=roto_home.key)
    changed = replace(changed, kms_provider=KmsProvider.AWS, kms_access=roto_home.access)
    assert await start(changed, environ) == ([], [Word.OPENS, Word.OPENS])
    assert (await house.row("root_keys"))["kms_ref"].startswith("aws:")


async def test_new_key_file_is_made_only_where_another_key_may_open(
    plain: Settings, house: House, state_dir: Path, vault_home: Home
) -> None:
    new = f"file:{state_dir}/new.key"
    with pytest.raises(KeyServiceError, match="is missing"):
        await start(replace(plain, kms_key_id=new), {})
    assert not (state_dir / "new.key").exists()
    old = f"file:{state_dir}/kms.key"
    settings = replace(plain, kms_key_id=new, kms_key_id_secondary=old)
    assert await start(settings, {}) == ([], [Word.WRAPPED, Word.OPENS])
    assert await start(replace(plain, kms_key_id=new), {}) == ([], [Word.OPENS])


class Forgetful:
    """Wraps, and does not open what it wrapped; `meanwhile` is done while it wraps."""

    reference = "forgetful:1"

    def __init__(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._meanwhile = meanwhile

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        await self._meanwhile()
        return b"forg" + plaintext[::-1]

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        if not wrapped.startswith(b"forg"):
            raise KeyServiceError("not made here")
        return self._opens(wrapped)

    def _opens(self, wrapped: bytes) -> bytes:
        return bytes(32)


class Good(Forgetful):
    def _opens(self, wrapped: bytes) -> bytes:
        return wrapped[4:][::-1]


async def test_what_was_wrapped_is_opened_before_it_is_believed(
    house: House, state_dir: Path
) -> None:
    async def nothing() -> None:
        return None

    before = dict(await house.row("root_keys"))
    local = LocalKeyService.open(state_dir / "kms.key", create=False)
    sealing = Sealing(house.app.db, KeyServices(Forgetful(nothing), local), os.urandom)
    await sealing.open_root()
    assert [one.word for one in sealing.standings] == [Word.SHUT, Word.OPENS]
    assert "another key than it was given" in sealing.warnings[0]
    assert dict(await house.row("root_keys")) == before


async def test_process_that_was_slower_writes_nothing_over(house: House, state_dir: Path) -> None:
    async def another() -> None:
        await house.admin.execute("UPDATE root_keys SET wrapped_2 = 'other', kms_ref_2 = 'x'")

    local = LocalKeyService.open(state_dir / "kms.key", create=False)
    sealing = Sealing(house.app.db, KeyServices(Good(another), local), os.urandom)
    await sealing.open_root()
    assert [one.word for one in sealing.standings] == [Word.WRAPPED, Word.OPENS]
    row = await house.row("root_keys")
    assert (row["kms_ref"], row["kms_ref_2"]) == (local.reference, "x")


async def test_two_names_of_one_key_are_no_two_keys(
    plain: Settings, house: House, roto_home: Home, roto_server: Any
) -> None:
    name = f"alias/svsync-{roto_home.key[-12:]}"
    await kms_call(roto_server, "CreateAlias", AliasName=name, TargetKeyId=roto_home.key)
    settings = also_by(
        by(plain, roto_home),
        roto_home,
        kms_key_id_secondary=f"aws:{name}",
        kms_access_secondary={**roto_home.access, "region": "us-east-1"},
    )
    await start(by(plain, roto_home, f"file:{plain.state_dir}/kms.key"), roto_home.environ)
    await house.admin.execute("UPDATE root_keys SET kms_ref_2 = NULL, wrapped_2 = NULL")
    [said], words = await start(settings, roto_home.environ)
    assert words == [Word.OPENS, Word.SHUT]
    assert "two names of one key" in said
    assert (await house.row("root_keys"))["wrapped_2"] is None


async def test_root_key_that_somebody_put_in_place_of_one_form_is_refused(
    plain: Settings, house: House, state_dir: Path, vault_home: Home
) -> None:
    settings = by(plain, vault_home, f"file:{state_dir}/kms.key")
    await start(settings, vault_home.environ)
    service = vault_home.service(state_dir)
    theirs = await service.wrap(bytes(32), ROOT_CONTEXT)
    await house.admin.execute("UPDATE root_keys SET wrapped = $1", theirs)
    with pytest.raises(KeyServiceError, match="hold different keys"):
        await start(settings, vault_home.environ)


# --- while it runs --------------------------------------------------------------------


@pytest.fixture
async def aws_front_home(aws_front: AwsFront, roto_server: Any) -> Home:
    """AWS behind a front that a test tells what to answer."""
    home = await aws_home(roto_server)
    return replace(home, access={**home.access, "endpoint": aws_front.url})


async def test_running_process_goes_on_for_kms_grace_and_no_longer(
    database_url: str, state_dir: Path, aws_front: AwsFront, aws_front_home: Home
) -> None:
    settings = by(settings_for(database_url, state_dir), aws_front_home)
    now = [0.0]
    async with open_app(settings, environ=aws_front_home.environ, pool=2) as app:
        grace = KeyGrace(app.sealing, 600.0, clock=lambda: now[0])
        await use(app)
        await grace.look()
        assert (grace.away_s, grace.next_look_s()) == (0.0, LOOK_S)
        aws_front.refuse_as("^Decrypt ", "KMSInternalException", status=500)
        now[0] = 599.0
        await grace.look()
        assert (grace.shut, grace.away_s) == (False, 599.0)
        assert grace.next_look_s() == 1.0
        await use(app)
        keys = await app.sealing.for_tenant(TENANT)
        now[0] = 600.0
        await grace.look()
        assert grace.shut
        assert grace.next_look_s() == SOON_S
        for refused in (use(app), keys.reserve(1)):
            with pytest.raises(KeyServiceError, match="kms_grace") as shut:
                await refused
            assert shut.value.code == "root_key_unavailable"
        aws_front.rules.clear()
        now[0] = 700.0
        await grace.look()
        assert (grace.shut, grace.away_s) == (False, 0.0)
        await use(app)


async def test_key_that_is_disabled_stops_a_running_process_in_a_known_time(
    database_url: str, state_dir: Path, roto_home: Home
) -> None:
    settings = by(settings_for(database_url, state_dir), roto_home)
    now = [0.0]
    async with open_app(settings, environ=roto_home.environ, pool=2) as app:
        grace = KeyGrace(app.sealing, 0.0, clock=lambda: now[0])
        assert grace.next_look_s() == SOON_S
        await use(app)
        await roto_home.disable()
        await grace.look()
        assert grace.shut
        with pytest.raises(KeyServiceError, match="kms_grace"):
            await use(app)


async def test_one_of_two_that_is_away_ends_nothing(
    database_url: str, state_dir: Path, aws_front: AwsFront, aws_front_home: Home, vault_home: Home
) -> None:
    settings = also_by(by(settings_for(database_url, state_dir), aws_front_home), vault_home)
    environ = {**aws_front_home.environ, **vault_home.environ}
    now = [0.0]
    async with open_app(settings, environ=environ, pool=2) as app:
        grace = KeyGrace(app.sealing, 0.0, clock=lambda: now[0])
        aws_front.refuse_as("^Decrypt ", "KMSInternalException", status=500)
        now[0] = 1e6
        await grace.look()
        assert (grace.shut, grace.away_s) == (False, 0.0)
        assert [one.word for one in app.sealing.standings] == [Word.AWAY, Word.OPENS]
        await use(app)


async def test_process_is_told_when_another_one_has_the_root_key_wrapped_by_others(
    house: House, state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = LocalKeyService.open(state_dir / "kms.key", create=False)
    ours, theirs = (LocalKeyService(Path(f"/{n}"), bytes([n]) * 32) for n in (1, 2))
    sealing = Sealing(house.app.db, KeyServices(local, ours), os.urandom)
    await sealing.open_root()
    grace = KeyGrace(sealing, 600.0, clock=lambda: 0.0)
    await grace.look()
    assert grace.next_look_s() == LOOK_S
    await Sealing(house.app.db, KeyServices(local, theirs), os.urandom).open_root()
    await grace.look()
    assert "the root key is not wrapped by local:/1 any more" in capsys.readouterr().err
    assert grace.next_look_s() == SOON_S
    await sealing.open_root()
    await grace.look()
    assert grace.next_look_s() == LOOK_S


async def test_without_its_keys_the_api_says_so_and_is_not_ready(front: Front) -> None:
    await front.house.write("ext/a", {"k": "1"})
    front.house.app.sealing.shut("the keys were put away")
    answer = await front.client.get("/v1/secrets/ext/a")
    assert answer.told == (503, "root_key_unavailable")
    found = await Readiness(front.house.app.db, lambda: 0.0, keys_shut=lambda: True).look()
    assert (found.ready, found.keys) == (False, "shut")


# --- doctor ---------------------------------------------------------------------------


async def test_doctor_tries_the_key_service_before_the_first_start(
    plain: Settings, vault_home: Home
) -> None:
    for access, says in ((vault_home.access, "there is none yet"), (vault_home.away, "is away")):
        settings = replace(by(plain, vault_home), kms_access=access)
        doctor = make_doctor(settings, environ=vault_home.environ)
        [found] = [one async for one in doctor.examine() if one.check == "root key"]
        assert says in found.says


async def test_doctor_tells_of_each_key_service_and_changes_nothing(
    plain: Settings, house: House, vault_home: Home
) -> None:
    before = dict(await house.row("root_keys"))

    async def told(settings: Settings) -> list[str]:
        doctor = make_doctor(settings, environ=vault_home.environ)
        checks = ("key service", "root key")
        found = [one async for one in doctor.examine() if one.check in checks]
        return [f"{one.state}: {one.says}" for one in found]

    both = also_by(plain, vault_home)
    assert any("does not wrap the root key yet" in line for line in await told(both))
    alone = by(plain, vault_home)
    assert not any(line.startswith("ok") for line in await told(alone)), "it wraps nothing yet"
    away = replace(both, kms_access_secondary=vault_home.away)
    assert any("takes no connection" in line for line in await told(away))
    assert dict(await house.row("root_keys")) == before
    await start(both, vault_home.environ)
    [well] = [line for line in await told(both) if "vault:" in line]
    assert well.startswith("ok: ")
    assert well.endswith(" wraps the root key")
    await vault_home.disable()
    assert any("does not open with the secondary" in line for line in await told(both))
