"""Dockunit.json, its arguments and its reports: pure parts."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from dockyard.cli.unit import Arguments, main
from dockyard.dockunit.matrix import Entry, parse
from dockyard.dockunit.report import Outcome, junit, summary, tap
from dockyard.dockunit.tree import pack
from dockyard.errors import InvalidParameter

ENTRY = '{"prettyName": "PHP", "image": "php:8", "testCommand": "phpunit"%s}'


def test_the_file_as_it_is() -> None:
    made = parse('{"containers": [' + ENTRY % ', "beforeScripts": ["a", "b"]' + "]}", "Dockunit.json")
    assert made == [Entry(1, "PHP", "php:8", "phpunit", ("a", "b"))]


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
