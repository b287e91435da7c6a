"""Results to the client: one file (an archive), or a tree by fsutil's protocol, where we are the sender."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError

from dockyard.oci import tar

from ...copy import Packing, Placed, pack
from ...proto import rpc_pb2, session_pb2
from ...tree import ROOT, Entry, RootTree
from .errors import EXPORT_FAILED
from .filesync import MODE_DIR, MODE_PIPE, MODE_SETGID, MODE_SETUID, MODE_STICKY, MODE_SYMLINK
from .http2 import Headers, StreamLost
from .rpc import Exchange, RpcError
from .session import ClientSession

__all__ = ["archive_of", "send_file", "send_tree", "stat_of"]

DIFF_COPY = "/moby.filesync.v1.FileSend/DiffCopy"
EXPORTER_ID = "buildkit-attachable-exporter-id"
PIECE = 256 << 10
BATCH = 500
"""Entries looked at per visit to a thread."""
REPORT_PAUSE = 0.2

Packet = session_pb2.Packet
Report = Callable[[int], None]
T = TypeVar("T")


async def send_file(
    session: ClientSession, exporter: int, pieces: AsyncIterator[bytes], metadata: Mapping[str, str], report: Report
) -> None:
    """Raises System. ``metadata`` are the exporter's response, which the client may name the file by."""
    headers: Headers = [(EXPORTER_ID, str(exporter))]
    headers += [(f"exporter-md-{key}", value) for key, value in metadata.items() if value.isascii()]
    sent, told = 0, 0.0
    try:
        async with session.channel.open(DIFF_COPY, headers) as exchange, _reasons(exchange):
            buffer = bytearray()
            async for piece in pieces:
                buffer += piece
                if len(buffer) >= PIECE:
                    await exchange.send(rpc_pb2.BytesMessage(data=bytes(buffer)))
                    sent += len(buffer)
                    buffer.clear()
                    if time.monotonic() - told > REPORT_PAUSE:
                        told = time.monotonic()
                        report(sent)
            if buffer:
                await exchange.send(rpc_pb2.BytesMessage(data=bytes(buffer)))
            exchange.end()
            while await exchange.recv() is not None:
                pass
            report(sent + len(buffer))
    except StreamLost:
        raise EXPORT_FAILED(cause="the client ended the transfer") from None
    except RpcError as error:
        raise EXPORT_FAILED(cause=error.message) from None


@asynccontextmanager
async def _reasons(exchange: Exchange) -> AsyncIterator[None]:
    """A client that ends a transfer early has said why in its status. Raises RpcError then, StreamLost else."""
    try:
        yield
    except StreamLost:
        with suppress(StreamLost):
            await exchange.recv()
        raise


Roots = Sequence[tuple[str, int]]
"""(folder that it becomes, "" for the top; descriptor of a directory), sorted."""


async def send_tree(session: ClientSession, exporter: int, roots: Roots, executor: Executor, report: Report) -> None:
    """Raises System."""
    try:
        async with session.channel.open(DIFF_COPY, [(EXPORTER_ID, str(exporter))]) as exchange:
            await _Sender(exchange, roots, executor, report).run()
    except StreamLost:
        raise EXPORT_FAILED(cause="the client ended the transfer") from None
    except RpcError as error:
        raise EXPORT_FAILED(cause=error.message) from None


