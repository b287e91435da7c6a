"""What a step is called in the cache. Pure.

::

    state        = hash of the layers a stage has so far      (not of how they came about)
    step key     = hash(operation, state, contents, epoch)

A RUN's operation carries its whole environment, so ENV, ARG, USER, SHELL and WORKDIR need no part of their own, and two
Dockerfiles that come to the same command over the same layers share a result. A RUN that leaves no layer still moves the
state on, or the same line twice would run once. ``contents`` are what else it reads: the selection of a COPY, the state
of another stage, a bound file. Secrets, cache mounts and predefined proxies never count; neither do times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from .model import Copy, Exec, Operation

__all__ = ["after_empty", "explain", "lineage", "operation_bytes", "parts_of", "state_of", "step_key"]

MAX_FILES_EXPLAINED = 2000


def _hash(*parts: bytes) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    return sha.hexdigest()


def state_of(chain: Sequence[str]) -> str:
    return _hash(b"layers", *(layer.encode() for layer in chain))


def after_empty(state: str, key: str) -> str:
    """The state after a step that changed no file."""
    return _hash(b"empty", state.encode(), key.encode())


def lineage(before: str, key: str) -> str:
    """Names a step by all that came before it: for steps that only change the config."""
    return _hash(b"line", before.encode(), key.encode())


def operation_bytes(operation: Operation) -> bytes:
    if isinstance(operation, Exec):
        operation = msgspec.structs.replace(operation, hidden_env=(), origins=())
    elif isinstance(operation, Copy):
        operation = msgspec.structs.replace(operation, origin=type(operation.origin)())
    return msgspec.json.encode(operation)


def step_key(operation: Operation, state: str, contents: Sequence[str], epoch: int | None = None) -> str:
    moment = b"" if epoch is None else str(epoch).encode()
    return _hash(b"step", operation_bytes(operation), state.encode(), moment, *(item.encode() for item in contents))


def parts_of(
    text: str, operation: Operation, state: str, files: Mapping[str, str], epoch: int | None
) -> dict[str, str]:
    """What went into a key, by name, for ``explain``: values are short and hold no secret (environment values are
    hashed)."""
    parts = {"instruction": text, "base": state[:16]}
    if epoch is not None:
        parts["SOURCE_DATE_EPOCH"] = str(epoch)
    if isinstance(operation, Exec):
        for item in operation.env:
            name, _, value = item.partition("=")
            parts[f"variable {name}"] = _hash(value.encode("utf-8", "surrogateescape"))[:12]
        parts |= {"user": operation.user, "working directory": operation.cwd, "network": operation.network}
    if len(files) <= MAX_FILES_EXPLAINED:
        parts |= {f"file {name}": digest[:12] for name, digest in files.items()}
    else:
        parts[f"{len(files)} files"] = _hash(*(f"{n}\0{d}".encode() for n, d in sorted(files.items())))[:12]
    return parts


def explain(before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """One sentence: which part of the key changed since the step last ran."""
    if before is None:
        return "it has not been built here before"
    changes = []
    for name in sorted(before.keys() | now.keys(), key=lambda n: (n.startswith("file "), n)):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name == "base":
            changes.append("what it stands on changed")
        elif name == "instruction":
            changes.append("the instruction changed")
        else:
            verb = "is new" if old is None else "is gone" if new is None else "changed"
            changes.append(f"{name} {verb}")
    if not changes:
        return "its result is no longer in the cache"
    shown = "; ".join(changes[:3])
    return shown if len(changes) <= 3 else f"{shown}; and {len(changes) - 3} more"
