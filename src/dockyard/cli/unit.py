"""``dockyard unit``: the tests of a project in the containers that its Dockunit.json lists."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import dockyard
from dockyard.cli.shell import Shell
from dockyard.client import Client
from dockyard.dockunit.errors import BAD_FILE, NO_ENTRY, NO_FILE
from dockyard.dockunit.matrix import Entry, Matrix, parse
from dockyard.dockunit.report import Outcome, document, junit, summary, tap
from dockyard.dockunit.run import Runner
from dockyard.dockunit.surroundings import surroundings
from dockyard.dockunit.tree import pack
from dockyard.errors import DockyardError

UNREADABLE = 255
HELP = """Usage:  dockyard unit [OPTIONS] [PATH] [TEST ARGS...]

Run a project's tests in the containers of its Dockunit.json, side by side

Options:
      --du-container N   Only this container of the file (the first is 1)
      --du-json          Print one JSON document instead of words
      --du-junit FILE    Write a JUnit report
      --du-no-cache      Run the beforeScripts again even if nothing has changed
      --du-parallel N    Most containers at once (default: all)
      --du-tap           Print TAP instead of words
      --du-verbose[=1|2]  Show all output as it comes, not only that of what fails
      --help             Print this help
      --version          Print the version

All other arguments and options are put behind the test command.

"stubs" beside "containers" are servers that stand in for services that the
tests need (docs/unit.md). 'dockyard pipeline' runs compile, unit, integration,
performance and deploy stages of a pipeline.yaml.
"""


class Arguments:
    """The command line as the old tool reads it: what it does not know belongs to the test command."""

    def __init__(self, words: Sequence[str]) -> None:
        self.path, self.own, rest, options = ".", dict[str, str](), [], []
        queue = list(words)
        while queue:
            word = queue.pop(0)
            name, equals, value = word.partition("=")
            if name in {"--du-container", "--du-junit", "--du-parallel"} and not equals:
                value = queue.pop(0) if queue else ""
            if name.startswith("--du-") or name in {"--help", "--version"}:
                self.own[name.removeprefix("--du-").removeprefix("--")] = value or "1"
            elif word.startswith("-"):
                options.append(word)
            else:
                rest.append(word)
        if rest:
            self.path = rest.pop(0)
        self.test = shlex.join([*rest, *options])

    def number(self, name: str, default: int) -> int:
        text = self.own.get(name, "")
        return int(text) if text.isdigit() and int(text) > 0 else default


class Teller:
    """Output of several containers, one after another: the first that is not done speaks at once, others when it is."""

    def __init__(self, entries: Sequence[Entry], loud: bool) -> None:
        self._waiting = [entry.number for entry in entries]
        self._names = {entry.number: entry.name for entry in entries}
        self._kept: dict[int, list[str]] = {number: [] for number in self._waiting}
        self._done: set[int] = set()
        self._loud, self._lock = loud, threading.Lock()
        self._announce()

    def _announce(self) -> None:
        if self._waiting:
            print(f"Testing on container {self._names[self._waiting[0]]}", flush=True)

    def line(self, entry: Entry, line: str) -> None:
        with self._lock:
            if self._waiting and self._waiting[0] == entry.number and self._loud:
                print(line, file=sys.stderr, flush=True)
            else:
                self._kept[entry.number].append(line)

    def done(self, outcome: Outcome) -> None:
        with self._lock:
            if not outcome.passed:
                self._kept[outcome.entry.number] += self._failure(outcome)
            elif not self._loud:
                self._kept[outcome.entry.number].clear()
            self._done.add(outcome.entry.number)
            while self._waiting and self._waiting[0] in self._done:
                number = self._waiting.pop(0)
                for line in self._kept[number]:
                    print(line, file=sys.stderr, flush=True)
                self._announce()
            if self._waiting and self._loud:
                for line in self._kept[self._waiting[0]]:
                    print(line, file=sys.stderr, flush=True)
                self._kept[self._waiting[0]].clear()

    def _failure(self, outcome: Outcome) -> list[str]:
        shown: list[str] = []
        if not self._loud:
            self._kept[outcome.entry.number].clear()
            shown = outcome.output.splitlines()
        if outcome.stage == "test":
            return [*shown, "Failed to run test command"]
        return [*shown, f"Failed to run before script: {outcome.stage.removeprefix('before script: ')}"]


def main(words: Sequence[str]) -> int:
    arguments = Arguments(words)
    if "help" in arguments.own:
        print(HELP, end="")
        return 0
    if "version" in arguments.own:
        print(f"Dockyard unit {dockyard.__version__}")
        return 0
    shell = Shell(command="unit")
    try:
        return _run(arguments, shell.client)
    except DockyardError as error:
        shell.refused(error)
        return UNREADABLE if error.code in {BAD_FILE.id, NO_FILE.id} else 1
    except KeyboardInterrupt:
        print("No containers finished")
        return 130


def _matrix(arguments: Arguments, project: Path) -> Matrix:
    path = project / "Dockunit.json"
    try:
        made = parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise NO_FILE(path=project) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BAD_FILE(path=path, cause=error) from None
    if "container" not in arguments.own:
        return made
    number = arguments.number("container", 0)
    chosen = tuple(entry for entry in made.entries if entry.number == number)
    if not chosen:
        raise NO_ENTRY(number=arguments.own["container"], count=len(made.entries))
    return dataclasses.replace(made, entries=chosen)


def _run(arguments: Arguments, client: Client) -> int:
    from dockyard.cli import auths

    project = Path(arguments.path).resolve()
    matrix = _matrix(arguments, project)
    entries = matrix.entries
    silent = "tap" in arguments.own or "json" in arguments.own
    teller = Teller([] if silent else entries, "verbose" in arguments.own)
    tree = pack(project)
    runner = Runner(
        client, tree, arguments.test, hashlib.sha256(os.fsencode(project)).hexdigest()[:16],
        cached="no-cache" not in arguments.own, headers=auths.header_for,
    )  # fmt: skip
    if not silent:
        runner.tell = teller.line
    unmet: list[str] = []
    try:
        with surroundings(client, matrix.stubs, auths.header_for) as around:
            runner.networks = [around.network] if around else []
            outcomes = runner.run(
                entries, arguments.number("parallel", len(entries)), (lambda outcome: None) if silent else teller.done
            )
            unmet = around.unmet() if around else []
    finally:
        tree.close()
    told, code = summary(outcomes)
    for sentence in unmet:
        print(sentence, file=sys.stderr)
    if "json" in arguments.own:
        told = json.dumps({"containers": document(outcomes), "unmet": unmet}, indent=2, ensure_ascii=False)
    print(tap(outcomes) if "tap" in arguments.own else told, end="" if "tap" in arguments.own else "\n")
    if "junit" in arguments.own:
        Path(arguments.own["junit"]).write_text(junit(outcomes, project.name), encoding="utf-8")
    return code or bool(unmet)
