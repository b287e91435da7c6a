"""Named places where a test kills the daemon. ``DOCKYARD_FAULT=start.network`` makes the process end itself there with
SIGKILL, as a power cut would; ``DOCKYARD_FAULT_TRACE=FILE`` appends every name passed, which gives the list to kill at.
Unset, as always outside tests, a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

_armed = os.environ.get("DOCKYARD_FAULT", "")
_trace = os.environ.get("DOCKYARD_FAULT_TRACE", "")
_active = bool(_armed or _trace)


def faultpoint(name: str) -> None:
    if not _active:
        return
    if _trace:
        with open(_trace, "a") as out:
            out.write(name + "\n")
    if name == _armed:
        os.kill(os.getpid(), signal.SIGKILL)
