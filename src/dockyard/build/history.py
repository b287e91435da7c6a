"""What an image remembers of its steps, in the words of moby's own builder (builder/dockerfile/dispatchers.go): a row is
the command of the container that made it, and one that made nothing says so by a comment that the shell passes over.

::

    RUN x with ARG a=b      |1 a=b /bin/sh -c x                ENV a=b      /bin/sh -c #(nop)  ENV a=b
    COPY x /y               /bin/sh -c #(nop) COPY x in /y     WORKDIR /w   /bin/sh -c #(nop) WORKDIR /w

Where moby names the sum of what was copied, the sources are named as they were written: its sum is nobody else's. A
HEALTHCHECK is shown as JSON, not as Go prints a pointer. Else the rows are those of dockerd 20.10, held side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from .model import Copy, Exec, Operation, Workdir

__all__ = ["classic_history"]

_SUFFIX = " # buildkit"
_COPY = re.compile(r"(?P<before>.*) (?P<target>\S+)", re.DOTALL)


def classic_history(operation: Operation, text: str, shell: Sequence[str]) -> str:
    """``text`` is BuildKit's form; ``shell`` what SHELL says at this step."""
    nop = f"{' '.join(shell)} #(nop) "
    text = text.removesuffix(_SUFFIX)
    if isinstance(operation, Exec):
        return text.removeprefix("RUN ")
    if isinstance(operation, Workdir):
        return nop + text
    if isinstance(operation, Copy):
        found = _COPY.fullmatch(text)
        return nop + (f"{found['before']} in {found['target']} " if found else text)
    return f"{nop} {_meta(text)}"


def _meta(text: str) -> str:
    """As Go prints lists: ``CMD ["a" "b"]``, ``SHELL [a b]``, ``EXPOSE 80/tcp 81/tcp``."""
    word, _, rest = text.partition(" ")
    if word in ("CMD", "ENTRYPOINT"):
        return f"{word} [{' '.join(json.dumps(item, ensure_ascii=False) for item in json.loads(rest))}]"
    if word == "SHELL":
        return f"{word} [{' '.join(json.loads(rest))}]"
    return f"{word} {rest.strip('[]')}" if word == "EXPOSE" else text
