"""Paths as facts: on the engine's host (through its own root), and inside a container (through the archive API)."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from dockyard.client import Client
from dockyard.doctor.facts import FileFact
from dockyard.errors import DockyardError, NotFound

HEAD_BYTES = 4096
# Go's os.FileMode bits (io/fs), as the archive API sends them.
_GO_DIR, _GO_LINK, _GO_TYPES = 1 << 31, 1 << 27, 0x8F280000


def host_file(path: str, root: str = "", *, head: int = 0) -> FileFact:
    """Facts of ``path`` below ``root`` (the engine's root). Links of the path are followed as the kernel does."""
    full = root + path
    try:
        link = os.readlink(full) if os.path.islink(full) else ""
        seen = os.stat(full)
    except OSError as error:
        return FileFact(path, target=_target(full), error=errno.errorcode.get(error.errno or 0, str(error.errno)))
    kind = "dir" if stat.S_ISDIR(seen.st_mode) else "file" if stat.S_ISREG(seen.st_mode) else "other"
    entries, content = -1, b""
    try:
        if kind == "dir":
            entries = sum(1 for _, _ in zip(os.scandir(full), range(1000), strict=False))
        elif kind == "file" and head:
            with open(full, "rb") as file:
                content = file.read(head)
    except OSError:
        pass
    return FileFact(
        path, kind, stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_size, link, content, entries
    )


def _target(full: str) -> str:
    try:
        return os.readlink(full)
    except OSError:
        return ""


def container_file(client: Client, container: str, path: str, *, head: bool = False, timeout: float = 5.0) -> FileFact:
    """Facts of ``path`` inside a container, running or not, by the archive API; links followed up to eight times."""
    where, target = path, ""
    for _ in range(8):
        try:
            seen = client.stat_archive(container, where)
        except NotFound:
            return FileFact(path, target=target, error="ENOENT")
        except DockyardError as error:
            return FileFact(path, target=target, error=f"cannot look: {error}")
        mode = int(seen.get("mode", 0))
        if not mode & _GO_LINK:
            break
        target = str(seen.get("linkTarget", ""))
        where = os.path.normpath(os.path.join(os.path.dirname(where), target))
    kind = "dir" if mode & _GO_DIR else "other" if mode & _GO_TYPES else "file"
    size = int(seen.get("size", 0))
    content = _read_head(client, container, where, timeout) if head and kind == "file" and size else b""
    return FileFact(path, kind, mode & 0o7777, size=size, target=target, head=content)


def _read_head(client: Client, container: str, path: str, timeout: float) -> bytes:
    """First bytes of a file out of its tar stream: 512-byte headers (extended ones skipped), then the content."""
    try:
        query = {"path": path}
        with client.open("GET", f"/containers/{container}/archive", query, timeout=timeout) as answer:
            data = b""
            for piece in answer.chunks():
                data += piece
                found = _content(data)
                if found is not None and len(found) >= HEAD_BYTES:
                    break
    except DockyardError:
        return b""
    return (_content(data) or b"")[:HEAD_BYTES]


def _content(data: bytes) -> bytes | None:
    offset = 0
    while offset + 512 <= len(data):
        kind = data[offset + 156 : offset + 157]
        try:
            size = int(data[offset + 124 : offset + 136].rstrip(b"\0 ") or b"0", 8)
        except ValueError:
            return None
        if kind in (b"0", b"\0"):
            return data[offset + 512 : offset + 512 + size]
        offset += 512 + (size + 511) // 512 * 512
    return None


def walk_parts(path: str, root: str = "") -> list[FileFact]:
    """Every directory on the way to ``path`` and the path itself, until one is missing."""
    found = []
    parts = [part for part in path.split("/") if part]
    for count in range(len(parts) + 1):
        fact = host_file("/" + "/".join(parts[:count]), root)
        found.append(fact)
        if fact.error:
            break
    return found


def mounts_of(inspect: dict[str, Any]) -> list[dict[str, Any]]:
    return [mount for mount in inspect.get("Mounts") or [] if isinstance(mount, dict)]
