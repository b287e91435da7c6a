"""Events: what happened, to whom, when. A ring of the last 256 and bounded queues to those who listen.

A listener that does not read loses the oldest of its queue rather than holding up the engine; nothing here awaits.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from dockyard.engine.plan.select import match_labels
from dockyard.lib import clock

RING_SIZE = 256
SUBSCRIBER_QUEUE = 1024

Event = dict[str, Any]
Filters = Mapping[str, Sequence[str]]


class Events:
    def __init__(self) -> None:
        self._ring: deque[Event] = deque(maxlen=RING_SIZE)
        # Weak: a stream that was made and never read must not be kept alive by us.
        self._listeners: weakref.WeakSet[asyncio.Queue[Event | None]] = weakref.WeakSet()

    def emit(self, kind: str, action: str, actor: str, **attributes: str) -> None:
        """``kind``: container, image, volume, network, daemon, builder. ``attributes`` are shown as they are."""
        moment = clock.now()
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor, "Attributes": attributes},
            "scope": "local",
            "time": moment // 1_000_000_000,
            "timeNano": moment,
        }
        self._ring.append(event)
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    def statistics(self) -> dict[str, int]:
        return {"kept": len(self._ring), "listeners": len(self._listeners)}

    def close(self) -> None:
        """Ends every listener's stream."""
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def stream(self, since: int, until: int, filters: Filters) -> AsyncIterator[Event]:
        """Past events from ``since`` and new ones until ``until``, both in nanoseconds, 0 where not given.

        Without both there are no past events, with ``until`` alone all of them (moby daemon/events/events.go).
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue(SUBSCRIBER_QUEUE)
        self._listeners.add(queue)
        past = [event for event in self._ring if (since or until) and since <= event["timeNano"] <= (until or 1 << 63)]
        return self._drain(queue, past, until, filters)

    async def _drain(
        self, queue: asyncio.Queue[Event | None], past: list[Event], until: int, filters: Filters
    ) -> AsyncIterator[Event]:
        try:
            for event in past:
                if matches(event, filters):
                    yield event
            while True:
                remaining = (until - clock.now()) / 1e9 if until else None
                if remaining is not None and remaining <= 0:
                    return
                try:
                    async with asyncio.timeout(remaining):
                        event_or_end = await queue.get()
                except TimeoutError:
                    return
                if event_or_end is None:
                    return
                if matches(event_or_end, filters):
                    yield event_or_end
        finally:
            self._listeners.discard(queue)


def matches(event: Event, filters: Filters) -> bool:
    """Values of one filter are alternatives, different filters must all hold (moby daemon/events/filter.go)."""
    attributes: dict[str, str] = event["Actor"]["Attributes"]
    for name, wanted in filters.items():
        if not wanted:
            continue
        if name == "event":
            if not any(event["Action"] == item or event["Action"].startswith(item + ":") for item in wanted):
                return False
        elif name == "type":
            if event["Type"] not in wanted:
                return False
        elif name == "scope":
            if event["scope"] not in wanted:
                return False
        elif name == "label":
            if not match_labels(wanted, attributes):
                return False
        elif not _same_object(event, name, wanted):
            return False
    return True


def _same_object(event: Event, name: str, wanted: Sequence[str]) -> bool:
    """``container=x`` matches the ID, a prefix of it, or the name; ``image`` also matches a container's image."""
    actor, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
    if name == "image":
        names = {attributes.get("image", ""), attributes.get("name", "") if event["Type"] == "image" else "", actor}
        names |= {item.rpartition(":")[0] for item in names if ":" in item}
        return any(item in names for item in wanted)
    if event["Type"] != name:
        return False
    return any(actor.startswith(item) or attributes.get("name") == item for item in wanted if item)
