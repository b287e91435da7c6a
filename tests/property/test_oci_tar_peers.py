"""The tar reader against GNU tar and bsdtar: archives bent in every header field, checksums put right again.

Where the reader accepts an archive, its list of members is that of one of the two at least; a parser that sees other
members than everybody else is how files are smuggled past a scanner.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from dockyard.errors import InvalidParameter
from dockyard.oci.tar import read_headers

ROUNDS = 120
PEERS = [name for name in ("tar", "bsdtar") if shutil.which(name)]
pytestmark = pytest.mark.skipif(not PEERS, reason="neither tar nor bsdtar is installed")
NUMBERS = {"mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12)}
TEXTS = {"name": (0, 100), "linkname": (157, 100), "prefix": (345, 155)}
TYPES = (b"0", b"\0", b"5", b"7", b"1", b"2")
MAGICS = (b"ustar\x0000", b"ustar  \0", b"\0" * 8)


def sample(dice: random.Random) -> bytes:
    out = io.BytesIO()
    style = dice.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(fileobj=out, mode="w", format=style) as archive:
        for number in range(dice.randrange(1, 5)):
            depth = dice.choice([1, 1, 2, 30 if style != tarfile.USTAR_FORMAT else 3])
            info = tarfile.TarInfo("/".join([f"part{number}"] * depth))
            info.size = dice.choice([0, 1, 511, 512, 513, 1500])
            info.mtime = dice.choice([0, 1_600_000_000])
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    return out.getvalue()


def bend(dice: random.Random, archive: bytearray) -> None:
    """One field of one header block, in one of the ways that writers have of saying things."""
    at = dice.choice([at for at in range(0, len(archive), 512) if archive[at + 257 : at + 262] == b"ustar"] or [0])
    field = dice.choice([*NUMBERS, *TEXTS, "type", "magic"])
    if field in NUMBERS:
        offset, width = NUMBERS[field]
        raw = bytes(archive[at + offset : at + offset + width])
        value = int.from_bytes(raw[1:], "big") if raw[0] & 0x80 else int(raw.strip(b"\0 ") or b"0", 8)
        value = value if field == "size" and dice.random() < 0.7 else dice.choice([value, 0, 7, 0o777])
        octal = b"%o" % value
        archive[at + offset : at + offset + width] = dice.choice([
            octal.rjust(width - 1, b"0") + b"\0", octal.rjust(width - 1, b"0") + b" ", octal.rjust(width - 2, b" ") + b" \0",
            octal.ljust(width, b"\0"), octal.rjust(width, b"0"), b"\x80" + value.to_bytes(width - 1, "big"),
        ])  # fmt: skip
    elif field in TEXTS:
        offset, width = TEXTS[field]
        text = dice.choice([b"", b"a", b"dir/file", b"./x", b"dir/", b"q" * width])
        archive[at + offset : at + offset + width] = text.ljust(width, b"\0")
    elif field == "type":
        archive[at + 156 : at + 157] = dice.choice(TYPES)
    else:
        archive[at + 257 : at + 265] = dice.choice(MAGICS)
    if archive[at + 262] != 0:  # GNU magic: a prefix behind it is Go 1.7's (golang/go#21005), which tar itself ignores
        archive[at + 345 : at + 500] = bytes(155)
    archive[at + 148 : at + 156] = b" " * 8
    archive[at + 148 : at + 156] = b"%06o\0 " % sum(archive[at : at + 512])


def ours(archive: bytes) -> list[str] | None:
    try:
        return [clean(header.name.decode()) for header in read_headers(archive, 1000)]
    except InvalidParameter:
        return None


def theirs(program: str, path: Path) -> list[str] | None:
    """None where it refuses or warns."""
    done = subprocess.run([program, "-tf", path], capture_output=True, text=True, timeout=30)
    if done.returncode or done.stderr.strip():
        return None
    return [clean(name) for name in done.stdout.splitlines()]


def clean(name: str) -> str:
    """Whether a directory's name ends with a slash is a matter of taste, and so is a leading one."""
    return name.strip("/").removeprefix("./")


def test_members_are_those_that_others_see(tmp_path: Path) -> None:
    path, accepted = tmp_path / "bent.tar", 0
    for seed in range(ROUNDS):
        dice = random.Random(seed)
        archive = bytearray(sample(dice))
        for _ in range(dice.randrange(1, 4)):
            bend(dice, archive)
        path.write_bytes(archive)
        found = ours(bytes(archive))
        if found is None:
            continue
        lists = [names for program in PEERS if (names := theirs(program, path)) is not None]
        if lists:
            accepted += 1
            assert found in lists, f"seed {seed}: {found} is not in {lists}"
    assert accepted > ROUNDS // 4, "too few archives were accepted for this to say anything"
