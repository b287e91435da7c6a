"""A picture as lines of a terminal. Pure: width and height in, styled lines out.

A line is a list of (style, text); styles are SGR numbers, "" for plain. What comes from the engine is made printable.
"""

from __future__ import annotations

from collections.abc import Sequence

from dockyard.cli.shell import printable
from dockyard.compose.logs import Line as LogLine
from dockyard.compose.picture import DEGRADED, DONE, DOWN, OFF, STARTING, UP, Ill, Picture, ServiceLook, milliseconds

Line = list[tuple[str, str]]
BOLD, DIM, RED, GREEN, YELLOW, CYAN, REVERSE = "1", "2", "31", "32", "33", "36", "7"
SIGNS = {UP: ("●", GREEN), DONE: ("✓", DIM), OFF: ("○", DIM), STARTING: ("◐", YELLOW), DEGRADED: ("◐", YELLOW), DOWN: ("✗", RED)}
KEYS = (
    ("↑ ↓", "choose a service"), ("enter l", "its logs"), ("d", "what the doctor found, with the cure"),
    ("a", "there: apply the cure; it is taken back if it does not help"),
    ("r", "restart the service"), ("u", "update it (rolling, with rollback)"), ("U", "update all that is out of date"),
    ("c", "ask the registries for newer images"), ("/", "in logs: search"), ("esc", "back"), ("q  Ctrl-C", "quit"),
)  # fmt: skip
_FOOT = "↑↓ choose  l logs  d doctor  r restart  u update  U all  c check  ? help  q quit"
_HEAD = f"  {'SERVICE':<14}{'UP':>5} {'HEALTH':<10}{'CIRCUIT':<10}{'REQ/S':>7}{'ERR %':>6}{'P50':>8}{'P95':>8}{'P99':>8}"


def cut(line: Line, width: int) -> Line:
    """At most ``width`` characters."""
    out: Line = []
    left = width
    for style, text in line:
        if left <= 0:
            break
        shown = text if len(text) <= left else text[: left - 1] + "…"
        out.append((style, shown))
        left -= len(shown)
    return out


def frame(body: Sequence[Line], foot: Line, width: int, height: int, first: int = 0) -> list[Line]:
    """Exactly ``height`` lines: the body from ``first`` on, and the foot in the last one."""
    room = max(1, height - 1)
    shown = [cut(line, width) for line in body[first : first + room]]
    shown += [[] for _ in range(room - len(shown))]
    return [*shown, cut(foot, width)]


def title(picture: Picture) -> Line:
    up = sum(one.state in (UP, DONE, OFF) for one in picture.services)
    ill = len(picture.services) - up
    line: Line = [(BOLD, printable(picture.project)), ("", f"  {up} up")]
    line.append((RED if ill else DIM, f", {ill} not"))
    if picture.balanced:
        line.append(("", f"  {sum(one.rates.requests for one in picture.services if one.rates):.1f} req/s"))
    if picture.stale:
        line.append((YELLOW, f"  {len(picture.stale)} out of date"))
    line.append((DIM, f"  {printable(picture.engine)}"))
    return line


def status(picture: Picture) -> Line:
    if picture.lost:
        return [(RED, f"the engine does not answer: {printable(picture.lost)}")]
    if picture.busy:
        return [(CYAN, f"{printable(picture.busy)} ...")]
    if picture.said:
        return [(RED if picture.failed else GREEN, " ".join(printable(picture.said).split()))]
    return []


def overview(picture: Picture, chosen: str) -> tuple[list[Line], int]:
    """The lines, and which of them is the chosen service's."""
    lines: list[Line] = [title(picture), status(picture), [(DIM, _HEAD)]]
    at = len(lines)
    for one in picture.services:
        if one.name == chosen:
            at = len(lines)
        lines.append(_row(one, chosen=one.name == chosen))
        if one.stale:
            lines.append([("", "      "), (YELLOW, f"out of date: {printable(one.stale)}")])
        if one.restarts:
            lines.append([("", "      "), (YELLOW, f"restarted {one.restarts} times by its restart policy")])
        for ill in one.ills:
            lines += _ill(ill, "      ")
    if not picture.services and not picture.lost:
        told = "no containers; dockyard compose up -d starts them" if picture.looked else "looking ..."
        lines.append([("", f"  {told}")])
    if picture.host:
        lines += [[], [(BOLD, "  this host")]]
        for ill in picture.host:
            lines += _ill(ill, "      ")
    if not picture.examined and picture.services:
        lines += [[], [(DIM, "  the doctor is looking ...")]]
    return lines, at


