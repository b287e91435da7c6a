"""Decoder of the chunked transfer coding (RFC 9112 section 7.1), strict, exact to the byte."""

from __future__ import annotations

import re

from dockyard.http.errors import MALFORMED

_LINE_BYTES = 256  # a size line is 16 hex digits and perhaps an extension; nobody sends extensions
_TRAILER_BYTES = 8192
_HEX = frozenset(b"0123456789abcdefABCDEF")
_BETWEEN = re.compile(rb"\r\n([0-9a-fA-F]{1,16})\r\n")
"""From the end of one chunk to the data of the next, as all clients write it."""


class ChunkDecoder:
    """Feed it what arrived; it gives the payload in it, and the bytes behind the body once `complete`.

    States: size line -> data -> CRLF -> size line ... -> last size line -> trailer lines -> complete.

    docker's command line sends each header and each file of a context as a chunk of its own, 60,000 of them for 20,000
    files: so nothing is copied but the payload, and the payload of one call is one piece.
    """

    __slots__ = ("_line", "_need", "_state", "_trailer", "complete")

    def __init__(self) -> None:
        self._state = "size"
        self._need = 0
        self._line = b""
        self._trailer = 0
        self.complete = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(payload, rest behind the body). Raises MALFORMED."""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end and not self.complete:
            if self._state == "data":
                at = self._take_data(data, at, pieces)
                continue
            line, at = self._take_line(data, at)
            if line is not None:
                self._line_done(line)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), data[at:]

    def _take_data(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """As many chunks as lie there whole, and the beginning of the next; gives where they end."""
        need, end = self._need, len(data)
        match = _BETWEEN.match
        while (stop := at + need) <= end:
            pieces.append(data[at:stop])
            at = stop
            between = match(data, at)
            if between is None or not (need := int(between[1], 16)):
                self._state, self._need = "crlf", 0
                return at
            at = between.end()
        if at < end:
            pieces.append(data[at:])
        self._need = need - (end - at)
        return end

    def _take_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        end = data.find(b"\n", at)
        if end < 0:
            self._line += data[at:]
            if (len(self._line) > _LINE_BYTES and self._state != "trailer") or len(self._line) > _TRAILER_BYTES:
                raise MALFORMED(reason="chunk line too long")
            return None, len(data)
        line = self._line + data[at : end + 1]
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise MALFORMED(reason="chunk line without CRLF")
        return line[:-2], end + 1

    def _line_done(self, line: bytes) -> None:
        if self._state == "crlf":
            if line:
                raise MALFORMED(reason="chunk longer than its size")
            self._state = "size"
        elif self._state == "size":
            digits = line.split(b";", 1)[0].strip(b" \t")
            if not 0 < len(digits) <= 16 or not _HEX.issuperset(digits):
                raise MALFORMED(reason="bad chunk size")
            self._need = int(digits, 16)
            self._state = "data" if self._need else "trailer"
        elif line:
            self._trailer += len(line)
            if self._trailer > _TRAILER_BYTES:
                raise MALFORMED(reason="trailer too long")
        else:
            self.complete = True
