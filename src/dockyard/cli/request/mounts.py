"""``--volume``, ``--mount`` and ``--tmpfs`` (docker/cli opts/mount.go, cli/compose/loader/volume.go)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from dockyard.cli.flags import UsageError
from dockyard.cli.request.values import boolean, csv_fields, size

Json = dict[str, Any]
_FLAGS = frozenset({"readonly", "ro", "volume-nocopy", "bind-nonrecursive"})
"""Keys that may stand without a value."""
_RECURSIVE: dict[str, Json] = {
    "enabled": {}, "disabled": {"NonRecursive": True}, "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}  # fmt: skip


def volumes(words: Iterable[str]) -> tuple[list[str], Json]:
    """(binds, anonymous volumes). A source that starts with a dot is a path from here."""
    binds: list[str] = []
    anonymous: Json = {}
    for word in words:
        if not word:
            raise UsageError("invalid empty volume spec")
        source, colon, rest = word.partition(":")
        if not colon:
            anonymous[word] = {}
            continue
        if not source or not rest or "::" in word:
            raise UsageError(f"invalid spec: {word}: empty section between colons")
        binds.append(f"{_from_here(source)}:{rest}")
    return binds, anonymous


def tmpfs(words: Iterable[str]) -> dict[str, str]:
    """Paths and their mount options."""
    return {path: options for path, _, options in (word.partition(":") for word in words)}


def mounts(words: Iterable[str]) -> list[Json]:
    """Entries of HostConfig.Mounts."""
    return [_mount(word) for word in words]


def _mount(word: str) -> Json:
    made: Json = {"Type": "volume"}
    for field in csv_fields(word):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals and key not in _FLAGS:
            raise _wrong(word, f"invalid field '{field}' must be a key=value pair")
        if not _common(made, key, value) and not _special(made, key, value, word):
            raise _wrong(word, f"unexpected key '{key}' in '{field}'")
    return _checked(made, word)


def _common(made: Json, key: str, value: str) -> bool:
    if key == "type":
        made["Type"] = value.lower()
    elif key in ("source", "src"):
        made["Source"] = _from_here(value)
    elif key in ("target", "dst", "destination"):
        made["Target"] = value
    elif key in ("readonly", "ro"):
        made["ReadOnly"] = boolean(value, key)
    elif key == "consistency":
        made["Consistency"] = value.lower()
    else:
        return False
    return True


def _special(made: Json, key: str, value: str, word: str) -> bool:
    """The options of one kind of mount; False for an unknown key."""
    bind, volume = made.get("BindOptions", {}), made.get("VolumeOptions", {})
    match key:
        case "bind-propagation":
            made["BindOptions"] = bind | {"Propagation": value.lower()}
        case "bind-nonrecursive":
            made["BindOptions"] = bind | {"NonRecursive": boolean(value, key)}
        case "bind-create-src":
            made["BindOptions"] = bind | {"CreateMountpoint": boolean(value, key)}
        case "bind-recursive":
            if value not in _RECURSIVE:
                known = ", ".join(f'"{name}"' for name in _RECURSIVE)
                raise _wrong(word, f"invalid value for {key}: {value} (must be one of {known})")
            made["BindOptions"] = bind | _RECURSIVE[value]
        case "volume-nocopy":
            made["VolumeOptions"] = volume | {"NoCopy": boolean(value, key)}
        case "volume-subpath":
            made["VolumeOptions"] = volume | {"Subpath": value}
        case "volume-label":
            made["VolumeOptions"] = volume | {"Labels": volume.get("Labels", {}) | _pair(value)}
        case "volume-driver":
            made["VolumeOptions"] = volume | {"DriverConfig": volume.get("DriverConfig", {}) | {"Name": value}}
        case "volume-opt":
            driver = volume.get("DriverConfig", {})
            driver = driver | {"Options": driver.get("Options", {}) | _pair(value)}
            made["VolumeOptions"] = volume | {"DriverConfig": driver}
        case "image-subpath":
            made["ImageOptions"] = {"Subpath": value}
        case "tmpfs-size":
            made["TmpfsOptions"] = made.get("TmpfsOptions", {}) | {"SizeBytes": size(value, "--mount")}
        case "tmpfs-mode":
            made["TmpfsOptions"] = made.get("TmpfsOptions", {}) | {"Mode": _octal(value, word)}
        case _:
            return False
    return True


def _checked(made: Json, word: str) -> Json:
    kind = made["Type"]
    if not kind:
        raise _wrong(word, "type is required")
    if not made.get("Target"):
        raise _wrong(word, "target is required")
    for wanted in ("volume", "bind", "tmpfs", "image"):
        if f"{wanted.title()}Options" in made and kind != wanted:
            raise _wrong(word, f"cannot mix '{wanted}-*' options with mount type '{kind}'")
    if made.get("BindOptions", {}).get("ReadOnlyForceRecursive"):
        if not made.get("ReadOnly"):
            raise _wrong(word, "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
        if made["BindOptions"].get("Propagation") != "rprivate":
            raise _wrong(
                word,
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
            )
    return made


def _from_here(source: str) -> str:
    return os.path.abspath(source) if source.startswith(".") else source


def _pair(value: str) -> dict[str, str]:
    key, _, told = value.partition("=")
    return {key: told}


def _octal(value: str, word: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise _wrong(word, f"invalid value for tmpfs-mode: {value}") from None


def _wrong(word: str, told: str) -> UsageError:
    return UsageError(f'invalid argument "{word}" for "--mount" flag: {told}')
