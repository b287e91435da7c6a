"""Programs of other machines: which of them the kernel hands to an emulator (Documentation/admin-guide/binfmt-misc.rst)."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["emulated", "native"]

DIRECTORY = Path("/proc/sys/fs/binfmt_misc")
_PLATFORMS = {
    "aarch64": "linux/arm64", "arm": "linux/arm/v7", "i386": "linux/386", "x86_64": "linux/amd64", "riscv64": "linux/riscv64",
    "ppc64le": "linux/ppc64le", "s390x": "linux/s390x", "loongarch64": "linux/loong64", "mips64el": "linux/mips64le",
}  # fmt: skip


_ALSO = {"x86_64": ("i386",), "aarch64": ("arm",)}
"""What the CPU itself runs besides its own."""


def native(machine: str = "") -> tuple[str, ...]:
    """Platforms whose programs need no emulator on ``machine`` (this one), its own first."""
    own = machine or os.uname().machine
    return tuple(_PLATFORMS.get(each, f"linux/{each}") for each in (own, *_ALSO.get(own, ())))


def emulated(directory: Path = DIRECTORY) -> tuple[str, ...]:
    """Platforms with an enabled ``qemu-<machine>`` handler, sorted; () where binfmt_misc is not mounted."""
    found = set()
    for machine, platform in _PLATFORMS.items():
        try:
            lines = (directory / f"qemu-{machine}").read_text().splitlines()
        except OSError:
            continue
        if lines[:1] == ["enabled"]:
            found.add(platform)
    return tuple(sorted(found))
