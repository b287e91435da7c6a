"""Containers: life and death, limits, ports, and what changed in them."""

from __future__ import annotations

import contextlib
from typing import Any

from dockyard.cli.flags import Options, Refusal
from dockyard.cli.listing import host_port
from dockyard.cli.output import Column, size, table
from dockyard.cli.request.declaration import RESOURCES, ordered
from dockyard.cli.request.resources import limits, restart_policy
from dockyard.cli.shell import Shell, filters
from dockyard.client import quote
from dockyard.errors import NotFound, NotModified

Json = dict[str, Any]
_STOP = """
-s, --signal SIGNAL        Signal to send
-t, --timeout N            Seconds to wait before killing
"""
FLAGS = {
    "kill": "-s, --signal SIGNAL        Signal to send (KILL)",
    "prune": """
    --filter KEY=VALUE...  Only those that match (until=24h, label=...)
-f, --force                Do not ask
""",
    "restart": _STOP,
    "stop": _STOP,
    "rm": """
-f, --force                Remove running containers too (kills them)
-l, --link                 Remove a link
-v, --volumes              Remove their anonymous volumes too
""",
    "update": ordered(RESOURCES, "--restart POLICY             no, always, unless-stopped, on-failure[:N]"),
}
EXAMPLES = {
    "rm": "dockyard rm web\ndockyard rm -fv $(dockyard ps -aq)",
    "stop": "dockyard stop -t 30 web",
    "kill": "dockyard kill -s HUP web",
    "update": "dockyard update -m 512m --cpus 2 web",
}
def _post(shell: Shell, name: str, verb: str, query: Json | None = None) -> str:
    with contextlib.suppress(NotModified):  # it is so already
        shell.client.request("POST", f"/containers/{quote(name)}/{verb}", query, timeout=_patience(query))
    return name


def _patience(query: Json | None) -> float | None:
    """Longer than the engine's own grace: the answer of a stop comes after it."""
    from dockyard.client.client import ANSWER_TIMEOUT

    grace = (query or {}).get("t")
    if grace is None:
        return ANSWER_TIMEOUT * 2
    return 1e9 if grace < 0 else grace + ANSWER_TIMEOUT


def _each(shell: Shell, options: Options, verb: str, query: Json | None = None) -> int:
    return shell.each(options.words, lambda name: _post(shell, name, verb, query))


def _stopping(options: Options) -> Json:
    seconds = options.number("timeout") if options.given("timeout") else None
    return {"signal": options.text("signal") or None, "t": seconds}


def stop(shell: Shell, options: Options) -> int:
    return _each(shell, options, "stop", _stopping(options))


def restart(shell: Shell, options: Options) -> int:
    return _each(shell, options, "restart", _stopping(options))


def kill(shell: Shell, options: Options) -> int:
    return _each(shell, options, "kill", {"signal": options.text("signal") or None})


def pause(shell: Shell, options: Options) -> int:
    return _each(shell, options, "pause")


def unpause(shell: Shell, options: Options) -> int:
    return _each(shell, options, "unpause")


def rm(shell: Shell, options: Options) -> int:
    force = options.on("force")
    query = {"force": force or None, "v": options.on("volumes") or None, "link": options.on("link") or None}

    def one(name: str) -> str:
        path = name.strip("/") if options.on("link") else quote(name.strip("/"))
        if not path:
            raise Refusal("Container name cannot be empty")
        try:
            shell.client.request("DELETE", f"/containers/{path}", query)
        except NotFound:
            if not force:
                raise
        return name

    return shell.each(options.words, one)


def rename(shell: Shell, options: Options) -> int:
    old, new = options.words[0].strip(), options.words[1].strip()
    if not old or not new:
        raise Refusal("neither old nor new names may be empty")
    shell.client.request("POST", f"/containers/{quote(old)}/rename", {"name": new})
    return 0


def wait(shell: Shell, options: Options) -> int:
    def one(name: str) -> str:
        with shell.client.open("POST", f"/containers/{quote(name)}/wait") as answer:
            answer.settimeout(None)
            return str(answer.json()["StatusCode"])

    return shell.each(options.words, one)


def update(shell: Shell, options: Options) -> int:
    wish = limits(options)
    if options.given("restart"):
        wish["RestartPolicy"] = restart_policy(options.text("restart"))
    if not wish:
        raise Refusal("you must provide one or more flags when using this command")
    warnings: list[str] = []

    def one(name: str) -> str:
        told = shell.client.request("POST", f"/containers/{quote(name)}/update", body=wish)
        warnings.extend((told or {}).get("Warnings") or ())
        return name

    status = shell.each(options.words, one)
    for warning in warnings:
        shell.complain(f"WARNING: {warning}")
    return status


def diff(shell: Shell, options: Options) -> int:
    for change in shell.client.request("GET", f"/containers/{quote(options.words[0])}/changes") or ():
        shell.say(f"{'CAD'[change['Kind']]} {change['Path']}")
    return 0


def port(shell: Shell, options: Options) -> int:
    name = options.words[0]
    document = shell.client.request("GET", f"/containers/{quote(name)}/json")
    ports: Json = document["NetworkSettings"].get("Ports") or {}
    if len(options.words) > 1:
        wanted = options.words[1] if "/" in options.words[1] else f"{options.words[1]}/tcp"
        if not ports.get(wanted):
            shell.complain(f"dockyard: no public port '{options.words[1]}' published for {name}")
            shell.complain(f"try: dockyard port {name}")
            return 1
        for binding in ports[wanted]:
            shell.say(host_port(binding["HostIp"], binding["HostPort"]))
        return 0
    for key in sorted(ports, key=_port_order):
        for binding in ports[key] or ():
            shell.say(f"{key} -> {host_port(binding['HostIp'], binding['HostPort'])}")
    return 0


def _port_order(key: str) -> tuple[int, str]:
    number, _, protocol = key.partition("/")
    return int(number), protocol


def top(shell: Shell, options: Options) -> int:
    name, *words = options.words
    told = shell.client.request("GET", f"/containers/{quote(name)}/top", {"ps_args": " ".join(words) or None})
    columns = [Column(title, str(number)) for number, title in enumerate(told["Titles"])]
    rows = [{str(number): cell for number, cell in enumerate(row)} for row in told["Processes"] or ()]
    for line in table(rows, columns):
        shell.say(line)
    return 0


OPTIONS_END_AT_FIRST_WORD = ("top",)


def prune(shell: Shell, options: Options) -> int:
    if not shell.confirm("This will remove all stopped containers.", options):
        return 0
    told = shell.client.request("POST", "/containers/prune", {"filters": filters(options)})
    if told.get("ContainersDeleted"):
        shell.say("Deleted Containers:")
        for name in told["ContainersDeleted"]:
            shell.say(name)
        shell.say()
    shell.say(f"Total reclaimed space: {size(told.get('SpaceReclaimed', 0))}")
    return 0
