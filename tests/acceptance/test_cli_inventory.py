"""Is what a store holds sorted as the guides sort it, and are its readers named?"""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.acceptance.conftest import Desk
from tests.audited import AuditedBao, audited_bao, entry, lines
from tests.aws import KEYS, Aws
from tests.openbao import guide_policy, new_mount
from tests.program import Program

__all__ = ["audited_bao"]
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def bare(tmp_path: Path) -> Program:
    """A program without a store; it may go to loopback."""
    file = tmp_path / "svsync.yaml"
    file.write_text("allow_loopback: true\n")
    return Program({"SVSYNC_STATE_DIR": str(tmp_path / "state"), "HOME": str(tmp_path)}, tmp_path)


def of(bare: Program, *words: str) -> tuple[str, ...]:
    return ("--config", str(bare.folder / "svsync.yaml"), "inventory", *words)


# --- a Vault ----------------------------------------------------------------------------


async def test_a_vault_is_sorted_by_its_engines_and_folders(
    bare: Program, audited_bao: AuditedBao
) -> None:
    kv = await new_mount(audited_bao, name="kv")
    old = await new_mount(audited_bao, version=1, name="old")
    for kind in ("pki", "transit", "database", "totp"):
        await audited_bao.request("POST", f"sys/mounts/{kind}", {"type": kind})
    for name in ("apps/billing/db", "apps/billing/stripe", "shared/sales force", "top", "gone"):
        await kv.put(name, {"k": bare.canary.marker})
    await kv.delete("gone")
    await old.put("job/key", {"k": bare.canary.marker})
    said = await bare(
        *of(bare, "--vault-addr", audited_bao.url, "--json"), VAULT_TOKEN=audited_bao.root_token
    )
    assert said.code == 0
    found = said.json
    assert {(e["path"], e["kind"], e["advice"]) for e in found["engines"]} == {
        ("kv/", "kv-v2", "federate"),
        ("old/", "kv-v1", "federate"),
        ("pki/", "pki", "recreate"),
        ("database/", "database", "recreate"),
        ("transit/", "transit", "leave"),
        ("totp/", "totp", "leave"),
    }
    assert {f["prefix"]: f["secrets"] for f in found["folders"]} == {
        "kv/data/": 2,
        "kv/data/apps/": 2,
        "kv/data/shared/": 1,
        "old/job/": 1,
    }
    assert {n["path"]: n["reason"] for n in found["notable"]} == {
        "kv/data/gone": "no_value",
        "kv/data/shared/sales force": "name_not_local",
    }
    assert found["advice"] == {"federate": 4, "copy": 1, "recreate": 0, "leave": 1}
    assert (found["secrets"], found["simple"], found["backend_id"]) == (6, False, None)
    deeper = await bare(
        *of(bare, "--vault-addr", audited_bao.url, "--json", "--depth", "2"),
        VAULT_TOKEN=audited_bao.root_token,
    )
    assert "kv/data/apps/billing/" in {f["prefix"] for f in deeper.json["folders"]}
    assert not (bare.folder / "state").exists()  # no store of ours was opened


async def test_only_what_a_narrow_token_reaches_is_told(
    bare: Program, audited_bao: AuditedBao
) -> None:
    mine = await new_mount(audited_bao, name="mine")
    await mine.put("a", {"k": "1"})
    (bare.folder / ".vault-token").write_text(await mine.token(guide_policy("mine")))
    (bare.folder / ".vault-token").chmod(0o600)
    said = await bare(*of(bare, "--vault-addr", audited_bao.url, "--json"))
    assert [e["path"] for e in said.json["engines"]] == ["mine/"]
    assert said.json["simple"]
    await mine.put("a ", {"k": "1"})
    table = await bare(*of(bare, "--vault-addr", audited_bao.url))
    assert "Secrets: 2; federate 1, copy 1, re-create 0, leave 0." in table.out
    assert "'mine/data/a '" in table.out  # another than `a`, though nobody would see it
    nothing = await bare(
        *of(bare, "--vault-addr", audited_bao.url, "--json"),
        VAULT_TOKEN=await mine.token('path "mine/metadata/x/y" { capabilities = ["list"] }'),
    )
    assert (nothing.code, nothing.json["error"]["code"]) == (1, "backend_denied")


