"""Examples of every command, by its words: on its help page, in the man page and in the page of
the reference. What stands here is held to the parser by a test.

Names are those of the guides; a line is one that can be typed as it stands.
"""

from typing import Final

HEAD: Final = "examples:"

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "serve": (
        "svsync serve --config /etc/svsync/svsync.yaml",
        "svsync serve --role api --processes 4",
    ),
    "healthcheck": ("svsync healthcheck --ready",),
    "run-once": (
        "svsync run-once --backend fed_prod",
        "svsync run-once --backend fed_prod --path 'apps/billing/**' --dry-run --json",
    ),
    "plan": ("svsync plan --backend fed_prod",),
    "runs list": ("svsync runs list --backend fed_prod --limit 5",),
    "runs show": ("svsync runs show run_019a5f2c8b7e7d3f9a4b1c2d3e4f5a6b --json",),
    "backends list": ("svsync backends list",),
    "backends show": ("svsync backends show fed_prod --json",),
    "backends test": ("svsync backends test fed_prod",),
    "backends add": ("svsync backends add backend.yaml --require-healthy",),
    "backends apply": ("svsync backends apply --config /etc/svsync/svsync.yaml",),
    "backends pause": ("svsync backends pause fed_prod", "svsync backends pause --all"),
    "backends resume": ("svsync backends resume fed_prod",),
    "backends remove": ("svsync backends remove fed_prod --local-copies keep",),
    "map test": ("svsync map test --backend fed_prod kv/data/apps/billing/db",),
    "map lint": ("svsync map lint",),
    "status": ("svsync status", "svsync status --watch"),
    "conflicts list": ("svsync conflicts list --backend fed_prod",),
    "conflicts show": ("svsync conflicts show apps/billing/db --backend fed_prod",),
    "conflicts resolve": (
        "svsync conflicts resolve apps/billing/db --backend fed_prod --use-remote",
        "svsync conflicts resolve apps/billing/db --backend fed_prod --use-value merged.json",
    ),
    "secrets get": (
        "svsync secrets get apps/billing/db --field password",
        "svsync secrets get apps/billing/db --version 3 --json",
    ),
    "secrets list": ("svsync secrets list --prefix apps/billing/",),
    "secrets history": ("svsync secrets history apps/billing/db --json",),
    "secrets write": (
        "svsync secrets write apps/billing/db --tag billing,db --json-file billing.json",
        "svsync secrets write apps/billing/limits requests=100 --cas 2",
    ),
    "secrets delete": ("svsync secrets delete apps/billing/db --cas 4",),
    "secrets restore": ("svsync secrets restore apps/billing/db --version 3",),
    "copy": ("svsync copy --mapping copies.yaml --dry-run", "svsync copy --mapping copies.yaml"),
    "verify": (
        "svsync verify --mapping copies.yaml",
        "svsync verify --backend fed_prod --path 'apps/**'",
    ),
    "import env": ("svsync import env .env --map groups.yaml --dry-run",),
    "inventory": ("svsync inventory --backend fed_prod",),
    "inventory readers": ("svsync inventory readers --audit-log /var/log/vault/audit.log",),
    "retire plan": ("svsync retire plan 'apps/billing/**' --idle 30d --backend fed_prod",),
    "tokens create": (
        "svsync tokens create --identity sa:billing --scope secrets:read --expires 30d",
    ),
    "tokens list": ("svsync tokens list",),
    "tokens revoke": ("svsync tokens revoke tok_019a5f2c8b7e7d3f9a4b1c2d3e4f5a6b",),
    "policies list": ("svsync policies list",),
    "policies show": ("svsync policies show billing --json",),
    "policies create": (
        "svsync policies create billing --rule 'apps/billing/**=read,list'",
        "svsync policies create billing --file billing.yaml",
    ),
    "policies delete": ("svsync policies delete billing",),
    "policies bind": ("svsync policies bind billing sa:billing",),
    "policies unbind": ("svsync policies unbind billing sa:billing",),
    "policies test": ("svsync policies test apps/billing/db read --identity sa:billing",),
    "groups list": ("svsync groups list",),
    "groups set": ("svsync groups set user:ada@example.com ops oncall",),
    "auth whoami": ("svsync auth whoami --url https://svsync.internal:8443",),
    "webhooks list": ("svsync webhooks list",),
    "webhooks add": (
        "svsync webhooks add https://hooks.example.com/svsync --type federation.sync.failed",
    ),
    "webhooks test": ("svsync webhooks test whk_019a5f2c8b7e7d3f9a4b1c2d3e4f5a6b",),
    "webhooks deliveries": (
        "svsync webhooks deliveries whk_019a5f2c8b7e7d3f9a4b1c2d3e4f5a6b --state dead",
    ),
    "webhooks rotate": ("svsync webhooks rotate whk_019a5f2c8b7e7d3f9a4b1c2d3e4f5a6b",),
    "webhooks replay": ("svsync webhooks replay whk_019a5f2c8b7e7d3f9a4b1c2d3e4f5a6b",),
    "webhooks remove": ("svsync webhooks remove whk_019a5f2c8b7e7d3f9a4b1c2d3e4f5a6b",),
    "feeds add": ("svsync feeds add --backend fed_prod",),
    "feeds list": ("svsync feeds list --backend fed_prod",),
    "feeds revoke": ("svsync feeds revoke fds_019a5f2c8b7e7d3f9a4b1c2d3e4f5a6b",),
    "audit query": (
        "svsync audit query --identity-id sa:billing --start '7 days ago' --json",
        "svsync audit query --decision deny --limit 20",
    ),
    "audit verify": ("svsync audit verify",),
    "audit key": ("svsync audit key --tenant acme",),
    "keys status": ("svsync keys status",),
    "keys rotate": ("svsync keys rotate --all-tenants", "svsync keys rotate --root"),
    "keys rewrap": ("svsync keys rewrap --all-tenants",),
    "tenants list": ("svsync tenants list",),
    "tenants create": ("svsync tenants create acme",),
    "tenants shred": (
        "svsync tenants shred acme",
        "svsync tenants shred acme --confirm acme --json",
    ),
    "migrate": ("svsync migrate", "svsync migrate --after-restore"),
    "config check": ("svsync config check --config /etc/svsync/svsync.yaml",),
    "config schema": ("svsync config schema",),
    "retention run": ("svsync retention run --tenant acme",),
    "completion": ("svsync completion bash",),
    "schema": ("svsync schema secrets get", "svsync schema"),
    "doctor": ("svsync doctor --config /etc/svsync/svsync.yaml",),
    "demo": ("svsync demo", "svsync demo --keep --state-dir ./demo"),
}


def of(words: str) -> str | None:
    """What ends the help page of a command; None: there is no example of it."""
    lines = EXAMPLES.get(words)
    return None if lines is None else "\n  ".join((HEAD, *lines))
