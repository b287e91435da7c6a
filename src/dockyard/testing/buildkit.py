"""A BuildKit client in Python: what buildx does on the wire, for tests that must not need Go.

It asks over one connection (Control, LLBBridge) and serves its own files, secrets and outputs over another, as
``docker buildx build`` does: Solve without a frontend, Status beside it, the frontend through LLBBridge.Solve, Return.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockyard.build.doors.buildkit import filesync
from dockyard.build.doors.buildkit.http2 import Headers, Wire
from dockyard.build.doors.buildkit.rpc import NOT_FOUND, Call, Channel, Exchange, Routes, RpcError, serve, unary
from dockyard.build.proto import content_pb2, control_pb2, gateway_pb2, rpc_pb2, session_pb2

__all__ = ["Answer", "BuildClient", "ExchangeWire", "StreamPairWire", "connected", "dial", "wire_pair"]

CONTROL, BRIDGE = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
CONTENT = "/containerd.services.content.v1.Content/"
PIECE = 32 << 10
Packet = session_pb2.Packet


class StreamPairWire:
    """asyncio's streams as a wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self, n: int = 65536) -> bytes:
        return await self.reader.read(n)

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def drain(self) -> None:
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()


class ExchangeWire:
    """A session inside a call of ours (Control.Session), as clients without POST /session open it."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.out: list[bytes] = []

    async def read(self, n: int = 65536) -> bytes:
        await self.drain()
        try:
            data = await self.exchange.recv()
        except RpcError:
            return b""
        return rpc_pb2.BytesMessage.FromString(data).data if data is not None else b""

    def write(self, data: bytes) -> None:
        self.out.append(data)
        asyncio.get_running_loop().create_task(self.drain())

    async def drain(self) -> None:
        data, self.out = b"".join(self.out), []
        if data:
            await self.exchange.send(rpc_pb2.BytesMessage(data=data))

    def close(self) -> None:
        self.exchange.end()


async def wire_pair() -> tuple[StreamPairWire, StreamPairWire]:
    import socket

    left, right = socket.socketpair()
    return (
        StreamPairWire(*await asyncio.open_unix_connection(sock=left)),
        StreamPairWire(*await asyncio.open_unix_connection(sock=right)),
    )


async def dial(path: str, target: str, headers: Headers = []) -> StreamPairWire:  # noqa: B006 - never changed
    """An upgraded connection on an engine's socket. Raises ConnectionError when it is refused."""
    reader, writer = await asyncio.open_unix_connection(path)
    lines = [f"POST {target} HTTP/1.1", "Host: docker", "Connection: Upgrade", "Upgrade: h2c"]
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        writer.close()
        raise ConnectionError(head.decode())
    return StreamPairWire(reader, writer)


@dataclass
class Answer:
    """``status`` is everything that Status told; ``metadata`` the frontend's."""

    response: dict[str, str]
    status: list[control_pb2.StatusResponse]
    metadata: dict[str, bytes]
    result: gateway_pb2.Result

    @property
    def log(self) -> str:
        return b"".join(row.msg for answer in self.status for row in answer.logs).decode()

    def vertexes(self) -> dict[str, control_pb2.Vertex]:
        return {row.name: row for answer in self.status for row in answer.vertexes}


