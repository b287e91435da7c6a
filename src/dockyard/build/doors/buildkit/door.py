"""The door as the engine wires it: two kinds of connections in, one Builder behind."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...service import Builder
from . import rpc
from .control import Control
from .gateway import Gateway
from .http2 import Wire
from .jobs import Builds
from .ports import HostFacts, ImageShelf
from .records import Documents
from .session import Sessions
from .source import Place
from .spool import Shelf
from .wires import TransportWire

__all__ = ["BuildKitDoor"]

THREADS = 4


class BuildKitDoor:
    """``spool_directory``: a disk with room for contexts; ``socket_directory``: short paths, for agents' sockets, ours
    alone."""

    def __init__(
        self, builder: Builder, images: ImageShelf, facts: HostFacts, *, spool_directory: Path, socket_directory: Path
    ) -> None:
        self.sessions = Sessions()
        socket_directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        for left in socket_directory.iterdir():  # of a daemon that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._adopted: dict[asyncio.Task[None], TransportWire] = {}
        self._executor = ThreadPoolExecutor(THREADS, "buildkit")
        self._shelf = Shelf(spool_directory)
        place = Place(self._shelf, self._executor)
        self.builds = Builds(builder, images, self.sessions, place, facts, socket_directory)
        documents = Documents(self.builds)
        control = Control(self.builds, self.sessions, documents)
        self._routes = {**control.routes(), **Gateway(self.builds).routes(), **documents.routes()}

    async def serve_grpc(self, wire: Wire) -> None:
        """Until the client hangs up."""
        await rpc.serve(wire, self._routes)

    def adopt(self, transport: asyncio.Transport, early: bytes) -> None:
        """A connection of the main socket that began with HTTP/2's preface: it is ours from now on."""
        wire = TransportWire(transport, early)
        task = asyncio.get_running_loop().create_task(self.serve_grpc(wire))
        self._adopted[task] = wire
        task.add_done_callback(self._adopted.pop)

    async def serve_session(self, wire: Wire, id: str, *, shared_key: str = "", methods: Sequence[str] = ()) -> None:
        """Until the client hangs up. Raises Conflict for an ID that is taken."""
        await self.sessions.serve(wire, id, shared_key=shared_key, methods=methods)

    def close(self) -> None:
        self.sessions.close()
        for wire in self._adopted.values():
            wire.close()
        self._shelf.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
