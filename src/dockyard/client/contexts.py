"""The store of docker contexts: names for engines, shared with docker's CLI.

::

    CONFIG/contexts/meta/SHA256(name)/meta.json      {"Name", "Metadata": {"Description"}, "Endpoints": {"docker": ...}}
    CONFIG/contexts/tls/SHA256(name)/docker/*.pem    ca.pem, cert.pem, key.pem

The context ``default`` is what the environment says and has no files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from dockyard.client.endpoint import DEFAULT_CONTEXT
from dockyard.client.errors import BAD_CONTEXT_NAME, CONTEXT_EXISTS, NO_CONTEXT

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+\Z")


class Context(NamedTuple):
    name: str
    description: str
    host: str
    document: dict[str, Any]
    """meta.json as it is."""
    tls: tuple[str, ...]
    """Names of its PEM files."""


def every(config: str) -> list[Context]:
    """All stored contexts by name; a directory whose meta.json cannot be read is passed over."""
    folder = os.path.join(config, "contexts", "meta")
    found = [_read(config, key) for key in (os.listdir(folder) if os.path.isdir(folder) else ())]
    return sorted((context for context in found if context), key=lambda context: context.name)


def one(config: str, name: str) -> Context:
    """Raises NO_CONTEXT."""
    found = _read(config, _key(name))
    if found is None:
        raise NO_CONTEXT(name=name)
    return found


def create(config: str, name: str, *, host: str, description: str, skip_verify: bool, pem: Mapping[str, str]) -> None:
    """``pem``: ca, cert, key and the files to copy. Raises BAD_CONTEXT_NAME, CONTEXT_EXISTS, OSError."""
    if not _NAME.match(name) or name == DEFAULT_CONTEXT:
        raise BAD_CONTEXT_NAME(name=name)
    if _read(config, _key(name)) is not None:
        raise CONTEXT_EXISTS(name=name)
    contents = {kind: _file(path) for kind, path in pem.items() if path}
    if contents:
        folder = os.path.join(config, "contexts", "tls", _key(name), "docker")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for kind, data in contents.items():
            _write(os.path.join(folder, f"{kind}.pem"), data)
    document = {
        "Name": name, "Metadata": {"Description": description} if description else {},
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip_verify}},
    }  # fmt: skip
    folder = os.path.join(config, "contexts", "meta", _key(name))
    os.makedirs(folder, mode=0o755, exist_ok=True)
    _write(os.path.join(folder, "meta.json"), json.dumps(document).encode())


def places(config: str, name: str) -> dict[str, str]:
    """Where its files are."""
    return {
        "MetadataPath": os.path.join(config, "contexts", "meta", _key(name)),
        "TLSPath": os.path.join(config, "contexts", "tls", _key(name)),
    }  # fmt: skip


def remove(config: str, name: str) -> None:
    """Raises NO_CONTEXT."""
    one(config, name)
    for kind in ("tls", "meta"):
        shutil.rmtree(os.path.join(config, "contexts", kind, _key(name)), ignore_errors=True)


def _key(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def _read(config: str, key: str) -> Context | None:
    tls = os.path.join(config, "contexts", "tls", key, "docker")
    try:
        with open(os.path.join(config, "contexts", "meta", key, "meta.json"), "rb") as file:
            document = json.load(file)
        docker = (document.get("Endpoints") or {}).get("docker") or {}
        description = str((document.get("Metadata") or {}).get("Description", ""))
        pem = tuple(sorted(os.listdir(tls))) if os.path.isdir(tls) else ()
        return Context(document["Name"], description, str(docker.get("Host", "")), document, pem)
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(data)
