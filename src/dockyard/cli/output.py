"""Looks: tables, sizes, ages, and the choice between table, template, JSON and bare IDs. Pure but for `show`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dockyard.cli.flags import Options
from dockyard.cli.shell import Shell, printable

Json = dict[str, Any]
GAP = "   "
LEAST_CELL = 10
"""A cell but the last takes so many characters with its gap, as docker's tabwriter has it."""
FORMAT = """
    --format TEMPLATE      Go template, "table TEMPLATE" or "json"
    --json                 One JSON document, for programs
"""
"""Flags of every command that lists."""
LEAST_WIDTH = 12
"""A column that gives way keeps this many characters."""


class Column(NamedTuple):
    title: str
    key: str
    soft: bool = False
    """Gives way where the terminal is too narrow."""
    spare: int = 0
    """Left out where giving way is not enough; 1 goes first, 0 never."""


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, width: int = 0) -> list[str]:
    """Lines of a table. With ``width`` the soft columns shrink, then spare ones go, until a line fits."""
    while True:
        cells = [[column.title for column in columns]]
        cells += [[str(row.get(column.key, "")) for column in columns] for row in rows]
        sizes = [max(len(line[index]) for line in cells) for index in range(len(columns))]
        sizes[:-1] = [max(size, LEAST_CELL - len(GAP)) for size in sizes[:-1]]
        over = _shrunk(sizes, columns, width) if width else 0
        spare = [column for column in columns if column.spare]
        if over <= 0 or not spare:
            break
        first = min(spare, key=lambda column: column.spare)
        columns = [column for column in columns if column is not first]
    return [
        GAP.join(_fit(text, size) for text, size in zip(line, sizes, strict=True)).rstrip() for line in cells
    ]  # fmt: skip


def _shrunk(sizes: list[int], columns: Sequence[Column], width: int) -> int:
    """Takes from the widest soft columns; how many characters a line is still too long."""
    over = sum(sizes) + len(GAP) * (len(columns) - 1) - width
    while over > 0:
        soft = [index for index, column in enumerate(columns) if column.soft and sizes[index] > LEAST_WIDTH]
        if not soft:
            return over
        sizes[max(soft, key=lambda index: sizes[index])] -= 1
        over -= 1
    return 0


def _fit(text: str, size: int) -> str:
    text = printable(text)
    return text.ljust(size) if len(text) <= size else text[: size - 1] + "…"


def show(shell: Shell, options: Options, rows: Sequence[Json], columns: Sequence[Column], *, key: str = "ID",
         titles: Mapping[str, str] | None = None, default: str = "") -> int:  # fmt: skip
    """Prints rows as ``--quiet``, ``--json``, ``--format`` or a table ask.

    ``key`` is what ``--quiet`` prints, ``titles`` the headings of fields that are no columns, ``default`` the format of
    config.json (``psFormat``). A value that can be called is a method for templates (``.Label "x"``).
    """
    form = options.text("format") or ("" if options.on("quiet") or options.on("json") else default)
    if options.on("quiet"):
        for row in rows:
            shell.say(str(row[key]))
    elif options.on("json"):
        import json

        shell.say(json.dumps([plain(row) for row in rows], indent=2, ensure_ascii=False))
    elif form == "json":
        import json

        for row in rows:
            shell.say(json.dumps(plain(row), separators=(",", ":"), ensure_ascii=False, sort_keys=True))
    elif form and form != "table":
        _templated(shell, form, rows, {column.key: column.title for column in columns} | dict(titles or {}))
    else:
        width = terminal_width() if shell.on_terminal and not options.on("no-trunc") else 0
        for number, line in enumerate(table(rows, columns, width=width)):
            shell.say(shell.colour("1", line) if number == 0 else line)
    return 0


def plain(row: Json) -> Json:
    return {name: value for name, value in row.items() if not callable(value)}


def _templated(shell: Shell, form: str, rows: Sequence[Json], titles: Mapping[str, str]) -> None:
    from dockyard.cli.template import compiled

    text = form.replace("\\t", "\t").replace("\\n", "\n")
    if text.startswith("table"):
        text = text.removeprefix("table").strip()
        render = compiled(text, strict=True)
        lines = [render(row) for row in rows]
        fields = [part.split("}}")[0].strip().rsplit(".", 1)[-1] for part in text.split("{{")[1:]]
        cells = [[titles.get(field) or _title(field) for field in fields], *(line.split("\t") for line in lines)]
        columns = max(len(line) for line in cells)
        sizes = [max(len(line[i]) if i < len(line) else 0 for line in cells) for i in range(columns)]
        sizes[:-1] = [max(size, LEAST_CELL - len(GAP)) for size in sizes[:-1]]
        for line in cells:
            shell.say(GAP.join(cell.ljust(sizes[i]) for i, cell in enumerate(line)).rstrip())
        return
    render = compiled(text, strict=True)
    for row in rows:
        shell.say(render(row))


def _title(field: str) -> str:
    """``RunningFor`` -> ``RUNNING FOR``."""
    words, last = "", ""
    for letter in field:
        words += " " + letter if letter.isupper() and last.islower() else letter
        last = letter
    return words.upper()


def terminal_width() -> int:
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def size(number: float, *, digits: int = 3) -> str:
    """Docker's sizes: powers of 1000, three significant digits (units.HumanSizeWithPrecision)."""
    return _scaled(number, 1000, ("B", "kB", "MB", "GB", "TB", "PB"), digits)


def binary_size(number: float) -> str:
    """Powers of 1024, four digits, as ``docker stats`` shows memory."""
    return _scaled(number, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 4)


def _scaled(number: float, base: int, units: Sequence[str], digits: int) -> str:
    index = 0
    while abs(number) >= base and index < len(units) - 1:
        number /= base
        index += 1
    text = f"{number:.{digits}g}"
    return f"{number:.0f}{units[index]}" if "e" in text else text + units[index]


def duration(seconds: float) -> str:
    """Docker's rough words for a span (units.HumanDuration)."""
    whole = int(seconds)
    steps: tuple[tuple[int, Callable[[int], str]], ...] = (
        (1, lambda s: "Less than a second"),
        (2, lambda s: "1 second"),
        (60, lambda s: f"{s} seconds"),
        (120, lambda s: "About a minute"),
        (3600, lambda s: f"{s // 60} minutes"),
        (5400, lambda s: "About an hour"),
        (3600 * 48, lambda s: f"{round(s / 3600)} hours"),
        (86400 * 14, lambda s: f"{s // 86400} days"),
        (86400 * 60, lambda s: f"{s // (86400 * 7)} weeks"),
        (86400 * 730, lambda s: f"{s // (86400 * 30)} months"),
    )
    for below, words in steps:
        if whole < below:
            return words(whole)
    return f"{whole // (86400 * 365)} years"


def ago(moment: float, now: float | None = None) -> str:
    return duration(max(0, (time.time() if now is None else now) - moment)) + " ago"


def epoch(text: str) -> float:
    """Seconds of an RFC 3339 date, 0.0 for Go's zero time or nothing."""
    if not text or text.startswith("0001-"):
        return 0.0
    from datetime import datetime

    head, _, tail = text.partition(".")
    digits = tail.rstrip("Z").split("+")[0].split("-")[0] if tail else ""
    zone = tail[len(digits) :] if tail else ""
    whole = datetime.fromisoformat((head + zone if tail else head).replace("Z", "+00:00")).timestamp()
    return whole + (float(f"0.{digits}") if digits else 0.0)


def short_id(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]


def moment(seconds: float) -> str:
    """Go's time.String: ``2026-01-02 03:04:05 +0000 UTC``, in the zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def joined(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
