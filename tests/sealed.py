"""A store with something sealed in each place that there is, and all that it says.

What is sealed is opened here by bindings of this module's own, so that a mistake in the list
of places, or in what a place is bound to, does not hide itself.
"""

from tests.house import BACKEND, TENANT, House
from tests.receivers import webhook_desk

from svsync.app import App
from svsync.domain.envelope import KeyPurpose, Purpose
from svsync.domain.federation import ConflictPolicy, Writes
from svsync.domain.ids import KeyId, LocalPath, SecretId, TenantId
from svsync.domain.values import Payload
from svsync.domain.webhooks import Subscription
from svsync.services.sealing import Sealed

_WHERE = {
    "versions": (
        "SELECT path || ' ' || version AS name, secret_id, path, version, '' AS extra, key_id,"
        " nonce, sealed FROM versions JOIN secrets USING (tenant_id, secret_id)"
        " WHERE tenant_id = $1 AND sealed IS NOT NULL",
        Purpose.VALUE,
    ),
    "sync_state": (
        "SELECT path AS name, secret_id, path, 0 AS version, remote_path AS extra,"
        " base_raw_key AS key_id, base_raw_nonce AS nonce, base_raw_sealed AS sealed"
        " FROM sync_state WHERE tenant_id = $1 AND base_raw_sealed IS NOT NULL",
        Purpose.RAW,
    ),
    "pushes": (
        "SELECT push_id AS name, secret_id, path, 0 AS version, push_id AS extra,"
        " before_key_id AS key_id, before_nonce AS nonce, before_sealed AS sealed"
        " FROM pushes WHERE tenant_id = $1 AND before_sealed IS NOT NULL",
        Purpose.RAW,
    ),
    "conflicts, local": (
        "SELECT path AS name, secret_id, path, 0 AS version, sealed_as AS extra,"
        " local_key_id AS key_id, local_nonce AS nonce, local_sealed AS sealed"
        " FROM conflicts WHERE tenant_id = $1 AND local_sealed IS NOT NULL",
        Purpose.CONFLICT_LOCAL,
    ),
    "conflicts, remote": (
        "SELECT path AS name, secret_id, path, 0 AS version, sealed_as AS extra,"
        " remote_key_id AS key_id, remote_nonce AS nonce, remote_sealed AS sealed"
        " FROM conflicts WHERE tenant_id = $1 AND remote_sealed IS NOT NULL",
        Purpose.CONFLICT_REMOTE,
    ),
    "endpoints": (
        "SELECT 'endpoint' AS name, 0 AS secret_id, '' AS path, 0 AS version,"
        " endpoint_id AS extra, key_id, nonce, sealed FROM endpoints WHERE tenant_id = $1",
        Purpose.WEBHOOK_SECRET,
    ),
}


async def seal_everywhere(house: House) -> None:
    """Versions, an exact text of base, both sides of a conflict, what a push was about to
    replace, the secrets of an endpoint; and a version that did not land, which holds nothing."""
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL, writes=Writes.LOCAL)
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": f"first {name}"})
    house.there.put("kv/d", Payload.from_bytes(b"\xff" * 3_000))
    await house.run()
    house.there.put("kv/a", {"k": "there"})
    await house.write("ext/a", {"k": "here"})
    text = Payload.from_fields({"k": "first b"}).reveal()
    house.there.put("kv/b", Payload.from_json_text(text.replace(b":", b"  : ")))
    await house.write("own/x", {"k": "mine"})
    await house.run()
    secret = await house.row("secrets", path="ext/c")
    keys = await house.app.sealing.for_tenant(TENANT)
    before = (await keys.reserve(1)).seal(
        Purpose.RAW, SecretId(secret["secret_id"]), LocalPath("ext/c"), 0, b"before", extra="psh_1"
    )
    await house.admin.execute(
        "INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind, state,"
        " secret_id, version, row_rev, created_by, deadline, ended_at, before_key_id,"
        " before_nonce, before_sealed) VALUES (1, 'psh_1', $1, 'ext/c', 'kv/c', 'put', 'landed',"
        " $2, 1, 1, 'sa:test', now(), now(), $3, $4, $5)",
        BACKEND, secret["secret_id"], before.key_id, before.nonce, before.sealed,
    )  # fmt: skip
    await house.admin.execute(
        "INSERT INTO versions (tenant_id, secret_id, version, state, encoding, key_id, origin)"
        " VALUES (1, $1, 9, 'destroyed', 'json', $2, 'write')",
        secret["secret_id"], before.key_id,
    )  # fmt: skip
    async with webhook_desk(house) as desk:
        await desk.webhooks.create(TENANT, "http://127.0.0.1:1/hook", Subscription(), by="sa:test")


async def texts(
    house: House, app: App | None = None, tenant: TenantId = TENANT
) -> dict[str, bytes]:
    """All that is sealed of a tenant, opened, by where it stands."""
    keys = await (app or house.app).sealing.for_tenant(tenant)
    found: dict[str, bytes] = {}
    for where, (query, purpose) in _WHERE.items():
        for row in await house.admin.fetch(query, tenant):
            found[f"{where}: {row['name']}"] = await keys.open(
                purpose,
                SecretId(row["secret_id"]),
                LocalPath(row["path"]),
                row["version"],
                Sealed(KeyId(row["key_id"]), row["nonce"], row["sealed"]),
                extra=row["extra"],
                key_purpose=KeyPurpose.WEBHOOK if where == "endpoints" else KeyPurpose.VALUE,
            )
    return found


async def keys_named(house: House, tenant: TenantId = TENANT) -> set[int]:
    """The data keys that anything sealed names."""
    found = set()
    for query, _ in _WHERE.values():
        found |= {row["key_id"] for row in await house.admin.fetch(query, tenant)}
    return found