class _Sender:
    def __init__(self, exchange: Exchange, roots: Roots, executor: Executor, report: Report) -> None:
        self.exchange, self.roots, self.executor, self.report = exchange, roots, executor, report
        self.files: dict[int, tuple[RootTree, Entry]] = {}
        self.asked: asyncio.Queue[int] = asyncio.Queue()
        self.sent = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        answers = loop.create_task(self._answers())
        tasks = {answers, loop.create_task(self._files()), loop.create_task(self._list())}
        try:
            while not answers.done():
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self.exchange.send(Packet(type=Packet.FIN))
        self.exchange.end()
        while await self.exchange.recv() is not None:
            pass
        self.report(self.sent)

    async def _answers(self) -> None:
        while (packet := await self._packet()).type != Packet.FIN:
            if packet.type == Packet.REQ:
                if packet.id not in self.files:
                    raise EXPORT_FAILED(cause="the client asks for a file that is not in the list")
                self.asked.put_nowait(packet.id)

    async def _packet(self) -> session_pb2.Packet:
        data = await self.exchange.recv()
        if data is None:
            raise EXPORT_FAILED(cause="the client ended the transfer early")
        try:
            packet = Packet.FromString(data)
        except DecodeError:
            raise EXPORT_FAILED(cause="the client sends what is no packet") from None
        if packet.type == Packet.ERR:
            raise EXPORT_FAILED(cause=packet.data.decode("utf-8", "replace")[:1000])
        return packet

    async def _list(self) -> None:
        count = 0
        for folder, root in self.roots:
            tree = RootTree(root)
            if folder:
                await self.exchange.send(Packet(type=Packet.STAT, stat=stat_of(_below(folder, ROOT))))
                count += 1
            async for entry in _threaded(tree.walk(ROOT), self.executor, BATCH):
                if entry.kind in (tar.CHAR, tar.BLOCK_DEV):
                    continue
                if entry.kind == tar.REG:
                    self.files[count] = (tree, entry)
                await self.exchange.send(Packet(type=Packet.STAT, stat=stat_of(_below(folder, entry))))
                count += 1
        await self.exchange.send(Packet(type=Packet.STAT))

    async def _files(self) -> None:
        while True:
            number = await self.asked.get()
            tree, entry = self.files.pop(number)
            async for piece in _threaded(tree.read(entry), self.executor, 1):
                for start in range(0, len(piece), PIECE):
                    await self.exchange.send(Packet(type=Packet.DATA, id=number, data=piece[start : start + PIECE]))
                self.sent += len(piece)
            await self.exchange.send(Packet(type=Packet.DATA, id=number))
            self.report(self.sent)


def stat_of(entry: Entry) -> session_pb2.Stat:
    mode = entry.mode & 0o777
    mode |= {tar.DIR: MODE_DIR, tar.SYMLINK: MODE_SYMLINK, tar.FIFO: MODE_PIPE}.get(entry.kind, 0)
    for bit, value in ((MODE_SETUID, 0o4000), (MODE_SETGID, 0o2000), (MODE_STICKY, 0o1000)):
        mode |= bit if entry.mode & value else 0
    return session_pb2.Stat(
        path=entry.path, mode=mode, uid=entry.uid, gid=entry.gid, size=entry.size, mod_time=entry.mtime_ns,
        linkname=entry.link, xattrs=dict(entry.xattrs),
    )  # fmt: skip


async def archive_of(roots: Roots, executor: Executor) -> AsyncIterator[bytes]:
    """A tar of the whole trees."""
    placed: list[Placed] = []
    for folder, root in roots:
        tree = RootTree(root)
        if folder:
            placed.append(Placed(folder, _below(folder, ROOT)))
        walked = _threaded(tree.walk(ROOT), executor, BATCH)
        placed += [Placed(_below(folder, entry).path, entry, tree=tree) async for entry in walked]
    async for piece in _threaded(pack(placed, RootTree(roots[0][1]), Packing()), executor, 64):
        yield piece


def _below(folder: str, entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, path=f"{folder}/{entry.path}".rstrip("/")) if folder else entry


async def _threaded(items: Iterator[T], executor: Executor, batch: int) -> AsyncIterator[T]:
    """A blocking generator, driven in threads. No thread is left in it when it ends."""
    loop = asyncio.get_running_loop()
    while True:
        visit = loop.run_in_executor(executor, lambda: list(islice(items, batch)))
        try:
            chunk = await asyncio.shield(visit)
        except asyncio.CancelledError:
            await asyncio.wait([visit])
            raise
        if not chunk:
            return
        for item in chunk:
            yield item
