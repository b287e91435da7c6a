"""One private engine for the builder's tests, and a client that builds through POST /build."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dockyard.client import Client
from dockyard.testing import kit
from dockyard.testing.engines import PrivateEngine, private_engine

Files = Mapping[str, str | bytes | tuple[str, str]]
"""Name -> content; a tuple ("link", target) is a symlink; a name with a trailing slash a directory."""


@dataclass
class Built:
    messages: list[dict[str, Any]]

    @property
    def text(self) -> str:
        return "".join(m.get("stream", "") for m in self.messages)

    @property
    def error(self) -> str:
        return next((m["error"] for m in self.messages if "error" in m), "")

    @property
    def image(self) -> str:
        assert not self.error, f"{self.error}\n{self.text}"
        return next(m["aux"]["ID"] for m in self.messages if "aux" in m)

    @property
    def cached(self) -> int:
        return self.text.count("Using cache")


class BuildClient:
    def __init__(self, engine: PrivateEngine) -> None:
        self.engine = engine
        self.client = Client(engine.host, timeout=60)

    def build(self, text: str, files: Files | None = None, /, **query: Any) -> Built:
        """``query`` as POST /build has it; dicts and lists are sent as JSON. Raises what has a status."""
        body = context({"Dockerfile": text, **(files or {})})
        return self.send(body, **query)

    def send(self, body: bytes, **query: Any) -> Built:
        encoded = {k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in query.items()}
        headers = {"Content-Type": "application/x-tar"}
        return Built(list(self.client.objects("POST", "/build", encoded, body, headers=headers)))

    def inspect(self, image: str) -> dict[str, Any]:
        return self.client.request("GET", f"/images/{image}/json")


def context(files: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mtime = 1_700_000_000
            if isinstance(content, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, content[1]
                archive.addfile(info)
            elif name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                data = content.encode() if isinstance(content, str) else content
                info.size, info.mode = len(data), 0o644
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def until_listening(engine: PrivateEngine, port: int) -> None:
    """A server inside the engine's namespace is up."""
    deadline = time.monotonic() + 30
    tables = [Path(f"/proc/{engine.process.pid}/net/{name}") for name in ("tcp", "tcp6")]
    while time.monotonic() < deadline:
        if any(f":{port:04X} " in table.read_text() for table in tables):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on port {port}")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    root = tmp_path_factory.mktemp("build")
    images = kit.archive(root / "images.tar")
    with private_engine(os.environ.get("BUILD_ENGINE", "dockyard"), root / "engine") as made:
        with Client(made.host, timeout=60) as client:
            headers = {"Content-Type": "application/x-tar"}
            list(client.objects("POST", "/images/load", body=images.read_bytes(), headers=headers))
        yield made


@pytest.fixture
def builder(engine: PrivateEngine) -> Iterator[BuildClient]:
    made = BuildClient(engine)
    yield made
    made.client.close()
