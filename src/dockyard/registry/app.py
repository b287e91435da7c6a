"""The registry put together: one handler for one port.

    /v2/       distribution API        /token           tokens            /health, /metrics
    /v1/       ping and search         /api/v0/         administration    /   pages, when some are given
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockyard.errors import Cancelled, DockyardError
from dockyard.http import Limits, Request, Response, Server
from dockyard.http.response import Answer
from dockyard.registry.accounts import Accounts
from dockyard.registry.admin_api import AdminApi
from dockyard.registry.api import Api, error_document, wire_error
from dockyard.registry.collector import Collector
from dockyard.registry.content import Content
from dockyard.registry.core import Config, Core, repeat
from dockyard.registry.database import open_database
from dockyard.registry.delivery import Deliverer
from dockyard.registry.drivers.files import FileStore
from dockyard.registry.errors import QUOTA, THING_UNKNOWN
from dockyard.registry.gate import Gate
from dockyard.registry.ldap import Directory, parse_settings, sync_directory
from dockyard.registry.metrics import Metrics
from dockyard.registry.mirrors import Mirrors
from dockyard.registry.ports import BlobStore
from dockyard.registry.proxy import Proxy
from dockyard.registry.retention import Retention
from dockyard.registry.search import Search
from dockyard.registry.settings import read_setting
from dockyard.registry.tls import Tls
from dockyard.registry.token_api import TokenApi
from dockyard.registry.tokens import Tokens
from dockyard.registry.uploads import Uploads
from dockyard.registry.webhooks import Event, emit

log = logging.getLogger("dockyard.registry")

PULLS_SECONDS = 10.0
SETTINGS_SECONDS = 10.0
_QUOTA_PAUSE = 60.0
_LIMITS = Limits(write_seconds=120.0)

Pages = Callable[["Registry"], Callable[[Request], Answer | Awaitable[Answer]]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the data is: a directory, and instead of its parts a PostgreSQL URL or a bucket's."""

    data: Path
    database: str = ""
    bucket: str = ""


def open_store(places: Places) -> BlobStore:
    if not places.bucket:
        return FileStore(places.data)
    from dockyard.registry.drivers.bucket import BucketStore

    return BucketStore(places.bucket)


