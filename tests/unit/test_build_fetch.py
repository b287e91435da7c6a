"""Credentials for what a build fetches: secrets to headers, to the host they are for and to no other, on no command line."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.build.fetch import clone, git_authorization, parse_git
from dockyard.errors import System


@pytest.fixture
def web() -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """URLs of two hosts, the first of which sends everybody on to the second; (host, Authorization) of what came."""
    came: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append((self.headers["Host"], self.headers.get("Authorization", "")))
            first = self.server is servers[0]
            self.send_response(302 if first else 404)
            if first:
                self.send_header("Location", f"{urls[1]}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    servers = [http.server.ThreadingHTTPServer((address, 0), Handler) for address in ("127.0.0.1", "127.0.0.2")]
    urls = [f"http://{server.server_address[0]}:{server.server_address[1]}" for server in servers]
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    yield urls[0], urls[1], came
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        server.server_close()
        thread.join(10)


async def test_which_secret_counts() -> None:
    kept = {"GIT_AUTH_TOKEN": b"plain\n", "GIT_AUTH_TOKEN.git.corp": b"corp", "GIT_AUTH_HEADER.x.y:80": b"Bearer z"}

    async def secret(id: str) -> bytes | None:
        return kept.get(id)

    def basic(token: bytes) -> str:
        return "basic " + base64.b64encode(b"x-access-token:" + token).decode()

    assert await git_authorization("https://github.com/a/b.git", secret) == basic(b"plain")
    assert await git_authorization("https://user@git.corp/a.git", secret) == basic(b"corp")
    assert await git_authorization("http://x.y:80/a.git", secret) == "Bearer z"
    assert await git_authorization("git://git.corp/a.git", secret) == "", "no place for it, and in the clear"
    assert await git_authorization("git@git.corp:a.git", secret) == ""


async def test_the_header_goes_to_the_repository_and_no_further(
    tmp_path: Path, web: tuple[str, str, list[tuple[str, str]]]
) -> None:
    first, second, came = web
    for number, authorization in enumerate(("basic abc", "")):
        with pytest.raises(System, match="cannot fetch"):
            await clone(parse_git(f"{first}/a/b.git"), tmp_path / str(number), authorization=authorization)
        assert came, "git asked"
        for host, header in came:
            assert header == (authorization if f"http://{host}" == first else ""), host
        assert second.removeprefix("http://") in {host for host, _ in came}
        came.clear()
