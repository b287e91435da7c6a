"""As much of ELF as tells why the kernel or the loader refuses a file (elf(5)). Pure: reads through ``Read``."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

Read = Callable[[int, int], bytes]
"""(offset, size) -> bytes, fewer at the end of the file."""

MACHINES = {
    3: "386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64",
    258: "loong64",
}  # fmt: skip
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29
MAX_HEADERS = 256
MAX_DYNAMIC = 64 << 10
MAX_STRING = 4096


@dataclass(frozen=True, slots=True)
class Elf:
    """``arch`` in Docker's words; ``interpreter`` is empty for a static program."""

    arch: str
    bits: int
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


class _Layout:
    """The two word sizes: struct formats of the header, a program header and a dynamic entry."""

    def __init__(self, bits: int, order: str) -> None:
        if bits == 64:
            self.header, self.program, self.dynamic = (
                struct.Struct(f"{order}{form}") for form in ("16xHHIQQQIHHHHHH", "IIQQQQQQ", "qQ")
            )
        else:
            self.header, self.program, self.dynamic = (
                struct.Struct(f"{order}{form}") for form in ("16xHHIIIIIHHHHHH", "IIIIIIII", "iI")
            )
        self.bits = bits

    def segment(self, raw: bytes) -> tuple[int, int, int, int]:
        """(type, offset, address, size in the file)."""
        fields = self.program.unpack(raw)
        if self.bits == 64:
            return fields[0], fields[2], fields[3], fields[5]
        return fields[0], fields[1], fields[2], fields[4]


def parse_elf(read: Read) -> Elf | None:
    """None if it is no ELF file or a damaged one."""
    ident = read(0, 16)
    if len(ident) < 16 or ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        return None
    layout = _Layout(32 * ident[4], "<" if ident[5] == 1 else ">")
    try:
        return _parse(read, layout, little=ident[5] == 1)
    except (struct.error, ValueError):
        return None


def _parse(read: Read, layout: _Layout, *, little: bool) -> Elf:
    header = layout.header.unpack(read(0, layout.header.size))
    machine, table, size, count = header[1], header[4], header[8], header[9]
    arch = MACHINES.get(machine, f"machine {machine}") + ("le" if machine == 21 and little else "")
    segments = [
        layout.segment(read(table + index * size, layout.program.size)) for index in range(min(count, MAX_HEADERS))
    ]
    interpreter = next((_string(read, offset) for kind, offset, _, _ in segments if kind == _PT_INTERP), "")
    dynamic = next(((offset, length) for kind, offset, _, length in segments if kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return Elf(arch, layout.bits, interpreter)
    raw = read(dynamic[0], min(dynamic[1], MAX_DYNAMIC))
    entries = list(layout.dynamic.iter_unpack(raw[: len(raw) // layout.dynamic.size * layout.dynamic.size]))
    strings = _file_offset(segments, next((value for tag, value in entries if tag == _DT_STRTAB), 0))

    def names(*tags: int) -> tuple[str, ...]:
        return tuple(_string(read, strings + value) for tag, value in entries if tag in tags)

    search = tuple(path for text in names(_DT_RPATH, _DT_RUNPATH) for path in text.split(":") if path)
    return Elf(arch, layout.bits, interpreter, names(_DT_NEEDED), search)


def _string(read: Read, offset: int) -> str:
    return read(offset, MAX_STRING).partition(b"\0")[0].decode(errors="replace")


def _file_offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return address - start + offset
    raise ValueError("the string table is in no segment")
