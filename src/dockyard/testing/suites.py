"""Suites that others wrote, run against a private engine: docker-py's, aiodocker's and docker-compose's own tests.

The sources come from PyPI at run time (sdists of pinned versions, or a tag where an sdist has no tests) into a cache with
a virtual environment of its own; nothing of them is in this repository. What is
about swarm, services, secrets, configs, nodes or plugins is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from .engines import PrivateEngine

CACHE = Path(os.environ.get("DOCKYARD_CONFORMANCE_CACHE", "/var/cache/dockyard/conformance"))
SUITE_LIMIT = 1800.0
TEST_LIMIT = 60
"""Seconds for one test; a hang counts as a failure."""


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    project: str
    """Name and version on PyPI."""
    requires: tuple[str, ...]
    tests: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Words in file or test names that belong to groups outside this issue; tests by name that join a swarm."""
    python: bool = False
    """Whether it needs the image with Python."""
    api: str = ""
    """DOCKER_TEST_API_VERSION: the version that the suite was written for, where it lets us say so."""
    git: str = ""
    """Where the sources with the tests are, when the sdist has none; the tag is the project's version."""
    images: tuple[str, ...] = ()
    """Further names of busybox that the suite asks for."""
    home: str = ""
    """Folder of the cache, for suites that share their sources; the suite's name otherwise."""
    limit: float = SUITE_LIMIT

    @property
    def folder(self) -> Path:
        return CACHE / (self.home or self.name)


DOCKER_PY = Suite(
    "docker-py", "docker==7.0.0",
    ("docker==7.0.0", "requests<2.32", "paramiko", "websocket-client", "pytest==7.4.2", "pytest-timeout==2.1.0", "setuptools<70"),
    ("tests/integration",),
    ("swarm", "service", "secret", "config_test", "node", "plugin", "context_api", "credentials",
     "test_create_inspect_network_with_scope", "test_create_network_attachable", "test_create_network_ingress"),
    api="1.43",
)  # fmt: skip
AIODOCKER = Suite(
    "aiodocker", "aiodocker==0.27.0",
    ("aiodocker==0.27.0", "testcontainers==4.14.2", "packaging", "async-timeout~=5.0.1", "pytest==9.0.3",
     "pytest-asyncio==1.3.0", "pytest-timeout"),
    ("tests/test_containers.py", "tests/test_events.py", "tests/test_execs.py", "tests/test_images.py",
     "tests/test_integration.py", "tests/test_networks.py", "tests/test_system.py", "tests/test_volumes.py"),
    ("swarm", "service", "secret", "config", "node"),
    python=True,
)  # fmt: skip
# Its requirements as they can still be installed: PyYAML before 6 does not build any more (Debian's package does the same).
_COMPOSE_V1 = Suite(
    "docker-compose", "docker-compose==1.29.2",
    ("docker==5.0.3", "requests<2.32", "urllib3<2", "websocket-client<1", "jsonschema<4", "setuptools<70", "distro", "dockerpty",
     "docopt", "python-dotenv<1", "texttable", "six", "PyYAML>=6", "paramiko", "pytest==7.4.2", "pytest-timeout==2.1.0", "ddt"),
    (), ("swarm", "metrics_test", "context_test"), git="https://github.com/docker/compose", home="docker-compose",
    images=("busybox:1.31.0-uclibc", "busybox:1.27.2", "busybox:1", "busybox:1.27.0.2", "alpine:3.10.1", "alpine:3.12"),
    limit=3600.0,
)  # fmt: skip
COMPOSE_LIBRARY = replace(_COMPOSE_V1, name="compose1-library", tests=("tests/integration",))
COMPOSE_COMMANDS = replace(_COMPOSE_V1, name="compose1-commands", tests=("tests/acceptance",))
SUITES = {suite.name: suite for suite in (DOCKER_PY, AIODOCKER, COMPOSE_LIBRARY, COMPOSE_COMMANDS)}


