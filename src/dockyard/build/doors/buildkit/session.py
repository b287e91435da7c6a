"""Sessions: what a client offers to the builds that it asks for. We ask over the connection that it opened to us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from ...errors import SESSION_LOST
from ...proto import rpc_pb2, session_pb2
from .errors import SESSION_EXISTS
from .http2 import Headers, StreamLost, Wire
from .rpc import NOT_FOUND, UNIMPLEMENTED, Channel, Exchange, RpcError

__all__ = ["ClientSession", "Sessions"]

WAIT_LIMIT = 10.0
"""Seconds that a build waits for the session it names: clients open both at the same time."""
MAX_SESSIONS = 1000
GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
UPLOAD = "/moby.upload.v1.Upload/Pull"
HEALTH = "/grpc.health.v1.Health/Check"
HEALTH_PAUSE, HEALTH_LIMIT, HEALTH_FAILURES = 10.0, 30.0, 3
"""Seconds between questions, seconds for an answer (a client may be busy sending), failures in a row that mean gone."""
PIECE = 32 << 10
HUB_HOST = "registry-1.docker.io"


class ClientSession:
    """One client. ``methods`` are the gRPC paths that it says it serves, in lower case; none said: all are tried."""

    def __init__(self, id: str, channel: Channel, *, shared_key: str = "", methods: Sequence[str] = ()) -> None:
        self.id, self.channel, self.shared_key = id, channel, shared_key
        self.methods = frozenset(name.lower() for name in methods)

    def offers(self, path: str) -> bool:
        return not self.channel.closed and (not self.methods or path.lower() in self.methods)

    async def secret(self, id: str) -> bytes | None:
        """None when the client has none of that name. Raises System when the session is lost."""
        if not self.offers(GET_SECRET):
            return None
        question = session_pb2.GetSecretRequest(id=id)
        try:
            answer = await self.channel.ask(GET_SECRET, question, session_pb2.GetSecretResponse)
        except RpcError as error:
            if error.code in (NOT_FOUND, UNIMPLEMENTED):
                return None
            raise SESSION_LOST(id=self.id, cause=error.message) from None
        return answer.data

    async def credentials(self, host: str) -> tuple[str, str]:
        """(user name, secret) for a registry, empty without any. An empty user name means an identity token."""
        if not self.offers(CREDENTIALS):
            return "", ""
        question = session_pb2.CredentialsRequest(host=HUB_HOST if host == "docker.io" else host)
        try:
            answer = await self.channel.ask(CREDENTIALS, question, session_pb2.CredentialsResponse)
        except RpcError:
            return "", ""  # a client whose helper fails may still pull what is public; the registry will say
        return answer.username, answer.secret

    async def has_agent(self, id: str) -> bool:
        if not self.offers(CHECK_AGENT):
            return False
        try:
            await self.channel.ask(CHECK_AGENT, session_pb2.CheckAgentRequest(id=id), rpc_pb2.Empty)
        except RpcError:
            return False
        return True

    async def upload(self, path: str) -> AsyncIterator[bytes]:
        """What the client feeds from its standard input."""
        metadata: Headers = [("urlpath", path), ("urlhost", "buildkit-session")]
        try:
            async with self.channel.open(UPLOAD, metadata) as exchange:
                while (data := await exchange.recv()) is not None:
                    yield rpc_pb2.BytesMessage.FromString(data).data
        except RpcError as error:
            raise SESSION_LOST(id=self.id, cause=error.message) from None


class Agents:
    """Sockets of one build that lead to the client's SSH agents."""

    def __init__(self, session: ClientSession, directory: Path) -> None:
        self.session, self.directory = session, directory
        self._servers: dict[str, tuple[asyncio.Server, str]] = {}

    async def socket(self, id: str) -> str | None:
        name = id or "default"
        if name not in self._servers:
            if not await self.session.has_agent(name):
                return None
            folder = tempfile.mkdtemp(prefix="ssh-", dir=self.directory)
            path = posixpath.join(folder, f"{secrets.token_hex(4)}.sock")
            server = await asyncio.start_unix_server(lambda r, w: self._forward(name, r, w), path)
            os.chmod(folder, 0o711)  # the step may run as any user; the name cannot be guessed
            os.chmod(path, 0o666)
            self._servers[name] = (server, path)
        return self._servers[name][1]

    async def aclose(self) -> None:
        for server, path in self._servers.values():
            server.close()
            with contextlib.suppress(OSError):
                os.unlink(path)
                os.rmdir(posixpath.dirname(path))
        self._servers.clear()

    async def _forward(self, id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self.session.channel.open(FORWARD_AGENT, [("buildkit.ssh.id", id)]) as exchange:
                up = asyncio.get_running_loop().create_task(_up(exchange, reader))
                try:
                    while (data := await exchange.recv()) is not None:
                        writer.write(rpc_pb2.BytesMessage.FromString(data).data)
                        await writer.drain()
                finally:
                    up.cancel()
                    await asyncio.gather(up, return_exceptions=True)
        except (RpcError, StreamLost, ConnectionError):
            pass  # the step sees its agent hang up
        finally:
            writer.close()


async def _up(exchange: Exchange, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(PIECE):
        await exchange.send(rpc_pb2.BytesMessage(data=data))
    exchange.end()


async def _watch(channel: Channel) -> None:
    """Ends the session of a client that is there no more without having hung up (a laptop asleep, a cut line)."""
    failures = 0
    while failures < HEALTH_FAILURES:
        await asyncio.sleep(HEALTH_PAUSE)
        try:
            await channel.ask(
                HEALTH, rpc_pb2.HealthCheckRequest(), rpc_pb2.HealthCheckResponse, timeout=HEALTH_LIMIT
            )
            failures = 0
        except RpcError as error:
            if error.code == UNIMPLEMENTED:
                return
            failures += 1
        except TimeoutError:
            failures += 1
    channel.close()


class Sessions:
    """Who is connected now, by session ID."""

    def __init__(self) -> None:
        self._sessions: dict[str, ClientSession] = {}
        self._changed = asyncio.Condition()

    async def serve(self, wire: Wire, id: str, *, shared_key: str = "", methods: Sequence[str] = ()) -> None:
        """Until the client hangs up. Raises Conflict for an ID that is taken."""
        if not id or id in self._sessions or len(self._sessions) >= MAX_SESSIONS:
            wire.close()
            raise SESSION_EXISTS(id=id[:100])
        channel = Channel(wire)
        self._sessions[id] = ClientSession(id, channel, shared_key=shared_key, methods=methods)
        async with self._changed:
            self._changed.notify_all()
        watching = asyncio.get_running_loop().create_task(_watch(channel))
        try:
            await channel.run()
        finally:
            del self._sessions[id]
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def get(self, id: str) -> ClientSession:
        """Waits for a session that is about to come. Raises System."""
        id = id.rpartition(":")[2] or id  # clients prefix it to tell vertices apart
        try:
            async with asyncio.timeout(WAIT_LIMIT), self._changed:
                while (found := self._sessions.get(id)) is None:
                    await self._changed.wait()
        except TimeoutError:
            raise SESSION_LOST(id=id[:100], cause=f"the client did not connect within {WAIT_LIMIT:.0f} seconds") from None
        return found

    def close(self) -> None:
        for session in list(self._sessions.values()):
            session.channel.close()