class Registry:
    """Everything but the sockets: `server.listen_*` after `start`."""

    def __init__(self, core: Core, pages: Pages | None = None) -> None:
        self.core = core
        self.metrics = Metrics()
        self.tls = Tls()
        self._ldap = ""
        self.closing = False
        """Streams without an end look at it."""
        self._quota_told: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.tokens = Tokens(core.db, core.config.service, core.clock)
        self.accounts = Accounts(core)
        self.gate = Gate(core, self.accounts, self.tokens, self.spawn)
        self.content = Content(core)
        self.uploads = Uploads(core)
        self.proxy = Proxy(core, self.content, self.uploads)
        self.api = Api(core, self.content, self.uploads, self.gate, self.proxy)
        self.token_api = TokenApi(core, self.accounts, self.tokens)
        self.search = Search(core, self.gate)
        self.retention = Retention(core)
        self.collector = Collector(core, self.retention)
        self.deliverer = Deliverer(core)
        self.mirrors = Mirrors(core, self.content, self.uploads)
        self.admin = AdminApi(self)
        self.server = Server(
            self.handle, on_error=self.on_error, limits=_LIMITS,
            default_headers={"Docker-Distribution-Api-Version": "registry/2.0", "X-Content-Type-Options": "nosniff"},
        )  # fmt: skip
        self._pages = pages(self) if pages is not None else None

    @classmethod
    def open(cls, places: Places, config: Config, pages: Pages | None = None) -> Registry:
        """Raises DATABASE_FAILED, STORE_FAILED."""
        places.data.mkdir(parents=True, exist_ok=True, mode=0o750)
        db = open_database(places.database or str(places.data / "registry.db"))
        return cls(Core(db, open_store(places), config), pages)

    async def start(self) -> None:
        await self.tokens.load()
        await self.use_settings()
        for worker in (self._count_pulls(), self._follow_settings(), self.deliverer.run(), self.mirrors.run(), self.collector.run()):
            self.spawn(worker)

    def describe(self) -> dict[str, str]:
        """What was decided when this replica started, for people. Nothing secret is in it."""
        config, store = self.core.config, self.core.blobs
        return {
            "Metadata": self.core.db.place, "Blobs": store.place,
            "Authentication": "accounts" if config.auth == "accounts" else "off: everybody may do everything",
            "New repositories": "public" if config.public else "private",
            "Deletion": "allowed" if config.delete else "switched off", "Token service": config.service,
            "Tokens live": f"{config.token_seconds / 60:g} minutes",
            "Grace of the collector": f"{config.grace_seconds / 3600:g} hours",
        }  # fmt: skip

    async def use_settings(self) -> None:
        """What administrators saved, wherever they saved it: directory server, certificate."""
        ldap, tls = await self.core.db.read(lambda tx: (read_setting(tx, "ldap"), read_setting(tx, "tls")))
        if ldap != self._ldap:
            self.accounts.directory = Directory(parse_settings(ldap)) if ldap else None
            self._ldap = ldap
        self.tls.use(tls)

    async def _follow_settings(self) -> None:
        """Another replica may have changed them; and teams follow the directory."""
        known, synced = await self.core.db.epoch(), self.core.clock()

        async def follow() -> None:
            nonlocal known, synced
            epoch = await self.core.db.epoch()
            if epoch != known:
                await self.use_settings()
                known = epoch
            every = float(await self.core.db.read(lambda tx: read_setting(tx, "ldap_sync_seconds")) or 0)
            if self.accounts.directory is not None and every and self.core.clock() - synced >= every:
                synced = self.core.clock()
                await sync_directory(self.core, self.accounts.directory)

        await repeat(SETTINGS_SECONDS, follow, "follow the settings")

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """The one supervisor of what runs beside requests; a failure is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background work failed: %s", task.exception(), exc_info=task.exception())

    async def close(self) -> None:
        self.closing = True
        await self.server.close()
        with contextlib.suppress(DockyardError):
            await self.flush_pulls()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LIMITS.close_seconds)
        await self.proxy.close()
        await self.mirrors.close()
        await self.deliverer.close()
        await self.accounts.close()
        await self.core.blobs.close()
        await self.core.db.close()

    # ---- requests

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        target = request.target
        if target.startswith("/v2"):
            return self.api.handle(request)
        path = request.raw_path
        if path == "/token":
            return self.token_api.handle(request)
        if path in {"/v1/_ping", "/v1/_ping/"}:
            return self.search.ping(request)
        if path == "/v1/search":
            return self.search.handle(request)
        if path == "/health":
            return self._health()
        if path == "/metrics":
            return self.metrics.page(self)
        if path.startswith("/api/v0/"):
            return self.admin.handle(request)
        if self._pages is not None:
            return self._pages(request)
        raise THING_UNKNOWN(what="page", name=path[:200])

    async def _health(self) -> Response:
        """200 when the database answers; load balancers ask here."""
        await self.core.db.epoch()
        return Response(200, {"Content-Type": "application/json"}, b'{"status":"ok"}')

    def on_error(self, request: Request, error: Exception) -> Response:
        if isinstance(error, DockyardError):
            response = wire_error(error)
            if error.code == QUOTA.id:
                self._tell_quota(str(error.evidence["repository"]))
            if response.status >= 500 and not isinstance(error, Cancelled):
                log.warning("%s %s: %s", request.method, request.raw_path, error)
        else:
            log.error("%s %s failed", request.method, request.raw_path, exc_info=error)
            response = error_document(DockyardError("internal error"), 500, "UNKNOWN")
        code = error.code if isinstance(error, DockyardError) else type(error).__name__
        self.metrics.errors[response.status, code] += 1
        return response

    def _tell_quota(self, name: str) -> None:
        """QUOTA_EXCEED to the namespace's webhooks, once a minute: a refused client asks again and again."""
        now = self.core.clock()
        if now - self._quota_told.get(name, 0.0) < _QUOTA_PAUSE:
            return
        if len(self._quota_told) > 10_000:
            self._quota_told.clear()
        self._quota_told[name] = now

        async def write() -> None:
            await self.core.db.write(lambda tx: emit(tx, now, Event("QUOTA_EXCEED", name)))

        self.spawn(write())

    # ---- pull counts

    async def _count_pulls(self) -> None:
        await repeat(PULLS_SECONDS, self.flush_pulls, "count pulls")

    async def flush_pulls(self) -> None:
        """Counts are gathered in memory: a pull must not cost a commit. A crash loses ten seconds of them."""
        pulled, self.api.cache.pulled = self.api.cache.pulled, {}
        if not pulled:
            return
        now = self.core.clock()

        def work(tx: Any) -> None:
            for (name, tag, digest), count in pulled.items():
                tx.run("UPDATE repositories SET pulls = pulls + ? WHERE name = ?", (count, name))
                emit(tx, now, Event("MANIFEST_PULL", name, digest=digest, count=count))
                if tag:
                    emit(tx, now, Event("TAG_PULL", name, tag=tag, digest=digest, count=count))
                    tx.run(
                        "UPDATE tags SET pulled = ? WHERE name = ? AND repository = (SELECT id FROM repositories"
                        " WHERE name = ?)",
                        (now, tag, name),
                    )

        try:
            await self.core.db.write(work)
        except DockyardError:  # they wait for the next round
            for key, count in pulled.items():
                self.api.cache.pulled[key] = self.api.cache.pulled.get(key, 0) + count
            raise
