"""One container: the owner of its record and of everything in flight around it.

Only this object replaces the record. Changing operations take ``lock``, so that they come one after another per
container and never touch a neighbour; reads take the frozen record and wait for nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.engine.model import Record
from dockyard.engine.view import Surroundings, inspect_document, list_row
from dockyard.errors import Exhausted
from dockyard.model.exchange import ExitStatus

if TYPE_CHECKING:
    from dockyard.engine.kit import Kit

_encoder = msgspec.json.Encoder()


class Container:
    def __init__(self, kit: Kit, record: Record) -> None:
        self.kit = kit
        self.record = record
        self.lock = asyncio.Lock()
        self.exec_ids: list[str] = []
        self.watcher: asyncio.Task[Any] | None = None
        self.health: asyncio.Task[Any] | None = None
        self.restart_timer: asyncio.Task[Any] | None = None
        self.restart_delay = 0.0
        self.owed = False
        """The record could not be written down: the disk was full."""
        self.exited = asyncio.Event()
        if not record.live:
            self.exited.set()
        self._waiters: list[tuple[str, asyncio.Future[ExitStatus]]] = []
        self._document: bytes | None = None
        self._row: dict[str, Any] | None = None

    # -- the record ---------------------------------------------------------------------------------------------

    def save(self, record: Record) -> None:
        """Stores, then shows. Raises Conflict for a name in use, Exhausted on a full disk (the old record then stays).

        What ends or removes something may take the reserve of the disk: else it could never become empty again.
        """
        try:
            self.kit.store.put(record)
        except Exhausted:
            if record.pending in {"create", "start"} or not self.kit.reserve.spend():
                raise
            self.kit.store.put(record)
        self.owed = False
        self.show(record)

    def admit(self, record: Record) -> None:
        """Saves what has happened already. On a full disk it is shown all the same (as dockerd does) and ``owed``."""
        try:
            self.save(record)
        except Exhausted:
            self.owed = True
            self.show(record)

    def show(self, record: Record) -> None:
        """Replaces the record in memory only: for what need not survive (a health result)."""
        self.record = record
        self.forget_views()

    def forget_views(self) -> None:
        self._document = self._row = None

    # -- views --------------------------------------------------------------------------------------------------

    def document(self) -> bytes:
        """Encoded inspect document, kept until something changes: inspect is polled by everything."""
        if self._document is None:
            self._document = _encoder.encode(inspect_document(self.record, self.surroundings()))
        return self._document

    def surroundings(self, **more: Any) -> Surroundings:
        record, kit = self.record, self.kit
        return Surroundings(
            network=kit.network.settings(record.id),
            graph_driver=kit.rootfs.graph_driver(record.id),
            exec_ids=self.exec_ids,
            directory=str(kit.directory(record.id)),
            **more,
        )

    def row(self, now: int) -> dict[str, Any]:
        from dockyard.engine.plan.status import status_text

        if self._row is None:
            self._row = list_row(self.record, self.kit.network.settings(self.record.id), now)
        else:
            self._row["Status"] = status_text(self.record.state, now)
        return self._row

    # -- waiting ------------------------------------------------------------------------------------------------

    def wait(self, condition: str) -> asyncio.Future[ExitStatus]:
        """``not-running`` (at once when it is not), ``next-exit`` or ``removed``."""
        future: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        if condition == "not-running" and not self.record.live and self.record.state.status != "restarting":
            future.set_result(self.exit_status())
        else:
            self._waiters.append((condition, future))
            future.add_done_callback(lambda _: self._drop_waiter(future))
        return future

    def _drop_waiter(self, future: asyncio.Future[ExitStatus]) -> None:
        self._waiters = [item for item in self._waiters if item[1] is not future]

    def wake(self, *conditions: str, error: str = "") -> None:
        """Tells those who waited since before the end. An error is told by what failed (the start): the docker CLI would
        print it a second time, as one of the wait."""
        status = ExitStatus(self.record.state.exit_code, error)
        for condition, future in list(self._waiters):
            if condition in conditions and not future.done():
                future.set_result(status)

    def exit_status(self) -> ExitStatus:
        return ExitStatus(self.record.state.exit_code, self.record.state.error)

    # -- events -------------------------------------------------------------------------------------------------

    def emit(self, action: str, **attributes: str) -> None:
        record = self.record
        labels = record.config.labels or {}
        self.kit.events.emit(
            "container",
            action,
            record.id,
            **(labels | {"image": record.config.image, "name": record.name} | attributes),
        )

    def stop_watching(self) -> None:
        """Ends the health checks and a pending restart; the exit watcher ends by itself."""
        for task in (self.health, self.restart_timer):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self.health = self.restart_timer = None
