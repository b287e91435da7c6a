"""The API over TLS: who is let in, in which versions, with docker's own CLI where one is installed."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dockyard.api.daemon import tls_context
from dockyard.api.server import listen, make_server
from dockyard.api.settings import load
from dockyard.client.client import Client
from dockyard.client.endpoint import Tls, parse_host
from dockyard.engine.dryrun import dry_engine
from dockyard.errors import DockyardError, InvalidParameter
from dockyard.testing.registries import Certificate, make_certificate


@dataclass(frozen=True)
class Door:
    port: int
    server: Certificate
    client: Certificate
    stranger: Certificate

    def connect(self, own: Certificate | None, trusted: Certificate, **limits: Any) -> bytes:
        """The first bytes of an answer to a ping; raises OSError (ssl.SSLError) when the connection is refused."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(trusted.cert)
        for name, value in limits.items():
            setattr(context, name, value)
        if own:
            context.load_cert_chain(own.cert, own.key)
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock, context.wrap_socket(sock, server_hostname="127.0.0.1") as tls:
            tls.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return tls.recv(4096)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    made = [make_certificate(tmp_path / name, "127.0.0.1", name) for name in ("server", "client", "stranger")]
    flags = {"tlsverify": True, "tlscacert": str(made[1].cert), "tlscert": str(made[0].cert), "tlskey": str(made[0].key), "hosts": ["tcp://127.0.0.1:0"]}
    engine = dry_engine(tmp_path / "state")
    server = make_server(engine, server_name="Docker/0 (linux)")
    opened = await listen(server, ["tcp://127.0.0.1:0"], group=None, tls=tls_context(load(flags)))
    yield Door(int(opened[0].rpartition(":")[2]), *made)
    await server.close(1)
    await engine.close()


async def test_a_known_client_is_served(door: Door) -> None:
    assert (await asyncio.to_thread(door.connect, door.client, door.server)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("who", ["nobody", "stranger"])
async def test_an_unknown_client_gets_no_byte(door: Door, who: str) -> None:
    own = door.stranger if who == "stranger" else None

    def tried() -> bytes:
        try:
            return door.connect(own, door.server)
        except OSError:  # TLS 1.3 tells the client in its first read; a closed connection reads as empty
            return b""

    assert await asyncio.to_thread(tried) == b""


async def test_plain_http_and_old_tls_get_nowhere(door: Door) -> None:
    def plain() -> bytes:
        with socket.create_connection(("127.0.0.1", door.port), timeout=20) as sock:
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                return sock.recv(4096)
            except ConnectionResetError:
                return b""

    assert b"HTTP/1.1 200" not in await asyncio.to_thread(plain)
    with pytest.raises(OSError), pytest.warns(DeprecationWarning, match="TLSv1"):
        await asyncio.to_thread(door.connect, door.client, door.server, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)


async def test_our_own_client_speaks_it_and_names_what_is_wrong(door: Door) -> None:
    def version(certificate: Certificate) -> Any:
        tls = Tls(str(door.server.cert), str(certificate.cert), str(certificate.key), True)
        with Client(parse_host(f"tcp://127.0.0.1:{door.port}", tls), timeout=20) as client:
            return client.request("GET", "/version")["ApiVersion"]

    assert await asyncio.to_thread(version, door.client) == "1.51"
    with pytest.raises(DockyardError):
        await asyncio.to_thread(version, door.stranger)


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker CLI on the PATH")
async def test_dockers_cli_speaks_it(door: Door) -> None:
    def docker(own: Certificate) -> subprocess.CompletedProcess[str]:
        words = ["docker", "--tlsverify", f"--tlscacert={door.server.cert}", f"--tlscert={own.cert}", f"--tlskey={own.key}", "-H", f"tcp://127.0.0.1:{door.port}"]
        return subprocess.run([*words, "version", "-f", "{{.Server.APIVersion}}"], capture_output=True, text=True, timeout=60)

    assert (await asyncio.to_thread(docker, door.client)).stdout.strip() == "1.51"
    refused = await asyncio.to_thread(docker, door.stranger)
    assert refused.returncode != 0
    assert "1.51" not in refused.stdout


def test_files_that_cannot_be_read_are_told_at_start(tmp_path: Path) -> None:
    flags = {"tls": True, "tlscert": str(tmp_path / "none.pem"), "tlskey": str(tmp_path / "none.key"), "hosts": ["tcp://127.0.0.1:0"]}
    with pytest.raises(InvalidParameter, match="cannot read the TLS files"):
        tls_context(load(flags))