@dataclass
class BuildClient:
    """``directories`` by name; ``outputs`` collects what exporters send, by exporter ID."""

    channel: Channel
    directories: dict[str, Path]
    secrets: dict[str, bytes] = field(default_factory=dict)
    credentials: dict[str, tuple[str, str]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    outputs: dict[int, bytes] = field(default_factory=dict)
    trees: dict[int, dict[str, bytes]] = field(default_factory=dict)
    stores: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Content stores by ID, blobs by digest."""
    cache_from: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    cache_to: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    """Files that the daemon has asked the content of."""
    id: str = field(default_factory=lambda: secrets.token_hex(16))

    async def serve(self, wire: Wire) -> None:
        """Our side of the session."""
        await serve(wire, self.routes())

    def routes(self) -> Routes:
        return {
            filesync.DIFF_COPY: self._diff_copy,
            "/moby.filesync.v1.FileSend/DiffCopy": self._receive,
            "/moby.buildkit.secrets.v1.Secrets/GetSecret": unary(session_pb2.GetSecretRequest, self._secret),
            "/moby.filesync.v1.Auth/Credentials": unary(session_pb2.CredentialsRequest, self._credentials),
            "/moby.upload.v1.Upload/Pull": self._upload,
            f"{CONTENT}Read": self._read_blob,
            f"{CONTENT}Write": self._write_blob,
            "/grpc.health.v1.Health/Check": unary(rpc_pb2.HealthCheckRequest, _healthy),
        }

    def headers(self, shared_key: str = "") -> Headers:
        head = [("X-Docker-Expose-Session-Uuid", self.id), ("X-Docker-Expose-Session-Sharedkey", shared_key)]
        return head + [("X-Docker-Expose-Session-Grpc-Method", path) for path in self.routes()]

    async def build(
        self, opts: Mapping[str, str], exporters: Sequence[tuple[str, Mapping[str, str]]] = (), *,
        inputs: Mapping[str, Any] | None = None, ref: str = "",
    ) -> Answer:  # fmt: skip
        """As ``docker buildx build``. Raises RpcError."""
        ref = ref or secrets.token_hex(12)
        asked = control_pb2.SolveRequest(ref=ref, session=self.id)
        if exporters:  # for older daemons, as clients send it
            asked.exporter_deprecated = exporters[0][0]
            asked.exporter_attrs_deprecated.update(exporters[0][1])
        asked.exporters.extend(control_pb2.Exporter(type=kind, attrs=attrs) for kind, attrs in exporters)
        asked.cache.imports.extend(control_pb2.CacheOptionsEntry(type=kind, attrs=attrs) for kind, attrs in self.cache_from)
        asked.cache.exports.extend(control_pb2.CacheOptionsEntry(type=kind, attrs=attrs) for kind, attrs in self.cache_to)
        solving = asyncio.ensure_future(
            self.channel.ask(f"{CONTROL}Solve", asked, control_pb2.SolveResponse, timeout=120)
        )
        following = asyncio.ensure_future(self.follow(ref))
        try:
            answer = await self._bridge(ref, opts, inputs or {})
            solved = await solving
            return Answer(dict(solved.exporter_response), await following, dict(answer.metadata), answer)
        except RpcError:
            await asyncio.gather(solving, return_exceptions=True)
            raise
        finally:
            solving.cancel()
            following.cancel()
            await asyncio.gather(solving, following, return_exceptions=True)

    async def follow(self, ref: str) -> list[control_pb2.StatusResponse]:
        rows = []
        async with self.channel.open(f"{CONTROL}Status") as exchange:
            await exchange.send(control_pb2.StatusRequest(ref=ref))
            exchange.end()
            while (data := await exchange.recv()) is not None:
                rows.append(control_pb2.StatusResponse.FromString(data))
        return rows

    async def _bridge(self, ref: str, opts: Mapping[str, str], inputs: Mapping[str, Any]) -> gateway_pb2.Result:
        build = [("buildkit-controlapi-buildid", ref)]
        await self.channel.ask(f"{BRIDGE}Ping", rpc_pb2.Empty(), gateway_pb2.PongResponse, build)
        returned = gateway_pb2.ReturnRequest()
        try:
            question = gateway_pb2.SolveRequest(frontend="dockerfile.v0", frontend_opt=opts, frontend_inputs=inputs)
            solved = await self.channel.ask(f"{BRIDGE}Solve", question, gateway_pb2.SolveResponse, build, timeout=120)
            returned.result.CopyFrom(solved.result)
            return solved.result
        except RpcError as error:
            returned.error.CopyFrom(rpc_pb2.Status(code=error.code, message=error.message))
            raise
        finally:
            await self.channel.ask(f"{BRIDGE}Return", returned, rpc_pb2.Empty, build)

    # -- what the daemon asks of us --

    async def _diff_copy(self, call: Call) -> None:
        name = call.metadata.get("dir-name", [""])[0]
        if name not in self.directories:
            raise RpcError(NOT_FOUND, f"no access allowed to dir {name!r}")
        files = _listed(self.directories[name], call.metadata.get("followpaths", []), call.metadata.get("exclude-patterns", []))
        for _, stat in files:
            await call.send(Packet(type=Packet.STAT, stat=stat))
        await call.send(Packet(type=Packet.STAT))
        while (data := await call.recv()) is not None:
            packet = Packet.FromString(data)
            if packet.type == Packet.FIN:
                await call.send(Packet(type=Packet.FIN))
                return
            path = files[packet.id][0]
            self.requested.append(path)
            content = (self.directories[name] / path).read_bytes()
            for start in range(0, len(content), PIECE):
                await call.send(Packet(type=Packet.DATA, id=packet.id, data=content[start : start + PIECE]))
            await call.send(Packet(type=Packet.DATA, id=packet.id))

    async def _receive(self, call: Call) -> None:
        number = int(call.metadata["buildkit-attachable-exporter-id"][0])
        first = await call.recv()
        if number in self.trees:
            await self._receive_tree(call, first, self.trees[number])
            return
        call.begin()
        whole = bytearray()
        while first is not None:
            whole += rpc_pb2.BytesMessage.FromString(first).data
            first = await call.recv()
        self.outputs[number] = bytes(whole)

    async def _receive_tree(self, call: Call, first: bytes | None, tree: dict[str, bytes]) -> None:
        wanted: dict[int, str] = {}
        count, listed = 0, False
        while first is not None:
            packet = Packet.FromString(first)
            if packet.type == Packet.STAT and packet.HasField("stat"):
                tree[packet.stat.path] = b""
                if not packet.stat.mode & filesync.MODE_TYPE:
                    wanted[count] = packet.stat.path
                    await call.send(Packet(type=Packet.REQ, id=count))
                count += 1
            elif packet.type == Packet.STAT:
                listed = True
            elif packet.type == Packet.DATA and packet.data:
                tree[wanted[packet.id]] += packet.data
            elif packet.type == Packet.DATA:
                del wanted[packet.id]
            elif packet.type == Packet.FIN:
                return
            if listed and not wanted and packet.type != Packet.FIN:
                await call.send(Packet(type=Packet.FIN))
                listed = False
            first = await call.recv()

    async def _secret(self, call: Call, asked: session_pb2.GetSecretRequest) -> session_pb2.GetSecretResponse:
        if asked.id not in self.secrets:
            raise RpcError(NOT_FOUND, f"secret {asked.id}: not found")
        return session_pb2.GetSecretResponse(data=self.secrets[asked.id])

    async def _credentials(self, call: Call, asked: session_pb2.CredentialsRequest) -> session_pb2.CredentialsResponse:
        user, secret = self.credentials.get(asked.host, ("", ""))
        return session_pb2.CredentialsResponse(username=user, secret=secret)

    def _store(self, call: Call) -> dict[str, bytes]:
        name = call.metadata.get("buildkit-attachable-store-id", [""])[0]
        if name not in self.stores:
            raise RpcError(NOT_FOUND, f"unknown store {name!r}")
        return self.stores[name]

    async def _read_blob(self, call: Call) -> None:
        store, data = self._store(call), await call.recv()
        blob = store.get(content_pb2.ReadContentRequest.FromString(data or b"").digest)
        if blob is None:
            raise RpcError(NOT_FOUND, "content not found")
        for start in range(0, len(blob), PIECE):
            await call.send(content_pb2.ReadContentResponse(offset=start, data=blob[start : start + PIECE]))

    async def _write_blob(self, call: Call) -> None:
        """As containerd's store: a blob that is there already is refused at its commit."""
        store, blob = self._store(call), bytearray()
        while (data := await call.recv()) is not None:
            asked = content_pb2.WriteContentRequest.FromString(data)
            if asked.offset not in (0, len(blob)):
                raise RpcError(11, f"offset {asked.offset}, {len(blob)} expected")
            blob += asked.data
            digest = "sha256:" + hashlib.sha256(blob).hexdigest()
            if asked.action == content_pb2.COMMIT:
                if digest in store:
                    raise RpcError(6, f"content {digest}: already exists")
                store[digest] = bytes(blob)
            await call.send(content_pb2.WriteContentResponse(action=asked.action, offset=len(blob), digest=digest))

    async def _upload(self, call: Call) -> None:
        content = self.uploads[call.metadata["urlpath"][0].lstrip("/")]
        for start in range(0, len(content), PIECE):
            await call.send(rpc_pb2.BytesMessage(data=content[start : start + PIECE]))


@asynccontextmanager
async def connected(socket: str, folder: Path, **fields: Any) -> AsyncIterator[BuildClient]:
    """A client of the engine at ``socket`` with a session that offers ``folder``; leaving it is leaving the engine."""
    channel = Channel(await dial(socket, "/grpc"))
    made = BuildClient(channel, {"context": folder, "dockerfile": folder}, **fields)
    session = await dial(socket, "/session", made.headers(shared_key=str(folder)))
    tasks = [asyncio.ensure_future(channel.run()), asyncio.ensure_future(made.serve(session))]
    try:
        yield made
    finally:
        channel.close()
        session.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _healthy(call: Call, asked: rpc_pb2.HealthCheckRequest) -> rpc_pb2.HealthCheckResponse:
    """BuildKit ends a session that does not answer this."""
    return rpc_pb2.HealthCheckResponse(status=1)


def _listed(root: Path, follow: Sequence[str], exclude: Sequence[str]) -> list[tuple[str, session_pb2.Stat]]:
    """As fsutil walks; ``exclude`` by plain names only, which is all that our tests need."""
    found: list[tuple[str, session_pb2.Stat]] = []

    def walk(folder: str) -> None:
        for name in sorted(os.listdir(root / folder)):
            path = posixpath.join(folder, name)
            wanted = not follow or any(path == f or path.startswith(f + "/") or f.startswith(path + "/") for f in follow)
            if not wanted or any(path == pattern or path.startswith(pattern + "/") for pattern in exclude):
                continue
            info = os.lstat(root / path)
            kind = {0o040000: filesync.MODE_DIR, 0o120000: filesync.MODE_SYMLINK}.get(info.st_mode & 0o170000, 0)
            link = os.readlink(root / path) if kind == filesync.MODE_SYMLINK else ""
            stat = session_pb2.Stat(
                path=path, mode=kind | info.st_mode & 0o777, size=0 if kind else info.st_size,
                mod_time=info.st_mtime_ns, linkname=link,
            )  # fmt: skip
            found.append((path, stat))
            if kind == filesync.MODE_DIR:
                walk(path)

    walk("")
    return found
