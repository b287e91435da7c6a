"""The doctor asked about something that is not there."""

from __future__ import annotations

import pytest

from dockyard.doctor.examine import check_name
from dockyard.doctor.facts import Engine, Facts
from dockyard.errors import NotFound

FACTS = Facts(
    0.0, engine=Engine(reach="ok"), containers=[{"Id": "ab" * 32, "Name": "/web"}],
    networks=[{"Id": "cd" * 32, "Name": "bridge"}],
)  # fmt: skip


@pytest.mark.parametrize("name", ["web", "abab", "ab" * 32, ""])
def test_a_container_is_known_by_name_and_id(name: str) -> None:
    check_name(FACTS, "container", name)


@pytest.mark.parametrize(("kind", "name"), [("container", "bridge"), ("network", "web")])
def test_what_is_not_there_is_not_called_healthy(kind: str, name: str) -> None:
    with pytest.raises(NotFound, match=f"^no such {kind}: {name}$") as refused:
        check_name(FACTS, kind, name)
    assert refused.value.hint.startswith("dockyard ")


def test_nothing_is_said_when_the_engine_could_not_be_asked() -> None:
    check_name(Facts(0.0, engine=Engine(reach="absent")), "container", "web")
    check_name(Facts(0.0, engine=Engine(reach="ok"), missing={"containers": "timed out"}), "container", "web")
    check_name(FACTS, "image", "busybox")
