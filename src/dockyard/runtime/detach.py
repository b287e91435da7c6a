"""Detach keys: the sequence by which a terminal user leaves a container without ending it. Pure."""

from __future__ import annotations

from dockyard.runtime import errors

DEFAULT = "ctrl-p,ctrl-q"
_CONTROL = {letter: code for code, letter in enumerate("@abcdefghijklmnopqrstuvwxyz[\\]^_")}


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q``, ``a``, ``ctrl-@`` ...; "" is the default. Raises InvalidParameter."""
    keys = bytearray()
    for key in (text or DEFAULT).split(","):
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif key.startswith("ctrl-") and key[5:] in _CONTROL:
            keys.append(_CONTROL[key[5:]])
        else:
            raise errors.INVALID_DETACH_KEYS(keys=text)
    return bytes(keys)


class DetachKeys:
    """Scans what a terminal types. Bytes of a sequence that has only begun are held back until it fails."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence was completed (the rest of ``data`` is then dropped)."""
        if not self._matched and self._keys[:1] not in data:
            return data, False
        out = bytearray()
        for byte in data:
            while self._matched and byte != self._keys[self._matched]:
                self._fail(out)
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False

    def _fail(self, out: bytearray) -> None:
        """The longest shorter beginning that still fits stays held; what lies before it was ordinary typing."""
        held = self._keys[: self._matched]
        keep = next(size for size in range(self._matched - 1, -1, -1) if held.endswith(self._keys[:size]))
        out += held[: self._matched - keep]
        self._matched = keep
