"""Arguments of ``dockyard dash``, and the three ways to show a project: live, once, as a page."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence

from dockyard.cli import flags
from dockyard.cli.compose.board import Quiet
from dockyard.cli.compose.session import Session, balancer_of
from dockyard.cli.compose.table import GLOBAL
from dockyard.cli.dash import view
from dockyard.cli.dash.hands import SessionHands
from dockyard.cli.flags import Options, UsageError
from dockyard.cli.output import terminal_width
from dockyard.cli.shell import Shell
from dockyard.compose.desk import Desk
from dockyard.compose.haproxy import RuntimeSocket
from dockyard.compose.picture import UP, document

DEFAULT_ADDRESS = "127.0.0.1:8900"
FLAGS = """
-f, --file FILE...          Compose configuration files
-p, --project-name NAME     Project name
    --profile NAME...       A profile to enable
    --env-file FILE...      Another environment file than .env
    --project-directory DIR  Another working directory
    --once                  Print one picture and end
    --json                  The same as one JSON document
    --no-doctor             Without the doctor's findings (with --once)
    --web                   Serve it as a web page at ADDR (127.0.0.1:8900)
-h, --help                  Print this help
"""
HELP = """Usage:  dockyard dash [OPTIONS] [ADDR]

Show a project's services live: instances, health, circuits, traffic, what is
out of date, and what the doctor found, with the cure

Options:{options}
Keys:
{keys}

Examples:
  dockyard dash                     in the directory of a Compose file
  dockyard dash -p shop --once      one picture; --json for programs
  dockyard dash --web               the page, its /metrics for Prometheus

The page's address has a secret in it, DASH_TOKEN sets it. The exit status of
--once and --json is 0 when every service is up, 1 otherwise.
"""
USAGE_STATUS = 125


def main(words: Sequence[str]) -> int:
    try:
        options = flags.parse(flags.declared(FLAGS), words)
        if options.on("help"):
            keys = "\n".join(f"  {key:<11} {told}" for key, told in view.KEYS)
            print(HELP.format(options=FLAGS.rstrip(), keys=keys), end="")
            return 0
        if len(options.words) > (1 if options.on("web") else 0):
            raise UsageError(f"unexpected argument {options.words[-1]!r}")
    except UsageError as wrong:
        print(f"dockyard dash: {wrong}\n\nRun 'dockyard dash --help' for more information", file=sys.stderr)
        return USAGE_STATUS
    shell = Shell(command="dash")
    return shell.guarded(_show, options)


def _show(shell: Shell, options: Options) -> int:
    top = flags.parse(flags.declared(GLOBAL), _global_words(options))
    project = Session(shell, top, Quiet()).named
    control = RuntimeSocket(str(balancer_of(project.name, str(shell.client.endpoint))))
    desk = Desk(shell.client, project, control, SessionHands(shell, top))
    if options.on("web"):
        # The pages stand on the same floor as the command line; neither knows the other but here.
        pages = importlib.import_module("dockyard.web.dash")
        return int(pages.serve(desk, options.words[0] if options.words else DEFAULT_ADDRESS, os.environ.get("DASH_TOKEN", "")))
    if options.on("once") or options.on("json") or not (shell.on_terminal and sys.stdin.isatty()):
        return _once(shell, desk, options)
    from dockyard.cli.dash.screen import Screen

    desk.start()
    try:
        return Screen(desk).run()
    finally:
        desk.close()


def _global_words(options: Options) -> list[str]:
    words = []
    for name in ("file", "project-name", "profile", "env-file", "project-directory"):
        for value in options.all(name):
            words += [f"--{name}", value]
    return words


def _once(shell: Shell, desk: Desk, options: Options) -> int:
    picture = desk.once(doctor=not options.on("no-doctor"))
    if options.on("json"):
        shell.say(json.dumps(document(picture), indent=2, ensure_ascii=False))
    else:
        lines, _ = view.overview(picture, "")
        width = terminal_width() if shell.on_terminal else 100
        for line in lines:
            if line and not (options.on("no-doctor") and "doctor is looking" in view.plain(line)):
                shell.say("".join(shell.colour(style, text) if style else text for style, text in view.cut(line, width)).rstrip())
    well = not picture.lost and all(one.state in (UP, "done", "off") for one in picture.services)
    return 0 if well else 1
