"""Parsers of hostile bytes under coverage-guided fuzzing: ``make fuzz``, or ``python tests/fuzz/parsers.py TARGET
[-max_total_time=60]``. Each may refuse with its own error and nothing else; atheris reports any other exception, hang
or growth with the input that made it (``crash-*`` in the working directory). What was learned stays in ``.fuzz``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dockyard"]):
    from dockyard.build.dockerfile import instructions, parser
    from dockyard.errors import InvalidParameter
    from dockyard.network import dnswire
    from dockyard.oci.documents import parse_config, parse_index, parse_manifest
    from dockyard.oci.layers import build_tree, iter_dirs
    from dockyard.oci.reference import parse_reference
    from dockyard.oci.tar import BLOCK, END_OF_ARCHIVE, TarHeader, encode_header, read_headers
    from dockyard.storage.erofs import build_index

ENTRIES = 200
SUM, SUM_END = 148, 156  # of a header block
SEEDS = {
    "layers": b"".join([
        encode_header(TarHeader(name=b"d/" + b"n" * 150, size=5, xattrs={"user.a": b"b"})), b"hello".ljust(BLOCK, b"\0"),
        encode_header(TarHeader(name=b"l", type="1", linkname=b"d/" + b"n" * 150)),
        encode_header(TarHeader(name=b"d/.wh.x")), encode_header(TarHeader(name=b"s", type="2", linkname=b"../../etc")),
        encode_header(TarHeader(name=b"s/etc/passwd")), END_OF_ARCHIVE,
    ]),
    "dockerfile": b"# escape=`\nARG A=1\nFROM a AS b\nRUN --mount=type=cache,target=/x <<E\na\nE\nCOPY [\"a\", \"b\"]\nENV a=${A:-b}\n",
    "documents": b'{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:00","size":1},"layers":[],"rootfs":{"diff_ids":[]}}',
    "reference": b"localhost:5000/a/b:tag@sha256:" + b"0" * 64,
    "dns": b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01",
}  # fmt: skip


def layers(data: bytes) -> None:
    """What a tree names, the kernel resolves: single components only, whatever the archive says."""
    tree = build_tree(read_headers(data, ENTRIES))
    for folder in iter_dirs(tree.root):
        for name in folder.children or {}:
            assert name not in (b"", b".", b".."), name
            assert b"/" not in name, name
            assert b"\0" not in name, name
    build_index(tree, len(data), lambda offset, length: data[offset : offset + length])


def documents(data: bytes) -> None:
    for parse in (parse_config, parse_manifest, parse_index):
        parse(data)


def dockerfile(data: bytes) -> None:
    instructions.split_stages(parser.parse(data))


def reference(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = parse_reference(text)
    assert parse_reference(str(found)) == found


def dns(data: bytes) -> None:
    dnswire.question(data)


def with_sums(data: bytes, most: int, seed: int) -> bytes:
    """A mutation whose header checksums hold again, or a reader would never be entered further than its first check."""
    out = bytearray(atheris.Mutate(data, most))
    for at in range(0, len(out) - BLOCK + 1, BLOCK):
        block = out[at : at + BLOCK]
        if block[257:262] == b"ustar":
            block[SUM:SUM_END] = b" " * 8
            out[at + SUM : at + SUM_END] = b"%06o\0 " % sum(block)
    return bytes(out)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "layers": layers, "documents": documents, "dockerfile": dockerfile, "reference": reference, "dns": dns,
}  # fmt: skip


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        raise SystemExit(f"usage: python {sys.argv[0]} {{{','.join(TARGETS)}}} [options of libFuzzer]")
    target = TARGETS[name]

    def one(data: bytes) -> None:
        with contextlib.suppress(InvalidParameter, parser.SyntaxProblem):
            target(data)

    corpus = Path(".fuzz", name)
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "seed").write_bytes(SEEDS[name])
    options = {"custom_mutator": with_sums} if name == "layers" else {}
    atheris.Setup([sys.argv[0], str(corpus), "-max_len=16384", *sys.argv[2:]], one, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