async def test_a_token_of_two_lines_is_told_by_its_name(bare: Program) -> None:
    asked = of(bare, "--vault-addr", "http://127.0.0.1:1", "--json")
    said = await bare(*asked, VAULT_TOKEN=f"{bare.canary.marker}\nX")
    assert (said.code, said.out) == (2, "")
    assert "VAULT_TOKEN holds a character that no token has" in said.sentence


async def test_a_configured_backend_is_looked_at_beyond_its_rules(desk: Desk) -> None:
    await desk.bao.put("in/a", {"k": "1"})
    await desk.bao.put("out/b", {"k": "1"})
    remote = f"{desk.bao.mount}/data/in/**"
    name, file = desk.backend(path_mapping=[{"local": "inv/**", "remote": remote}])
    said = await desk.program(
        "--config", str(file), "inventory", "--backend", name, "--json", BAO_TOKEN=desk.token
    )
    below = {f["prefix"]: f["federated"] for f in said.json["folders"]}
    assert below[f"{desk.bao.mount}/data/in/"] == 1
    assert below[f"{desk.bao.mount}/data/out/"] == 0
    asked = ("audit", "query", "--action", "federation.inventory", "--json")
    logs = await desk.program("--config", str(file), *asked)
    assert [log["backend_id"] for log in logs.json["logs"]] == [name]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "--backend ID, --vault-addr URL or --aws-region REGION"),
        (("--vault-addr", "http://127.0.0.1:1"), 2, "VAULT_TOKEN"),
        (("--vault-addr", "ftp://vault", "VAULT_TOKEN"), 2, "--vault-addr must be an https URL"),
        (("--aws-region", ""), 2, "--aws-region is missing"),
        (("--vault-addr", "http://127.0.0.1:1", "VAULT_TOKEN"), 3, "config.endpoint"),
        (("--vault-addr", "x", "--aws-region", "y"), 2, "not allowed with"),
        (("--depth", "-1", "--aws-region", "y"), 2, "--depth"),
        (("readers", "--audit-log", "missing"), 2, "missing cannot be read"),
        (("readers", "--audit-log", "."), 2, "is no regular file"),
        (("readers", "--audit-log", "svsync.yaml"), 2, "holds no entry of a Vault audit device"),
        (("readers", "--audit-log", "svsync.yaml", "--start", "once"), 2, "--start"),
        (("readers", "--audit-log", "svsync.yaml", "--limit", "0"), 2, "--limit"),
        (("--aws-region", "y", "readers", "--audit-log", "svsync.yaml"), 2, "logs alone"),
    ],
)
async def test_what_cannot_be_asked_is_one_sentence(
    bare: Program, words: tuple[str, ...], code: int, says: str
) -> None:
    token = bare.canary.marker if "VAULT_TOKEN" in words else ""
    asked = of(bare, *(word for word in words if word != "VAULT_TOKEN"), "--json")
    said = await bare(*asked, VAULT_TOKEN=token)
    assert said.code == code
    assert says in said.sentence
    assert (said.out == "") == (code == 2)


async def test_a_loopback_address_needs_the_operators_word(
    bare: Program, audited_bao: AuditedBao
) -> None:
    (bare.folder / "svsync.yaml").write_text("allow_loopback: false\n")
    said = await bare(*of(bare, "--vault-addr", audited_bao.url), VAULT_TOKEN="x")
    assert said.code == 2
    assert "allow_loopback" in said.sentence


# --- AWS --------------------------------------------------------------------------------


