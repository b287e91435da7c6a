"""The tail read from the end equals the tail of everything."""

from __future__ import annotations

import os
import tempfile

from hypothesis import given
from hypothesis import strategies as st

from dockyard.runtime import logs
from dockyard.runtime.detach import DetachKeys
from dockyard.runtime.logs import _backwards

ENTRIES = st.lists(st.tuples(st.sampled_from("FP"), st.text(alphabet="ab ", max_size=30)), max_size=40)


@given(ENTRIES, st.integers(0, 12), st.integers(1, 200))
def test_tail(entries, tail, block):
    rows = [f"2023-11-14T22:13:20Z stdout {tag} {text}\n".encode() for tag, text in entries]
    lines: list[list[bytes]] = [[]]
    for (tag, _), raw in zip(entries, rows, strict=True):
        lines[-1].append(raw)
        if tag == "F":
            lines.append([])
    lines = lines[:-1] if not lines[-1] else lines
    expected = b"".join(raw for line in lines[max(0, len(lines) - tail) :] for raw in line) if tail else b""
    old, logs.BLOCK = logs.BLOCK, block
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"".join(rows))
            file.flush()
            offset, missing = _backwards(file.fileno(), tail)
            assert os.pread(file.fileno(), 1 << 20, offset) == expected
            assert missing == max(0, tail - len(lines))
    finally:
        logs.BLOCK = old


@given(st.lists(st.binary(max_size=6).map(lambda data: bytes(byte % 3 for byte in data)), max_size=8))
def test_detach_keys_pass_on_everything_before_them(pieces):
    keys = b"\0\0\1"
    scanner, passed, detached = DetachKeys(keys), b"", False
    for piece in pieces:
        out, detached = scanner.feed(piece)
        passed += out
        if detached:
            break
    typed = b"".join(pieces)
    if detached:
        assert passed == typed[: typed.index(keys)]
    else:
        assert keys not in typed
        assert typed.startswith(passed)
        assert keys.startswith(typed[len(passed) :])


@given(st.binary(max_size=300), st.integers(0, 299))
def test_elf_parser_survives_anything(noise, at):
    from pathlib import Path

    from dockyard.runtime.elf import parse_elf

    head = Path("/bin/true").read_bytes()[:4096]
    for data in (b"\x7fELF\x02\x01" + noise, b"\x7fELF\x01\x02" + noise, head[:at] + noise + head[at + len(noise) :]):
        parse_elf(lambda offset, size, data=data: data[offset : offset + size])