@dataclass(frozen=True, slots=True)
class Outcome:
    test: str
    result: str
    """passed, failed or skipped."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    suite: str
    engine: str
    outcomes: list[Outcome] = field(default_factory=list)

    def count(self) -> Counter[str]:
        return Counter(outcome.result for outcome in self.outcomes)

    @property
    def rate(self) -> float:
        """Share of the tests that ran and passed."""
        counts = self.count()
        ran = counts["passed"] + counts["failed"]
        return counts["passed"] / ran if ran else 0.0


def prepare(suite: Suite) -> Path:
    """The unpacked sources, with ``venv`` beside them. Needs PyPI, and GitHub for some, the first time."""
    home = suite.folder
    ready = home / "ready"
    wanted = " ".join((suite.project, *suite.requires))
    if ready.exists() and ready.read_text() == wanted:
        return next(home.glob("src/*/"))
    home.mkdir(parents=True, exist_ok=True)
    (home / "src").mkdir(exist_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(home / "venv")])
    pip = [str(home / "venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "install", *suite.requires])
    if suite.git:
        _run([*pip, "install", "--no-deps", suite.project])
        name, _, version = suite.project.partition("==")
        source = home / "src" / f"{name}-{version}"
        if not source.exists():
            _run(["git", "clone", "--quiet", "--depth", "1", "--branch", version, suite.git, str(source)])
        ready.write_text(wanted)
        return source
    _run([*pip, "download", "--no-deps", "--no-binary", suite.project.partition("==")[0], "--dest", str(home), suite.project])
    # Not extractall(filter=): Debian 12's Python 3.11.2 does not have it yet.
    _run(["tar", "-xzf", str(next(home.glob("*.tar.gz"))), "--no-same-owner", "-C", str(home / "src")])
    ready.write_text(wanted)
    return next(home.glob("src/*/"))


def run_suite(suite: Suite, engine: PrivateEngine, *, only: str = "") -> Report:
    """Run it inside the engine's namespaces; one outcome per test."""
    source = prepare(suite)
    results = engine.root / f"{suite.name}.xml"
    deselect = " and ".join(f"not {word}" for word in suite.left_out)
    command = [
        str(suite.folder / "venv/bin/python"), "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short", "-o", "addopts=",
        f"--timeout={TEST_LIMIT}", f"--junitxml={results}", "-k", f"({only}) and ({deselect})" if only else deselect,
        *suite.tests,
    ]  # fmt: skip
    environ = os.environ | {
        "DOCKER_HOST": engine.host, "TESTCONTAINERS_RYUK_DISABLED": "true",
        "TESTCONTAINERS_CONNECTION_MODE": "docker_host",  # published ports are on this namespace's loopback
        "PATH": f"{suite.folder / 'venv/bin'}:{os.environ['PATH']}",  # its own programs
    }  # fmt: skip
    if suite.api:
        environ["DOCKER_TEST_API_VERSION"] = min(suite.api, engine.newest_api, key=lambda text: int(text.split(".")[1]))
    with (engine.root / f"{suite.name}.log").open("wb") as log:
        done = subprocess.run(
            engine.inside(*command, cwd=source), env=environ, stdout=log, stderr=log, timeout=suite.limit
        )
    if not results.exists():
        tail = (engine.root / f"{suite.name}.log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{suite.name} ended with {done.returncode}: {tail}")
    return Report(suite.name, engine.kind, read_junit(results.read_text()))


def read_junit(text: str) -> list[Outcome]:
    found = []
    for case in ET.fromstring(text).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.')}.{case.get('name')}"
        fault = next((child for child in case if child.tag in ("failure", "error")), None)
        skip = case.find("skipped")
        if fault is not None:
            found.append(Outcome(name, "failed", _reason(fault)))
        elif skip is not None and skip.get("type") != "pytest.xfail":
            found.append(Outcome(name, "skipped", (skip.get("message") or "")[:200]))
        else:
            found.append(Outcome(name, "passed"))
    return found


def _reason(fault: ET.Element) -> str:
    """The last line of the traceback that says what went wrong."""
    lines = [line[2:].strip() for line in (fault.text or "").splitlines() if line.startswith("E ")]
    return " ".join((lines[-1] if lines else fault.get("message") or "").split())[:300]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SUITE_LIMIT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} ended with {done.returncode}: {done.stderr[-2000:]}")
