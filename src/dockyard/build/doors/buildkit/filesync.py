"""The client's files, by fsutil's protocol (DiffCopy): we are the receiver.

::

    client  STAT STAT ... STAT(empty)          every entry in order; the empty one ends the list
    we      REQ(id)                            for regular files that we lack; id = place in the list
    client  DATA(id, bytes) ... DATA(id, "")   of up to four files at a time; the empty one ends the file
    we      FIN ── client FIN

Nothing is written to a path: entries go to an index, content to a spool. REQs are sent by a task of their own, since
both sides block when neither reads.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from urllib.parse import quote_plus

import msgspec
from google.protobuf.message import DecodeError

from dockyard.lib.faultpoint import faultpoint
from dockyard.oci import tar

from ...context import Context, ContextLimits
from ...errors import BAD_CONTEXT, CONTEXT_TOO_BIG, SESSION_LOST
from ...proto import session_pb2
from ...tree import Entry
from .http2 import Headers, StreamLost
from .rpc import NOT_FOUND, Channel, Exchange, RpcError
from .spool import Shelf, Spool, Stored, Writer

__all__ = ["Wanted", "receive"]

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
MODE_DIR, MODE_SYMLINK, MODE_DEVICE, MODE_PIPE, MODE_SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
MODE_SETUID, MODE_SETGID, MODE_CHAR, MODE_STICKY, MODE_IRREGULAR = 1 << 23, 1 << 22, 1 << 21, 1 << 20, 1 << 19
MODE_TYPE = MODE_DIR | MODE_SYMLINK | MODE_PIPE | MODE_SOCKET | MODE_DEVICE | MODE_CHAR | MODE_IRREGULAR
MAX_XATTRS = 64
MAX_PATH = 4096

MAX_ASKED = 256
"""Requests of one write."""
REPORT_SHIFT = 18
"""A report every 256 KiB."""

Packet = session_pb2.Packet
Report = Callable[[int, bool], None]


class Wanted:
    """What to ask for: ``name`` is the client's name of the directory."""

    def __init__(
        self, name: str, *, follow: Sequence[str] = (), exclude: Sequence[str] = (), include: Sequence[str] = ()
    ) -> None:
        self.name, self.follow, self.exclude, self.include = name, tuple(follow), tuple(exclude), tuple(include)

    def metadata(self) -> Headers:
        lists = (
            ("dir-name", (self.name,)), ("followpaths", self.follow), ("exclude-patterns", self.exclude),
            ("include-patterns", self.include),
        )  # fmt: skip
        out: Headers = []
        for key, values in lists:
            plain = all(value.isascii() for value in values)
            out += [(key, value if plain else quote_plus(value)) for value in values]
            if not plain:
                out.append((f"{key}-encoded", "1"))
        return out


async def receive(
    channel: Channel, wanted: Wanted, shelf: Shelf, key: str, executor: Executor, *,
    limits: ContextLimits | None = None, report: Report = lambda size, done: None,
) -> Context:  # fmt: skip
    """``report`` hears of the bytes that came. Raises InvalidParameter (hostile or broken list, no such directory),
    Exhausted, System (the session went away)."""
    spool = shelf.spool(key)
    live = spool.size
    try:
        async with spool.lock, channel.open(DIFF_COPY, wanted.metadata()) as exchange:
            receiver = _Receiver(exchange, spool, executor, limits or ContextLimits(), report)
            try:
                entries = await receiver.run()
            except BaseException:
                await receiver.writer.give_up()
                raise
            live = sum(entry.size for entry in entries.values())
            faultpoint("build.synced")
            return spool.context(entries)
    except RpcError as error:
        if error.code == NOT_FOUND:
            raise BAD_CONTEXT(cause=f"the client does not offer a directory named {wanted.name!r}") from None
        raise SESSION_LOST(id=wanted.name, cause=error.message) from None
    except StreamLost as lost:
        raise SESSION_LOST(id=wanted.name, cause=str(lost)) from None
    finally:
        shelf.done(key, spool, live)


