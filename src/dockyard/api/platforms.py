"""Platform parameters: ``linux/arm64/v8``, or the same as an OCI platform in JSON (API 1.46 and later). Pure.

Rules and sentences are those of containerd's platforms.Parse, which every Docker daemon applies.
"""

from __future__ import annotations

import re

import msgspec

from dockyard.api.call import BAD_PARAMETER
from dockyard.lib.notjson import NOT_JSON

_COMPONENT = re.compile(r"[A-Za-z0-9_.-]+\Z")
_SYSTEMS = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "macos", "nacl", "netbsd",
    "openbsd", "plan9", "solaris", "windows", "zos",
})  # fmt: skip
_MACHINES = frozenset({
    "386", "aarch64", "amd64", "amd64p32", "arm", "arm64", "arm64be", "armbe", "armel", "armhf", "i386", "loong64", "mips",
    "mips64", "mips64le", "mips64p32", "mips64p32le", "mipsle", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x",
    "sparc", "sparc64", "wasm", "x86-64", "x86_64",
})  # fmt: skip
MAX_PARTS = 3


def platform_of(value: str) -> str:
    """The value as ``os[/architecture[/variant]]``, "" for none. Raises InvalidParameter."""
    if value.startswith("{"):
        value = _of_document(value)
    if not value:
        return ""
    parts = value.split("/")
    if len(parts) > MAX_PARTS:
        raise BAD_PARAMETER(cause=f'"{value}": cannot parse platform specifier: invalid argument')
    for part in parts:
        if not _COMPONENT.match(part):
            cause = f'"{part}" is an invalid component of "{value}": platform specifier component must match "^[A-Za-z0-9_.-]+$"'
            raise BAD_PARAMETER(cause=f"{cause}: invalid argument")
    if len(parts) == 1 and parts[0].lower() not in _SYSTEMS | _MACHINES:
        raise BAD_PARAMETER(cause=f'"{value}": unknown operating system or architecture: invalid argument')
    return value


def _of_document(text: str) -> str:
    try:
        found = msgspec.json.decode(text.encode())
        return "/".join(filter(None, (found.get("os", ""), found.get("architecture", ""), found.get("variant", ""))))
    except (*NOT_JSON, UnicodeError, AttributeError, TypeError):
        raise BAD_PARAMETER(cause=f"invalid platform: {text}") from None
