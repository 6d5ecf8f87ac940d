"""Does the audit log, asked over HTTP, tell what happened, to whom it may, page by page?"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.api import ROBOT, Front, front
from tests.house import TENANT, house

from svsync.domain.access import Scope
from svsync.domain.audit import Decision, Entry
from svsync.store import audit as store
from svsync.store.audit import Asking
from svsync.store.database import statements

__all__ = ["front", "house"]

LOGS = "/v1/audit/logs"
FIELDS = {
    "timestamp", "action", "secret_path", "identity_id", "identity_type", "decision", "version",
    "backend_id", "request_id", "source_ip", "id",
}  # fmt: skip


async def logs(front: Front, query: str = "") -> list[Any]:
    answer = await front.client.get(LOGS + query)
    assert answer.status == 200, answer.body
    found: list[Any] = answer.body["logs"]
    return found


async def fill(front: Front, *many: tuple[str, str, str, str]) -> None:
    for identity, action, path, decision in many:
        entry = Entry(TENANT, "service_account", identity, action, decision, path or None)
        await front.house.app.recorder.record(entry)


SOME = (
    ("sa:a", "secret.read", "app/a", "allow"),
    ("sa:a", "secret.read", "app/b", "deny"),
    ("sa:b", "secret.read", "app/a", "allow"),
    ("sa:b", "secret.write", "app/a/deep", "allow"),
    ("sa:b", "secret.read", "apple", "allow"),
    ("sa:c", "federation.sync", "", "deny"),
)


async def test_a_read_is_told_with_all_its_fields(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    read = await front.client.get("/v1/secrets/app/a")
    [row] = await logs(front, "?action=secret.read")
    assert set(row) == FIELDS
    assert datetime.fromisoformat(row.pop("timestamp")).tzinfo is not None
    stored = await front.house.row("audit", action="secret.read")
    assert row == {
        "action": "secret.read",
        "secret_path": "app/a",
        "identity_id": ROBOT.id,
        "identity_type": "service_account",
        "decision": "allow",
        "version": 1,
        "backend_id": None,
        "request_id": read.headers["X-Request-Id"],
        "source_ip": "127.0.0.1",
        "id": f"aud_{stored['chain_id']}_{stored['seq']}",
    }


async def test_the_look_is_recorded_itself(front: Front) -> None:
    answer = await front.client.get(LOGS)
    assert [row["action"] for row in answer.body["logs"]] == ["audit.query"]
    assert answer.body["logs"][0]["request_id"] == answer.headers["X-Request-Id"]
    others = front.client.with_token(await front.token(Scope.SECRETS_READ))
    assert (await others.get(LOGS)).told == (403, "forbidden")
    denied = await logs(front, "?decision=deny")
    assert [(row["action"], row["identity_id"]) for row in denied] == [("audit.query", ROBOT.id)]


async def test_filters_may_be_joined(front: Front) -> None:
    await fill(front, *SOME)

    async def told(query: str) -> list[tuple[str, str | None]]:
        found = await logs(front, query)
        return [
            (row["identity_id"], row["secret_path"])
            for row in reversed(found)
            if row["action"] != "audit.query"
        ]

    assert await told("?identity_id=sa:a") == [("sa:a", "app/a"), ("sa:a", "app/b")]
    assert await told("?secret_path=app/a") == [("sa:a", "app/a"), ("sa:b", "app/a")]
    assert await told("?secret_path=app/**") == [
        ("sa:a", "app/a"), ("sa:a", "app/b"), ("sa:b", "app/a"), ("sa:b", "app/a/deep"),
    ]  # fmt: skip
    assert await told("?secret_path=app/a/**") == [("sa:b", "app/a/deep")]
    assert await told("?action=secret.write") == [("sa:b", "app/a/deep")]
    assert await told("?decision=deny") == [("sa:a", "app/b"), ("sa:c", None)]
    assert await told("?identity_id=sa:b&secret_path=app/a") == [("sa:b", "app/a")]
    assert await told("?identity_id=sa:a&decision=deny") == [("sa:a", "app/b")]
    assert await told("?secret_path=app/**&decision=deny&action=secret.read") == [("sa:a", "app/b")]
    assert await told("?identity_id=sa:a&action=secret.write") == []
    assert await told("?identity_id=sa:c&decision=allow") == []


async def test_times_bound_what_is_told(front: Front) -> None:
    await fill(front, *SOME)
    rows = list(reversed(await logs(front)))
    third = rows[2]["timestamp"]
    later = await logs(front, f"?from={third}&identity_id=sa:a")
    assert later == []
    ids = {row["id"] for row in rows}
    told = await logs(front, f"?from={third}")
    assert {row["id"] for row in told} & ids == {row["id"] for row in rows[2:]}
    told = await logs(front, f"?to={third}")
    assert {row["id"] for row in told} == {row["id"] for row in rows[:2]}
    # As a guide has it: a plus that nobody escaped arrives as a space.
    assert len(await logs(front, "?identity_id=sa:b&from=1+hour+ago")) == 3
    assert await logs(front, "?identity_id=sa:b&to=1+hour+ago") == []
    berlin = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    assert await logs(front, f"?identity_id=sa:b&from={berlin.replace('+00:00', '+01:00')}")


async def test_what_cannot_be_asked_is_refused_by_its_field(front: Front) -> None:
    for query, field in (
        ("from=yesterday", "from"),
        ("to=1+month+ago", "to"),
        ("decision=maybe", "decision"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=999999999999999999-1-1", "cursor"),
        ("secret_path=../x", "secret_path"),
        ("secret_path=app/*", "secret_path"),
        ("action=DROP", "action"),
        ("identity_id=a%20b", "identity_id"),
        ("since=1", "since"),
        ("from=1+hour+ago&from=2+hours+ago", "from"),
    ):
        answer = await front.client.get(f"{LOGS}?{query}")
        assert (answer.status, answer.body["error"]["field"]) == (422, field), query


async def test_pages_tell_each_row_once_while_more_is_recorded(front: Front) -> None:
    await fill(front, *[("sa:a", "secret.read", f"app/{n}", "allow") for n in range(25)])
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        answer = await front.client.get(f"{LOGS}?identity_id=sa:a&limit=10{cursor}")
        seen += [row["secret_path"] for row in answer.body["logs"]]
        cursor = f"&cursor={answer.body['next_cursor']}"
        await fill(front, ("sa:a", "secret.read", "app/new", "allow"))
    assert answer.body["next_cursor"] is None
    assert seen == [f"app/{n}" for n in reversed(range(25))]


async def test_rows_of_one_moment_are_told_once_across_pages(front: Front) -> None:
    """A batch has one time; what orders its rows is their place."""
    at = datetime.now(UTC) - timedelta(hours=1)
    await front.house.admin.execute(
        "INSERT INTO audit (tenant_id, chain_id, seq, at, identity_type, identity_id, action,"
        " decision, hash) SELECT 1, c, n, $1, 'user', 'user:a', 'x', 'allow', ''"
        " FROM generate_series(101, 103) c, generate_series(1, 9) n",
        at,
    )
    for filters in ("identity_id=user:a", "action=x"):
        seen: list[str] = []
        cursor = ""
        while cursor != "&cursor=None":
            answer = await front.client.get(f"{LOGS}?{filters}&limit=4{cursor}")
            seen += [row["id"] for row in answer.body["logs"]]
            cursor = f"&cursor={answer.body['next_cursor']}"
        assert seen == [f"aud_{c}_{n}" for c in (103, 102, 101) for n in range(9, 0, -1)]


async def test_another_tenants_rows_are_not_told(front: Front) -> None:
    await fill(front, *SOME)
    stranger = front.client.with_token(await front.other_tenant())
    answer = await stranger.get(LOGS)
    assert [row["action"] for row in answer.body["logs"]] == ["audit.query"]
    for query in (
        "?identity_id=sa:a",
        "?secret_path=app/a",
        "?secret_path=app/**",
        "?decision=deny",
    ):
        assert (await stranger.get(LOGS + query)).body["logs"] == []


async def test_the_log_is_found_by_its_indexes(front: Front) -> None:
    """Among many rows of many, none but those of a page are looked at."""
    admin = front.house.admin
    await admin.execute(
        "INSERT INTO tenants (tenant_id, slug) SELECT n, 't' || n FROM generate_series(2, 5) n"
    )
    await admin.execute(
        "INSERT INTO audit (tenant_id, chain_id, seq, at, identity_type, identity_id, action,"
        " secret_path, decision, hash)"
        " SELECT 1 + n % 5, 100 + n % 5, n, date_trunc('month', now()) + n * interval '1 ms',"
        " 'user', 'user:' || n % 400, 'secret.read', 'app/' || n % 1000 || '/' || n % 7,"
        " CASE WHEN n % 500 = 0 THEN 'deny' ELSE 'allow' END, ''"
        " FROM generate_series(1, 60000) n"
    )
    await admin.execute("ANALYZE audit")
    end = datetime.now(UTC) + timedelta(days=1)
    begin = datetime(1, 1, 1, tzinfo=UTC)
    wanted = {
        "audit_in_order": Asking(begin, end, 50),
        "audit_denied": Asking(begin, end, 50, decision="deny"),
        "audit_of_identity": Asking(begin, end, 50, identity="user:5"),
        "audit_of_path": Asking(begin, end, 50, path="app/5/0"),
    }
    for index, asking in wanted.items():
        plan = await explained(front, asking)
        names = "\n".join(_indexes(plan))
        found = "of_identity" if "identity" in index else index
        parts = {
            "audit_in_order": "tenant_id_at_chain_id_seq_idx",
            "audit_denied": "tenant_id_at_chain_id_seq_idx",
            "of_identity": "tenant_id_identity_id_at_idx",
            "audit_of_path": "tenant_id_secret_path_at_idx",
        }
        assert parts[found] in names, (index, names)
        assert _looked_at(plan) <= 200, (index, names)
    below = await explained(front, Asking(begin, end, 50, path="app/5/**"))
    assert _looked_at(below) <= 2000


async def explained(front: Front, asking: Asking) -> Any:
    """The plan of a page, as it was carried out."""
    found: list[Any] = []

    class Explaining:
        tenant = TENANT

        async def fetch(self, name: str, *args: object) -> list[Any]:
            async with front.house.admin.transaction():
                role = await front.house.app.db.fetch_global("database.own_role")
                await front.house.admin.execute(f'SET LOCAL ROLE "{role[0]["name"]}"')
                await front.house.admin.execute("SET LOCAL svsync.tenants = '1'")
                text = await front.house.admin.fetchval(
                    f"EXPLAIN (ANALYZE, FORMAT JSON) {statements()[name]}", *args
                )
            found.append(json.loads(text)[0]["Plan"])
            return []

    await store.page(Explaining(), asking)  # type: ignore[arg-type]
    return found[0]


def _nodes(plan: Any) -> list[Any]:
    return [plan, *(node for part in plan.get("Plans", []) for node in _nodes(part))]


def _indexes(plan: Any) -> list[str]:
    return [node["Index Name"] for node in _nodes(plan) if "Index Name" in node]


def _looked_at(plan: Any) -> int:
    """Rows that were read, those that a filter dropped included."""
    leaves = [node for node in _nodes(plan) if not node.get("Plans")]
    return sum(
        int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in leaves
    )


async def test_a_value_is_in_no_row(front: Front) -> None:
    await front.house.write("app/a", {"k": "sesame"})
    await front.client.get("/v1/secrets/app/a")
    rows = await front.house.rows("audit")
    assert "sesame" not in str([tuple(row) for row in rows])
    assert rows[0]["decision"] == Decision.ALLOW
