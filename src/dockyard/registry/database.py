"""One database behind both: SQLite embedded, PostgreSQL by URL. Work is handed in as a function of a transaction.

``write(fn)`` runs fn in a transaction off the event loop and returns when it is on disk. SQLite has one writer: its
thread takes everything that waits, runs each piece in a savepoint and commits once, so a hundred pushes at the same
time pay for one fsync (measured: 0.3 ms a commit on a quiet disk, 2.4 ms on a busy one). PostgreSQL runs each piece
in its own transaction on a small pool and repeats it when the server reports a conflict; fn must therefore have no
effect but on its transaction.

``read(fn)`` sees one snapshot. With SQLite it runs inline (microseconds, no thread); ``search(fn)`` is for reads that
scan, always off the loop.

``epoch()`` is the change counter that caches compare: exact on SQLite (a PRAGMA tells whether anybody committed); on
PostgreSQL one query serves all requests that came before it began, so an answer is never older than its question.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from dockyard.registry.errors import DATABASE_FAILED, SCHEMA_NEWER, STORE_FULL
from dockyard.registry.schema import VERSION, statements

T = TypeVar("T")
Row = tuple[Any, ...]

_BUSY_SECONDS = 10.0
LATER_SECONDS = 0.05
_GROUP = 128  # pieces of work that share one commit
_READERS = 2
_PG_POOL = 8
_PG_TRIES = 6
_PG_PAUSE = 0.01


class Tx(Protocol):
    """SQL with ``?`` places, the same words on both databases."""

    dialect: str
    """``sqlite`` or ``postgresql``, for the one thing that each has its own words for: search."""

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Number of rows changed."""

    def all(self, sql: str, args: Sequence[Any] = ()) -> list[Row]: ...

    def one(self, sql: str, args: Sequence[Any] = ()) -> Row | None: ...

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None: ...

    def changed(self) -> None:
        """Raise the epoch: caches must look again."""


class Database(Protocol):
    @property
    def place(self) -> str:
        """Where it is, for people; without passwords."""

    async def write(self, work: Callable[[Tx], T]) -> T: ...

    async def write_later(self, work: Callable[[Tx], object], then: Callable[[], None]) -> None:
        """For what may be forgotten by a crash: it rides along with the next commit, before every later write, or makes
        one of its own within LATER_SECONDS. `then` is called, from any thread, when it is settled either way."""

    async def read(self, work: Callable[[Tx], T]) -> T: ...

    async def search(self, work: Callable[[Tx], T]) -> T: ...

    async def epoch(self) -> int: ...

    def epoch_now(self) -> int | None:
        """The epoch without waiting, None where that is not possible."""

    async def close(self) -> None: ...


