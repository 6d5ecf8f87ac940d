"""A walk through folders that are read through: in order, from any place, and not for long."""

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from svsync.domain.ids import BackendId
from svsync.services.proxied_folders import ProxiedFolder
from svsync.services.proxied_walk import WALK_S, ProxiedWalk


class Tree:
    """Secrets by their paths, of which each look takes some seconds."""

    def __init__(self, paths: Collection[str], seconds: float = 0.0) -> None:
        self.paths = paths
        self.seconds = seconds
        self.now = 0.0
        self.asked: list[str] = []

    async def look(self, folder: str, _unasked: Collection[BackendId]) -> ProxiedFolder:
        self.asked.append(folder)
        self.now += self.seconds
        below = [path[len(folder) :] for path in self.paths if path.startswith(folder)]
        secrets: dict[str, dict[str, object]] = {
            folder + name: {"path": folder + name} for name in below if "/" not in name
        }
        folders = {f"{folder}{name.partition('/')[0]}/" for name in below if "/" in name}
        return ProxiedFolder(secrets, folders, calls=1)

    def walk(self, *roots: str, after: str = "", calls: int = 50) -> ProxiedWalk:
        return ProxiedWalk(self.look, roots, after, epoch=1, clock=lambda: self.now, calls=calls)


async def taken(walk: ProxiedWalk, bound: str | None = None) -> list[str]:
    found = []
    while (secret := await walk.least(bound)) is not None:
        found.append(str(secret["path"]))
        walk.take()
    return found


async def test_a_folder_is_asked_for_when_the_walk_gets_to_it() -> None:
    tree = Tree(["a/x", "b/x", "c/x"])
    walk = tree.walk("")
    assert await taken(walk, "a/z") == ["a/x"]
    assert tree.asked == ["", "a/"]
    assert await taken(walk, "b") == []
    assert tree.asked == ["", "a/"]
    assert await taken(walk) == ["b/x", "c/x"]
    assert walk.over


async def test_what_stands_before_it_is_not_asked_for_again() -> None:
    tree = Tree(["a/b/x", "a/b/y", "a/c/x", "d/x"])
    walk = tree.walk("", after="a/b/x")
    assert await taken(walk, "a/b/y") == ["a/b/y"]
    assert tree.asked == ["a/b/"], "those around it can wait"
    assert await taken(walk) == ["a/c/x", "d/x"]
    assert tree.asked == ["a/b/", "a/", "a/c/", "", "d/"]


async def test_it_begins_no_call_once_its_time_is_over() -> None:
    tree = Tree(["a/x", "b/x", "c/x"], seconds=WALK_S / 2)
    walk = tree.walk("")
    assert await taken(walk) == ["a/x"]
    assert (walk.stopped, walk.over) == ("b/", False)
    assert tree.asked == ["", "a/"]


async def test_a_slow_folder_is_waited_for_once_a_walk_so_that_each_gets_further() -> None:
    tree = Tree(["a/x", "b/x"], seconds=WALK_S * 2)
    found, after = [], ""
    for _ in range(10):
        walk = tree.walk("", after=after)
        found += await taken(walk)
        if walk.over:
            break
        assert walk.stopped is not None
        assert walk.stopped > after
        after = walk.stopped
    assert found == ["a/x", "b/x"]


_SEGMENT = st.sampled_from(["a", "a-b", "a.b", "ab", "b"])
_PATHS = st.lists(_SEGMENT, min_size=1, max_size=4).map("/".join)


@given(
    paths=st.sets(_PATHS, max_size=25),
    roots=st.sets(st.sampled_from(["a", "a/", "a/b", "a-", "ab/", "b"]), min_size=1),
    calls=st.integers(1, 4),
)
async def test_walks_that_go_on_where_others_stopped_see_all_once_and_in_order(
    paths: set[str], roots: set[str], calls: int
) -> None:
    least = sorted(
        one for one in roots if not any(one != other and one.startswith(other) for other in roots)
    )
    tree = Tree(paths)
    found: list[str] = []
    after = ""
    while True:
        walk = tree.walk(*least, after=after, calls=calls)
        found += await taken(walk)
        if walk.over:
            break
        assert walk.stopped is not None
        after = max(walk.stopped, *found[-1:], "")
    assert found == sorted(path for path in paths if path.startswith(tuple(least)))
