"""The demo's voice: a story within 80 columns, with a sign of life where it takes long."""

from __future__ import annotations

import pytest

from dockyard.cli.demo import NEXT, Narrator, cut


def test_nothing_is_wider_than_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say = Narrator()
    with say.step("A title", "because " * 40):
        say.command(["docker", "run", "a\tb c", "x" * 200])
        say.output("\n".join(["y" * 200] * 10), lines=3)
    told = capsys.readouterr().out.splitlines()
    assert max(map(len, told + NEXT.splitlines())) <= 80
    assert "   $ docker run 'a\\tb c' xxx" in "\n".join(told)
    assert "     ... 7 more lines" in told
    assert told[1] == "1. A title"


def test_a_line_that_fits_is_left_alone() -> None:
    assert cut("z" * 80) == "z" * 80
    assert cut("z" * 81) == "z" * 77 + "..."


def test_working_ends_with_its_work_and_says_nothing_when_it_was_quick(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), Narrator().working():
        raise ZeroDivisionError
    assert capsys.readouterr().out == ""
