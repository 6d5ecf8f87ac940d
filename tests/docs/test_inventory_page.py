"""Does the page on inventories and retiring tell every reason there is?"""

from tests.docs.test_docs import first_cells, section

from svsync.domain import inventory
from svsync.domain.inventory import Judged
from svsync.domain.retirement import Held

PAGE = "docs/how-to/inventory-and-retire.md"


def test_each_reason_to_leave_a_secret_at_its_source_is_on_the_page() -> None:
    assert first_cells(section(PAGE, "What may be deleted there"))[1:] == [str(h) for h in Held]


def test_each_reason_to_look_at_a_secret_is_on_the_page() -> None:
    judged = [one for one in vars(inventory).values() if isinstance(one, Judged)]
    reasons = {one.reason for one in judged} - {"secret", "dynamic_engine", "unknown_engine"}
    told = first_cells(section(PAGE, "What a store holds"))
    assert set(told[told.index("reason") + 1 :]) == reasons
