"""``dockyard pipeline``: compile, unit, integration, performance, deploy, of one file and with one command for CI."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dockyard.cli import auths, flags
from dockyard.cli.compose import down, up
from dockyard.cli.compose.board import Quiet
from dockyard.cli.compose.session import Session
from dockyard.cli.compose.table import GLOBAL
from dockyard.cli.compose.update import replace
from dockyard.cli.flags import Options, UsageError
from dockyard.cli.shell import Shell, printable
from dockyard.compose import document
from dockyard.compose.logs import merged, read
from dockyard.compose.observe import containers
from dockyard.dockunit import load as loads
from dockyard.dockunit.errors import BAD_FILE, BAD_PIPELINE, NO_PIPELINE
from dockyard.dockunit.matrix import Entry, parse
from dockyard.dockunit.pipeline import EXAMPLE, FILES, Pipeline, Stage, parse_pipeline
from dockyard.dockunit.report import Outcome, StageOutcome, document_stages, junit_stages, tap_stages
from dockyard.dockunit.run import Runner
from dockyard.dockunit.surroundings import surroundings
from dockyard.dockunit.tree import Kept, Tree, pack
from dockyard.errors import DockyardError

UNREADABLE, USAGE_STATUS = 255, 125
TAIL = 20
FLAGS = """
    --dry-run           Say what would be run, and run nothing
    --example           Print an example of the file
-f, --file FILE         The pipeline (default: pipeline.yaml)
    --json              Print one JSON document instead of words
    --junit FILE        Write a JUnit report, a suite for each stage
    --no-cache          Run beforeScripts again even if nothing has changed
    --only STAGE...     Only this stage
    --parallel N        Most containers at once (default: all of a stage)
    --skip STAGE...     Without this stage
    --tap               Print TAP instead of words
    --until STAGE       Up to this stage and no further
-v, --verbose           Show all output as it comes, not only that of what fails
-h, --help              Print this help
"""
HELP = """Usage:  dockyard pipeline [OPTIONS] [PATH]

Run the stages of a project's pipeline.yaml one after another; the first that
fails ends it. A stage runs commands in a container with a copy of the project,
a Dockunit matrix, a load, or a deployment; with stubs or with the services of
a Compose file, started before and removed after.

Options:{options}
Examples:
  dockyard pipeline                          all stages
  dockyard pipeline --until performance      all but the deployment
  dockyard pipeline --junit report.xml .     as CI calls it

