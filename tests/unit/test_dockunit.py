"""Dockunit.json, its arguments and its reports: pure parts."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from dockyard.cli import pipeline as command
from dockyard.cli.unit import Arguments, main
from dockyard.dockunit.load import Measured, judged
from dockyard.dockunit.matrix import Entry, Matrix, parse
from dockyard.dockunit.pipeline import EXAMPLE, Load, Pipeline, parse_pipeline
from dockyard.dockunit.report import (
    Outcome,
    StageOutcome,
    document_stages,
    junit,
    junit_stages,
    summary,
    tap,
    tap_stages,
)
from dockyard.dockunit.stub import Answer, Stub, parse_stubs, script, unmet
from dockyard.dockunit.tree import pack
from dockyard.errors import InvalidParameter, NotFound

ENTRY = '{"prettyName": "PHP", "image": "php:8", "testCommand": "phpunit"%s}'


def test_the_file_as_it_is() -> None:
    made = parse('{"containers": [' + ENTRY % ', "beforeScripts": ["a", "b"]' + "]}", "Dockunit.json")
    assert made == Matrix((Entry(1, "PHP", "php:8", "phpunit", ("a", "b")),))
    with_stub = parse('{"containers": [' + ENTRY % "" + '], "stubs": {"db": {"image": "redis:7", "env": {"A": 1}}}}', "f")
    assert with_stub.stubs == (Stub("db", image="redis:7", env=("A=1",)),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "Could not parse Dockunit.json: Expecting"),
        ("[]", 'it has no list "containers"'),
        ('{"containers": [1]}', r"containers\[0\] is not an object"),
        ('{"containers": [' + ENTRY % ', "beforeScript": []' + "]}", "did you mean 'beforeScripts'"),
        ('{"containers": [' + ENTRY % ', "beforeScripts": "a"' + "]}", "must be a list of strings"),
        ('{"containers": [{"prettyName": "x", "image": "y"}]}', "has no testCommand"),
        ("[" * 100000, "Could not parse"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told):
        parse(text, "Dockunit.json")


def test_unknown_arguments_go_to_the_test_command() -> None:
    made = Arguments(["--du-verbose", "src", "--filter=a b", "one", "--du-container=2", "-x"])
    assert (made.path, made.test) == ("src", "one '--filter=a b' -x")
    assert (made.number("container", 0), "verbose" in made.own) == (2, True)


def test_closing_lines_and_codes() -> None:
    one, two = Entry(1, "a", "x", "t"), Entry(2, "b & c", "y", "t")
    good, bad = Outcome(one, 0, 1.0, "fine"), Outcome(two, 3, 2.0, "<no>\x00 luck")
    assert summary([good]) == ("1 container(s) passed", 0)
    assert summary([good, bad]) == ("1 out of 2 container(s) passed", 1)
    assert summary([]) == ("No containers finished", 1)
    suite = ElementTree.fromstring(junit([good, bad], "p"))
    assert [case.get("name") for case in suite] == ["a", "b & c"]
    assert suite[1][0].text == "<no> luck"
    assert tap([good, bad]).splitlines()[:4] == ["TAP version 13", "1..2", "ok 1 - a", "not ok 2 - b & c"]


def test_the_tree_has_dotfiles_and_a_digest_of_its_content(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1")
    (tmp_path / "link").symlink_to("/etc/passwd")
    first, second = pack(tmp_path), pack(tmp_path)
    assert first.digest == second.digest
    assert b"app/test/.env" in b"".join(first.pieces())
    (tmp_path / ".env").write_text("A=2")
    third = pack(tmp_path)
    assert third.digest != first.digest
    for tree in (first, second, third):
        tree.close()


def test_unreadable_files_end_with_255(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 255
    (tmp_path / "Dockunit.json").write_text("no")
    assert main([str(tmp_path)]) == 255
    assert "Could not parse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ({"A B": {}}, "is a host name"),
        ({"a": {}}, "needs one of answers, reply and image"),
        ({"a": {"reply": "x", "image": "y"}}, "needs one of"),
        ({"a": {"answer": []}}, "did you mean 'answers'"),
        ({"a": {"answers": [{"path": "x"}]}}, "path must begin with /"),
        ({"a": {"answers": [{"path": "/", "headers": {"A": "b\r\nc: d"}}]}}, "printable"),
        ({"a": {"answers": [{"path": "/", "delay": 1e9}]}}, "delay must be seconds"),
        ({"a": {"answers": [{"path": "/"}], "port": 70000}}, "up to 65535"),
        ({"a": {"answers": [{"path": "/"}] * 501}}, "1 to 500 answers"),
        ([], "must be an object"),
    ],
)
def test_stubs_that_cannot_be(text: object, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told):
        parse_stubs(text, "Dockunit.json")


def test_what_a_file_says_stays_a_word_of_the_script() -> None:
    text = script(Stub("a", answers=(Answer("/';reboot;'*"), Answer("/$(reboot)?q=`x`"))))
    assert "'GET /'\\'';reboot;'\\'''*)" in text
    assert "'GET /$(reboot)?q=`x`')" in text


def test_calls_that_were_to_come() -> None:
    one = Stub("rates", answers=(Answer("/eur", calls=2), Answer("/usd")))
    assert unmet(one, "0 GET /eur\n- GET /none\n") == ["stub rates: GET /eur was called 1 times, not 2"]
    assert unmet(one, "0 GET /eur\n0 GET /eur\n") == []


def pipeline_of(text: str) -> Pipeline:
    return parse_pipeline(yaml.safe_load(text), "pipeline.yaml", "shop")


def test_the_example_is_a_pipeline() -> None:
    made = pipeline_of(EXAMPLE)
    assert [stage.name for stage in made.stages] == ["compile", "unit", "integration", "performance", "deploy"]
    assert made.stages[0].keep == ("dist",)
    assert "{ mkdir -p dist\n} || exit" in made.stages[0].entries[0].test_command
    assert [stage.name for stage in made.chosen([], ["unit"], "performance").stages] == ["compile", "integration", "performance"]
    with pytest.raises(NotFound, match="the pipeline has compile, unit"):
        made.chosen(["tests"], [], "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "it needs stages"),
        ("{stages: {a: {run: x}}}", "needs an image"),
        ("{image: i, stages: {a: {}}}", "needs one of run, dockunit"),
        ("{image: i, stages: {a: {run: x, deploy: y}}}", "not run and deploy"),
        ("{image: i, stages: {a: {rum: x}}}", "did you mean 'run'"),
        ("{image: i, stages: {a: {run: x, keep: [../etc]}}}", "a path below the project"),
        ("{image: i, stages: {a: {run: {a: b}}}}", "a text or a list of texts"),
        ("{image: i, stages: {a: {load: {url: 'file:///etc/passwd'}}}}", "url must be http"),
        ("{image: i, stages: {a: {load: {url: 'http://a/', clients: 1000}}}}", "up to 256"),
        ("{image: i, stages: {a: {run: x, limit: soon}}}", "must be a number"),
    ],
)
def test_pipelines_that_cannot_be(text: str, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told):
        pipeline_of(text)


def test_a_load_is_judged() -> None:
    load = Load("http://a/", most=(("p50", 0.1), ("p99", 0.2)), errors=1, rate=100)
    good = Measured(1.0, tuple([0.01] * 150), 0)
    assert judged(load, good) == []
    bad = judged(load, Measured(1.0, (*[0.01] * 40, *[0.3] * 10), 50, "status 500"))
    assert bad == ["50.00 % of 100 requests failed, at most 1 % may: status 500", "p99 is 300.0 ms, at most 200 ms may it be",
                   "50.0 requests/s, at least 100 must it be"]  # fmt: skip
    assert judged(load, Measured(1.0, (), 0))[0].startswith("100.00 %")


def test_reports_of_a_pipeline() -> None:
    one = Entry(1, "a", "x", "t")
    stages = [StageOutcome("unit", (Outcome(one, 0, 1.0, "fine"),)), StageOutcome("integration", (Outcome(one, 3, 1.0, "no"),)),
              StageOutcome("stubs", failure="stub a <was> not called"), StageOutcome("deploy", skipped="integration failed")]  # fmt: skip
    suites = ElementTree.fromstring(junit_stages(stages, "p"))
    assert [(suite.get("name"), suite.get("failures")) for suite in suites] == [
        ("unit", "0"), ("integration", "1"), ("stubs", "1"), ("deploy", "0"),
    ]  # fmt: skip
    assert suites[3][0][0].tag == "skipped"
    lines = tap_stages(stages).splitlines()
    assert lines[1] == "1..4"
    assert "ok 1 - unit: a" in lines
    assert "not ok 2 - integration: a" in lines
    assert "ok 4 - deploy # SKIP integration failed" in lines
    told = document_stages(stages, "p")
    assert [stage["passed"] for stage in told["stages"]] == [True, False, False, False]


def test_a_pipeline_without_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path)]) == 255
    assert "No pipeline.yaml" in capsys.readouterr().err
    (tmp_path / "pipeline.yaml").write_text("image: i\nimage: j\n")
    assert command.main([str(tmp_path)]) == 255
    assert "pipeline.yaml:2" in capsys.readouterr().err
    (tmp_path / "pipeline.yaml").write_text(EXAMPLE)
    assert command.main(["--dry-run", "--until", "unit", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "compile: compile in busybox:latest; keeps dist\nunit: unit in busybox:latest; stub rates\n"
    assert command.main(["--onli", "x"]) == 125
