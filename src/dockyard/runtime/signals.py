"""Signal names as Docker reads them: ``SIGKILL``, ``kill``, ``9``, ``RTMIN+3``. Pure."""

from __future__ import annotations

import signal

from dockyard.runtime import errors

_RTMIN, _RTMAX = 34, 64
"""The kernel counts from 32, but libc keeps two for itself; Docker's table says 34."""
_BY_NAME = {
    **{one.name.removeprefix("SIG"): one.value for one in signal.Signals if "RT" not in one.name},
    "CLD": signal.SIGCHLD.value,
    "IOT": signal.SIGABRT.value,
    "POLL": signal.SIGIO.value,
    "STKFLT": 16,
    "RTMIN": _RTMIN,
    "RTMAX": _RTMAX,
    **{f"RTMIN+{step}": _RTMIN + step for step in range(1, 16)},
    **{f"RTMAX-{step}": _RTMAX - step for step in range(1, 15)},
}


def parse_signal(text: str) -> int:
    """Raises InvalidParameter with Docker's sentence."""
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 4 else 0
        if 0 < number <= _RTMAX:
            return number
    elif (found := _BY_NAME.get(text.upper().removeprefix("SIG"))) is not None:
        return found
    raise errors.INVALID_SIGNAL(signal=text)
