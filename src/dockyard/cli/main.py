"""From words to a command: global flags, catalogue, flags of the command, errors and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dockyard.cli import catalogue, flags
from dockyard.cli.catalogue import Command
from dockyard.cli.flags import UsageError

USAGE_STATUS = 125
"""Docker's status for a command line that it cannot read."""
INTERRUPTED = 130
MOST_FLAG = 30
"""Characters of a flag with its value that help keeps on one line with the explanation."""

GLOBAL = """
    --config DIR        Directory of the configuration (default: ~/.docker)
-c, --context NAME      Context to use instead of the current one
-D, --debug             Show how an error came about
-H, --host ADDRESS      Engine to talk to (unix://, tcp://)
    --tls               Use TLS
    --tlscacert FILE    Trust certificates of this authority only
    --tlscert FILE      Our certificate
    --tlskey FILE       Key of our certificate
    --tlsverify         Use TLS and verify the engine
-v, --version           Print the version
-h, --help              Print this help
"""
EVERYWHERE = """
-h, --help              Print this help
"""


def run(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    return guarded(_run, list(sys.argv[1:] if argv is None else argv))


def guarded(work: Callable[[list[str]], int], words: list[str]) -> int:
    """The exit code of ``work``, also where Ctrl-C or a reader that left ends it."""
    try:
        return work(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (| head): that is no error, and Python must not flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _run(words: list[str]) -> int:
    try:
        top = flags.parse(flags.declared(GLOBAL), words, interspersed=False)
    except UsageError as wrong:
        return _complain(str(wrong), "dockyard --help")
    if top.on("version"):
        import dockyard

        print(f"Dockyard version {dockyard.__version__}")
        return 0
    rest = top.words
    if not rest or rest[0] == "help" or top.on("help"):
        return _help(rest[1:])
    if top.given("config"):
        os.environ["DOCKER_CONFIG"] = top.text("config")
    if rest[0] == "__complete":
        from dockyard.cli.commands.complete import answer

        return answer(rest[1:])
    for count in (2, 1):
        forwarded = catalogue.FORWARDED.get(" ".join(rest[:count]))
        if forwarded is not None:
            return _forward(forwarded[0], rest, count, top.text("host"), debug=top.on("debug"))
    command, typed, arguments = catalogue.find(rest)
    if command is None:
        return _unknown(rest)
    return _call(command, typed, arguments, top)


def _forward(module: str, words: list[str], count: int, host: str, *, debug: bool) -> int:
    """A command of another room, which reads its own arguments; doctor's verbs are told which they are."""
    import importlib

    if host:
        os.environ["DOCKER_HOST"] = host
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is None or not module.startswith(missing.name):
            raise
        return _complain(f"dockyard {' '.join(words[:count])} is not part of this installation", "dockyard --help", 1)
    keeps_verb = module.endswith("doctor.main") and words[0] != "doctor"
    try:
        return int(found.main(words if keeps_verb else words[count:]) or 0)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        if debug:
            raise
        verb = " ".join(words[:count])
        from dockyard.errors import DockyardError

        # A port in use, a directory that cannot be made: the system's words say it; what is unforeseen has its kind.
        told = str(error) if isinstance(error, (DockyardError, OSError)) else f"{type(error).__name__}: {error}"
        sys.stderr.write(f"dockyard {verb}: {told}\ntry: dockyard {verb} --help, or dockyard --debug {verb} ...\n")
        return 1


def _call(command: Command, typed: str, arguments: list[str], top: flags.Options) -> int:
    module = _module(command)
    if module is None:
        return _complain(f"'dockyard {typed}' is not implemented yet; the docker CLI has it", f"docker {typed} --help", 1)
    declaration = module.FLAGS.get(command.function, "")
    known = flags.declared(declaration) + flags.declared(EVERYWHERE)
    free = command.function in getattr(module, "OPTIONS_END_AT_FIRST_WORD", ())
    try:
        options = flags.parse(_without_clash(known), arguments, interspersed=not free)
        if options.on("help"):
            print(_command_help(command, typed, declaration, getattr(module, "EXAMPLES", {}).get(command.function, "")))
            return 0
        if wrong := _miscounted(command.usage, len(options.words)):
            told = f"'dockyard {typed}' {wrong}\n\nUsage:  dockyard {typed} {command.usage}"
            return _complain(told, f"dockyard {typed} --help", 1)
    except UsageError as wrong:
        return _complain(f"{wrong}\n\nUsage:  dockyard {typed} {command.usage}", f"dockyard {typed} --help")
    from dockyard.cli.shell import Shell

    shell = Shell(host=top.text("host"), context=top.text("context"), debug=top.on("debug"), command=typed, tls=_tls(top))
    return shell.guarded(getattr(module, command.function), options)


def _tls(top: flags.Options) -> Any:
    """What ``--tls`` and its like say; None when none is given and the environment decides."""
    if not any(top.on(name) for name in ("tls", "tlsverify")):
        return None
    from dockyard.client import Tls
    from dockyard.client.endpoint import config_dir

    folder = os.environ.get("DOCKER_CERT_PATH") or config_dir(os.environ)

    def file(flag: str, usual: str) -> str:
        path = os.path.join(folder, usual)
        return top.text(flag) or (path if os.path.exists(path) else "")

    return Tls(file("tlscacert", "ca.pem"), file("tlscert", "cert.pem"), file("tlskey", "key.pem"), top.on("tlsverify"))


def _module(command: Command) -> Any:
    """The command's module; None when it is not part of this version."""
    import importlib

    name = f"dockyard.cli.commands.{command.module}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name != name:
            raise
        return None


def _without_clash(known: list[flags.Flag]) -> list[flags.Flag]:
    """``-h`` is help except where a command has its own (``run -h NAME``, as docker's)."""
    taken = [flag.short for flag in known if flag.short == "h"]
    return [flag._replace(short="") if flag.name == "help" and len(taken) > 1 else flag for flag in known]


def _miscounted(usage: str, count: int) -> str:
    """What is wrong with so many positional words; "" when nothing is. The usage line says how many there may be."""
    places = [word for word in usage.split() if word != "[OPTIONS]"]
    least = sum(not word.startswith("[") for word in places)
    most = 1 << 30 if "..." in usage else len(places)
    if least <= count <= most:
        return ""
    if most == 0:
        return "accepts no arguments"
    number, how = (least, "at least") if count < least else (most, "at most")
    return f"requires {'exactly' if least == most else how} {number} argument{'s' if number > 1 else ''}"


def _complain(text: str, help_command: str, status: int = USAGE_STATUS) -> int:
    print(f"dockyard: {text}\n\nRun '{help_command}' for more information", file=sys.stderr)
    return status


NOT_YET = frozenset({"checkpoint", "config", "node", "plugin", "secret", "service", "stack", "swarm", "trust"})
"""Docker's groups that Dockyard has no part for yet."""


def _unknown(words: list[str]) -> int:
    if words[0] in NOT_YET:
        return _complain(f"'{words[0]}' is not implemented by Dockyard yet.", "dockyard --help", 1)
    if words[0] in catalogue.GROUPS:
        if len(words) == 1:
            return _help(words)
        known = [name for name in _all_names() if name.startswith(words[0] + " ")]
        typed = " ".join(words[:2])
    else:
        known, typed = [name for name in _all_names() if " " not in name], words[0]
    near = flags.nearest(typed, known, cutoff=0.55)
    perhaps = f"\n\nDid you mean: {', '.join('dockyard ' + name for name in near)}" if near else ""
    return _complain(f"'{typed}' is not a dockyard command.{perhaps}", "dockyard --help", 1)


def _all_names() -> list[str]:
    return sorted({*catalogue.COMMANDS, *catalogue.SAME, *catalogue.FORWARDED})


def _help(words: list[str]) -> int:
    if words:
        command, typed, _ = catalogue.find(words)
        if command is not None and words[0] not in catalogue.GROUPS:
            return _call(command, typed, ["--help"], flags.Options({}, []))
    group = words[0] if words and words[0] in catalogue.GROUPS else ""
    print(f"Usage:  dockyard {group + ' ' if group else '[OPTIONS] '}COMMAND\n")
    told = {name: row.help for name, row in catalogue.COMMANDS.items()}
    told |= {name: text for name, (_, text) in catalogue.FORWARDED.items()}
    told |= {name: told[target] for name, target in catalogue.SAME.items() if group}
    shown = sorted(name for name in told if (name.startswith(group + " ") if group else " " not in name))
    print("Commands:")
    for name in shown:
        print(f"  {name.removeprefix(group).strip():<12} {told[name]}")
    if not group:
        print(f"\nGroups of commands: {', '.join(catalogue.GROUPS)}\n\nOptions:{GLOBAL.rstrip()}")
    print(f"\nRun 'dockyard {group + ' ' if group else ''}COMMAND --help' for more information on a command.")
    return 0


def _command_help(command: Command, typed: str, declaration: str, examples: str) -> str:
    parts = [f"Usage:  dockyard {typed} {command.usage}", command.help]
    other = sorted(name for name, target in catalogue.SAME.items() if target == command.words and name != typed)
    if other or typed != command.words:
        names = sorted({*other, command.words} - {typed})
        parts.append("Aliases:\n  " + ", ".join(f"dockyard {name}" for name in names))
    if known := flags.declared(declaration):
        parts.append("Options:\n" + "\n".join(_flag_lines(known)))
    if examples:
        parts.append("Examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()))
    return "\n\n".join(parts)


def help_text(name: str) -> str:
    """The help of a command of the catalogue."""
    command = catalogue.COMMANDS[name]
    module = _module(command)
    if module is None:
        return f"Usage:  dockyard {name} {command.usage}\n\n{command.help}\n\nNot implemented yet."
    return _command_help(
        command, name, module.FLAGS.get(command.function, ""), getattr(module, "EXAMPLES", {}).get(command.function, "")
    )


def _flag_lines(known: list[flags.Flag]) -> list[str]:
    """The explanations in one column; a long value pushes its own to the next line."""
    heads = []
    for flag in known:
        value = f" {flag.value}{'...' if flag.many else ''}" if flag.value else ""
        heads.append((f"-{flag.short}, " if flag.short else "    ") + f"--{flag.name}{value}")
    width = min(MOST_FLAG, max(len(head) for head in heads))
    lines = []
    for head, flag in zip(heads, known, strict=True):
        gap = " " * (width + 2 - len(head)) if len(head) <= width else "\n" + " " * (width + 4)
        lines.append(f"  {head}{gap}{flag.help}")
    return lines


with contextlib.suppress(AttributeError):
    # Output to a pipe in UTF-8 whatever the locale says: container names and logs are.
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
