"""Ids of a user namespace and the host's, and the files that give them. Pure parts."""

from __future__ import annotations

import pytest

from dockyard.engine.plan.create import check_remapped
from dockyard.engine.remap import free_range, parse_subordinate
from dockyard.errors import InvalidParameter
from dockyard.model import HostConfig
from dockyard.model.idmap import OVERFLOW, UNCHANGED, IdMaps, IdRange, subordinate
from dockyard.storage.upper import capability_inside, capability_outside

MAPS = IdMaps(subordinate([(500000, 10), (100000, 5)]), (IdRange(0, 200000, 65536),))


def test_ranges_are_lined_up_by_their_first_id() -> None:
    assert MAPS.uids == (IdRange(0, 100000, 5), IdRange(5, 500000, 10))
    assert MAPS.root == (100000, 200000)
    assert MAPS.outside(6, 7) == (500001, 200007)
    assert MAPS.inside(500001, 200007) == (6, 7)


def test_what_is_not_mapped() -> None:
    assert MAPS.inside(0, 0) == (OVERFLOW, OVERFLOW)
    with pytest.raises(ValueError, match="id 15 is not mapped"):
        MAPS.outside(15, 0)


def test_without_ranges_nothing_changes() -> None:
    assert not UNCHANGED
    assert UNCHANGED.root == (0, 0)
    assert UNCHANGED.inside(5, 6) == UNCHANGED.outside(5, 6) == (5, 6)


def test_lines_of_subuid() -> None:
    text = "# people\n\njoe:100000:65536\n1000:300000:10\nann:1:1\njoe:400000:5\n"
    assert parse_subordinate(text, ("joe", "1000")) == [(100000, 65536), (300000, 10), (400000, 5)]
    assert parse_subordinate("other:x:y\n", ("joe",)) == []
    with pytest.raises(ValueError, match="Format not correct for joe:x:5"):
        parse_subordinate("joe:x:5\n", ("joe",))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("", 100000), ("a:100000:65536\n", 165536), ("a:165536:65536\n", 100000), ("a:100001:1\nb:300000:5\n", 100002),
        ("broken\na:100000:65536\nb:200000:65536\n", 265536),
    ],
)  # fmt: skip
def test_a_free_range_touches_nobodys(text: str, first: int) -> None:
    assert free_range(text) == first


def test_file_capabilities_are_bound_to_the_namespaces_root_and_freed() -> None:
    plain = bytes.fromhex("0100000200200000000000000000000000000000")
    bound = capability_outside(plain, MAPS)
    assert bound == bytes.fromhex("0100000300200000000000000000000000000000") + (100000).to_bytes(4, "little")
    assert capability_inside(bound, MAPS) == plain
    assert capability_outside(bound, MAPS) == bound
    foreign = bound[:20] + (7).to_bytes(4, "little")
    assert capability_inside(foreign, MAPS) == foreign


def test_what_a_remapped_container_may_ask_for() -> None:
    check_remapped(HostConfig(network_mode="container:x", ipc_mode="host"))
    for host in (HostConfig(privileged=True), HostConfig(network_mode="host"), HostConfig(pid_mode="host")):
        with pytest.raises(InvalidParameter, match=r"user namespaces|host namespace"):
            check_remapped(host)
