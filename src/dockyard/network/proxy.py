"""The daemon's side of the port proxy (``portproxy`` is the process): it is started when first needed, outlives the
daemon, and is found again by its control socket.

Requests go out in the background and in order: a container's start does not wait for a process that carries only what
the kernel does not.
"""

from __future__ import annotations

import array
import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dockyard.network.model import Published

log = logging.getLogger(__name__)
START_LIMIT = 10.0
"""Seconds until a new proxy must answer."""
CALL_LIMIT = 5.0
CHUNK = 100
"""Sockets in one message; the kernel takes 253."""
MESSAGE = 1 << 22
"""Bytes of the longest request: the IDs of 50,000 containers."""

_SO_SNDBUFFORCE = 32
Row = tuple[Published, socket.socket]


class Proxy:
    def __init__(self, control: Path) -> None:
        self._control = control
        self._serving: set[str] = set()
        self._last: asyncio.Task[None] | None = None

    async def serve(self, container: str, rows: Sequence[Row]) -> None:
        """The proxy accepts on these sockets from now on, and on no others for this container."""
        if not rows and container not in self._serving:
            return
        requests: list[tuple[Mapping[str, Any], list[int]]] = [({"drop": container}, [])]
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            told = [{"protocol": item.protocol, "address": item.address, "port": item.port} for item, _ in part]
            requests.append(({"add": container, "rows": told}, [os.dup(sock.fileno()) for _, sock in part]))
        self._serving.add(container)
        self._queue(requests, spawn=bool(rows))

    async def drop(self, container: str) -> None:
        """Waits: the port must be free for the next container. Also for what a daemon before us had it serve."""
        if container in self._serving or self._control.exists():
            self._serving.discard(container)
            self._queue([({"drop": container}, [])], spawn=False)
            await self.settled()

    def keep(self, containers: Collection[str]) -> None:
        """After a restart of the daemon: what others had is dropped, what these have goes on."""
        if self._control.exists():
            self._serving |= set(containers)
            self._queue([({"keep": list(containers)}, [])], spawn=False)

    async def settled(self) -> None:
        """Until all requests so far are done."""
        if self._last is not None:
            await asyncio.shield(self._last)

    def _queue(self, requests: Sequence[tuple[Mapping[str, Any], list[int]]], *, spawn: bool) -> None:
        self._last = asyncio.get_running_loop().create_task(self._send(self._last, requests, spawn=spawn))

    async def _send(
        self, before: asyncio.Task[None] | None, requests: Sequence[tuple[Mapping[str, Any], list[int]]], *, spawn: bool
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            await asyncio.to_thread(self._exchange, requests, spawn)
        except (FileNotFoundError, ConnectionRefusedError):
            return  # It has ended, so it carries nothing that could be dropped.
        except OSError as error:
            log.warning("the port proxy does not answer: %s", error)
        finally:
            for _, descriptors in requests:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _exchange(self, requests: Sequence[tuple[Mapping[str, Any], list[int]]], spawn: bool) -> None:
        with self._connected(spawn=spawn) as sock:
            for request, descriptors in requests:
                extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
                sock.sendmsg([json.dumps(request).encode()], extra)
                answer = sock.recv(4096)
                if answer != b"ok":
                    raise OSError(answer.decode(errors="replace") or "it ended")

    def _connected(self, *, spawn: bool) -> socket.socket:
        try:
            return self._connect()
        except OSError:
            if not spawn:
                raise
        self._spawn()
        return self._connect()

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.settimeout(CALL_LIMIT)
            sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, MESSAGE)
            sock.connect(str(self._control))
        except OSError:
            sock.close()
            raise
        return sock

    def _spawn(self) -> None:
        """Returns when it listens: it goes on in a child of its own then."""
        self._control.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "dockyard.network.portproxy", str(self._control)]
        try:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
                start_new_session=True, cwd="/", timeout=START_LIMIT,
            )  # fmt: skip
        except subprocess.SubprocessError as error:
            raise OSError(f"it cannot be started: {error}") from None
