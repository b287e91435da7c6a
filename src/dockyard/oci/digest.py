"""Digests: content addresses as the OCI image specification writes them (descriptor.md, "Digests").

Only sha256 and sha512 are accepted, with exactly their number of lower-case hex digits: a digest becomes a file name
and a SQL key, and CVE-2021-21285 (a malformed layer digest crashed a pull) began with one that was not looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NewType

from .errors import INVALID_DIGEST

Digest = NewType("Digest", str)

_PATTERN = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


def parse_digest(text: str) -> Digest:
    """The digest in ``text``. Raises InvalidParameter for anything but a whole, lower-case sha256 or sha512."""
    if not is_digest(text):
        raise INVALID_DIGEST(digest=text[:200])
    return Digest(text)


def is_digest(text: str) -> bool:
    return _PATTERN.match(text) is not None


def sha256_of(data: bytes | bytearray | memoryview) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hex_of(digest: Digest | str) -> str:
    return digest.partition(":")[2]


def algorithm_of(digest: Digest | str) -> str:
    return digest.partition(":")[0]


def chain_ids(diff_ids: Iterable[Digest]) -> list[Digest]:
    """Names of the layer stacks, lowest first (image-spec config.md, "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(sha256_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
