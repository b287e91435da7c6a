"""``watch``: services follow the files they are made of, until Ctrl-C."""

from __future__ import annotations

import time

from dockyard.cli.compose.session import Session
from dockyard.cli.flags import Options, Refusal
from dockyard.client import quote
from dockyard.compose import watch as watching
from dockyard.compose.observe import Container, containers
from dockyard.errors import DockyardError

FLAGS = {
    "watch": """
    --no-up   Do not build and start services before watching
    --quiet   Hide build output
""",
}
PAUSE = 0.3
"""Seconds between two looks at the files; a save of several files falls into one look."""


def watch(session: Session, options: Options) -> int:
    names = session.chosen(session.project, options.words)
    project = session.project.select(names)
    try:
        rules = watching.rules_of(project)
    except ValueError as wrong:
        raise Refusal(str(wrong)) from None
    if not rules:
        raise Refusal("none of the selected services is configured for watch: it has no develop.watch section")
    if not options.on("no-up"):
        from dockyard.cli.compose.up import up

        up(session, Options({"detach": ["true"]}, list(options.words)))
    before = watching.snapshot(rules)
    for rule in rules:
        if rule.initial_sync and rule.action.startswith("sync"):
            files = [path for path in before if rule.concerns(path)]
            _do(session, watching.Step(rule.service, "sync", tuple((path, rule.inside(path)) for path in files)))
    session.shell.complain("Watch enabled")
    while True:
        time.sleep(PAUSE)
        after = watching.snapshot(rules)
        for step in watching.steps(rules, watching.changed(before, after)):
            try:
                _do(session, step)
            except DockyardError as error:  # the next change may mend it
                session.shell.refused(error)
        before = after


def _do(session: Session, step: watching.Step) -> None:
    if step.action == "rebuild":
        from dockyard.cli.compose.up import up

        session.shell.complain(f"Rebuilding service {step.service} after changes were detected...")
        up(session, Options({"detach": ["true"], "build": ["true"], "no-deps": ["true"]}, [step.service]))
        return
    found = [
        item for item in containers(session.client, session.project.name, everything=False)
        if item.service == step.service and not item.oneoff
    ]  # fmt: skip
    for item in found:
        if step.action == "sync":
            _sync(session, item, step)
        elif step.action == "restart":
            session.client.request("POST", f"/containers/{quote(item.id)}/restart")
        else:
            session.applier(session.project, session.state(session.project)).hook(
                item.id, step.service, "watch", dict(step.exec)
            )
    told = f"{len(step.files)} file{'s' if len(step.files) != 1 else ''}" if step.files else "command"
    done = {"sync": f"Syncing service {step.service}: {told}", "restart": f"service {step.service} restarted"}
    session.shell.complain(done.get(step.action, f"service {step.service}: {step.action}"))


def _sync(session: Session, item: Container, step: watching.Step) -> None:
    tar, gone = watching.archive(step.files)
    session.client.put_archive(item.id, "/", tar)
    if gone:
        session.applier(session.project, session.state(session.project)).hook(
            item.id, step.service, "watch", {"command": ["rm", "-rf", "--", *gone]}
        )
