"""Start failures explained: each cause made in a small root, with the host's own programs as material."""

from __future__ import annotations

import os
import platform
import shutil
import struct
from pathlib import Path

import pytest

from dockyard.runtime import messages
from dockyard.runtime.elf import parse_elf
from dockyard.runtime.evidence import gather, parse_shebang
from dockyard.runtime.forensics import explain

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
TRUE = shutil.which("true") or "/bin/true"


def elf_of(path: str):
    data = Path(path).read_bytes()
    return parse_elf(lambda offset, size: data[offset : offset + size])


@pytest.fixture
def root(tmp_path):
    for directory in ("bin", "app", "etc", "lib64"):
        (tmp_path / directory).mkdir()
    return tmp_path


def put(path: Path, content: bytes | str = b"", mode: int = 0o755) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)


def why(root: Path, *argv: str, path: str = "/bin", user=None, mounts=(), cwd: str = "/"):
    spec = {
        "root": {"path": str(root)},
        "mounts": list(mounts),
        "process": {"args": list(argv), "cwd": cwd, "env": [f"PATH={path}"], "user": user or {"uid": 0, "gid": 0}},
    }
    return explain(gather(spec, ARCH))


def cause(*args, **more) -> str:
    found = why(*args, **more)
    return found.cause if found else ""


def with_libraries(root: Path, leave_out: str = "") -> None:
    """The host's loader and libraries of ``true``, as an image would have them."""
    elf = elf_of(TRUE)
    put(root / elf.interpreter.lstrip("/"), Path(elf.interpreter).read_bytes())
    libc = next(p for base in ("/lib", "/usr/lib", "/lib64") for p in Path(base).glob("**/libc.so.6"))
    if leave_out != "libc.so.6":
        put(root / "lib64/libc.so.6", libc.read_bytes())


def test_missing(root):
    assert cause(root, "nope") == "missing"
    assert "no nope in /bin" in str(why(root, "nope"))
    assert cause(root, "/app/nope") == "missing"
    assert "given as one word" in str(why(root, "nginx -g daemon off;"))


def test_directory_and_special(root):
    assert cause(root, "/app") == "directory"
    os.mkfifo(root / "app/fifo")
    assert cause(root, "/app/fifo") == "special"


def test_no_x(root):
    put(root / "app/run", "#!/bin/sh\n", 0o644)
    assert cause(root, "/app/run") == "no-x"
    put(root / "app/own", "#!/bin/sh\n", 0o700)
    assert "uid 1000" in str(why(root, "/app/own", user={"uid": 1000, "gid": 1000}))
    put(root / "bin/tool", "text", 0o644)
    assert cause(root, "tool") == "no-x"


def test_scripts(root):
    put(root / "bin/sh", Path(TRUE).read_bytes())
    with_libraries(root)
    put(root / "app/good", "#!/bin/sh\necho\n")
    assert cause(root, "/app/good") == ""
    put(root / "app/crlf", "#!/bin/sh\r\necho\r\n")
    assert "Windows line ends" in str(why(root, "/app/crlf"))
    assert cause(root, "/app/crlf") == "crlf"
    put(root / "app/envcrlf", "#!/usr/bin/env bash\r\n")
    assert '"/usr/bin/env bash\\r"' in str(why(root, "/app/envcrlf"))
    put(root / "app/bom", b"\xef\xbb\xbf#!/bin/sh\n")
    assert cause(root, "/app/bom") == "bom"
    put(root / "app/bash", "#!/bin/bash -e\n")
    assert "run by /bin/bash, which is not in the image" in str(why(root, "/app/bash"))
    put(root / "usr/bin/env", Path(TRUE).read_bytes())
    put(root / "app/py", "#!/usr/bin/env python3\n")
    assert cause(root, "/app/py") == "no-interpreter"
    put(root / "app/plain", "echo hello\n")
    assert cause(root, "/app/plain") == "no-shebang"
    put(root / "app/empty")
    assert cause(root, "/app/empty") == "empty"
    put(root / "app/win", b"MZ\x90")
    assert "Windows program" in str(why(root, "/app/win"))


def test_binaries(root):
    true = Path(TRUE).read_bytes()
    put(root / "bin/true", true)
    assert cause(root, "true") == "no-loader"
    with_libraries(root, leave_out="libc.so.6")
    assert "needs libc.so.6" in str(why(root, "true"))
    assert cause(root, "true") == "no-library"
    with_libraries(root)
    assert cause(root, "true") == ""
    put(root / "bin/other", true[:18] + struct.pack("<H", 243) + true[20:])
    assert "built for riscv64" in str(why(root, "other"))
    put(root / "bin/damaged", true[:40])
    assert cause(root, "damaged") == "damaged"


def test_noexec_and_programs_in_a_bind(root, tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    put(source / "run", "#!/bin/sh\r\n")
    bind = {"type": "bind", "destination": "/app", "source": str(source), "options": ["rbind"]}
    assert cause(root, "/app/run", mounts=[bind]) == "crlf"
    assert cause(root, "/app/run", mounts=[bind | {"options": ["rbind", "noexec"]}]) == "noexec"


def test_links_do_not_lead_out_of_the_root(root):
    (root / "app/link").symlink_to(TRUE)
    assert cause(root, "/app/link") == "missing"
    (root / "app/up").symlink_to("../../../../.." + TRUE)
    assert cause(root, "/app/up") == "missing"
    (root / "app/loop").symlink_to("loop")
    assert cause(root, "/app/loop") == "missing"


def test_shebang_lines():
    assert parse_shebang(b"#! /bin/sh -e -x\n") == ["/bin/sh", "-e -x"]
    assert parse_shebang(b"#!/bin/sh\r\n") == ["/bin/sh\r"]
    assert parse_shebang(b"#!\n") == []
    assert parse_shebang(b"text") == []


def test_own_interpreter_is_read_from_elf():
    elf = elf_of(TRUE)
    assert (elf.arch, "libc.so.6" in elf.needed, Path(elf.interpreter).exists()) == (ARCH, True, True)


def test_a_bind_of_the_wrong_kind_is_told_in_docker_s_words() -> None:
    text = messages.translate("mount `/srv/app.conf` to `etc/app.conf`: Not a directory")
    assert 'error mounting "/srv/app.conf" to rootfs at "/etc/app.conf": not a directory: Are you trying' in text
    assert messages.exit_code_for(text) == 127
