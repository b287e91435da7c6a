"""``logs`` and ``events``, and how lines of several containers look side by side."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable
from typing import Any

from dockyard.cli.compose.session import Session
from dockyard.cli.flags import Options
from dockyard.compose import labels
from dockyard.compose.logs import Line, merged, read
from dockyard.compose.observe import Container

Json = dict[str, Any]
FLAGS = {
    "logs": """
-f, --follow          Follow log output
    --index N         Index of the container if the service has several
    --no-color        Produce monochrome output
    --no-log-prefix   Don't print prefix in logs
    --since TIME      Since a timestamp (2013-01-02T13:23:37Z) or relative (42m)
-n, --tail LINES      Number of lines from the end of each container's log (default: all)
-t, --timestamps      Show timestamps
    --until TIME      Before a timestamp or relative
""",
    "events": """
    --json         Output events as a stream of json objects
    --since TIME   Show all events since this timestamp
    --until TIME   Stream events until this timestamp
""",
}
_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")


class Printer:
    """Lines with the container's name before them, each container in its colour. Used by several threads."""

    def __init__(self, project: str, names: Iterable[str], *, colour: bool, prefix: bool, timestamps: bool) -> None:
        self._project, self._colour, self._prefix, self._timestamps = project, colour, prefix, timestamps
        self._lock = threading.Lock()
        self._colours: dict[str, str] = {}
        self._width = 0
        for name in names:
            self.know(name)

    def know(self, name: str) -> None:
        with self._lock:
            self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
            self._width = max(self._width, len(self._short(name)))

    def _short(self, name: str) -> str:
        """The name without the project's: ``web-1``."""
        head, rest = name[: len(self._project)], name[len(self._project) :]
        return rest[1:] if head == self._project and rest[:1] in {"-", "_"} else name

    def write(self, line: Line) -> None:
        out = sys.stderr if line.stream == 2 else sys.stdout
        text = f"{line.time} {line.text}" if self._timestamps and line.time else line.text
        if self._prefix:
            head = f"{self._short(line.container):<{self._width}}  | "
            text = (f"\033[{self._colours.get(line.container, '0')}m{head}\033[0m" if self._colour else head) + text
        with self._lock:
            out.write(text + "\n")
            out.flush()

    def say(self, name: str, text: str) -> None:
        """A remark about a container, in its colour: ``web-1 exited with code 0``."""
        told = f"{self._short(name)} {text}"
        with self._lock:
            code = self._colours.get(name, "0")
            sys.stdout.write((f"\033[{code}m{told}\033[0m" if self._colour else told) + "\n")
            sys.stdout.flush()


def printer(session: Session, options: Options, names: Iterable[str], project: str) -> Printer:
    colour = session.colour and sys.stdout.isatty() and not options.on("no-color")
    if session.top.text("ansi") == "always":
        colour = not options.on("no-color")
    return Printer(project, names, colour=colour, prefix=not options.on("no-log-prefix"),
                   timestamps=options.on("timestamps"))  # fmt: skip


def logs(session: Session, options: Options) -> int:
    project = session.named
    names = session.chosen(project, options.words)
    found = [
        item for item in session.state(project).containers
        if not item.oneoff and (not names or item.service in names)
        and options.number("index") in (0, item.number)
    ]  # fmt: skip
    out = printer(session, options, [item.name for item in found], project.name)
    query = {
        "tail": options.text("tail") or None, "since": _moment(options.text("since")),
        "until": _moment(options.text("until")), "follow": options.on("follow"),
    }  # fmt: skip
    if options.on("follow"):
        return _follow(session, project.name, set(names), found, out, query)
    for line in merged(read(session.client, item, query) for item in found):
        out.write(line)
    return 0


def _moment(text: str) -> str | None:
    """Seconds since 1970 of a date or of a time span back from now, as the engine takes it."""
    if not text:
        return None
    from dockyard.compose.canonical import duration

    try:
        import time

        return f"{time.time() - duration(text):.9f}" if not text.replace(".", "").isdigit() else text
    except ValueError:
        from dockyard.cli.output import epoch

        return f"{epoch(text):.9f}"


def _follow(session: Session, project: str, names: set[str], found: list[Container], out: Printer, query: Json) -> int:
    """Until Ctrl-C or until no container is left that runs; containers that come later are followed too."""
    from dockyard.compose.follow import Follower

    follower = Follower(session.client, project, out.write, query)
    follower.watch(lambda item: (not names or item.service in names) and not item.oneoff, lambda name, code: None,
                   on_new=out.know)  # fmt: skip
    for item in found:
        follower.follow(item)
    follower.wait()
    return 0


def events(session: Session, options: Options) -> int:
    project = session.named
    names = set(session.chosen(project, options.words))
    query = {
        "filters": {"label": [f"{labels.PROJECT}={project.name}"], "type": ["container"]},
        "since": _moment(options.text("since")), "until": _moment(options.text("until")),
    }  # fmt: skip
    with session.client.open("GET", "/events", query) as answer:
        answer.settimeout(None)
        for row in answer.objects():
            actor = row.get("Actor") or {}
            attributes = actor.get("Attributes") or {}
            if not names or attributes.get(labels.SERVICE) in names:
                _tell(session, row, actor, attributes, as_json=options.on("json"))
    return 0


def _tell(session: Session, row: Json, actor: Json, attributes: Json, *, as_json: bool) -> None:
    from datetime import datetime

    shown = {key: value for key, value in attributes.items() if not key.startswith("com.docker.compose.")}
    moment = datetime.fromtimestamp(row.get("timeNano", 0) / 1e9)
    if as_json:
        told = {
            "time": moment.astimezone().isoformat(), "type": "container", "action": row.get("Action"),
            "id": actor.get("ID"), "service": attributes.get(labels.SERVICE), "attributes": shown,
        }  # fmt: skip
        session.shell.say(json.dumps(told))
    else:
        pairs = ", ".join(f"{key}={value}" for key, value in sorted(shown.items()))
        session.shell.say(f"{moment:%Y-%m-%d %H:%M:%S.%f} container {row.get('Action')} {actor.get('ID')} ({pairs})")
    sys.stdout.flush()
