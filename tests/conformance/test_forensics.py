"""Containers that cannot run or end at once: Docker's own sentence first, then the reason and the remedy."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from dockyard.testing.engines import PrivateEngine

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ELF_AARCH64 = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, 0x400078, 64, 0, 0, 64, 56, 0, 64, 0, 0)
ELF_MUSL = (
    b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0x1000, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    + struct.pack("<IIQQQQQQ", 3, 4, 120, 120, 120, 25, 25, 1) + b"/lib/ld-musl-x86_64.so.1\0"
)  # fmt: skip
# Where the kernel refuses the program after the runtime has started it, runc can only print the error: then it ends
# with 1 (runc before 1.2) or 255.
CASES = [
    (b"#!/bin/sh\r\necho hi\r\n", 0o755, (1, 255), "no such file or directory", "Windows line ends", "sed -i"),
    (b"#!/usr/bin/nosuch\n", 0o755, (1, 255), "no such file or directory", "/usr/bin/nosuch, which is not in the image", "install"),
    (b"#!/bin/sh\necho hi\n", 0o644, (126,), "permission denied", "may not be executed", "chmod +x"),
    (b"echo hi\n", 0o755, (1, 255), "exec format error", "without a #! line", "#!/bin/sh"),
    (ELF_AARCH64, 0o755, (1, 255), "exec format error", "built for arm64", "linux/amd64"),
    (ELF_MUSL, 0o755, (1, 255), "no such file or directory", "musl (Alpine)", "statically"),
]


@pytest.mark.parametrize(("content", "mode", "codes", "dockers", "reason", "remedy"), CASES, ids=["crlf", "no-interpreter", "no-x", "no-shebang", "wrong-cpu", "no-loader"])
def test_a_program_that_cannot_run_says_why(
    engine: PrivateEngine, tmp_path: Path, content: bytes, mode: int, codes: tuple[int, ...], dockers: str, reason: str, remedy: str
) -> None:
    program = tmp_path / "prog"
    program.write_bytes(content)
    program.chmod(mode)
    made = engine.docker("create", "busybox", "/prog").stdout.strip()
    assert engine.docker("cp", str(program), f"{made}:/prog").returncode == 0
    started = engine.docker("start", "-a", made)
    state = json.loads(engine.docker("inspect", made).stdout)[0]["State"]
    told = started.stderr + state["Error"] + engine.docker("logs", made).stderr
    assert dockers in told.lower()
    assert "{" not in started.stderr, "a runtime's JSON reached the user"
    assert reason in told
    assert remedy in told
    assert state["ExitCode"] in codes
    engine.docker("rm", "-f", made)


def test_a_missing_program_has_dockers_exit_code(engine: PrivateEngine) -> None:
    done = engine.docker("run", "--rm", "busybox", "nosuch")
    assert done.returncode == 127
    assert 'exec: "nosuch": executable file not found in $PATH' in done.stderr
    assert "set PATH" in done.stderr


def test_a_program_that_fails_on_its_own_is_not_explained_away(engine: PrivateEngine) -> None:
    done = engine.docker("run", "--name", "own-fault", "busybox", "sh", "-c", "exit 1")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(engine.docker("inspect", "own-fault").stdout)[0]["State"]["Error"] == ""
    engine.docker("rm", "own-fault")
