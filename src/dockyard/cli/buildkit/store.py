"""A directory as an image layout that the engine reads and writes blobs of: ``type=local`` caches.

::

    oci-layout   index.json     manifests by tag (annotation org.opencontainers.image.ref.name), "latest" by default
    blobs/sha256/<hex>          ingest/<random>  while a blob comes

As containerd's local store keeps it, which buildx uses: either reads what the other wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dockyard.oci.digest import is_digest
from dockyard.oci.documents import TAG_ANNOTATION

__all__ = ["LayoutStore"]

PIECE = 1 << 20


class LayoutStore:
    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, digest: str) -> Iterator[bytes]:
        """Raises FileNotFoundError."""
        if not is_digest(digest):
            raise FileNotFoundError(digest[:100])
        algorithm, _, name = digest.partition(":")
        with open(self.root / "blobs" / algorithm / name, "rb", buffering=0) as file:
            while piece := file.read(PIECE):
                yield piece

    def begin(self) -> Ingest:
        (self.root / "ingest").mkdir(parents=True, exist_ok=True)
        (self.root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        return Ingest(self.root)

    def tagged(self, tag: str) -> str:
        """Digest of the manifest under the tag, or of the only one; "" where there is none."""
        rows = self._index()["manifests"]
        named = [row for row in rows if (row.get("annotations") or {}).get(TAG_ANNOTATION) == tag]
        chosen = named or (rows if len(rows) == 1 else [])
        return str(chosen[0].get("digest", "")) if chosen else ""

    def tag(self, descriptor: dict[str, Any], tag: str) -> None:
        """The tag leads to the manifest from now on."""
        index = self._index()
        rows = [row for row in index["manifests"] if (row.get("annotations") or {}).get(TAG_ANNOTATION) != tag]
        index["manifests"] = [*rows, {**descriptor, "annotations": {TAG_ANNOTATION: tag}}]
        part = self.root / f"index.json.{secrets.token_hex(4)}"
        part.write_text(json.dumps(index))
        os.replace(part, self.root / "index.json")
        (self.root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def _index(self) -> dict[str, Any]:
        try:
            index = json.loads((self.root / "index.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            index = {}
        except ValueError:
            index = {}  # written anew with the next export
        fields = index if isinstance(index, dict) else {}
        rows = [row for row in fields.get("manifests") or () if isinstance(row, dict)]
        return {"schemaVersion": 2, **fields, "manifests": rows}


class Ingest:
    """A blob on its way in; its name is its digest."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / "ingest" / secrets.token_hex(8)
        self._file: BinaryIO = open(self._path, "xb")  # noqa: SIM115 - closed by commit or abort
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def commit(self) -> None:
        self._file.close()
        os.replace(self._path, self._root / "blobs" / "sha256" / self._hash.hexdigest())

    def abort(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
