"""What calls cost, and what a month of cycles does."""

from datetime import date

import pytest

from svsync import registry
from svsync.cli.costs import money, of_month, of_run
from svsync.domain import published
from svsync.domain.costs import Prices, Terms
from svsync.domain.quotas import OPERATIONS
from svsync.domain.runs import Count, Report

PRICES = Prices(
    calls={"list": 0.05, "read": 0.5}, secret_month=0.4, source="a page", seen="2026-11"
)
KNOWN = {
    "aws": published.AWS_SECRETS_MANAGER,
    "azure": published.AZURE_KEY_VAULT,
    "gcp": published.GCP_SECRET_MANAGER,
}


def test_calls_are_billed_by_their_class_and_what_is_not_named_is_not() -> None:
    assert PRICES.of_calls({"list": 10_000, "read": 1_000, "login": 10**9}) == 0.1


def test_a_month_has_as_many_cycles_as_the_interval_lets_through() -> None:
    month = PRICES.by_month({"list": 100}, 900, 10)
    assert month.cycle == 0.0005
    assert month.calls == pytest.approx(0.0005 * 2_880)
    assert month.secrets == 4.0


def test_a_report_tells_what_its_calls_cost_and_only_where_they_are_billed() -> None:
    report = Report()
    report.call("list", 10_000)
    assert "estimated_cost" not in report.counts()
    report.prices = PRICES
    assert report.counts()["estimated_cost"] == {"amount": 0.05, "currency": "USD"}


@pytest.mark.parametrize("count", list(Count))
def test_a_run_is_quiet_where_nothing_changed(count: Count) -> None:
    report = Report()
    report.add(count)
    looked_at = {Count.LISTED, Count.UNCHANGED, Count.RETOKENED, Count.UNLISTED}
    still = {Count.LISTING_MISSED, Count.ROLLED_BACK, Count.DETACHED, Count.MOVED}
    beside = {Count.IMPORTED_VERSIONS, Count.FIELDS_DROPPED, Count.METADATA_REFUSED}
    assert report.quiet == (count in looked_at | still | beside)


# --- what is published --------------------------------------------------------------------


@pytest.mark.parametrize("terms", KNOWN.values(), ids=KNOWN.keys())
def test_each_price_has_its_page_and_date(terms: Terms) -> None:
    assert terms.prices is not None
    assert "pricing" in terms.prices.source
    date.fromisoformat(terms.prices.seen)
    assert terms.prices.calls.keys() <= set(OPERATIONS)
    assert terms.limits.keys() <= set(OPERATIONS)


@pytest.mark.parametrize(
    ("together", "quota"),
    [
        # a second: the quotas as `domain.published` tells them
        ((published.AWS_SECRETS_MANAGER, ("metadata",)), 10_000),
        ((published.AWS_SECRETS_MANAGER, ("list",)), 50),
        ((published.AWS_SECRETS_MANAGER, ("write",)), 50),
        ((published.AZURE_KEY_VAULT, ("write",)), 30),
        ((published.AZURE_KEY_VAULT, ("list", "metadata", "read", "delete")), 400),
        ((published.GCP_SECRET_MANAGER, ("read",)), 1_500),
        ((published.GCP_SECRET_MANAGER, ("list", "metadata")), 10),
        ((published.GCP_SECRET_MANAGER, ("write", "delete")), 10),
    ],
)
def test_half_of_each_quota_is_left_to_others(
    together: tuple[Terms, tuple[str, ...]], quota: float
) -> None:
    terms, classes = together
    taken = sum(
        limit.per_second for name, limit in terms.limits.items()
        if name in classes and limit.per_second
    )  # fmt: skip
    assert quota * 0.25 <= taken <= quota * 0.5


@pytest.mark.parametrize(
    ("kind", "terms"),
    [
        ("hashicorp-vault", Terms()),
        ("aws-secrets-manager", published.AWS_SECRETS_MANAGER),
        ("azure-key-vault", published.AZURE_KEY_VAULT),
        ("gcp-secret-manager", published.GCP_SECRET_MANAGER),
    ],
)
def test_each_type_goes_by_what_its_provider_publishes(kind: str, terms: Terms) -> None:
    driver = registry._named(registry._BACKENDS[kind])
    assert driver.features.terms == terms


# --- in words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "0.00 USD"),
        (0.00001, "less than 0.0001 USD"),
        (0.0005, "0.0005 USD"),
        (0.0123, "0.012 USD"),
        (1.444, "1.44 USD"),
        (12_345.6, "12,345.60 USD"),
    ],
)
def test_small_amounts_keep_digits_that_say_something(amount: float, words: str) -> None:
    assert money(amount, "USD") == words


def test_costs_are_said_to_be_estimates() -> None:
    cost = PRICES.by_month({"list": 100}, 900, 10).to_json()
    assert of_month(cost) == (
        "about 0.0005 USD a cycle, 1.44 USD a month, beside 4.00 USD for keeping the secrets"
        " there (estimated by list prices)"
    )
    assert of_run({"amount": 0.5, "currency": "USD"}) == "about 0.50 USD"
    assert of_run({"amount": 1e-6, "currency": "USD"}) == "less than 0.0001 USD"
    assert (of_run(None), of_month(None)) == (None, None)
