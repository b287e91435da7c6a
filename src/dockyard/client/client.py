"""The Client: connections kept for reuse, version negotiation, requests, streams, hijacked connections, archives."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from dockyard.client.endpoint import DEFAULT_HOST, Endpoint, Tls, parse_host, resolve, usual_host
from dockyard.client.errors import BAD_ANSWER, CONNECTION_LOST, TOO_OLD, from_status
from dockyard.client.frames import MULTIPLEXED, STDOUT, Frame, decode, objects
from dockyard.client.hijack import Hijacked
from dockyard.client.wire import Head, Wire, connect
from dockyard.errors import DockyardError

ANSWER_TIMEOUT = 60.0  # dockerd answers most requests in milliseconds; a stop waits up to its own grace first
MAX_JSON = 512 * 1024 * 1024  # one answer held in memory; 10,000 containers inspect to about 60 MB
HINT_LIMIT = 500  # characters of what an engine says beside an error
MAX_IDLE = 4
NEWEST_API = "1.55"
OLDEST_API = "1.24"
USER_AGENT = "Dockyard-Client"
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

Query = Mapping[str, Any] | None
Value = str | tuple[str, ...]
"""Of a header: a line, or several."""


class Ping(NamedTuple):
    """What HEAD /_ping tells: the newest API version of the daemon, its builder and its Server header."""

    api_version: str
    os_type: str
    builder_version: str
    swarm: str
    server: str


class Response:
    """An answer whose body has not been read yet. Close it (or read it whole) to give the connection back."""

    def __init__(self, client: Client, wire: Wire, head: Head, *, bodiless: bool) -> None:
        self._client, self._wire, self._bodiless = client, wire, bodiless
        self._keep = head.headers.get("connection", "").lower() != "close"
        self._done = False
        self.status, self.headers = head.status, head.headers
        self._body = iter(()) if bodiless else wire.body(head)
        if bodiless:
            self._finish()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").split(";")[0].strip()

    def settimeout(self, seconds: float | None) -> None:
        """Longest silence between two reads of the body; None waits for ever (events, follow)."""
        self._wire.stream.settimeout(seconds)

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces."""
        yield from self._body
        self._finish()

    def read(self) -> bytes:
        """The body whole. Raises BAD_ANSWER beyond MAX_JSON."""
        parts, size = [], 0
        for piece in self.chunks():
            size += len(piece)
            if size > MAX_JSON:
                self.close()
                raise BAD_ANSWER(host=self._client.endpoint, cause=f"its body is longer than {MAX_JSON} bytes")
            parts.append(piece)
        return b"".join(parts)

    def json(self) -> Any:
        """The body as JSON; text when it is no JSON and not declared so; None when there is none.

        podman declares the documents of stats and top as text.
        """
        body = self.read()
        declared = self.content_type == "application/json"
        if not body:
            return None
        if not declared and body[:1] not in b"{[":
            return body.decode("utf-8", "replace")
        try:
            return json.loads(body)
        except ValueError as error:
            if not declared:
                return body.decode("utf-8", "replace")
            raise BAD_ANSWER(host=self._client.endpoint, cause=f"broken JSON: {error}") from None

    def objects(self) -> Iterator[Any]:
        """JSON values one by one (pull, build, events, stats)."""
        try:
            yield from objects(self.chunks())
        except ValueError as error:
            raise BAD_ANSWER(host=self._client.endpoint, cause=f"broken JSON: {error}") from None

    def frames(self, *, tty: bool | None = None) -> Iterator[Frame]:
        """Pieces of stdout and stderr (logs). ``tty`` as in `Hijacked.frames`; unknown: by content type."""
        multiplexed = self.content_type == MULTIPLEXED if tty is None else not tty
        if multiplexed:
            return decode(self.chunks())
        return (Frame(STDOUT, piece) for piece in self.chunks())

    def _finish(self) -> None:
        if not self._done:
            self._done = True
            self._client._give_back(self._wire, keep=self._keep)

    def close(self) -> None:
        """Drop what is unread; the connection goes with it, so that a long stream is not drained."""
        if not self._done:
            self._done = True
            self._wire.close()


