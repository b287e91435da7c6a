"""What the engine asks of us while it builds: files, the context on stdin, secrets, agents, credentials, blobs; and what it
sends, which goes to files, to a directory or to stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from dockyard.build.doors.buildkit import filesync
from dockyard.build.doors.buildkit.http2 import Headers
from dockyard.build.doors.buildkit.rpc import NOT_FOUND, Call, Routes, RpcError, unary
from dockyard.build.proto import content_pb2, rpc_pb2, session_pb2
from dockyard.cli import auths
from dockyard.kernel import safefs
from dockyard.storage import files as trees
from dockyard.storage.pipe import run_with_input

from .files import listed
from .store import LayoutStore
from .wish import Output, Wish

__all__ = ["Session"]

PIECE = 32 << 10
BATCH = 256
CONTENT = "/containerd.services.content.v1.Content/"
STORE_ID, EXPORTER_ID, SSH_ID = "buildkit-attachable-store-id", "buildkit-attachable-exporter-id", "buildkit.ssh.id"
FAILED_PRECONDITION = 9
HUB_HOSTS = ("registry-1.docker.io", "docker.io")
Packet = session_pb2.Packet
T = TypeVar("T")


class Session:
    """Our side of one build."""

    def __init__(self, wish: Wish, threads: ThreadPoolExecutor) -> None:
        self.wish, self.threads = wish, threads
        self.id = secrets.token_hex(16)
        self.stores = {
            f"local:{path}": LayoutStore(Path(path))
            for kind, attrs in (*wish.cache_from, *wish.cache_to) if kind == "local"
            for path in (attrs.get("src", ""), attrs.get("dest", "")) if path
        }  # fmt: skip

    def headers(self, shared_key: str) -> Headers:
        head = [("X-Docker-Expose-Session-Uuid", self.id), ("X-Docker-Expose-Session-Sharedkey", shared_key)]
        return head + [("X-Docker-Expose-Session-Grpc-Method", path) for path in self.routes()]

    def routes(self) -> Routes:
        return {
            filesync.DIFF_COPY: self._diff_copy,
            "/moby.filesync.v1.FileSend/DiffCopy": self._receive,
            "/moby.buildkit.secrets.v1.Secrets/GetSecret": unary(session_pb2.GetSecretRequest, self._secret),
            "/moby.filesync.v1.Auth/Credentials": unary(session_pb2.CredentialsRequest, self._credentials),
            "/moby.sshforward.v1.SSH/CheckAgent": unary(session_pb2.CheckAgentRequest, self._check_agent),
            "/moby.sshforward.v1.SSH/ForwardAgent": self._forward_agent,
            "/moby.upload.v1.Upload/Pull": self._upload,
            f"{CONTENT}Read": self._read_blob,
            f"{CONTENT}Write": self._write_blob,
            "/grpc.health.v1.Health/Check": unary(rpc_pb2.HealthCheckRequest, _healthy),
        }

    # -- files --------------------------------------------------------------------------------------------------------

    async def _diff_copy(self, call: Call) -> None:
        name = call.metadata.get("dir-name", [""])[0]
        root = self.wish.directories.get(name)
        if root is None:
            raise RpcError(NOT_FOUND, f"no access allowed to dir {name!r}")
        try:
            await self._send_directory(call, root)
        except OSError as error:
            raise RpcError(FAILED_PRECONDITION, f"cannot read {error.filename or root}: {error.strerror}") from None

    async def _send_directory(self, call: Call, root: Path) -> None:
        follow, exclude = call.metadata.get("followpaths", []), call.metadata.get("exclude-patterns", [])
        paths = []
        entries = listed(root, follow, exclude)
        while batch := await self._thread(lambda: list(islice(entries, BATCH))):
            for path, stat in batch:
                paths.append(path)
                await call.send(Packet(type=Packet.STAT, stat=stat))
        await call.send(Packet(type=Packet.STAT))
        while (data := await call.recv()) is not None:
            packet = Packet.FromString(data)
            if packet.type == Packet.FIN:
                await call.send(Packet(type=Packet.FIN))
                return
            if packet.type == Packet.REQ and packet.id < len(paths):
                async for piece in self._pieces(root / paths[packet.id]):
                    await call.send(Packet(type=Packet.DATA, id=packet.id, data=piece))
                await call.send(Packet(type=Packet.DATA, id=packet.id))

    async def _pieces(self, path: Path) -> AsyncIterator[bytes]:
        with open(path, "rb", buffering=0) as file:
            while block := await self._thread(lambda: file.read(PIECE * 32)):
                for start in range(0, len(block), PIECE):
                    yield block[start : start + PIECE]

    async def _upload(self, call: Call) -> None:
        while data := await self._thread(lambda: os.read(sys.stdin.fileno(), PIECE)):
            await call.send(rpc_pb2.BytesMessage(data=data))

    # -- secrets, agents, credentials -----------------------------------------------------------------------------------

    async def _secret(self, call: Call, asked: session_pb2.GetSecretRequest) -> session_pb2.GetSecretResponse:
        if asked.id not in self.wish.secrets:
            raise RpcError(NOT_FOUND, f"secret {asked.id}: not found")
        return session_pb2.GetSecretResponse(data=self.wish.secrets[asked.id])

    async def _credentials(self, call: Call, asked: session_pb2.CredentialsRequest) -> session_pb2.CredentialsResponse:
        server = auths.HUB if asked.host in HUB_HOSTS else asked.host
        kept = await self._thread(lambda: auths.credentials(server))
        if token := kept.get("identitytoken"):
            return session_pb2.CredentialsResponse(secret=token)
        return session_pb2.CredentialsResponse(username=kept.get("username", ""), secret=kept.get("password", ""))

    async def _check_agent(self, call: Call, asked: session_pb2.CheckAgentRequest) -> rpc_pb2.Empty:
        if (asked.id or "default") not in self.wish.agents:
            raise RpcError(NOT_FOUND, f"unset ssh forward key {asked.id or 'default'}: --ssh {asked.id or 'default'} gives it")
        return rpc_pb2.Empty()

    async def _forward_agent(self, call: Call) -> None:
        path = self.wish.agents.get(call.metadata.get(SSH_ID, ["default"])[0] or "default")
        if path is None:
            raise RpcError(NOT_FOUND, "unset ssh forward key")
        reader, writer = await asyncio.open_unix_connection(path)

        async def up() -> None:
            while (data := await call.recv()) is not None:
                writer.write(rpc_pb2.BytesMessage.FromString(data).data)
                await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(up())
        try:
            while data := await reader.read(PIECE):
                await call.send(rpc_pb2.BytesMessage(data=data))
        finally:
            sending.cancel()
            writer.close()
            await asyncio.gather(sending, return_exceptions=True)

    # -- outputs ------------------------------------------------------------------------------------------------------

    async def _receive(self, call: Call) -> None:
        number = call.metadata.get(EXPORTER_ID, ["0"])[0]
        outputs = self.wish.outputs
        if not number.isdigit() or int(number) >= len(outputs) or not outputs[int(number)].dest:
            raise RpcError(NOT_FOUND, f"no output {number[:20]} was asked for")
        call.begin()
        try:
            await self._keep(outputs[int(number)], _received(call))
        except OSError as error:
            raise RpcError(FAILED_PRECONDITION, f"cannot write {outputs[int(number)].dest}: {error.strerror}") from None

    async def _keep(self, output: Output, chunks: AsyncIterator[bytes]) -> None:
        if output.unpack:
            Path(output.dest).mkdir(parents=True, exist_ok=True)
            with safefs.root_fd(output.dest) as root:
                owner = (os.getuid(), os.getgid())
                await run_with_input(self.threads, chunks, lambda source: trees.unpack(
                    source, root, ".", keep_kind=False, owner=owner
                ))  # fmt: skip
        elif output.dest == "-":
            async for chunk in chunks:
                await self._thread(lambda chunk=chunk: sys.stdout.buffer.write(chunk))  # type: ignore[misc]
            sys.stdout.buffer.flush()
        else:
            await self._to_file(Path(output.dest), chunks)

    async def _to_file(self, path: Path, chunks: AsyncIterator[bytes]) -> None:
        """In one step: a broken end leaves nothing."""
        handle, part = tempfile.mkstemp(prefix=".dockyard-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                async for chunk in chunks:
                    await self._thread(lambda chunk=chunk: file.write(chunk))  # type: ignore[misc]
            os.chmod(part, 0o644)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise

    # -- stores of blobs ------------------------------------------------------------------------------------------------

    def _store(self, call: Call) -> LayoutStore:
        name = call.metadata.get(STORE_ID, [""])[0]
        if name not in self.stores:
            raise RpcError(NOT_FOUND, f"unknown store {name[:200]!r}")
        return self.stores[name]

    async def _read_blob(self, call: Call) -> None:
        store, data = self._store(call), await call.recv()
        asked = content_pb2.ReadContentRequest.FromString(data or b"")
        pieces = store.read(asked.digest)
        try:
            while piece := await self._thread(lambda: next(pieces, b"")):
                await call.send(content_pb2.ReadContentResponse(data=piece))
        except OSError:
            raise RpcError(NOT_FOUND, f"content {asked.digest[:100]}: not found") from None

    async def _write_blob(self, call: Call) -> None:
        store = self._store(call)
        ingest = await self._thread(store.begin)
        try:
            while (data := await call.recv()) is not None:
                asked = content_pb2.WriteContentRequest.FromString(data)
                if asked.offset not in (0, ingest.size):
                    raise RpcError(FAILED_PRECONDITION, f"offset {asked.offset}, {ingest.size} expected")
                await self._thread(lambda asked=asked: ingest.write(asked.data))  # type: ignore[misc]
                if asked.action == content_pb2.COMMIT:
                    await self._thread(ingest.commit)
                await call.send(content_pb2.WriteContentResponse(action=asked.action, offset=ingest.size, digest=ingest.digest))
        finally:
            ingest.abort()

    async def _thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)


async def _received(call: Call) -> AsyncIterator[bytes]:
    while (data := await call.recv()) is not None:
        yield rpc_pb2.BytesMessage.FromString(data).data


async def _healthy(call: Call, asked: rpc_pb2.HealthCheckRequest) -> rpc_pb2.HealthCheckResponse:
    return rpc_pb2.HealthCheckResponse(status=1)
