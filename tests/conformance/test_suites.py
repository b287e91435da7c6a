"""Suites that others wrote: the kept results hold what we promise, and a fast part of docker-py's is run here and now.

The whole is ``make conformance``; its results are files, the page docs/scoreboard.md is drawn from them.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from dockyard.testing import ansible_suite
from dockyard.testing.ansible_suite import Case, judged
from dockyard.testing.conformance import RESULTS, load, result_file, stocked_engine
from dockyard.testing.podman_suite import read_tap
from dockyard.testing.suites import DOCKER_PY, prepare, read_junit, run_suite

ROOT = Path(__file__).resolve().parents[2]
PROMISED = {"docker-py": 0.95, "aiodocker": 0.95, "ansible-docker_image": 1.0, "compose1-library": 0.95}
SUBSET = "StartContainerTest or RestartContainerTest or KillTest or LogsTest or ArchiveTest or ExecTest or VolumeBindTest"


def _scoreboard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scoreboard", ROOT / "scripts/scoreboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    module = _scoreboard()
    assert module.PAGE.read_text() == module.page(module.reports()), "run `make scoreboard`"


@pytest.mark.parametrize("suite", PROMISED)
def test_the_kept_results_hold_what_is_promised(suite: str) -> None:
    report = load(result_file(suite, "dockyard"))
    assert report.rate >= PROMISED[suite], f"{report.rate:.1%}"


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*-dockyard.json")), ids=lambda file: file.stem)
def test_each_failure_has_its_reason(file: Path) -> None:
    reasons = json.loads((RESULTS.parent / "reasons.json").read_text())
    failed = [outcome.test for outcome in load(file).outcomes if outcome.result == "failed"]
    assert [test for test in failed if not any(part in test for part in reasons)] == []


def test_results_are_read_as_the_suites_write_them() -> None:
    junit = """<testsuites><testsuite>
        <testcase classname="tests.a.B" name="good"/>
        <testcase classname="tests.a.B" name="bad"><failure message="m">x\nE   AssertionError: because</failure></testcase>
        <testcase classname="tests.a.B" name="left"><skipped type="pytest.skip" message="no"/></testcase>
        <testcase classname="tests.a.B" name="known"><skipped type="pytest.xfail" message="x"/></testcase>
    </testsuite></testsuites>"""
    assert [(row.test, row.result, row.reason) for row in read_junit(junit)] == [
        ("a.B.good", "passed", ""), ("a.B.bad", "failed", "AssertionError: because"), ("a.B.left", "skipped", "no"), ("a.B.known", "passed", ""),
    ]  # fmt: skip
    tap = "ok 1 [x] GET a : status=200\nnot ok 2 [x] GET b : status\n#  expected: 200\n#    actual: 404\nok 3 [x] GET libpod/c : status=200\n"
    assert [(row.test, row.result) for row in read_tap(tap)] == [("x: GET a : status=200", "passed"), ("x: GET b : status", "failed")]


def test_what_ansible_reports_is_judged_by_the_case() -> None:
    case = Case("x", {}, changed=False, holds=lambda answer: answer["image"]["Id"] == "1")
    assert judged(case, {"changed": False, "image": {"Id": "1"}}).result == "passed"
    assert judged(case, {"changed": True, "image": {"Id": "1"}}).reason == "changed is True"
    assert judged(case, {"failed": True, "msg": "no\nway"}).reason == "failed is True: no way"
    assert judged(case, {"changed": False}).reason == "the answer lacks 'image'"
    assert judged(case, {"changed": False, "image": {"Id": "2"}}).result == "failed"


@pytest.mark.root
@pytest.mark.timeout(900)
def test_ansible_builds_here(tmp_path: Path) -> None:
    try:
        ansible_suite.prepare()
    except (RuntimeError, subprocess.SubprocessError) as error:
        pytest.skip(f"Ansible cannot be had from PyPI: {error}")
    with stocked_engine("dockyard", tmp_path / "e") as engine:
        report = ansible_suite.run(engine)
    assert [(row.test, row.reason) for row in report.outcomes if row.result != "passed"] == []


@pytest.mark.root
@pytest.mark.timeout(600)
def test_a_part_of_docker_pys_own_suite_passes_here(tmp_path: Path) -> None:
    try:
        prepare(DOCKER_PY)
    except (RuntimeError, subprocess.SubprocessError) as error:
        pytest.skip(f"docker-py's sources cannot be had from PyPI: {error}")
    known = {outcome.test for outcome in load(result_file("docker-py", "dockyard")).outcomes if outcome.result == "failed"}
    with stocked_engine("dockyard", tmp_path / "e") as engine:
        report = run_suite(DOCKER_PY, engine, only=SUBSET)
    assert [(row.test, row.reason) for row in report.outcomes if row.result == "failed" and row.test not in known] == []
    assert report.count()["passed"] >= 40
