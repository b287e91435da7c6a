"""What the conformance tests share: an engine to talk to, and a socket client that promises nothing to the server."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing import kit
from dockyard.testing.engines import PrivateEngine, private_engine


@pytest.fixture(scope="session")
def kit_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kit.archive(tmp_path_factory.mktemp("kit") / "kit.tar")


@pytest.fixture(scope="module")
def engine(kit_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """A private Dockyard with the kit's images."""
    with private_engine("dockyard", tmp_path_factory.mktemp("engine") / "e") as made:
        assert made.docker("load", "-q", "-i", str(kit_archive)).returncode == 0
        yield made


def _connected(path: Path, limit: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(limit)
    sock.connect(str(path))
    return sock


def _ask(path: Path, request: bytes, *, limit: float, most: int, body_limit: float) -> bytes:
    """What the server sends until it closes, ``most`` bytes are there, or time is up.

    ``limit``: seconds until the whole head must be there; ``body_limit``: then for the rest (a stream never ends).
    """
    data = bytearray()
    with _connected(path, limit) as sock:
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before the end: the answer is there
                sock.sendall(request)
            end = time.monotonic() + limit
            while len(data) < most and (left := end - time.monotonic()) > 0:
                sock.settimeout(left)
                piece = sock.recv(65536)
                if not piece:
                    break
                if b"\r\n\r\n" not in data and b"\r\n\r\n" in data + piece:
                    end = time.monotonic() + body_limit
                data += piece
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            pass
    return bytes(data)


@pytest.fixture(scope="session")
def ask():
    return _ask


@pytest.fixture(scope="session")
def connected():
    return _connected
