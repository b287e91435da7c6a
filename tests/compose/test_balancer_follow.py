"""The balancer outlives the engine: containers do, and what leads to them must."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dockyard.cli.compose import balance
from dockyard.client.errors import CANNOT_CONNECT, CONNECTION_LOST
from dockyard.compose.errors import BALANCER_FAILED
from dockyard.compose.layout import Layout
from dockyard.errors import Forbidden, Unavailable


class Engine:
    """What happens at each attempt to read events: an error, or a stream that ends with one."""

    def __init__(self, *attempts: Exception | Callable[[], Iterator[object]]) -> None:
        self._attempts = list(attempts)

    @contextlib.contextmanager
    def open(self, method: str, path: str, query: object) -> Iterator[Any]:
        attempt = self._attempts.pop(0)
        if isinstance(attempt, Exception):
            raise attempt
        yield SimpleNamespace(settimeout=lambda limit: None, objects=attempt)


def dies(error: BaseException) -> Callable[[], Iterator[object]]:
    def objects() -> Iterator[object]:
        yield {}
        raise error

    return objects


def test_an_engine_that_went_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    looks: list[Any] = []

    def fill(session: object, made: object, control: object, before: Any) -> dict[Any, Any]:
        looks.append(before)
        return {("b_web", 1): ("10.0.0.2", len(looks))}

    monkeypatch.setattr(balance, "_fill", fill)
    monkeypatch.setattr(balance, "ASK_AGAIN", 0.001)
    engine = Engine(
        dies(CONNECTION_LOST(host="h", cause="ended")), CANNOT_CONNECT(host="h", cause="refused"),
        CANNOT_CONNECT(host="h", cause="refused"), dies(KeyboardInterrupt()),
    )  # fmt: skip
    session: Any = SimpleNamespace(client=engine, shell=SimpleNamespace(complain=told.append))
    with pytest.raises(KeyboardInterrupt):
        balance._follow(session, Layout("shop"), SimpleNamespace())  # type: ignore[arg-type]
    assert told == ["the engine does not answer; the instances stay as they are", "the engine is back"]
    assert len(looks) == 4, "at the begin and at an event of each stream"
    assert looks[2] == {("b_web", 1): ("10.0.0.2", 2)}, "what HAProxy has is remembered"


@pytest.mark.parametrize(
    ("error", "kind"), [(BALANCER_FAILED(cause="gone"), Unavailable), (Forbidden("no"), Forbidden)], ids=["haproxy", "refused"]
)
def test_what_will_not_come_back_ends_it(error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "_fill", lambda *_: {})
    session: Any = SimpleNamespace(client=Engine(dies(error)), shell=SimpleNamespace(complain=lambda line: None))
    with pytest.raises(kind):
        balance._follow(session, Layout("shop"), SimpleNamespace())  # type: ignore[arg-type]
