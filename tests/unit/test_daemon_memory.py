"""The daemon's threads share one arena of glibc's, whose count is read from glibc itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from dockyard.api.daemon import limit_malloc
if sys.argv[1] == "limited":
    limit_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(8)
def work():
    together.wait()
    for _ in range(100):
        libc.malloc(5000)  # by ctypes, so without the interpreter's lock
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.parametrize("limited", [True, False])
def test_arenas(limited: bool, tmp_path) -> None:
    out = tmp_path / "info.xml"
    subprocess.run([sys.executable, "-c", PROGRAM, "limited" if limited else "as it is", str(out)], check=True, timeout=60)
    arenas = out.read_text().count("<heap nr=")
    assert arenas == 1 if limited else arenas > 1
