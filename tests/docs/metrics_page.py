"""The table of docs/reference/metrics.md, made of a page on which everything happened once.

python -m tests.docs.metrics_page
"""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from svsync.observe.meter import BackendStanding, Standing, TenantStanding
from svsync.observe.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Described:
    """One metric; `samples` are the names that its lines have."""

    name: str
    type: str
    labels: tuple[str, ...]
    text: str
    samples: frozenset[str]


def described() -> list[Described]:
    """Every metric of svsync, and what Prometheus sees of the process, by name."""
    metrics = Metrics()
    metrics.run_ended("t", "b", "type", "ok", 1.0, {"created": 1})
    metrics.backend_called("t", "b", "type", "read", "ok", 1.0)
    metrics.webhook_delivered("t", "delivered", 1.0)
    metrics.read_served("t", "local", "ok", 1.0)
    metrics.feed_noticed("vault-audit", "told")
    metrics.feeds_down("vault-audit", 0)
    backend = BackendStanding("t", "b", "type", False, False, 1.0, 1.0, 1.0, 1, 0, 0, 0)
    page = metrics.page(Standing((backend,), (TenantStanding("t", 0, 0.0),))).decode()
    found = []
    for family in text_string_to_metric_families(page):
        names = {label for sample in family.samples for label in sample.labels} - {"le"}
        order = ("tenant", "backend", "type")
        labels = [n for n in order if n in names] + sorted(names - set(order))
        name = family.name + ("_total" if family.type == "counter" else "")
        samples = frozenset(sample.name for sample in family.samples)
        found.append(Described(name, family.type, tuple(labels), family.documentation, samples))
    return sorted(found, key=lambda metric: metric.name)


def table() -> str:
    rows = [
        f"| `{m.name}` | {m.type} | {', '.join(f'`{label}`' for label in m.labels)} | {m.text} |"
        for m in described()
        if m.name.startswith("svsync_")
    ]
    return "\n".join(["| metric | type | labels | what |", "| --- | --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(table())  # noqa: T201
