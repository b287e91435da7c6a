"""The Engine API fuzzed from its specification: no 500, no hang, no leak; on the dry run and on a real engine.

``DOCKYARD_FUZZ_ROUNDS`` and ``DOCKYARD_FUZZ_SEED`` make longer runs (``make fuzz``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from dockyard.testing.engines import PrivateEngine
from dockyard.testing.fuzz import Case, Generator, fault_of, parse_answer

SPEC = Path(__file__).resolve().parents[3] / "shared/specs/engine-api/v1.51.yaml"
ROUNDS = int(os.environ.get("DOCKYARD_FUZZ_ROUNDS", "6"))
SEED = int(os.environ.get("DOCKYARD_FUZZ_SEED", "20250101"))
HEAD_LIMIT = 30.0
"""Seconds for a head: a stop may wait its grace and a kill, and this machine may be busy."""
BODY_LIMIT = 0.3
"""Streams are looked into for this long."""
SETTLE_LIMIT = 30.0
FD_SLACK, TASK_SLACK = 8, 8
"""Connections and watchers that may be there at any one moment."""

Ask = Callable[..., bytes]

pytestmark = pytest.mark.skipif(not SPEC.exists(), reason="shared/specs is not beside this checkout")


@pytest.fixture(scope="module")
def document() -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = yaml.load(SPEC.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return loaded


def _request(ask: Ask, path: Path, method: str, target: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body is not None else b""
    answer = parse_answer(ask(path, Case(method, target, {"Content-Type": "application/json"}, data).wire(), limit=HEAD_LIMIT, most=1 << 24, body_limit=HEAD_LIMIT))
    assert answer is not None
    assert answer.status < 400, answer.body
    return json.loads(answer.body) if answer.body.strip() else None


class World:
    """Objects for the requests to find, made again whenever one of them may have gone."""

    CHANGING = ("prune", "rename", "stop", "kill", "restart", "pause", "update", "leave", "connect")

    def __init__(self, ask: Ask, path: Path) -> None:
        self._ask = ask
        self._path = path
        self.execs: list[str] = []
        self.known: dict[str, Sequence[str]] = {
            "container": ("fuzz-up", "fuzz-up", "fuzz-down"), "image": ("busybox:latest", "busybox"), "exec": self.execs,
            "network": ("fuzz-net", "bridge"), "volume": ("fuzz-vol",), "distribution": ("busybox:latest",),
        }  # fmt: skip

    def _try(self, method: str, target: str, body: Any = None) -> Any:
        data = json.dumps(body).encode() if body is not None else b""
        case = Case(method, target, {"Content-Type": "application/json"}, data)
        answer = parse_answer(self._ask(self._path, case.wire(), limit=HEAD_LIMIT, most=1 << 16, body_limit=HEAD_LIMIT))
        assert answer is not None, f"no answer to {case}"
        return json.loads(answer.body) if answer.body.startswith(b"{") and answer.status < 400 else None

    def ensure(self) -> None:
        command = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]
        for name in ("fuzz-up", "fuzz-down"):
            self._try("POST", f"/containers/create?name={name}", {"Image": "busybox:latest", "Cmd": command})
        self._try("POST", "/containers/fuzz-up/unpause")
        self._try("POST", "/images/kept:latest/tag?repo=busybox&tag=latest")
        self._try("POST", "/containers/fuzz-up/start")
        made = self._try("POST", "/containers/fuzz-up/exec", {"Cmd": ["true"], "AttachStdout": True})
        self.execs[:] = [made["Id"]] if made else []
        self._try("POST", "/networks/create", {"Name": "fuzz-net"})
        self._try("POST", "/volumes/create", {"Name": "fuzz-vol"})

    def may_have_lost(self, case: Case) -> bool:
        return case.method == "DELETE" or any(word in case.operation for word in self.CHANGING)


def _fuzz(ask: Ask, path: Path, document: Mapping[str, Any], folder: Path) -> list[str]:
    world = World(ask, path)
    _request(ask, path, "POST", "/images/busybox:latest/tag?repo=kept&tag=latest")
    world.ensure()
    generator = Generator(document, SEED, known=world.known, folder=str(folder))
    operations = [(method, template, operation) for method, template, operation in generator.operations() if not _groundless(template)]
    faults, statuses = [], Counter[int]()
    for _ in range(ROUNDS):
        for method, template, operation in operations:
            case = generator.case(method, template, operation)
            answer = parse_answer(ask(path, case.wire(), limit=HEAD_LIMIT, most=1 << 20, body_limit=BODY_LIMIT))
            statuses[answer.status if answer else 0] += 1
            if fault := fault_of(case, answer):
                faults.append(f"{case.operation}: {fault}\n    {case}")
            if world.may_have_lost(case):
                world.ensure()
        if not ask(path, b"GET /_ping HTTP/1.0\r\n\r\n", limit=HEAD_LIMIT, most=4096, body_limit=1.0):
            return [*faults, "the engine does not answer any more"]
    print(f"answers by status: {dict(sorted(statuses.items()))}")
    accepted = sum(count for status, count in statuses.items() if 100 < status < 400)
    assert accepted >= statuses.total() * 0.25, f"hardly a request gets past the first check: {statuses}"
    return faults


def _groundless(path: str) -> bool:
    """Groups that are not served: each answers 501 or 503 whatever is asked."""
    return path.split("/")[1] in {"swarm", "nodes", "services", "tasks", "secrets", "configs", "plugins"}


def _load_of(ask: Ask, path: Path) -> tuple[int, int]:
    info = _request(ask, path, "GET", "/info")
    return info["NFd"], info["NGoroutines"]


def _clear(ask: Ask, path: Path) -> None:
    for row in _request(ask, path, "GET", "/containers/json?all=1"):
        ask(path, Case("DELETE", f"/containers/{row['Id']}?force=1&v=1").wire(), limit=HEAD_LIMIT, most=4096, body_limit=1.0)


def _assert_no_leak(ask: Ask, path: Path, before: tuple[int, int]) -> None:
    end = time.monotonic() + SETTLE_LIMIT
    while True:
        now = _load_of(ask, path)
        if now[0] <= before[0] + FD_SLACK and now[1] <= before[1] + TASK_SLACK:
            return
        assert time.monotonic() < end, f"descriptors and tasks grew from {before} to {now}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> Iterator[Path]:
    sock = tmp_path_factory.mktemp("dry") / "s"
    with (sock.parent / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "dockyard.cli", "dryrun", "-H", f"unix://{sock}"], stdout=log, stderr=log)
    try:
        end = time.monotonic() + HEAD_LIMIT
        while not sock.exists():
            assert time.monotonic() < end, (sock.parent / "log").read_text()
            time.sleep(0.05)
        ask(sock, Case("POST", "/images/create?fromImage=busybox&tag=latest").wire(), limit=HEAD_LIMIT, most=1 << 16, body_limit=HEAD_LIMIT)
        yield sock
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.timeout(300)
def test_the_dry_run_survives(dry: Path, ask: Ask, document: Mapping[str, Any], tmp_path: Path) -> None:
    before = _load_of(ask, dry)
    faults = _fuzz(ask, dry, document, tmp_path)
    assert not faults, "\n".join(faults)
    _clear(ask, dry)
    _assert_no_leak(ask, dry, before)


@pytest.mark.root
@pytest.mark.timeout(600)
def test_a_real_engine_survives(engine: PrivateEngine, ask: Ask, document: Mapping[str, Any], tmp_path: Path) -> None:
    before = _load_of(ask, engine.socket)
    faults = _fuzz(ask, engine.socket, document, tmp_path)
    assert not faults, "\n".join(faults)
    _clear(ask, engine.socket)
    _assert_no_leak(ask, engine.socket, before)