def _row(one: ServiceLook, *, chosen: bool) -> Line:
    sign, colour = SIGNS[one.state]
    flow, rates = one.flow, one.rates
    style = REVERSE if chosen else BOLD
    circuit = flow.circuit if flow else "–"
    errors = f"{rates.errors:.1f}" if rates else "–"
    line: Line = [(colour, f"{sign} "), (style, _fit(one.name, 14)), ("", f"{one.running}/{one.wanted}".rjust(5) + " ")]
    health = one.health or (one.state if one.state != UP else "–")
    line.append((RED if health in ("unhealthy", DOWN) else "" if health == "healthy" else DIM, _fit(health, 10)))
    line.append((RED if circuit == "open" else YELLOW if circuit == "half-open" else "", _fit(circuit, 10)))
    line.append(("", (f"{rates.requests:.1f}" if rates else "–").rjust(7)))
    line.append((RED if rates and rates.errors >= 1 else "", errors.rjust(6)))
    times = (rates.p50, rates.p95, rates.p99) if rates else (None, None, None)
    line.append(("", "".join(milliseconds(value).rjust(8) for value in times)))
    return line


def _fit(text: str, size: int) -> str:
    text = printable(text)
    return text.ljust(size) if len(text) < size else text[: size - 2] + "… "


def _ill(ill: Ill, indent: str) -> list[Line]:
    sign, colour = ("✗", RED) if ill.severity == "fault" else ("!", YELLOW)
    lines: list[Line] = [[("", indent), (colour, f"{sign} {ill.id} {printable(ill.title)}")]]
    if ill.cure:
        lines.append([("", f"{indent}  "), (GREEN, "cure "), ("", printable(ill.cure))])
    return lines


def doctor(picture: Picture, one: ServiceLook) -> list[Line]:
    """Everything about what ails one service, wrapped."""
    import textwrap

    lines: list[Line] = [[(BOLD, f"{printable(one.name)}: what the doctor found")], []]
    if not one.ills:
        lines.append([("", "nothing" if picture.examined else "it is still looking ...")])
    for ill in one.ills:
        sign, colour = ("✗", RED) if ill.severity == "fault" else ("!", YELLOW)
        lines.append([(colour, f"{sign} {ill.id} {printable(ill.what)}: {printable(ill.title)}")])
        told = [("seen", [ill.symptom]), ("cause", list(ill.cause)), ("cure", [ill.cure, *ill.commands])]
        if ill.machine:
            told.append(("apply", [f"key a, or dockyard doctor --apply {ill.id}"]))
        told.append(("more", [f"dockyard explain {ill.id}"]))
        for name, texts in told:
            for number, text in enumerate(filter(None, texts)):
                for part, piece in enumerate(textwrap.wrap(printable(text), 66) or [""]):
                    lines.append([(DIM, f"  {name if not number and not part else '':<8}"), ("", piece)])
        lines.append([])
    return lines


def log(name: str, rows: Sequence[LogLine], search: str, typing: str | None, width: int) -> tuple[Line, list[Line]]:
    """The head, and each line with what was searched for made visible."""
    head: Line = [(BOLD, f"logs of {printable(name)}")]
    if typing is not None:
        head.append((CYAN, f"  /{printable(typing)}_"))
    elif search:
        head.append((CYAN, f"  with '{printable(search)}': {len(rows)} lines"))
    body = []
    for row in rows:
        prefix = f"{row.container.rpartition('-')[2]:>3} {row.time[11:19]} "
        line: Line = [(DIM, printable(prefix))]
        text, low = printable(row.text), search.lower()
        at = text.lower().find(low) if low else -1
        if at < 0:
            line.append((RED if row.stream == 2 else "", text))
        else:
            line += [("", text[:at]), (REVERSE, text[at : at + len(low)]), ("", text[at + len(low) :])]
        body.append(cut(line, width))
    return head, body


def help_lines() -> list[Line]:
    lines: list[Line] = [[(BOLD, "Keys")], []]
    lines += [[(CYAN, f"  {key:<11}"), ("", told)] for key, told in KEYS]
    lines += [[], [("", "A circuit that is open refuses requests; half-open it tries one at a time.")],
              [("", "– stands where nothing is balanced: dockyard compose balance runs the balancer.")]]  # fmt: skip
    return lines


def foot(question: str = "", note: str = "") -> Line:
    if question:
        return [(YELLOW, f"{printable(question)} (y/n)")]
    return [(DIM, note or _FOOT)]


def plain(line: Line) -> str:
    return "".join(text for _, text in line).rstrip()
