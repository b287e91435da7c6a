"""The runtime's twin: processes that exist in memory only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from dockyard.engine.fake.process import Script, script_of
from dockyard.engine.model import Record
from dockyard.engine.plan.create import words
from dockyard.engine.ports import Ended, Process, StartRequest
from dockyard.errors import Code, NotFound
from dockyard.lib import clock
from dockyard.model.container import HostConfig, Resources
from dockyard.model.exchange import Frame, LogQuery

Json = dict[str, Any]
KEPT_LOG = 4096
"""Frames of log kept per container."""
QUEUE = 1024
"""Frames that one reader may lag behind; the oldest are dropped."""
IGNORED_BY_SHELLS = frozenset({17, 23, 28})
"""SIGCHLD, SIGURG, SIGWINCH: their default action is to do nothing."""

NO_PROCESS = Code("DY-FAKE-002", NotFound, "no such process: {id}")


class FakeStream:
    def __init__(
        self, tty: bool, on_input: Callable[[bytes | None], None], leave: Callable[[FakeStream], None]
    ) -> None:
        self.tty = tty
        self.queue: asyncio.Queue[Frame | None] = asyncio.Queue(QUEUE)
        self._on_input = on_input
        self._leave = leave

    def push(self, frame: Frame | None) -> None:
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        while (frame := await self.queue.get()) is not None:
            yield frame

    async def write(self, data: bytes) -> None:
        self._on_input(data)

    async def write_eof(self) -> None:
        if not self.tty:  # a terminal is not closed by a client that leaves it
            self._on_input(None)

    async def close(self) -> None:
        self._leave(self)
        self.push(None)


class FakeProcess:
    """One simulated process with its readers; used for containers and execs alike."""

    def __init__(self, pid: int, argv: list[str], tty: bool, environ: list[str]) -> None:
        self.pid = pid
        self.argv = argv
        self.tty = tty
        self.environ = environ
        self.script: Script = script_of(argv)
        self.log: deque[tuple[int, Frame]] = deque(maxlen=KEPT_LOG)
        self.readers: set[FakeStream] = set()
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.size = (0, 0)
        self.stream = self.attach()

    def attach(self) -> FakeStream:
        stream = FakeStream(self.tty, self.type, self.readers.discard)
        if self.ended.done():
            stream.push(None)
        else:
            self.readers.add(stream)
        return stream

    def run(self) -> None:
        loop = asyncio.get_running_loop()
        if self.script.output:
            loop.call_soon(self._print, self.script.output)
        if self.script.kind == "done":
            loop.call_later(self.script.seconds, self.end, self.script.code)

    def type(self, data: bytes | None) -> None:
        if self.script.kind == "echo":
            if data is None:
                self.end(0)
            else:
                self._print(data)

    def _print(self, data: bytes) -> None:
        frame = Frame(1, data)
        self.log.append((clock.now(), frame))
        for reader in self.readers:
            reader.push(frame)

    def end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(Ended(code, clock.now()))
            for reader in self.readers:
                reader.push(None)

    async def wait(self) -> int:
        return (await asyncio.shield(self.ended)).code

    async def resize(self, height: int, width: int) -> None:
        self.size = (height, width)

    async def kill(self) -> None:
        self.end(137)


class FakeRuntime:
    def __init__(self) -> None:
        self._processes: dict[str, FakeProcess] = {}
        self._waiting: dict[str, set[FakeStream]] = {}
        self._early: dict[str, list[bytes | None]] = {}
        """Input that came before its container was started."""
        self._pids = iter(range(1000, 1 << 30))
        self.explanations: dict[str, str] = {}
        """Program -> why it cannot run."""

    def check(self, host: HostConfig) -> list[str]:
        return []

    async def create(self, request: StartRequest) -> tuple[Process, list[str]]:
        record = request.record
        config = record.config
        argv = [*(words(config.entrypoint) or []), *(words(config.cmd) or [])]
        old = self._processes.get(record.id)
        process = FakeProcess(next(self._pids), argv, config.tty, config.env or [])
        if old is not None:
            process.log.extend(old.log)
        self._processes[record.id] = process
        process.readers |= self._waiting.pop(record.id, set())
        return Process(process.pid, process.pid, 0), []

    async def start(self, container_id: str) -> None:
        process = self._find(container_id)
        process.run()
        for data in self._early.pop(container_id, ()):
            process.type(data)

    async def explain(self, record: Record, directory: str) -> str:
        return self.explanations.get(record.path, "")

    async def delete(self, container_id: str) -> None:
        if (process := self._processes.get(container_id)) is not None:
            process.end(137)

    def _find(self, container_id: str) -> FakeProcess:
        process = self._processes.get(container_id)
        if process is None:
            raise NO_PROCESS(id=container_id)
        return process

    async def kill(self, container_id: str, signal: int) -> None:
        if signal not in IGNORED_BY_SHELLS:
            self._find(container_id).end(128 + signal)

    async def pause(self, container_id: str) -> None:
        self._find(container_id)

    async def resume(self, container_id: str) -> None:
        self._find(container_id)

    async def update(self, container_id: str, limits: Resources) -> None:
        self._find(container_id)

    async def resize(self, container_id: str, height: int, width: int) -> None:
        await self._find(container_id).resize(height, width)

    async def wait(self, container_id: str) -> Ended:
        return await asyncio.shield(self._find(container_id).ended)

    async def recover(self, record: Record, directory: str) -> Process | Ended | None:
        process = self._processes.get(record.id)
        if process is None:
            return None
        return process.ended.result() if process.ended.done() else Process(process.pid, process.pid, 0)

    def attach(self, record: Record, *, stdin: bool, stdout: bool, stderr: bool) -> FakeStream:
        process = self._processes.get(record.id)
        if process is not None and not process.ended.done():
            return process.attach()
        waiting = self._waiting.setdefault(record.id, set())

        def typed(data: bytes | None) -> None:
            now = self._processes.get(record.id)
            if now is None or now.ended.done():
                self._early.setdefault(record.id, []).append(data)
            else:
                now.type(data)

        def leave(stream: FakeStream) -> None:
            waiting.discard(stream)
            if (now := self._processes.get(record.id)) is not None:
                now.readers.discard(stream)

        stream = FakeStream(record.config.tty, typed, leave)
        waiting.add(stream)
        return stream

    async def logs(self, record: Record, directory: str, query: LogQuery) -> AsyncIterator[Frame]:
        process = self._processes.get(record.id)
        if process is None:
            return
        kept = [
            (at, frame) for at, frame in process.log if query.since <= at and (not query.until or at <= query.until)
        ]
        for at, frame in kept if query.tail < 0 else kept[len(kept) - query.tail :]:
            stamp = clock.rfc3339(at).encode() + b" " if query.timestamps else b""
            yield Frame(frame.stream, stamp + frame.data)
        if query.follow and record.live:
            async for frame in process.attach().frames():
                yield frame

    async def top(self, record: Record, ps_args: str) -> Json:
        process = self._find(record.id)
        titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        return {
            "Titles": titles,
            "Processes": [["root", str(process.pid), "1", "0", "00:00", "?", "00:00:00", " ".join(process.argv)]],
        }

    async def stats(self, record: Record) -> Json:
        self._find(record.id)
        return {
            "read": clock.rfc3339(clock.now()), "num_procs": 0, "pids_stats": {"current": 1}, "networks": {},
            "blkio_stats": {}, "storage_stats": {}, "memory_stats": {"usage": 1 << 20, "stats": {}, "limit": 1 << 30},
            "cpu_stats": {
                "cpu_usage": {"total_usage": 1, "usage_in_kernelmode": 0, "usage_in_usermode": 1},
                "system_cpu_usage": clock.now(), "online_cpus": 1, "throttling_data": {},
            },
        }  # fmt: skip

    async def exec_start(
        self, record: Record, exec_id: str, process: Json, *, tty: bool, stdin: bool, size: tuple[int, int] | None
    ) -> FakeProcess:
        self._find(record.id)
        made = FakeProcess(next(self._pids), process["Cmd"], tty, process.get("Env") or [])
        made.run()
        return made
