"""Identifiers: 64 hex digits, as Docker's. A prefix may stand for the whole where it is unique."""

from __future__ import annotations

import os
import re
from typing import NewType

ContainerId = NewType("ContainerId", str)
ExecId = NewType("ExecId", str)
ImageId = NewType("ImageId", str)
"""``sha256:`` and 64 hex digits."""
NetworkId = NewType("NetworkId", str)
EndpointId = NewType("EndpointId", str)

_HEX = re.compile(r"[0-9a-f]{1,64}\Z")


def new_id() -> str:
    """A random 64-digit id. Docker refuses short ids made of digits only (they look like numbers), so we redraw."""
    while True:
        candidate = os.urandom(32).hex()
        if not candidate[:12].isdigit():
            return candidate


def is_id_prefix(ref: str) -> bool:
    return _HEX.match(ref) is not None
