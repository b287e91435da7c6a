"""Signals as Docker reads them: ``SIGTERM``, ``term``, ``15``, ``RTMIN+3`` (moby/sys/signal)."""

from __future__ import annotations

import re
import signal

from dockyard.errors import Code, InvalidParameter

INVALID_SIGNAL = Code("DY-ENG-050", InvalidParameter, "invalid signal: {text}", hint="kill -l lists signals")
_HIGHEST = 64


def parse_signal(text: str) -> int:
    """Raises InvalidParameter."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isdigit():
        number = int(name)
        if 0 < number <= _HIGHEST:
            return number
        raise INVALID_SIGNAL(text=text)
    if match := re.fullmatch(r"RTM(IN|AX)([+-]\d{1,2})?", name):
        number = int(signal.SIGRTMIN if match[1] == "IN" else signal.SIGRTMAX) + int(match[2] or 0)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    known = signal.Signals.__members__.get("SIG" + name)
    if known is None:
        raise INVALID_SIGNAL(text=text)
    return int(known)
