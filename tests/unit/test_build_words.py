"""Word expansion: the public golden cases of the reference lexer, and the pattern operators."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockyard.build.dockerfile.words import ExpandError, expand

SPECS = Path(os.environ.get("DOCKYARD_SPECS") or Path(__file__).parents[2].parent / "shared" / "specs") / "dockerfile"
needs_specs = pytest.mark.skipif(not SPECS.is_dir(), reason=f"specification data is not at {SPECS}")
ENV = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}


@needs_specs
def test_golden_expansions() -> None:
    rows = 0
    for line in (SPECS / "shell" / "envVarTest").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        platform, source, expected = (part.strip() for part in line.split("|"))
        if platform == "W":
            continue
        rows += 1
        if expected == "error":
            with pytest.raises(ExpandError):
                expand(source, ENV)
        else:
            assert expand(source, ENV).text == expected, source
    assert rows > 200


@needs_specs
def test_golden_words() -> None:
    env: dict[str, str] = {}
    rows = 0
    for line in (SPECS / "shell" / "wordsTest").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("ENV "):
            name, _, value = line[4:].lstrip().partition("=")
            env[name] = value
            continue
        source, _, expected = line.partition("|")
        rows += 1
        if expected.strip() == "error":
            with pytest.raises(ExpandError):
                expand(source.strip(), env)
        else:
            assert expand(source.strip(), env).words == expected.lstrip().split(","), source
    assert rows == 24


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("${p#*/}", "usr/bin/env"), ("${p##*/}", "env"), ("${p%/*}", "/usr/bin"), ("${p%%/*}", ""),
        ("${p#x}", "/usr/bin/env"), ("${p%e?v}", "/usr/bin/"), ("${p/bin/sbin}", "/usr/sbin/env"),
        ("${p//\\//-}", "-usr-bin-env"), ("${p/u*r/X}", "/X/bin/env"), ("${v#v}.${v%.*}", "1.2.3.v1.2"),
        ("${s/\\*/x}", "axb"), ("${none#x}", ""), ("${p//e/}", "/usr/bin/nv"), ("${star%%\\**}", "a"),
    ],
)  # fmt: skip
def test_pattern_operators(word: str, expected: str) -> None:
    env = {"p": "/usr/bin/env", "v": "v1.2.3", "s": "a*b", "star": "a*b*c"}
    assert expand(word, env).text == expected


def test_says_which_variables_were_missing() -> None:
    found = expand("$PWD ${nope:-x} $other", ENV)
    assert (found.used, found.missing) == ({"PWD"}, {"nope", "other"})


def test_raw_mode_keeps_quotes_and_unset_names() -> None:
    found = expand("'a b' \"$PWD\" ${x} \\$y", ENV, keep_quotes=True, keep_escapes=True, keep_unset=True)
    assert found.text == "'a b' \"/home\" ${x} \\$y"
    assert found.words == ["'a b'", '"/home"', "${x}", "\\$y"]
