"""Ansible's docker_image module, building: the cases of its collection's integration target (docker_image, options.yml),
said again in our words, against a private engine.

The modules come from PyPI at run time (the wheel ``ansible`` carries the collections, without their tests). Each case is
one call of the module; what it must report (changed, failed, parts of the image) is a row here. docker_image_build needs
the buildx plugin and is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .engines import PrivateEngine
from .suites import CACHE, Outcome, Report

NAME = "ansible-docker_image"
CORE, COLLECTIONS, NEEDED = "ansible-core==2.17.14", "ansible==10.7.0", ("requests",)
FOLDERS = ("ansible_collections/community/docker/", "ansible_collections/community/library_inventory_filtering_v1/")
LIMIT = 900.0

Answer = Mapping[str, Any]
FILES = {
    "Dockerfile": "FROM busybox\nENV foo /bar\nWORKDIR ${foo}\nADD . $foo\nCOPY \\$foo /quux\n",
    "$foo": "a name with a dollar\n",
    "ArgsDockerfile": "ARG IMAGE\nFROM ${IMAGE}\nARG TEST1\nARG TEST2\nARG TEST3\nRUN echo ${TEST1}-${TEST2}-${TEST3} > /values\n",
    "MyDockerfile": "FROM alpine:3.10\nENV INSTALL_PATH=/newdata\nRUN mkdir -p $INSTALL_PATH\nWORKDIR $INSTALL_PATH\n",
    "StagedDockerfile": "FROM busybox AS first\nENV dir=/first\nWORKDIR ${dir}\nFROM busybox AS second\nENV dir=/second\nWORKDIR ${dir}\n",
    "EtcHostsDockerfile": "FROM busybox\nRUN grep some-custom-host /etc/hosts\n",
    "FailingDockerfile": "FROM busybox\nRUN exit 3\n",
    "BrokenDockerfile": "FROM busybox\nRNU true\n",
}


@dataclass(frozen=True, slots=True)
class Case:
    """``changed`` None: either. ``holds`` looks at the whole answer."""

    name: str
    arguments: Mapping[str, Any]
    changed: bool | None = True
    failed: bool = False
    holds: Callable[[Answer], bool] = lambda answer: True


def _build(name: str, changed: bool | None = True, *, failed: bool = False, force: bool = False,
           holds: Callable[[Answer], bool] = lambda answer: True, **build: Any) -> Case:  # fmt: skip
    arguments = {"name": "dy-ansible", "source": "build", "build": {"pull": False, **build}}
    return Case(name, {**arguments, "force_source": True} if force else arguments, changed, failed, holds)


def _gone(name: str) -> Case:
    return Case(f"{name}: removed", {"name": "dy-ansible", "state": "absent", "force_absent": True}, None)


def _config(key: str, value: object) -> Callable[[Answer], bool]:
    return lambda answer: bool(answer["image"]["Config"][key] == value)


VALUES = {"IMAGE": "busybox", "TEST1": "val1", "TEST2": "val2", "TEST3": "True"}
CASES = [
    _gone("begin"),
    _build("build.args", dockerfile="ArgsDockerfile", args=VALUES),
    _build("build.args (idempotency)", False, dockerfile="ArgsDockerfile", args=VALUES),
    _build("build.args, forced (unchanged)", False, force=True, dockerfile="ArgsDockerfile", args=VALUES),
    _build("build.args, another value, forced", force=True, dockerfile="ArgsDockerfile", args={**VALUES, "TEST2": "other"}),
    _gone("build.args"),
    _build("build.container_limits, too little memory", None, failed=True, container_limits={"memory": "4KB"},
           holds=lambda answer: "Minimum memory limit allowed is " in answer["msg"]),
    _build("build.container_limits", container_limits={"memory": "7MB", "memswap": "8MB"}),
    _gone("build.container_limits"),
    _build("build.dockerfile", dockerfile="MyDockerfile", holds=lambda answer: _config("WorkingDir", "/newdata")(answer)
           and "FROM alpine:3.10" in answer["stdout"]),
    _gone("build.dockerfile"),
    _build("build.platform", platform="linux"),
    _build("build.platform (idempotency)", False, platform="linux"),
    _build("force (changed)", force=True, dockerfile="MyDockerfile"),
    _build("force (unchanged)", False, force=True, dockerfile="MyDockerfile"),
    _gone("force"),
    _build("build.path", holds=_config("WorkingDir", "/bar")),
    _build("build.path (idempotency)", False),
    _build("build.nocache, forced", None, force=True, nocache=True),
    _gone("build.path"),
    _build("build.target", dockerfile="StagedDockerfile", target="first", holds=_config("WorkingDir", "/first")),
    _build("build.target, another, forced", force=True, dockerfile="StagedDockerfile", target="second",
           holds=_config("WorkingDir", "/second")),
    _gone("build.target"),
    _build("build.etc_hosts", dockerfile="EtcHostsDockerfile", etc_hosts={"some-custom-host": "127.0.0.1"}),
    _gone("build.etc_hosts"),
    _build("build.shm_size", dockerfile="MyDockerfile", shm_size="128MB"),
    _gone("build.shm_size"),
    _build("build.network", network="none", dockerfile="MyDockerfile"),
    _gone("build.network"),
    _build("build.labels", dockerfile="MyDockerfile", labels={"FOO": "BAR", "this is a label": "this is the label's value"},
           holds=_config("Labels", {"FOO": "BAR", "this is a label": "this is the label's value"})),
    _gone("build.labels"),
    _build("build.rm, cache_from", rm=False, cache_from=["alpine:3.10"], dockerfile="MyDockerfile"),
    _gone("build.rm"),
    _build("a step that fails", None, failed=True, dockerfile="FailingDockerfile",
           holds=lambda answer: "returned a non-zero code: 3" in answer["msg"]),
    _build("an unknown instruction", None, failed=True, dockerfile="BrokenDockerfile",
           holds=lambda answer: "unknown instruction: RNU" in answer["msg"]),
    _build("a Dockerfile that is not there", None, failed=True, dockerfile="NoDockerfile"),
    _build("tagged besides, first built"),
    Case("tagged besides", {"name": "dy-ansible", "source": "local", "repository": "dy-ansible-other:v1"}),
    Case("tagged besides (idempotency)", {"name": "dy-ansible", "source": "local", "repository": "dy-ansible-other:v1"}, False),
    Case("removed", {"name": "dy-ansible", "state": "absent", "force_absent": True}),
    Case("removed (idempotency)", {"name": "dy-ansible", "state": "absent"}, False),
]  # fmt: skip


def prepare() -> Path:
    """A virtual environment with ansible-core and the two collections. Needs PyPI the first time."""
    home = CACHE / NAME
    ready, wanted = home / "ready", " ".join((CORE, COLLECTIONS, *NEEDED))
    if not ready.exists() or ready.read_text() != wanted:
        home.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(home / "venv")])
        pip = [str(home / "venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "install", CORE, *NEEDED])
        _run([*pip, "download", "--no-deps", "--dest", str(home), COLLECTIONS])
        wheel = next(home.glob("ansible-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(home, [name for name in archive.namelist() if name.startswith(FOLDERS)])
        wheel.unlink()
        ready.write_text(wanted)
    return home


def playbook(engine: PrivateEngine, context: Path, answers: Path) -> list[dict[str, Any]]:
    """All cases in order, failures noted and passed over; the last task writes what each reported."""
    tasks: list[dict[str, Any]] = []
    for number, case in enumerate(CASES):
        arguments = {**case.arguments, "docker_host": engine.host, "timeout": 120}
        if "build" in arguments:
            arguments["build"] = {"path": str(context), **arguments["build"]}
        call = {"name": case.name, "community.docker.docker_image": arguments, "register": f"case{number}", "ignore_errors": True}
        tasks.append(call)
    content = "{{ [" + ", ".join(f"case{number}" for number in range(len(CASES))) + "] | to_json }}"
    tasks.append({"name": "answers", "ansible.builtin.copy": {"content": content, "dest": str(answers)}})
    return [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]


def run(engine: PrivateEngine) -> Report:
    """Raises RuntimeError where Ansible itself did not come to the end."""
    home = prepare()
    context, answers, play = engine.root / "ansible-files", engine.root / "answers.json", engine.root / "play.json"
    context.mkdir(exist_ok=True)
    for name, text in FILES.items():
        (context / name).write_text(text)
    play.write_text(json.dumps(playbook(engine, context, answers)))
    python = home / "venv/bin/python"
    environ = os.environ | {
        "ANSIBLE_COLLECTIONS_PATH": str(home), "ANSIBLE_PYTHON_INTERPRETER": str(python), "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_HOME": str(engine.root / "ansible"), "ANSIBLE_LOCAL_TEMP": str(engine.root / "ansible"), "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    command = [str(home / "venv/bin/ansible-playbook"), "-i", "localhost,", "-c", "local", str(play)]
    with (engine.root / f"{NAME}.log").open("wb") as log:
        done = subprocess.run(engine.inside(*command), env=environ, stdout=log, stderr=log, timeout=LIMIT)
    if not answers.exists():
        tail = (engine.root / f"{NAME}.log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"ansible-playbook ended with {done.returncode}: {tail}")
    found = json.loads(answers.read_text())
    return Report(NAME, engine.kind, [judged(case, answer) for case, answer in zip(CASES, found, strict=True)])


def judged(case: Case, answer: Answer) -> Outcome:
    failed, changed = bool(answer.get("failed")), bool(answer.get("changed"))
    if failed != case.failed:
        return Outcome(case.name, "failed", f"failed is {failed}: {' '.join(str(answer.get('msg', '')).split())[:200]}")
    if case.changed is not None and changed != case.changed:
        return Outcome(case.name, "failed", f"changed is {changed}")
    try:
        good = case.holds(answer)
    except (KeyError, TypeError) as error:
        return Outcome(case.name, "failed", f"the answer lacks {error}")
    return Outcome(case.name, "passed" if good else "failed", "" if good else f"not as expected: {answer.get('msg', '')}"[:300])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} ended with {done.returncode}: {done.stderr[-2000:]}")