class Client:
    """Requests to one daemon. Safe to share between threads; each request has a connection of its own."""

    def __init__(
        self,
        endpoint: Endpoint | str = DEFAULT_HOST,
        *,
        version: str = "",
        timeout: float = ANSWER_TIMEOUT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """``version`` pins the API version ("1.41"); empty: negotiated at the first request. ``timeout`` in seconds."""
        self.endpoint = parse_host(endpoint) if isinstance(endpoint, str) else endpoint
        self.timeout = timeout
        self.headers = dict(headers or {})
        self._version = version
        self._idle: list[Wire] = []
        self._lock = threading.Lock()

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        host: str = "",
        context: str = "",
        default: str = "",
        timeout: float = ANSWER_TIMEOUT,
        tls: Tls | None = None,
    ) -> Client:
        """The client that DOCKER_HOST, DOCKER_API_VERSION, TLS variables (or ``tls``) and contexts ask for; `usual_host` else."""
        env = os.environ if environ is None else environ
        endpoint = resolve(env, host=host, context=context, default=default or usual_host(), tls=tls)
        return cls(endpoint, version=env.get("DOCKER_API_VERSION", ""), timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()

    @property
    def version(self) -> str:
        """The API version used, negotiated when needed: the newer side steps down to the older."""
        if not self._version:
            server = self.ping().api_version or OLDEST_API
            if _number(server) < _number(OLDEST_API):
                raise TOO_OLD(host=self.endpoint, version=server, least=OLDEST_API)
            self._version = min(server, NEWEST_API, key=_number)
        return self._version

    def ping(self, *, timeout: float | None = None) -> Ping:
        """HEAD /_ping (GET for engines that refuse HEAD)."""
        for method in ("HEAD", "GET"):
            with self._exchange(method, "/_ping", {}, None, timeout) as answer:
                answer.read()
            if answer.status == 200:
                break
        else:
            raise from_status(answer.status, "")
        get = answer.headers.get
        return Ping(
            get("api-version", ""), get("ostype", ""), get("builder-version", ""), get("swarm", ""), get("server", "")
        )

    def request(
        self,
        method: str,
        path: str,
        query: Query = None,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """One request, its answer as parsed JSON (text if the daemon says text, None if empty).

        ``path`` starts with "/" and gets the version in front. ``query`` values: None is left out, bool becomes 1/0,
        dict and list become JSON (filters), a tuple repeats its name. ``body``: bytes or an iterable of bytes as they are, anything else as
        JSON. Raises the error kind of the status, with the daemon's message.
        """
        with self.open(method, path, query, body, headers=headers, timeout=timeout) as answer:
            return answer.json()

    def open(
        self,
        method: str,
        path: str,
        query: Query = None,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Response:
        """As `request`, but the body is left to be streamed. A 304 is an error (NotModified), as in docker."""
        target = f"/v{self.version}{path}{_query(query)}"
        answer = self._exchange(method, target, dict(headers or {}), body, timeout)
        if answer.status >= 300:
            raise self._refusal(answer)
        return answer

    def objects(self, method: str, path: str, query: Query = None, body: Any = None, **options: Any) -> Iterator[Any]:
        """JSON values of a streaming endpoint. An ``{"error": ...}`` value is passed on, not raised."""
        with self.open(method, path, query, body, **options) as answer:
            yield from answer.objects()

    def hijack(
        self,
        path: str,
        query: Query = None,
        body: Any = None,
        *,
        headers: Mapping[str, Value] | None = None,
        timeout: float | None = None,
    ) -> Hijacked:
        """POST that takes the connection over (attach, exec start, BuildKit's). Old engines answer 200, new ones 101. A
        header may have several values, a line each."""
        target = f"/v{self.version}{path}{_query(query)}"
        extra: dict[str, Value] = {"Connection": "Upgrade", "Upgrade": "tcp", **(headers or {})}
        wire = connect(self.endpoint, self.timeout if timeout is None else timeout)
        try:
            head = self._send(wire, "POST", target, extra, body)
        except BaseException:
            wire.close()
            raise
        if head.status not in (101, 200):
            raise self._refusal(Response(self, wire, head, bodiless=_bodiless("POST", head)))
        return Hijacked(wire, head.headers.get("content-type", "").split(";")[0].strip())

    def get_archive(self, container: str, path: str) -> tuple[dict[str, Any], Response]:
        """Stat of ``path`` (name, size, mode, mtime, linkTarget) and the tar stream; close the response."""
        answer = self.open("GET", f"/containers/{quote(container)}/archive", {"path": path})
        return _stat(answer), answer

    def stat_archive(self, container: str, path: str) -> dict[str, Any]:
        with self.open("HEAD", f"/containers/{quote(container)}/archive", {"path": path}) as answer:
            return _stat(answer)

    def put_archive(self, container: str, path: str, tar: bytes | Iterable[bytes], **query: Any) -> None:
        """Extract ``tar`` (any compression) in directory ``path``."""
        target = f"/containers/{quote(container)}/archive"
        self.request("PUT", target, {"path": path, **query}, tar, headers={"Content-Type": "application/x-tar"})

    def _refusal(self, answer: Response) -> DockyardError:
        try:
            with answer:
                body = answer.read().decode("utf-8", "replace").strip()
        except DockyardError:
            body = ""
        try:
            told = json.loads(body)
            message, hint = told["message"], told.get("hint", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            message, hint = body, ""
        return from_status(answer.status, str(message), str(hint)[:HINT_LIMIT])

    def _exchange(
        self, method: str, target: str, headers: dict[str, str], body: Any, timeout: float | None
    ) -> Response:
        limit = self.timeout if timeout is None else timeout
        wire, reused = self._take(limit)
        try:
            head = self._send(wire, method, target, headers, body)
        except DockyardError as error:
            wire.close()
            if not (reused and error.code == CONNECTION_LOST.id and method in ("GET", "HEAD")):
                raise
            wire = connect(self.endpoint, limit)  # the daemon closed an idle connection: once more on a fresh one
            head = self._send(wire, method, target, headers, body)
        except BaseException:
            wire.close()
            raise
        return Response(self, wire, head, bodiless=_bodiless(method, head))

    def _send(self, wire: Wire, method: str, target: str, headers: Mapping[str, Value], body: Any) -> Head:
        if self.endpoint.prefix:
            target = f"/{self.endpoint.prefix}{target}"
        host = "docker" if self.endpoint.scheme == "unix" else f"{self.endpoint.hostname}:{self.endpoint.port}"
        fields: dict[str, Value] = {"Host": host, "User-Agent": USER_AGENT, **self.headers, **headers}
        chunks: Iterable[bytes] | None = None
        payload = b""
        if isinstance(body, bytes | bytearray):
            payload = bytes(body)
        elif hasattr(body, "__next__") or hasattr(body, "read"):
            chunks = iter(lambda: body.read(65536), b"") if hasattr(body, "read") else body
        elif body is not None:
            payload = json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
        if chunks is not None:
            fields["Transfer-Encoding"] = "chunked"
        elif payload or method in ("POST", "PUT"):
            fields["Content-Length"] = str(len(payload))
        values = ((name, (value,) if isinstance(value, str) else value) for name, value in fields.items())
        lines = "".join(f"{name}: {each}\r\n" for name, several in values for each in several)
        wire.send(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + payload)
        if chunks is not None:
            wire.send_chunks(chunks)
        return wire.read_head()

    def _take(self, timeout: float) -> tuple[Wire, bool]:
        while True:
            with self._lock:
                wire = self._idle.pop() if self._idle else None
            if wire is None:
                return connect(self.endpoint, timeout), False
            if select.select([wire.stream.fileno()], [], [], 0)[0]:  # readable while idle: closed by the daemon
                wire.close()
                continue
            wire.stream.settimeout(timeout)
            return wire, True

    def _give_back(self, wire: Wire, *, keep: bool) -> None:
        if keep and not wire.closed and not wire.buffer:
            with self._lock:
                if len(self._idle) < MAX_IDLE:
                    self._idle.append(wire)
                    return
        wire.close()


def quote(text: str, keep: bytes = b"") -> str:
    """Percent-encode a path segment or query part (RFC 3986 section 2.3) but ``keep``; urllib.parse costs 5 ms."""
    return "".join(chr(byte) if byte in _UNRESERVED or byte in keep else f"%{byte:02X}" for byte in text.encode())


def quote_image(name: str) -> str:
    """The name of an image in a path: its slashes, colons and at sign are the path's own, as docker writes them."""
    return quote(name, b"/:@")


def _bodiless(method: str, head: Head) -> bool:
    return method == "HEAD" or head.status in (204, 304)  # RFC 9112 section 6.3


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def _query(query: Query) -> str:
    pairs = []
    for name, value in (query or {}).items():
        for one in value if isinstance(value, tuple) else (value,):
            if one is None:
                continue
            if isinstance(one, bool):
                one = int(one)
            elif isinstance(one, dict | list):
                one = json.dumps(one, separators=(",", ":"))
            pairs.append(f"{quote(name)}={quote(str(one))}")
    return "?" + "&".join(pairs) if pairs else ""


def _stat(answer: Response) -> dict[str, Any]:
    import base64

    try:
        stat = json.loads(base64.b64decode(answer.headers.get("x-docker-container-path-stat", "")))
    except ValueError:
        return {}
    return stat if isinstance(stat, dict) else {}
