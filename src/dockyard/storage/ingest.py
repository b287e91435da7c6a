"""One layer from a stream to its directory, in one pass: source -> digest -> decompress -> diff ID -> file -> index.

::

    ingest/<random>/layer.tar      the plain tar, exactly as it came
                    index.erofs    metadata over it (erofs snapshotter)
                    fs/            its content (extract snapshotter)

Runs in a worker thread and knows no records. A directory here belongs to nobody until LayerStore.commit renames it;
what a crash leaves is swept at open.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import queue
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dockyard.oci import Digest
from dockyard.oci.layers import LayerTree, build_tree, iter_dirs
from dockyard.oci.tar import read_headers

from . import erofs, implied
from .compress import Plain, Reader
from .errors import DIGEST_MISMATCH, DISK_FULL, LAYER_LIMIT, SIZE_MISMATCH
from .model import Limits

PIECE = 1 << 20
HASH_QUEUE = 3


@dataclass(frozen=True, slots=True)
class Expected:
    """What the sender claimed; each is checked where given."""

    digest: Digest | None = None
    size: int | None = None
    diff_id: Digest | None = None


@dataclass(frozen=True, slots=True)
class Ingested:
    """A finished directory under ingest/."""

    directory: Path
    digest: Digest
    compressed_size: int
    kind: str
    diff_id: Digest
    size: int
    entries: int = 0
    content_size: int = 0


class _Hasher:
    """sha256 in a thread of its own: hashing (1.4 GB/s) overlaps reading, decompressing and writing."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[bytes | None] = queue.Queue(HASH_QUEUE)
        self._thread = threading.Thread(target=self._run, name="dockyard-hash", daemon=True)
        self._thread.start()
        self.size = 0

    def _run(self) -> None:
        while (piece := self._queue.get()) is not None:
            self._hash.update(piece)

    def update(self, piece: bytes) -> None:
        self.size += len(piece)
        self._queue.put(piece)

    def close(self) -> Digest:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        return Digest("sha256:" + self._hash.hexdigest())


class _Tee:
    """Hashes what is read through it. Stops a sender that gives more than it promised."""

    def __init__(self, source: Reader, hasher: _Hasher, promised: int | None) -> None:
        self._source, self._hasher, self._promised = source, hasher, promised

    def read(self, size: int = -1, /) -> bytes:
        piece = self._source.read(size)
        self._hasher.update(piece)
        if self._promised is not None and self._hasher.size > self._promised:
            raise SIZE_MISMATCH(what="blob", expected=self._promised, actual=f"more than {self._promised}")
        return piece


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A fresh directory that is removed again on failure."""
    directory = parent / secrets.token_hex(8)
    directory.mkdir(mode=0o700)
    try:
        yield directory
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DISK_FULL(what="layer") from None
        raise


def receive(source: Reader, parent: Path, expected: Expected, limits: Limits) -> Ingested:
    """The plain tar into a fresh directory, verified. Raises DataLoss on a mismatch, Exhausted on a broken limit."""
    raw, plain = _Hasher(), None
    try:
        with scratch(parent) as directory:
            stream = Plain(_Tee(source, raw, expected.size))
            plain = _Hasher() if stream.kind else raw
            size = _write(stream, directory / "layer.tar", raw, plain if stream.kind else None, limits)
            if source.read(PIECE):  # a decompressor may stop before the padding that follows its stream
                raise SIZE_MISMATCH(what="blob", expected="the end of the stream", actual="more")
            digest = raw.close()
            diff_id = plain.close()
            result = Ingested(directory, digest, raw.size, stream.kind, diff_id, size)
            verify(result, expected)
            return result
    finally:
        raw.close()
        if plain is not None:
            plain.close()


def _write(stream: Plain, path: Path, raw: _Hasher, plain: _Hasher | None, limits: Limits) -> int:
    size = 0
    with open(path, "xb", buffering=0) as file:
        while piece := stream.read(PIECE):
            size += len(piece)
            if size > limits.max_layer_bytes:
                raise LAYER_LIMIT(cause=f"larger than {limits.max_layer_bytes} bytes")
            if plain is not None:
                if size > limits.ratio_floor and size > raw.size * limits.max_ratio:
                    raise LAYER_LIMIT(cause=f"more than {limits.max_ratio} times its compressed size")
                plain.update(piece)
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
    return size


def verify(got: Ingested, expected: Expected) -> None:
    if expected.size is not None and got.compressed_size != expected.size:
        raise SIZE_MISMATCH(what="blob", expected=expected.size, actual=got.compressed_size)
    if expected.digest is not None and got.digest != expected.digest:
        raise DIGEST_MISMATCH(what="blob", expected=expected.digest, actual=got.digest)
    if expected.diff_id is not None and got.diff_id != expected.diff_id:
        raise DIGEST_MISMATCH(what="layer", expected=expected.diff_id, actual=got.diff_id)


def index_layer(got: Ingested, snapshotter: str, limits: Limits) -> Ingested:
    """Make the received tar usable: an EROFS index beside it, or its content below ``fs``."""
    try:
        tree = read_tree(got.directory / "layer.tar", limits)
        prepare_layer(got.directory, tree, got.size, snapshotter)
    except BaseException as error:
        shutil.rmtree(got.directory, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DISK_FULL(what="layer") from None
        raise
    files = {id(node): node.size for folder in iter_dirs(tree.root) for node in (folder.children or {}).values()}
    content = sum(files.values())  # a hard link counts once
    return Ingested(
        got.directory, got.digest, got.compressed_size, got.kind, got.diff_id, got.size, tree.entries, content
    )


def prepare_layer(directory: Path, tree: LayerTree, size: int, snapshotter: str) -> None:
    """Fill ``fs`` of a layer's directory, or write the index that will be mounted there."""
    (directory / "fs").mkdir()
    if tree.implied:
        (directory / implied.NAME).write_bytes(implied.encode(tree.implied))
    with open(directory / "layer.tar", "rb") as file:
        if snapshotter == "erofs":
            index = erofs.build_index(tree, size, lambda offset, length: os.pread(file.fileno(), length, offset))
            (directory / "index.erofs").write_bytes(index)
        else:
            from .extract import extract_tree

            extract_tree(tree, file.fileno(), directory / "fs")


def read_tree(path: Path, limits: Limits) -> LayerTree:
    """The tree of a stored tar. Raises InvalidParameter where it is no layer."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return build_tree(())
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            data.madvise(mmap.MADV_RANDOM)  # only headers are touched: reading ahead would fetch the contents
            return build_tree(read_headers(data, limits.max_entries))


def extract_again(directory: Path, limits: Limits) -> None:
    """The extracted form of a layer that was indexed: a kernel without file-backed EROFS took over the data root."""
    shutil.rmtree(directory / "fs", ignore_errors=True)
    (directory / implied.NAME).unlink(missing_ok=True)
    path = directory / "layer.tar"
    prepare_layer(directory, read_tree(path, limits), path.stat().st_size, "extract")
    (directory / "index.erofs").unlink()


def verify_tar(path: Path, diff_id: Digest) -> bool:
    """Whether a stored tar still is what its name says."""
    try:
        with open(path, "rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == diff_id
    except OSError:
        return False
