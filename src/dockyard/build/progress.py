"""What a build tells while it runs: plain values, one stream, any number of doors that draw it.

A *vertex* is a step, a stage's FROM, the context transfer or an export. The classic door prints "Step 3/7 : RUN ..."
from it, BuildKit's door a StatusResponse, ``dockyard build`` its own picture. Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "Event", "Output", "Progress", "Running", "Sink", "VertexDone", "VertexQueued", "VertexStarted", "Warned",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class VertexQueued:
    """``digest`` ("sha256:...") names the vertex for the whole build; ``number`` is the classic step number or 0."""

    digest: str
    name: str
    inputs: tuple[str, ...] = ()
    number: int = 0
    total: int = 0
    stage: str = ""
    position: tuple[int, int] = (0, 0)  # (n, of m) within its stage, FROM being the first


@dataclass(frozen=True, slots=True)
class VertexStarted:
    digest: str
    at: float


@dataclass(frozen=True, slots=True)
class Running:
    """A vertex has a process now; ``sandbox`` is the ID it runs under."""

    digest: str
    sandbox: str
    at: float


@dataclass(frozen=True, slots=True)
class VertexDone:
    """``why``: for --explain, why the step ran or was cached. ``result``: the image ID after a stage's last step, else a
    name of the state the step led to ("sha256:..."), "" where there is none."""

    digest: str
    at: float
    cached: bool = False
    error: str = ""
    why: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that a running step wrote: ``fd`` is 1 or 2."""

    digest: str
    fd: int
    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes or entries of a transfer below a vertex; ``total`` 0 is unknown, ``done`` ends it. ``status``: in a pull,
    Docker's word for what is being done ("Downloading")."""

    digest: str
    id: str
    current: int
    total: int
    at: float
    done: bool = False
    status: str = ""


@dataclass(frozen=True, slots=True)
class Warned:
    """A lint or planner warning: ``rule`` as Docker's build checks name them ("" for others), ``line`` from 1."""

    message: str
    rule: str = ""
    line: int = 0
    url: str = ""
    detail: str = ""


Event = VertexQueued | VertexStarted | Running | VertexDone | Output | Progress | Warned
Sink = Callable[[Event], None]
"""Never waits; a door that is slow bounds its own queue."""
