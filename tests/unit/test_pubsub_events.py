"""Messages of a subscription: which secret each of them names, and which tell of no change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pubsub import notice

from svsync.domain.paths import remote_problem
from svsync.feeds.gcp_pubsub.events import Place, name_of

ACME = Place("acme")


@pytest.mark.parametrize(
    "kind",
    [
        "SECRET_CREATE",
        "SECRET_UPDATE",
        "SECRET_DELETE",
        "SECRET_VERSION_ADD",
        "SECRET_VERSION_ENABLE",
        "SECRET_VERSION_DISABLE",
        "SECRET_VERSION_DESTROY",
        "SECRET_VERSION_DESTROY_SCHEDULED",
        "SECRET_SOMETHING_NEW",
    ],
)
def test_each_kind_of_change_names_its_secret(kind: str) -> None:
    assert name_of(notice("app_db", kind), ACME) == "app_db"


@pytest.mark.parametrize(
    "attributes", [notice("app_db", "SECRET_ROTATE"), {"eventType": "TOPIC_CONFIGURED"}]
)
def test_what_changed_nothing_is_passed_over(attributes: dict[str, str]) -> None:
    assert name_of(attributes, ACME) is None


@pytest.mark.parametrize(
    ("place", "secret", "ours"),
    [
        (Place("acme"), "projects/123/secrets/x", True),
        (Place("acme"), "projects/acme/secrets/x", True),
        (Place("123"), "projects/123/secrets/x", True),
        (Place("123"), "projects/456/secrets/x", False),
        (Place("acme"), "projects/other/secrets/x", False),
        (Place("acme"), "projects/123/locations/europe-west3/secrets/x", False),
        (Place("acme", "europe-west3"), "projects/123/locations/europe-west3/secrets/x", True),
        (Place("acme", "europe-west3"), "projects/123/locations/us-east1/secrets/x", False),
        (Place("acme", "europe-west3"), "projects/123/secrets/x", False),
    ],
)
def test_secret_is_of_the_project_and_the_location(place: Place, secret: str, ours: bool) -> None:
    assert name_of({"eventType": "SECRET_UPDATE", "secretId": secret}, place) == (
        "x" if ours else None
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"eventType": "secret_update", "secretId": "projects/1/secrets/x"},
        {"eventType": "OBJECT_FINALIZE", "secretId": "projects/1/secrets/x"},
        {"eventType": "SECRET_UPDATE"},
        {"eventType": "SECRET_UPDATE", "secretId": "x"},
        {"eventType": "SECRET_UPDATE", "secretId": "projects/1/secrets/x/versions/1"},
        {"eventType": "SECRET_UPDATE", "secretId": "projects/1/secrets/.."},
        {"eventType": "SECRET_UPDATE", "secretId": f"projects/1/secrets/{'x' * 256}"},
    ],
)
def test_what_names_no_secret_is_no_notice(attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="notice"):
        name_of(attributes, ACME)


@given(
    st.fixed_dictionaries(
        {"eventType": st.just("SECRET_UPDATE") | st.text(max_size=20)},
        optional={"secretId": st.text(max_size=40).map("projects/1/secrets/{}".format) | st.text()},
    )
)
def test_whatever_a_forged_notice_holds_it_names_what_may_be_asked_for(
    attributes: dict[str, str],
) -> None:
    try:
        name = name_of(attributes, ACME)
    except ValueError:
        return
    assert name is None or remote_problem(name, max_bytes=255) is None
