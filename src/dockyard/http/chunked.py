"""Decoder of the chunked transfer coding (RFC 9112 section 7.1), strict, exact to the byte."""

from __future__ import annotations

from dockyard.http.errors import MALFORMED

_LINE_BYTES = 256  # a size line is 16 hex digits and perhaps an extension; nobody sends extensions
_TRAILER_BYTES = 8192
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ChunkDecoder:
    """Feed it what arrived; it gives the payload pieces, and the bytes behind the body once `complete`.

    States: size line -> data -> CRLF -> size line ... -> last size line -> trailer lines -> complete.
    """

    __slots__ = ("_line", "_need", "_state", "_trailer", "complete")

    def __init__(self) -> None:
        self._state = "size"
        self._need = 0
        self._line = b""
        self._trailer = 0
        self.complete = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """(payload pieces, rest behind the body). Raises MALFORMED."""
        pieces: list[bytes] = []
        while data and not self.complete:
            if self._state == "data":
                piece = data[: self._need]
                pieces.append(piece)
                data = data[len(piece) :]
                self._need -= len(piece)
                if not self._need:
                    self._state = "crlf"
                continue
            line, data = self._take_line(data)
            if line is not None:
                self._line_done(line)
        return pieces, data

    def _take_line(self, data: bytes) -> tuple[bytes | None, bytes]:
        end = data.find(b"\n")
        if end < 0:
            self._line += data
            if (len(self._line) > _LINE_BYTES and self._state != "trailer") or len(self._line) > _TRAILER_BYTES:
                raise MALFORMED(reason="chunk line too long")
            return None, b""
        line = self._line + data[: end + 1]
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise MALFORMED(reason="chunk line without CRLF")
        return line[:-2], data[end + 1 :]

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