class _SqliteTx:
    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        return self.connection.execute(sql, args).rowcount

    def all(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        return self.connection.execute(sql, args).fetchall()

    def one(self, sql: str, args: Sequence[Any] = ()) -> Row | None:
        row: Row | None = self.connection.execute(sql, args).fetchone()
        return row

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self.connection.executemany(sql, rows)

    def changed(self) -> None:
        self.connection.execute("UPDATE epoch SET value = value + 1")


def _translate(error: Exception) -> Exception:
    text = str(error)
    if "full" in text:
        return STORE_FULL()
    return DATABASE_FAILED(reason=text.splitlines()[0][:200] if text else type(error).__name__)


_Piece = tuple[Callable[[Tx], Any], "Future[Any]"]


def _nothing(_: Tx) -> None:
    """What wakes the writer for pieces that wait in `_later`."""


class SqliteDatabase:
    """One file; every replica on this machine may open it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._later: deque[_Piece] = deque()
        self._writer = self._open()
        self._migrate()
        self._reader = self._open()
        self._inline = _SqliteTx(self._reader)
        self._searchers = ThreadPoolExecutor(_READERS, thread_name_prefix="registry-search")
        self._local = threading.local()
        self._version = -1
        self._epoch = 0
        self._thread = threading.Thread(target=self._work, name="registry-writer", daemon=True)
        self._thread.start()

    @property
    def place(self) -> str:
        return f"SQLite, {self.path}"

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA cache_size = -32768")
            connection.execute("PRAGMA mmap_size = 268435456")
        except sqlite3.Error as error:
            raise _translate(error) from error
        return connection

    def _migrate(self) -> None:
        connection = self._writer
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise SCHEMA_NEWER(version=version)
        for step in range(version, VERSION):
            for statement in statements("sqlite", step):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")

    # the writer's thread

    def _work(self) -> None:
        while True:
            first = self._queue.get()
            if first is not None and first[0] is _nothing:
                with contextlib.suppress(queue.Empty):
                    first = self._queue.get(timeout=LATER_SECONDS)
            batch = [] if first is None else [first]
            ended = first is None
            while len(batch) < _GROUP and not ended:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    ended = True
                else:
                    batch.append(item)
            later = [self._later.popleft() for _ in range(len(self._later))]
            batch = later + [piece for piece in batch if piece[0] is not _nothing]
            if batch:
                self._commit_group(batch)
            if ended:
                return

    def _commit_group(self, batch: list[_Piece]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        tx = _SqliteTx(self._writer)
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for work, future in batch:
                self._writer.execute("SAVEPOINT piece")
                try:
                    done.append((future, work(tx)))
                    self._writer.execute("RELEASE piece")
                except Exception as error:  # noqa: BLE001 - it belongs to the caller of this piece alone
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK TO piece")
                        self._writer.execute("RELEASE piece")
                    fault = _translate(error) if isinstance(error, sqlite3.OperationalError) else error
                    future.set_exception(fault)
            self._writer.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - nothing of this group is on disk: all who wait must hear it
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            for _, future in batch:
                if not future.done():
                    future.set_exception(_translate(error))
            return
        for future, value in done:
            future.set_result(value)

    async def write(self, work: Callable[[Tx], T]) -> T:
        future: Future[T] = Future()
        self._queue.put((work, future))
        return await asyncio.shield(asyncio.wrap_future(future))

    async def write_later(self, work: Callable[[Tx], object], then: Callable[[], None]) -> None:
        future: Future[Any] = Future()
        future.add_done_callback(lambda _: then())
        self._later.append((work, future))
        self._queue.put((_nothing, future))

    async def read(self, work: Callable[[Tx], T]) -> T:
        return self.read_now(work)

    def read_now(self, work: Callable[[Tx], T]) -> T:
        return self._snapshot(self._inline, work)

    def _snapshot(self, tx: _SqliteTx, work: Callable[[Tx], T]) -> T:
        try:
            tx.connection.execute("BEGIN")
            try:
                return work(tx)
            finally:
                tx.connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise _translate(error) from error

    def _search(self, work: Callable[[Tx], T]) -> T:
        tx = getattr(self._local, "tx", None)
        if tx is None:
            tx = self._local.tx = _SqliteTx(self._open())
        return self._snapshot(tx, work)

    async def search(self, work: Callable[[Tx], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._searchers, self._search, work)

    def epoch_now(self) -> int:
        try:
            version = self._reader.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._epoch = self._reader.execute("SELECT value FROM epoch").fetchone()[0]
                self._version = version
        except sqlite3.OperationalError as error:
            raise _translate(error) from error
        return self._epoch

    async def epoch(self) -> int:
        return self.epoch_now()

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, _BUSY_SECONDS)
        self._searchers.shutdown(wait=True)
        self._reader.close()
        self._writer.close()


class _PgTx:
    dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor()

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        self._cursor.execute(sql.replace("?", "%s"), args)
        return int(self._cursor.rowcount)

    def all(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        rows: list[Row] = self._cursor.execute(sql.replace("?", "%s"), args).fetchall()
        return rows

    def one(self, sql: str, args: Sequence[Any] = ()) -> Row | None:
        row: Row | None = self._cursor.execute(sql.replace("?", "%s"), args).fetchone()
        return row

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._cursor.executemany(sql.replace("?", "%s"), list(rows))

    def changed(self) -> None:
        self._cursor.execute("UPDATE epoch SET value = value + 1")


class PostgresDatabase:
    """Several replicas share it. READ COMMITTED: races are settled by conditions in the statements themselves."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._pool = ThreadPoolExecutor(_PG_POOL, thread_name_prefix="registry-pg")
        self._local = threading.local()
        self._opened: list[Any] = []
        self._asking: asyncio.Future[int] | None = None
        self._next: asyncio.Future[int] | None = None
        try:
            self._run(self._migrate)
        except BaseException:
            self._hang_up()
            raise

    @property
    def place(self) -> str:
        parts = urlsplit(self.url)
        return f"PostgreSQL, {parts.hostname or 'local socket'}{parts.path}"

    def _connection(self) -> Any:
        import psycopg

        connection = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = psycopg.connect(self.url, connect_timeout=int(_BUSY_SECONDS), prepare_threshold=2)
            self._local.connection = connection
            self._opened.append(connection)
        return connection

    def _run(self, work: Callable[[Tx], T]) -> T:
        import psycopg

        for attempt in range(_PG_TRIES):
            connection = None
            try:
                connection = self._connection()
                with connection.transaction():
                    return work(_PgTx(connection))
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected,
                    psycopg.errors.UniqueViolation) as error:  # fmt: skip
                if attempt == _PG_TRIES - 1:
                    raise _translate(error) from error
                time.sleep(random.uniform(0.0, _PG_PAUSE * 2**attempt))
            except psycopg.OperationalError as error:
                if connection is not None:
                    connection.close()
                if attempt > 0:
                    raise _translate(error) from error
        raise AssertionError("unreachable")

    def _migrate(self, tx: Tx) -> None:
        tx.run("SELECT pg_advisory_xact_lock(7305)")  # two replicas that start together
        if tx.one("SELECT to_regclass('schema_version')") == (None,):
            tx.run("CREATE TABLE schema_version (value INTEGER NOT NULL)")
            tx.run("INSERT INTO schema_version VALUES (0)")
        row = tx.one("SELECT value FROM schema_version")
        version = 0 if row is None else int(row[0])
        if version > VERSION:
            raise SCHEMA_NEWER(version=version)
        for step in range(version, VERSION):
            for statement in statements("postgresql", step):
                tx.run(statement)
        tx.run("UPDATE schema_version SET value = ?", (VERSION,))

    async def write(self, work: Callable[[Tx], T]) -> T:
        job = asyncio.get_running_loop().run_in_executor(self._pool, self._run, work)
        return await asyncio.shield(job)

    read = write
    search = write

    async def write_later(self, work: Callable[[Tx], object], then: Callable[[], None]) -> None:
        """At once: another replica may be asked next."""
        await self.write(work)
        then()

    def epoch_now(self) -> None:
        return None

    async def epoch(self) -> int:
        """Joins the query that has not begun yet, never one that is under way."""
        if self._asking is None:
            return await asyncio.shield(self._ask())
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._next)

    def _ask(self) -> asyncio.Future[int]:
        def query(tx: Tx) -> int:
            row = tx.one("SELECT value FROM epoch")
            return 0 if row is None else int(row[0])

        self._asking = asyncio.get_running_loop().run_in_executor(self._pool, self._run, query)
        self._asking.add_done_callback(self._asked)
        return self._asking

    def _asked(self, _: asyncio.Future[int]) -> None:
        self._asking = None
        waiting, self._next = self._next, None
        if waiting is None:
            return

        def tell(answer: asyncio.Future[int]) -> None:
            if waiting.done():
                return
            error = answer.exception()
            if error is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(answer.result())

        self._ask().add_done_callback(tell)

    async def close(self) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        self._pool.shutdown(wait=True)
        for connection in self._opened:
            connection.close()


def open_database(url: str) -> SqliteDatabase | PostgresDatabase:
    """``postgresql://...`` or the path of a file. Raises DATABASE_FAILED."""
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(url)
    return SqliteDatabase(Path(url))