class _Receiver:
    def __init__(self, exchange: Exchange, spool: Spool, executor: Executor, limits: ContextLimits, report: Report) -> None:
        self.exchange, self.spool, self.limits, self.report = exchange, spool, limits, report
        self.bytes = 0
        self.writer = Writer(spool, executor, limits)
        self.entries: dict[str, Entry] = {}
        self.arriving: dict[int, Stored] = {}
        self.requests: asyncio.Queue[int | None] = asyncio.Queue()  # bounded by the number of entries
        self.finished: list[Stored] = []
        self.links: list[tuple[Entry, str]] = []
        self.count = 0
        self.settled = False
        self.listed = False

    async def run(self) -> dict[str, Entry]:
        asking = asyncio.get_running_loop().create_task(self._ask())
        try:
            while not (self.listed and not self.arriving):
                packet = await self._packet()
                if packet.type == Packet.STAT:
                    self._stat(packet)
                elif packet.type == Packet.DATA:
                    await self._data(packet)
                else:
                    raise BAD_CONTEXT(cause="the client sends a packet out of turn")
            await self._settle()
            self.settled = True
            self.requests.put_nowait(None)
            await asking
            while (await self._packet()).type != Packet.FIN:
                pass
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        self.report(self.bytes, True)
        self.spool.index.update(self.entries)
        return self.entries

    async def _ask(self) -> None:
        while (number := await self.requests.get()) is not None:
            batch = [number]
            while len(batch) < MAX_ASKED and (more := self._next()) is not None:
                batch.append(more)
            await self.exchange.send(*(Packet(type=Packet.REQ, id=item) for item in batch))
        await self.exchange.send(Packet(type=Packet.FIN))

    def _next(self) -> int | None:
        """Another request that is there already; the end of them stays in the queue."""
        if self.requests.empty() or self.settled:
            return None
        return self.requests.get_nowait()

    async def _packet(self) -> session_pb2.Packet:
        data = await self.exchange.recv()
        if data is None:
            raise BAD_CONTEXT(cause="the client ended the transfer early")
        self.bytes += len(data)
        if self.bytes >> REPORT_SHIFT != (self.bytes - len(data)) >> REPORT_SHIFT:
            self.report(self.bytes, False)
        try:
            packet = Packet.FromString(data)
        except DecodeError:
            raise BAD_CONTEXT(cause="the client sends what is no packet") from None
        if packet.type == Packet.ERR:
            raise BAD_CONTEXT(cause=packet.data.decode("utf-8", "replace")[:1000] or "the client reports an error")
        return packet

    def _stat(self, packet: session_pb2.Packet) -> None:
        if not packet.HasField("stat"):
            self.listed = True
            return
        if self.listed:
            raise BAD_CONTEXT(cause="the client lists files after the end of its list")
        number, self.count = self.count, self.count + 1
        if self.count > self.limits.entries:
            raise CONTEXT_TOO_BIG(what="the number of files", limit=self.limits.entries)
        stat = packet.stat
        path = _checked(stat.path)
        self._parents(path)
        entry = _entry(path, stat)
        if entry is None:
            return
        if entry.kind == tar.REG and stat.linkname:
            self.links.append((entry, _checked(stat.linkname)))
        elif entry.kind != tar.REG:
            self.entries[path] = entry
        else:
            known = self.spool.index.get(path)
            if known is not None and known.kind == tar.REG and _same(known, entry):
                self.entries[path] = known
            else:
                self.arriving[number] = Stored(entry)
                self.requests.put_nowait(number)

    async def _settle(self) -> None:
        """All bytes are here: digests, then the hard links."""
        await self.writer.flush()
        self.entries.update((file.entry.path, file.result) for file in self.finished)
        for entry, target in self.links:
            first = self.entries.get(target)
            if first is None or first.kind != tar.REG:
                raise BAD_CONTEXT(cause=f"hard link {entry.path} to {target!r}, which is no file of the context")
            self.entries[entry.path] = msgspec.structs.replace(first, path=entry.path)

    async def _data(self, packet: session_pb2.Packet) -> None:
        file = self.arriving.get(packet.id)
        if file is None:
            raise BAD_CONTEXT(cause="the client sends a file that nobody asked for")
        if packet.data:
            await self.writer.add(file, packet.data)
            return
        del self.arriving[packet.id]
        await self.writer.finish(file)
        self.finished.append(file)

    def _parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        while parent and parent not in self.entries:
            self.entries[parent] = Entry(parent, tar.DIR)
            parent = posixpath.dirname(parent)


def _checked(path: str) -> str:
    """fsutil's paths are relative, clean and inside. Raises InvalidParameter."""
    clean = posixpath.normpath(path).lstrip("/") if path else ""
    bad = not clean or clean in (".", "..") or clean.startswith("../") or "\0" in clean or len(clean) > MAX_PATH
    if bad:
        raise BAD_CONTEXT(cause=f"bad file name {path[:200]!r}")
    return clean


def _entry(path: str, stat: session_pb2.Stat) -> Entry | None:
    """None for what goes into no layer (sockets, devices)."""
    kind = {0: tar.REG, MODE_DIR: tar.DIR, MODE_SYMLINK: tar.SYMLINK, MODE_PIPE: tar.FIFO}.get(stat.mode & MODE_TYPE)
    if kind is None:
        return None
    if stat.size < 0 or len(stat.xattrs) > MAX_XATTRS:
        raise BAD_CONTEXT(cause=f"impossible attributes of {path[:200]!r}")
    mode = stat.mode & 0o777
    for bit, value in ((MODE_SETUID, 0o4000), (MODE_SETGID, 0o2000), (MODE_STICKY, 0o1000)):
        mode |= value if stat.mode & bit else 0
    return Entry(
        path, kind, mode, stat.uid, stat.gid, stat.size if kind == tar.REG else 0, stat.mod_time,
        stat.linkname if kind == tar.SYMLINK else "", xattrs=dict(stat.xattrs),
    )  # fmt: skip


def _same(known: Entry, told: Entry) -> bool:
    return (known.size, known.mtime_ns, known.mode, known.uid, known.gid) == (
        told.size, told.mtime_ns, told.mode, told.uid, told.gid,
    ) and known.xattrs == told.xattrs  # fmt: skip
