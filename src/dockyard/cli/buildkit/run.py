"""One build over BuildKit's protocol: two upgraded connections of the engine's API, driven by a loop in a thread of its own,
so that the terminal stays with the main thread and Ctrl-C ends both.
"""

from __future__ import annotations

import asyncio
import base64
import json
import queue
import secrets
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dockyard.build.doors.buildkit.rpc import Channel, RpcError, serve
from dockyard.build.doors.buildkit.wires import Outbox
from dockyard.build.proto import control_pb2
from dockyard.client import Client
from dockyard.client.hijack import Hijacked
from dockyard.errors import DockyardError

from .rows import Rows, raw
from .session import Session
from .store import LayoutStore
from .wish import Wish

__all__ = ["Build"]

CONTROL = "/moby.buildkit.v1.Control/"
THREADS = 16
MAX_TIME = 24 * 3600.0
Json = dict[str, Any]


class Build:
    """``messages`` runs it and yields what ``BuildView`` takes; afterwards ``response`` and ``ref`` are there."""

    def __init__(self, client: Client, wish: Wish, *, mode: str) -> None:
        self._client, self._wish, self._mode = client, wish, mode
        self._queue: queue.Queue[Json | BaseException | None] = queue.Queue()
        self.ref = secrets.token_hex(12)
        self.response: dict[str, str] = {}

    def messages(self) -> Iterator[Json]:
        """Ends with an ``error`` message where the build failed. Leaving early cancels it."""
        loop = asyncio.new_event_loop()
        task: list[asyncio.Task[None]] = []
        ready = threading.Event()

        def work() -> None:
            asyncio.set_event_loop(loop)
            task.append(loop.create_task(self._run()))
            ready.set()
            try:
                loop.run_until_complete(task[0])
            except asyncio.CancelledError:
                pass
            except BaseException as error:  # noqa: BLE001 - told by the reader
                self._queue.put(error)
            finally:
                loop.close()
                self._queue.put(None)

        thread = threading.Thread(target=work, name="buildkit", daemon=True)
        thread.start()
        ready.wait()
        try:
            while (item := self._queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            if thread.is_alive() and not loop.is_closed():
                loop.call_soon_threadsafe(task[0].cancel)
            thread.join(10)

    async def _run(self) -> None:
        with ThreadPoolExecutor(THREADS, "buildkit") as threads:
            await self._with(threads)

    async def _with(self, threads: ThreadPoolExecutor) -> None:
        session = Session(self._wish, threads)
        self._point_at_caches(session)
        shared = "|".join(str(path.resolve()) for path in self._wish.directories.values())
        loop = asyncio.get_running_loop()
        ours = await loop.run_in_executor(threads, self._dial, "/session", _merged(session.headers(shared)))
        control = await loop.run_in_executor(threads, self._dial, "/grpc", {})
        wires = [_Wire(ours), _Wire(control)]
        channel = Channel(wires[1])
        tasks = [asyncio.ensure_future(serve(wires[0], session.routes())), asyncio.ensure_future(channel.run())]
        try:
            await self._solve(channel, session)
        except RpcError as error:
            self._queue.put({"error": error.message})
        finally:
            channel.close()
            for wire in wires:
                wire.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _dial(self, path: str, headers: Mapping[str, tuple[str, ...]]) -> Hijacked:
        return self._client.hijack(path, headers={"Upgrade": "h2c", **headers})

    def _point_at_caches(self, session: Session) -> None:
        """A cache in a directory is asked for by the digest that the directory's index says."""
        for kind, attrs in self._wish.cache_from:
            if kind == "local" and not attrs.get("digest"):
                attrs["digest"] = session.stores[f"local:{attrs['src']}"].tagged(attrs.get("tag", "latest"))

    async def _solve(self, channel: Channel, session: Session) -> None:
        wish = self._wish
        asked = control_pb2.SolveRequest(
            ref=self.ref, session=session.id, frontend="dockerfile.v0", frontend_attrs=wish.opts, entitlements=wish.entitlements,
            exporters=[control_pb2.Exporter(type=each.kind, attrs=each.attrs) for each in wish.outputs],
        )  # fmt: skip
        asked.exporter_deprecated = wish.outputs[0].kind  # engines before BuildKit 0.13 know one
        asked.exporter_attrs_deprecated.update(wish.outputs[0].attrs)
        for rows, given in ((asked.cache.imports, wish.cache_from), (asked.cache.exports, wish.cache_to)):
            rows.extend(control_pb2.CacheOptionsEntry(type=kind, attrs=attrs) for kind, attrs in given)
        solving = asyncio.ensure_future(
            channel.ask(f"{CONTROL}Solve", asked, control_pb2.SolveResponse, timeout=MAX_TIME)
        )
        following = asyncio.ensure_future(self._follow(channel))
        try:
            answer = await solving
            await following
        finally:
            solving.cancel()
            following.cancel()
            await asyncio.gather(solving, following, return_exceptions=True)
        self.response = dict(answer.exporter_response)
        self._tag_caches(session)

    def _tag_caches(self, session: Session) -> None:
        described = self.response.get("cache.manifest")
        for kind, attrs in self._wish.cache_to:
            if kind == "local" and described:
                store: LayoutStore = session.stores[f"local:{attrs['dest']}"]
                store.tag(json.loads(described), attrs.get("tag", "latest"))

    async def _follow(self, channel: Channel) -> None:
        rows = Rows(plain=self._mode == "plain")
        async with channel.open(f"{CONTROL}Status") as exchange:
            await exchange.send(control_pb2.StatusRequest(ref=self.ref))
            exchange.end()
            while (data := await exchange.recv()) is not None:
                answer = control_pb2.StatusResponse.FromString(data)
                if self._mode == "rawjson":
                    self._queue.put({"raw": raw(answer)})
                    continue
                for message in rows.feed(answer):
                    self._queue.put(message)

    # -- afterwards -----------------------------------------------------------------------------------------------------

    @property
    def image(self) -> str:
        return self.response.get("containerimage.config.digest") or self.response.get("containerimage.digest", "")

    def write_metadata(self, path: Path) -> None:
        """What buildx's --metadata-file has: the exporter's response, documents in it decoded. Raises OSError."""
        document: Json = {"buildx.build.ref": f"default/default/{self.ref}"}
        for key, value in self.response.items():
            document[key] = _decoded(value) if key.endswith("descriptor") else value
        if "cache.manifest" in document:
            document["cache.manifest"] = json.loads(document["cache.manifest"])
        path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def _decoded(value: str) -> Any:
    try:
        return json.loads(base64.b64decode(value))
    except ValueError:
        return value


def _merged(headers: list[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Values by name: Go's servers do not split at commas."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in headers:
        found[name] = (*found.get(name, ()), value)
    return found


class _Wire(Outbox):
    """A taken-over connection for the loop: one thread reads, one writes."""

    def __init__(self, hijacked: Hijacked) -> None:
        super().__init__()
        self._hijacked = hijacked
        self._threads = ThreadPoolExecutor(2, "wire")

    async def read(self, n: int = 65536) -> bytes:
        if self._closed:
            return b""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._hijacked.recv, n)
        except (OSError, DockyardError, RuntimeError):
            return b""

    async def _send(self, data: bytes) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._hijacked.send, data)

    def close(self) -> None:
        self._closed = True
        self._hijacked.abort()
        self._threads.shutdown(wait=True)
        self._hijacked.close()
