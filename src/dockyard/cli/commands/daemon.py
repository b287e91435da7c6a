"""``dockyard engine`` and ``dockyard dryrun``: the two commands that start an engine."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from dockyard.api.settings import DEFAULT_FILE, OPTIONS, Option, Settings, load
from dockyard.cli.flags import Options
from dockyard.cli.shell import Shell
from dockyard.client.endpoint import OWN_SOCKET

_VALUES = {"bool": "", "int": "N", "str": "VALUE", "list": "VALUE...", "map": "KEY=VALUE...", "pools": "POOL..."}


def _line(option: Option) -> str:
    short = f"-{option.short}, " if option.short else "    "
    value = f" {_VALUES[option.kind]}" if _VALUES[option.kind] else ""
    return f"{short}--{option.flag}{value}  {option.help}"


FLAGS = {
    "engine": "    --config-file FILE  Configuration file (default: /etc/docker/daemon.json if it is there)\n"
    "    --validate  check flags and configuration file, and exit\n"
    + "\n".join(_line(option) for option in OPTIONS if option.flag),
    "dryrun": "-H, --host VALUE...  address to serve (unix://, tcp://)",
}
EXAMPLES = {
    "engine": "dockyard engine\ndockyard engine --data-root /srv/dockyard -H unix:///run/dockyard/dockyard.sock",
    "dryrun": "dockyard dryrun -H unix:///tmp/dry.sock",
}


def engine(shell: Shell, options: Options) -> int:
    from dockyard.api.daemon import engine_settings, run

    given: dict[str, Any] = {}
    for option in OPTIONS:
        if option.flag and options.given(option.flag):
            given[option.name] = _value(option, options)
    if "hosts" not in given:
        given["hosts"] = [OWN_SOCKET]
    file = options.text("config-file")
    path = Path(file or DEFAULT_FILE)
    text = path.read_bytes() if file or path.exists() else None
    if text is not None and b'"hosts"' in text and not options.given("host"):
        del given["hosts"]
    settings = load(given, text, file=str(path))
    if options.on("validate"):
        engine_settings(settings)
        shell.say("configuration OK")
        return 0
    return run(settings)


def _value(option: Option, options: Options) -> Any:
    if option.kind == "bool":
        return options.on(option.flag)
    if option.kind in {"list", "map", "pools"}:
        return options.all(option.flag)
    return options.text(option.flag)


def dryrun(shell: Shell, options: Options) -> int:
    import uvloop

    from dockyard.api.daemon import configure_logging, serve_until_signal
    from dockyard.engine.dryrun import dry_engine

    hosts = tuple(options.all("host")) or ("unix:///tmp/dockyard-dryrun.sock",)
    settings = dataclasses.replace(Settings(), hosts=hosts, pidfile="", group="")
    configure_logging(settings)

    async def serve(root: str) -> None:
        made = dry_engine(Path(root))
        await serve_until_signal(made, settings, made.close)

    with tempfile.TemporaryDirectory(prefix="dockyard-dryrun-") as root, asyncio.Runner(
        loop_factory=uvloop.new_event_loop
    ) as runner:
        shell.say(f"a dry run: DOCKER_HOST={hosts[0]} (Ctrl-C ends it)")
        runner.run(serve(root))
    return 0
