"""The one door to system calls that Python 3.11 lacks: numbers, and a call that turns errno into OSError.

Numbers are those of the generic table, equal on x86-64 and arm64 for everything since 5.2.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

OPEN_TREE = 428
MOVE_MOUNT = 429
FSOPEN = 430
FSCONFIG = 431
FSMOUNT = 432
OPENAT2 = 437
MOUNT_SETATTR = 442

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def syscall(number: int, *args: Any) -> int:
    """The raw call; ctypes drops the interpreter lock meanwhile. Raises OSError with the plain errno."""
    result = int(libc.syscall(ctypes.c_long(number), *args))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result
