"""Delivering webhooks: lease a due row, post it, write down what came back."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dockyard.registry.addresses import forbidden
from dockyard.registry.core import Core, repeat
from dockyard.registry.database import Tx
from dockyard.registry.errors import THING_UNKNOWN
from dockyard.registry.webhooks import ANSWER_KEPT, LEASE_SECONDS, POST_SECONDS, next_due, signature

_LOOK_SECONDS = 1.0
_LANES = 4
_BATCH = 20


class Deliverer:
    def __init__(self, core: Core) -> None:
        self.core = core
        self._lane = ThreadPoolExecutor(_LANES, thread_name_prefix="registry-webhook")

    async def run(self) -> None:
        await repeat(_LOOK_SECONDS, self._deliver_all, "deliver webhooks")

    async def _deliver_all(self) -> None:
        while await self.deliver_due():
            pass

    async def deliver_due(self) -> int:
        """Deliver what is due now; how many were tried."""
        now = self.core.clock()
        due = await self.core.db.read(
            lambda tx: tx.all(
                "SELECT d.id, d.due, d.event, d.payload, d.attempts, w.url, w.secret FROM deliveries d JOIN webhooks w"
                " ON w.id = d.webhook WHERE d.due <= ? ORDER BY d.due LIMIT ?",
                (now, _BATCH),
            )
        )
        if not due:
            return 0
        mine = await self.core.db.write(lambda tx: [row for row in due if _lease(tx, row[0], row[1], now)])
        await asyncio.gather(*(self._deliver(row) for row in mine))
        return len(mine)

    async def _deliver(self, row: tuple[Any, ...]) -> None:
        id_, _, event, payload, attempts, url, secret = row
        status, answer = await asyncio.get_running_loop().run_in_executor(
            self._lane, _post, url, secret, event, payload.encode()
        )
        now = self.core.clock()
        done = 200 <= status < 300
        due = None if done else next_due(attempts + 1, now)
        await self.core.db.write(
            lambda tx: tx.run(
                "UPDATE deliveries SET attempts = attempts + 1, status = ?, answer = ?, due = ?, finished = ?"
                " WHERE id = ?",
                (status, answer[:ANSWER_KEPT], due, now if due is None else None, id_),
            )
        )

    async def again(self, namespace: str, delivery: int) -> None:
        """Send it once more, now. Raises THING_UNKNOWN."""
        now = self.core.clock()

        def update(tx: Tx) -> None:
            changed = tx.run(
                "UPDATE deliveries SET due = ?, attempts = 0, finished = NULL WHERE id = ? AND webhook IN"
                " (SELECT id FROM webhooks WHERE namespace = ?)",
                (now, delivery, namespace),
            )
            if changed == 0:
                raise THING_UNKNOWN(what="delivery", name=str(delivery))

        await self.core.db.write(update)

    async def close(self) -> None:
        self._lane.shutdown(wait=False, cancel_futures=True)


def _lease(tx: Tx, id_: int, due: float, now: float) -> bool:
    return tx.run("UPDATE deliveries SET due = ? WHERE id = ? AND due = ?", (now + LEASE_SECONDS, id_, due)) == 1


def _post(url: str, secret: str, event: str, body: bytes) -> tuple[int, str]:
    """(status, begin of the answer); status 0 when there was none."""
    import urllib3

    refused = forbidden(url)
    if refused:
        return 0, refused
    headers = {"Content-Type": "application/json", "User-Agent": "dockyard-registry", "X-Dockyard-Event": event}
    if secret:
        headers["X-Dockyard-Signature-256"] = signature(secret, body)
    try:
        answer = urllib3.request(
            "POST", url, body=body, headers=headers, timeout=POST_SECONDS, retries=False, redirect=False,
            preload_content=False,
        )  # fmt: skip
        text = answer.read(ANSWER_KEPT).decode("utf-8", "replace")
        answer.release_conn()
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        return 0, str(error)
    return int(answer.status), text
