"""Putting a frame before an interface as if the wire had brought it (BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES,
Linux 5.18; Documentation/bpf/bpf_prog_run.rst).

A packet socket can only send, and what a raw socket sends passes the hooks of local output. The frame passes all hooks of
reception: tc, ingress, prerouting, with its own interface's name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from dockyard.kernel.syscalls import syscall

__all__ = ["FrameInjector"]

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
"""Of bpf(2)."""
_LOAD, _RUN = 5, 10
_TYPE_XDP, _LIVE_FRAMES = 6, 1 << 1
_PASS = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)
"""return XDP_PASS"""


class FrameInjector:
    """Holds the one program. Raises OSError where the kernel has no BPF or does not allow it."""

    def __init__(self) -> None:
        code, licence = ctypes.create_string_buffer(_PASS), ctypes.create_string_buffer(b"GPL")
        places = ctypes.addressof(code), ctypes.addressof(licence)
        self._program = _bpf(_LOAD, struct.pack("=IIQQ", _TYPE_XDP, len(_PASS) // 8, *places))

    def close(self) -> None:
        os.close(self._program)

    def inject(self, frame: bytes, interface: int) -> None:
        """``frame`` with its Ethernet header; ``interface`` by index in this thread's namespace. Raises OSError: EINVAL on
        a kernel before 5.18, ENODEV."""
        data = ctypes.create_string_buffer(frame, len(frame))
        context = struct.pack("=IIIIII", 0, len(frame), 0, interface, 0, 0)  # struct xdp_md
        shown = ctypes.create_string_buffer(context, len(context))
        sizes = len(frame), 0, ctypes.addressof(data), 0
        repeat, duration = 1, 0
        _bpf(_RUN, struct.pack(
            "=IIIIQQIIIIQQIII4x", self._program, 0, *sizes, repeat, duration, len(context), 0, ctypes.addressof(shown), 0,
            _LIVE_FRAMES, 0, 0,
        ))  # fmt: skip


def _bpf(command: int, attributes: bytes) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return syscall(number, command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes))
