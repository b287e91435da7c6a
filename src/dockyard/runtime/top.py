"""``docker top``: the host's ps, with the rows of one container. ``filter_rows`` is pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from dockyard.kernel import process
from dockyard.runtime import errors

PS_LIMIT = 10.0
DEFAULT_ARGS = "-ef"
_RENAMED_PID = re.compile(r"\s+(\S*)=\s*(PID\S*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Top:
    titles: list[str]
    processes: list[list[str]]


async def top(pids: Collection[int], args: str) -> Top:
    """``args`` are ps' own words, "" means ``-ef``. Raises InvalidParameter as Docker does."""
    args = args or DEFAULT_ARGS
    if (renamed := _RENAMED_PID.search(f" {args}")) and renamed[1].lower() != "pid":
        raise errors.INVALID(cause=f'specifying "{renamed[1]}={renamed[2]}" is not allowed')
    done = await process.run(
        ["/bin/ps", *args.split()], timeout=PS_LIMIT, env={"PATH": process.PATH, "LC_ALL": "C", "COLUMNS": "4096"}
    )
    if done.code != 0:
        raise errors.PS_FAILED(cause=done.stderr.decode(errors="replace").strip() or f"exit status {done.code}")
    return filter_rows(done.stdout.decode(errors="replace"), pids)


def filter_rows(output: str, pids: Collection[int]) -> Top:
    """The last column takes the rest of its line. A row whose PID is "-" (a thread) belongs to the row above it."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise errors.NO_PID_COLUMN()
    column, rows, inside = titles.index("PID"), [], False
    for line in lines[1:]:
        words = line.split(None, len(titles) - 1)
        if len(words) <= column:
            continue
        if words[column] != "-":
            if not words[column].isdigit():
                raise errors.PS_FAILED(cause=f"unexpected pid '{words[column]}'")
            inside = int(words[column]) in pids
        if inside:
            rows.append(words)
    return Top(titles, rows)
