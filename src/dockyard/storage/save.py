"""``docker save``: the hybrid archive of Docker 25 and later, the same bytes each time for the same images.

Layers are the stored tars, byte for byte; nothing is rebuilt. Members are sorted by path, as dockerd's are.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from dockyard.oci.archive import SavedImage, blob_path, save_documents
from dockyard.oci.tar import DIR, END_OF_ARCHIVE, TarHeader, encode_header, padding

READ_PIECE = 1 << 20


def archive(images: list[SavedImage], layer_paths: Mapping[str, Path]) -> Generator[bytes, None, None]:
    """The archive's bytes (blocking generator, for a thread); ``layer_paths`` by diff ID."""
    documents = save_documents(images)
    layers = {
        blob_path(diff_id): (diff_id, size, image.created_ns)
        for top in images for image in (*top.others, top) for diff_id, size in image.layers
    }
    for name in ("blobs/", "blobs/sha256/"):
        yield encode_header(TarHeader(name.encode(), DIR, 0o755))
    for path in sorted({*documents, *layers}):
        if path in documents:
            data, time_ns = documents[path]
            yield encode_header(TarHeader(path.encode(), size=len(data), mtime_ns=time_ns))
            yield data + padding(len(data))
            continue
        diff_id, size, time_ns = layers[path]
        yield encode_header(TarHeader(path.encode(), size=size, mtime_ns=time_ns))
        yield from read_file(layer_paths[diff_id], size)
    yield END_OF_ARCHIVE


def read_file(path: Path, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes of a file, then the padding of a tar member."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        left = size
        while left:
            piece = file.read(min(left, READ_PIECE))
            if not piece:
                raise EOFError(f"{path} is shorter than recorded")
            left -= len(piece)
            yield piece
    yield padding(size)