async def test_a_region_of_aws_is_sorted_and_what_is_rotated_is_said(
    bare: Program, roto: Aws
) -> None:
    aws = roto
    for name in ("prod/billing", "prod/db", "odd+name", "gone"):
        await aws.put(name, {"k": bare.canary.marker})
    await aws.call("RotateSecret", SecretId=aws.prefix + "prod/db")
    await aws.delete("gone")
    keys = json.loads(KEYS)
    said = await bare(
        *of(bare, "--aws-region", "us-east-1", "--depth", "2", "--json"),
        AWS_ENDPOINT_URL=aws.url,
        AWS_ACCESS_KEY_ID=keys["access_key_id"],
        AWS_SECRET_ACCESS_KEY=keys["secret_access_key"],
    )
    assert said.code == 0
    found = said.json
    folders = {f["prefix"]: f["advice"] for f in found["folders"]}
    assert folders[f"{aws.prefix}prod/"]["federate"] == 2
    reasons = {n["path"].removeprefix(aws.prefix): n["reason"] for n in found["notable"]}
    ours = {name: reasons.get(name) for name in ("prod/billing", "prod/db", "odd+name", "gone")}
    assert ours == {
        "prod/billing": None,
        "prod/db": "rotated",
        "odd+name": "name_not_local",
        "gone": "no_value",
    }


# --- readers ----------------------------------------------------------------------------


async def test_who_reads_what_is_told_by_a_real_audit_file(
    bare: Program, audited_bao: AuditedBao
) -> None:
    kv = await new_mount(audited_bao, name="read")
    await kv.put("apps/db", {"k": bare.canary.marker})
    login = await kv.approle(guide_policy("read"))
    signed = await audited_bao.request(
        "POST",
        "auth/approle/login",
        {"role_id": login.role_id, "secret_id": login.secret_id},
        token="",
    )
    auth = signed["auth"]
    assert isinstance(auth, dict)
    for _ in range(3):
        await audited_bao.request("GET", "read/data/apps/db", token=str(auth["client_token"]))
    await kv.request("GET", "read/data/apps/db")
    await kv.request("GET", "read/metadata/apps/db")
    log = str(audited_bao.audit_log)
    words = ("readers", "--audit-log", log, "--prefix", "read/")
    said = await bare(*of(bare, *words, "--json"))
    assert said.code == 0
    assert {(r["path"], r["reader"], r["role"], r["reads"]) for r in said.json["readers"]} == {
        ("read/data/apps/db", "approle", login.role, 3),
        ("read/data/apps/db", "root", None, 1),
    }
    assert all(r["last_address"] == "127.0.0.1" for r in said.json["readers"])
    assert said.json["broken_lines"] == 0
    table = await bare(*of(bare, *words))
    assert f"approle ({login.role})" in table.out


async def test_rotated_and_packed_files_are_read_and_broken_lines_are_counted(
    bare: Program,
) -> None:
    folder = bare.folder
    (folder / "audit.log").write_bytes(lines([entry(NOW, "kv/data/a")]) + b'{"time": "unfinis')
    day = timedelta(days=1)
    packed = gzip.compress(lines([entry(NOW - 2 * day, "kv/data/a")]) + b"{broken}\n")
    (folder / "audit.log.1.gz").write_bytes(packed)
    older = lines([entry(NOW - 3 * day, "kv/data/b"), entry(NOW - 3 * day, "kv/data/b", error="x")])
    (folder / "audit.log-20261120").write_bytes(older)
    (folder / "audit.log.bak").write_bytes(b"not of it")
    words = ("readers", "--audit-log", str(folder / "audit.log"), "--json")
    found = (await bare(*of(bare, *words))).json
    assert {r["path"]: (r["reads"], r["last_read_at"]) for r in found["readers"]} == {
        "kv/data/a": (2, "2026-11-23T12:00:00Z"),
        "kv/data/b": (1, "2026-11-20T12:00:00Z"),
    }
    assert (found["begin"], found["broken_lines"]) == ("2026-11-20T12:00:00Z", 1)
    assert len(found["files"]) == 3
    later = (await bare(*of(bare, *words, "--start", "2026-11-22T00:00:00Z"))).json
    assert [(r["path"], r["reads"]) for r in later["readers"]] == [("kv/data/a", 1)]
    cut = await bare(*of(bare, *words, "--limit", "1"))
    assert (len(cut.json["readers"]), cut.json["readers_more"]) == (1, 1)