Exit status: 0 all passed, 1 a stage failed, 255 the file cannot be read.
"""


def main(words: Sequence[str]) -> int:
    try:
        options = flags.parse(flags.declared(FLAGS), words)
        if options.on("help"):
            print(HELP.format(options=FLAGS.rstrip() + "\n"), end="")
            return 0
        if len(options.words) > 1:
            raise UsageError(f"unexpected argument {options.words[1]!r}")
    except UsageError as wrong:
        print(f"dockyard pipeline: {wrong}\n\nRun 'dockyard pipeline --help' for more information", file=sys.stderr)
        return USAGE_STATUS
    if options.on("example"):
        print(EXAMPLE, end="")
        return 0
    shell = Shell(command="pipeline")
    return shell.guarded(_guarded, options)


def _guarded(shell: Shell, options: Options) -> int:
    project = Path(options.words[0] if options.words else ".").resolve()
    try:
        pipeline = open_pipeline(project, options.text("file"))
        pipeline = pipeline.chosen(options.all("only"), options.all("skip"), options.text("until"))
    except DockyardError as error:
        shell.refused(error)
        return UNREADABLE
    if options.on("dry-run"):
        for stage in pipeline.stages:
            shell.say(f"{stage.name}: {_described(stage)}")
        return 0
    run = Run(shell, options, project, pipeline)
    try:
        stages = run.all()
    finally:
        run.close()
    passed = all(stage.passed for stage in stages)
    if options.on("json"):
        shell.say(json.dumps(document_stages(stages, pipeline.name), indent=2, ensure_ascii=False))
    elif options.on("tap"):
        sys.stdout.write(tap_stages(stages))
    else:
        done = sum(stage.passed for stage in stages)
        shell.say(f"{done} of {len(stages)} stages passed")
    if options.given("junit"):
        Path(options.text("junit")).write_text(junit_stages(stages, pipeline.name), encoding="utf-8")
    return 0 if passed else 1


def open_pipeline(project: Path, file: str) -> Pipeline:
    """Raises NotFound and InvalidParameter."""
    places = [project / file] if file else [project / name for name in FILES]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise NO_PIPELINE(path=project) if not file else BAD_PIPELINE(path=places[0], cause="there is no such file")
    try:
        trees = document.parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BAD_PIPELINE(path=path, cause=error) from None
    return parse_pipeline(trees[0] if trees else {}, str(path), project.name)


def _described(stage: Stage) -> str:
    parts = [f"with {stage.compose} ({', '.join(stage.services) or 'all services'})"] if stage.compose else []
    parts += [f"stub {one.name}" for one in stage.stubs]
    if stage.load:
        work = f"{stage.load.clients} clients ask {stage.load.url} for {stage.load.seconds:g} s"
    elif stage.deploy:
        work = f"deploys {stage.deploy}"
    else:
        work = stage.dockunit or ", ".join(f"{entry.name} in {entry.image}" for entry in stage.entries)
    return "; ".join([work, *parts, *([f"keeps {', '.join(stage.keep)}"] if stage.keep else [])])


class Run:
    """One run of a pipeline; holds the packed tree and what stages keep."""

    def __init__(self, shell: Shell, options: Options, project: Path, pipeline: Pipeline) -> None:
        self._shell, self._options, self._project, self._pipeline = shell, options, project, pipeline
        self._words = not (options.on("json") or options.on("tap"))
        self._tree: Tree | None = None
        self._kept: list[Kept] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        for one in [*self._kept, *([self._tree] if self._tree else [])]:
            one.close()

    def all(self) -> list[StageOutcome]:
        done: list[StageOutcome] = []
        failed = ""
        for stage in self._pipeline.stages:
            if failed:
                done.append(StageOutcome(stage.name, skipped=f"{failed} failed"))
                self._say(f"  – {stage.name}  skipped")
                continue
            self._say(f"{stage.name}: {_described(stage)}")
            began = time.monotonic()
            outcome = self._stage(stage, began)
            done.append(outcome)
            if outcome.failure:
                self._shell.complain(printable(f"    {outcome.failure}"))
            if not outcome.passed:
                failed = stage.name
            self._say(f"  {'✓' if outcome.passed else '✗'} {stage.name}  {outcome.seconds:.1f} s")
        return done

    def _say(self, text: str) -> None:
        if self._words:
            self._shell.say(printable(text))
            sys.stdout.flush()

    def _stage(self, stage: Stage, began: float) -> StageOutcome:
        """A stage whose surroundings cannot be had has failed; the pipeline goes on to tell so."""
        outcomes: list[Outcome] = []
        failure = ""
        try:
            with self._dependencies(stage) as networks, surroundings(self._shell.client, stage.stubs, auths.header_for) as around:
                joined = [*([around.network] if around else []), *networks]
                outcomes = self._work(stage, joined)
                if around and all(one.passed for one in outcomes):
                    failure = "; ".join(around.unmet())
                if networks and not all(one.passed for one in outcomes):
                    self._tell_logs(stage)
        except DockyardError as error:
            failure = str(error) + (f" ({error.hint})" if error.hint else "")
        return StageOutcome(stage.name, tuple(outcomes), time.monotonic() - began, failure=failure)

    def _work(self, stage: Stage, networks: list[str]) -> list[Outcome]:
        if stage.load:
            return [self._load(stage)]
        if stage.deploy:
            return [self._deploy(stage)]
        entries: Sequence[Entry] = stage.entries
        if stage.dockunit:
            path = self._project / stage.dockunit
            try:
                entries = parse(path.read_text(encoding="utf-8"), str(path)).entries
            except (OSError, UnicodeDecodeError) as error:
                raise BAD_FILE(path=path, cause=error) from None
        if self._tree is None:
            self._tree = pack(self._project)
        place = hashlib.sha256(os.fsencode(self._project)).hexdigest()[:16]
        runner = Runner(
            self._shell.client, self._tree, place=place, cached=not self._options.on("no-cache"), headers=auths.header_for,
            networks=networks, env=stage.env, kept=tuple(self._kept), keep=stage.keep, limit=stage.limit,
        )  # fmt: skip
        if self._options.on("verbose") and self._words:
            runner.tell = self._line
        outcomes = runner.run(entries, self._options.number("parallel") or len(entries), self._done)
        self._kept += runner.taken
        return outcomes

    def _line(self, entry: Entry, line: str) -> None:
        with self._lock:
            self._shell.complain(printable(f"    {entry.name} | {line}"))

    def _done(self, outcome: Outcome) -> None:
        with self._lock:
            self._say(f"    {'✓' if outcome.passed else '✗'} {outcome.entry.name} ({outcome.entry.image})  {outcome.seconds:.1f} s")
            if not outcome.passed and not (self._options.on("verbose") and self._words):
                for line in outcome.output.splitlines()[-TAIL:]:
                    self._shell.complain(printable(f"      {line}"))
            if not outcome.passed:
                self._shell.complain(printable(f"      {outcome.stage} ended with {outcome.code}"))

    def _load(self, stage: Stage) -> Outcome:
        assert stage.load is not None
        measured = loads.measure(stage.load)
        wrong = loads.judged(stage.load, measured)
        text = "\n".join([loads.told(measured), *wrong])
        self._say(f"    {loads.told(measured)}")
        for sentence in wrong:
            self._shell.complain(f"      {sentence}")
        return Outcome(Entry(1, stage.name, "", stage.load.url), int(bool(wrong)), measured.seconds, text, "load")

    # ---- Compose

    def _session(self, file: str, project: str) -> Session:
        words = ["--file", str(self._project / file), *(["--project-name", project] if project else [])]
        return Session(self._shell, flags.parse(flags.declared(GLOBAL), words), Quiet())

    @contextlib.contextmanager
    def _dependencies(self, stage: Stage) -> Iterator[list[str]]:
        """The networks of the services that run for this stage. They, their volumes and networks go at its end."""
        if not stage.compose:
            yield []
            return
        self._scratch = f"{_plain(self._pipeline.name)}-{_plain(stage.name)}-{secrets.token_hex(3)}"
        session = self._session(stage.compose, self._scratch)
        try:
            up.up(session, Options({"wait": ["true"], "quiet-pull": ["true"]}, list(stage.services)))
            used = session.project.select(list(stage.services), dependencies=True) if stage.services else session.project
            names = {name for service in used.services.values() for name in service.get("networks") or {}}
            yield [str(session.project.networks[name]["name"]) for name in sorted(names)]
        finally:
            down.down(self._session(stage.compose, self._scratch), Options({"volumes": ["true"], "timeout": ["1"]}, []))

    def _tell_logs(self, stage: Stage) -> None:
        """The last words of the dependencies: a test that fails often fails there."""
        client = self._shell.client
        rows = [list(read(client, item, {"tail": str(TAIL)})) for item in containers(client, self._scratch)]
        for line in merged(iter(row) for row in rows):
            self._shell.complain(printable(f"      {line.container.removeprefix(self._scratch + '-')} | {line.text}"))

    def _deploy(self, stage: Stage) -> Outcome:
        """What is missing is started, what is out of date replaced one by one and rolled back if it does not become ready."""
        began = time.monotonic()
        entry = Entry(1, stage.name, "", stage.deploy)
        try:
            up.up(self._session(stage.deploy, stage.project), Options({"wait": ["true"], "no-recreate": ["true"]}, []))
            count = replace(self._session(stage.deploy, stage.project), (), pull=False)
        except DockyardError as error:
            return Outcome(entry, 1, time.monotonic() - began, f"{error}\n{error.hint}".strip(), "deploy")
        told = f"{count} containers replaced" if count else "every service runs as the file says"
        self._say(f"    {told}")
        return Outcome(entry, 0, time.monotonic() - began, told, "deploy")


def _plain(text: str) -> str:
    """As a project's name may be."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower()).strip("-") or "pipeline"
