"""From words to a command of compose. Three doors: ``dockyard compose``, ``dockyard-compose``, and docker's plugin."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence

import dockyard
from dockyard.cli import flags
from dockyard.cli.compose.table import COMMANDS, GLOBAL, Command
from dockyard.cli.flags import UsageError
from dockyard.cli.main import guarded

USAGE_STATUS = 125
_HELP = flags.declared("-h, --help  Show this help")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    return guarded(_run, list(sys.argv[1:] if argv is None else argv))


def standalone() -> int:
    """``dockyard-compose``, also as docker's plugin (installed under the name docker-compose in a cli-plugins folder)."""
    words = sys.argv[1:]
    if words[:1] == ["docker-cli-plugin-metadata"]:
        told = {
            "SchemaVersion": "0.1.0", "Vendor": "Dockyard", "Version": dockyard.__version__,
            "ShortDescription": "Dockyard Compose",
        }  # fmt: skip
        print(json.dumps(told))
        return 0
    # docker calls `docker-compose compose ...`, and asks for completions of its own in words that we do not have.
    return main(words[1:] if words[:1] == ["compose"] else words)


def _run(words: list[str]) -> int:
    try:
        top = flags.parse(flags.declared(GLOBAL), words, interspersed=False)
    except UsageError as wrong:
        return _complain(str(wrong), "")
    if top.on("version"):
        words = ["version"]
        top.words[:] = ["version"]
    if not top.words or top.words[0] == "help" or top.on("help"):
        return _help(top.words[1:] if top.words[:1] == ["help"] else [])
    command = COMMANDS.get(top.words[0])
    if command is None:
        near = flags.nearest(top.words[0], list(COMMANDS), cutoff=0.55)
        perhaps = f"\n\nDid you mean: {', '.join('dockyard compose ' + name for name in near)}" if near else ""
        return _complain(f"'{top.words[0]}' is not a compose command.{perhaps}", "", 1)
    return _call(command, top)


def _call(command: Command, top: flags.Options) -> int:
    try:
        module = importlib.import_module(f"dockyard.cli.compose.{command.module}")
    except ModuleNotFoundError as missing:
        if missing.name != f"dockyard.cli.compose.{command.module}":
            raise
        return _complain(f"'compose {command.word}' is not implemented yet", "", 1)
    declaration = module.FLAGS.get(command.function, "")
    known = flags.declared(declaration) + _HELP
    free = command.function in getattr(module, "OPTIONS_END_AT_FIRST_WORD", ())
    try:
        options = flags.parse(known, top.words[1:], interspersed=not free)
        if options.on("help"):
            print(_command_help(command, declaration))
            return 0
        least = sum(1 for word in command.usage.split() if not word.startswith("[") and not word.endswith("]"))
        if len(options.words) < least:
            raise UsageError(f"'compose {command.word}' requires at least {least} argument{'s' if least > 1 else ''}")
    except UsageError as wrong:
        return _complain(f"{wrong}\n\nUsage:  dockyard compose {command.word} {command.usage}", command.word)
    from dockyard.cli.compose.session import Session
    from dockyard.cli.shell import Shell

    shell = Shell(command=f"compose {command.word}", debug=top.on("verbose"))
    return shell.guarded(lambda _, given: getattr(module, command.function)(Session(shell, top), given), options)


def _complain(text: str, word: str, status: int = USAGE_STATUS) -> int:
    told = f"dockyard compose {word} --help".replace("  ", " ")
    print(f"dockyard compose: {text}\n\nRun '{told}' for more information", file=sys.stderr)
    return status


def _help(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        return _call(COMMANDS[words[0]], flags.Options({}, [words[0], "--help"]))
    print("Usage:  dockyard compose [OPTIONS] COMMAND\n\nDefine and run applications of several containers\n\nOptions:")
    print("\n".join(f"  {line}" for line in GLOBAL.strip("\n").splitlines()))
    print("\nCommands:")
    for name in sorted(COMMANDS):
        print(f"  {name:<10} {COMMANDS[name].help}")
    print("\nRun 'dockyard compose COMMAND --help' for more information on a command.")
    return 0


def _command_help(command: Command, declaration: str) -> str:
    parts = [f"Usage:  dockyard compose {command.word} {command.usage}", command.help]
    lines = [line.rstrip() for line in declaration.strip("\n").splitlines()]
    if lines:
        parts.append("Options:\n" + "\n".join(f"  {line}" for line in lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(standalone())
