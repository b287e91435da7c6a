"""Seeing that somebody else changed the firewall: a listener on nf_tables' notifications.

``nft flush ruleset``, a restart of firewalld or iptables-restore take our tables or put a policy in our way (moby#16816,
netavark#230); the owner is called once things have been quiet for ``QUIET``, and puts back what is missing. Changes of
our own are told apart by the thread id that the kernel adds to each transaction (NFTA_GEN_PROC_PID).
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Mapping

from dockyard.errors import DockyardError
from dockyard.kernel.netlink import NetlinkSocket, attributes

log = logging.getLogger(__name__)
QUIET = 0.05
"""Seconds. iptables-restore and firewalld send many transactions in a row."""
NETLINK_NETFILTER, GROUP_NFTABLES = 12, 7
_SUBSYSTEM = 10 << 8
_NEW_CHAIN, _NEW_GENERATION = 3, 15
_REMOVALS = frozenset({2, 5, 8, 11, 14})
"""DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM."""


class FirewallWatch:
    """Opened in the host's namespace, on the daemon's loop."""

    def __init__(
        self, heal: Callable[[str, bool], Awaitable[bool]], tables: Mapping[str, bool], made: Callable[[int], bool]
    ) -> None:
        """``tables``: those that concern us, with whether they are ours alone; ``heal`` is told who did it and whether
        it was ours, and answers whether something was put back; ``made``: a thread or process of ours."""
        self._heal = heal
        self._tables = tables
        self._made = made
        self._ours = False
        self._netlink = NetlinkSocket(NETLINK_NETFILTER, blocking=False)
        self._netlink.join(GROUP_NFTABLES)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._netlink.fileno(), self._readable)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._concerns = False
        self._touched = False
        self._culprit = ""
        self.restored = asyncio.Event()
        """Set after each repair; whoever waits for the next one clears it."""

    def close(self) -> None:
        self._loop.remove_reader(self._netlink.fileno())
        self._netlink.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _readable(self) -> None:
        try:
            while messages := self._netlink.notifications():
                for kind, body in messages:
                    self._take(kind, body)
        except OSError:  # ENOBUFS: messages were lost, so anything may have happened
            self._schedule()

    def _take(self, kind: int, body: bytes) -> None:
        """Messages of a transaction come first, then its generation, which names who did it."""
        if kind & ~0xFF != _SUBSYSTEM:
            return
        parts = attributes(body[4:])
        what = kind & 0xFF
        if what == _NEW_GENERATION:
            thread = struct.unpack("!I", parts[2])[0] if 2 in parts else 0
            if self._concerns and not self._made(thread):
                self._culprit = parts.get(3, b"").rstrip(b"\0").decode(errors="replace")
                self._ours = self._ours or self._touched
                self._schedule()
            self._concerns = self._touched = False
            return
        table = parts.get(1, b"").rstrip(b"\0").decode(errors="replace")
        if (ours := self._tables.get(table)) is not None:
            self._concerns = self._concerns or what in _REMOVALS or (not ours and what == _NEW_CHAIN)
            self._touched = self._touched or (ours and what in _REMOVALS)

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(QUIET, self._start)

    def _start(self) -> None:
        if self._task is not None and not self._task.done():
            self._schedule()
            return
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            ours, self._ours = self._ours, False
            restored = await self._heal(self._culprit, ours)
        except DockyardError as error:
            log.error("cannot restore the firewall: %s", error)
            return
        if restored:
            self.restored.set()
