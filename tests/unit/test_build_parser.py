"""The Dockerfile parser against the public golden trees, and what the data does not cover."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockyard.build.dockerfile.parser import MAX_BYTES, SyntaxProblem, parse

SPECS = Path(os.environ.get("DOCKYARD_SPECS") or Path(__file__).parents[2].parent / "shared" / "specs") / "dockerfile"
needs_specs = pytest.mark.skipif(not SPECS.is_dir(), reason=f"specification data is not at {SPECS}")


@needs_specs
def test_golden_trees() -> None:
    cases = sorted((SPECS / "parser" / "testfiles").iterdir())
    assert len(cases) == 33
    for case in cases:
        tree = "\n".join(node.dump() for node in parse((case / "Dockerfile").read_bytes()).nodes)
        assert tree.strip() == (case / "result").read_text().strip(), case.name


@needs_specs
def test_golden_refusals() -> None:
    cases = sorted((SPECS / "parser" / "testfiles-negative").iterdir())
    assert len(cases) == 4
    for case in cases:
        with pytest.raises(SyntaxProblem):
            parse((case / "Dockerfile").read_bytes())


@needs_specs
def test_line_numbers() -> None:
    nodes = parse((SPECS / "parser" / "testfile-line" / "Dockerfile").read_bytes()).nodes
    assert [(n.name, n.line, n.end_line) for n in nodes] == [("from", 5, 5), ("env", 11, 12), ("run", 17, 31)]


def test_heredocs_belong_to_their_instruction() -> None:
    text = 'RUN <<A cat - <<-"B" | tee x\none $v\nA\n\ttwo\n\tB\nCOPY <<f.txt /d/\nhello\nf.txt\nCMD x\n'
    nodes = parse("FROM a\n" + text).nodes
    first, second = nodes[1].heredocs
    assert (first.name, first.content, first.expand, first.chomp) == ("A", "one $v\n", True, False)
    assert (second.name, second.content, second.expand, second.chomp) == ("B", "\ttwo\n", False, True)
    assert nodes[2].heredocs[0].content == "hello\n"
    assert [n.name for n in nodes] == ["from", "run", "copy", "cmd"]


def test_unterminated_heredoc_points_at_its_line() -> None:
    with pytest.raises(SyntaxProblem, match="unterminated heredoc 'EOF'") as caught:
        parse("FROM a\nRUN <<EOF\nx\n")
    assert caught.value.line == 2


def test_arithmetic_shift_is_not_a_heredoc() -> None:
    assert parse('FROM a\nRUN ["sh", "<<EOF"]\nRUN echo "a <<EOF b"\n').nodes[2].heredocs == ()


def test_flags_may_be_quoted() -> None:
    node = parse('FROM a\nRUN --mount=type=secret,id="a b" --network=none -- echo --x\n').nodes[1]
    assert node.flags == ("--mount=type=secret,id=a b", "--network=none")
    assert node.args == ("echo --x",)


def test_directives_stop_at_the_first_other_line() -> None:
    assert parse("#syntax=x/y\n# check=skip=all\n# nothing=1\n# escape=`\nFROM a\n").directives == {
        "syntax": "x/y",
        "check": "skip=all",
    }
    with pytest.raises(SyntaxProblem, match="only one escape"):
        parse("#escape=`\n#escape=`\nFROM a")


def test_limits() -> None:
    with pytest.raises(SyntaxProblem, match="larger than"):
        parse(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SyntaxProblem, match="unknown instruction: FORM"):
        parse("FORM a")


def test_windows_line_ends() -> None:
    nodes = parse("FROM a\r\nRUN x \\\r\n  y\r\nCOPY <<E /z\r\nq\r\nE\r\n").nodes
    assert nodes[1].args == ("x   y",)
    assert nodes[2].heredocs[0].name == "E"
