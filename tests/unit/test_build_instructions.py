"""Typed instructions, mounts and ignore patterns."""

from __future__ import annotations

import pytest

from dockyard.build.dockerfile.instructions import Copy, Healthcheck, Onbuild, Run, split_stages
from dockyard.build.dockerfile.mounts import Mount, parse_mount
from dockyard.build.dockerfile.parser import SyntaxProblem, parse
from dockyard.build.dockerfile.patterns import Patterns, match_regex, read_ignore_file
from dockyard.build.dockerfile.suggest import explain


def instructions(text: str) -> tuple[object, ...]:
    return split_stages(parse("FROM a\n" + text))[1][0].instructions


def test_copy_flags() -> None:
    (copy,) = instructions("COPY --from=b --chown=1:2 --chmod=u+x --link --parents --exclude=*.o --exclude=x a b/ /d")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.target, copy.origin, copy.chown) == (("a", "b/"), "/d", "b", "1:2")
    assert (copy.link, copy.parents, copy.exclude) == (True, True, ("*.o", "x"))


def test_run_flags_and_healthcheck() -> None:
    run, health = instructions(
        "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --network=none make\n"
        "HEALTHCHECK --interval=1m30s --retries=2 CMD curl localhost"
    )
    assert isinstance(run, Run)
    assert (run.network, len(run.mounts), run.shell_form) == ("none", 2, True)
    assert isinstance(health, Healthcheck)
    assert (health.test, health.interval, health.retries) == (("CMD-SHELL", "curl localhost"), 90 * 10**9, 2)


def test_onbuild_keeps_the_text() -> None:
    (item,) = instructions("ONBUILD COPY --chown=1 . /x")
    assert isinstance(item, Onbuild)
    assert item.expression == "COPY --chown=1 . /x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY --form=x a b", r"unknown flag: --form \(did you mean --from\?\)"),
        ("COPY a", "COPY requires at least two arguments, but only 1"),
        ("RUN --device=vendor.com/gpu=all x", "unknown flag: --device"),
        ("RUN --security=wild x", "security mode 'wild' is not supported"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("SHELL sh -c", "SHELL requires the arguments to be in JSON form"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        ("FROM b AS 9x", "invalid name for build stage"),
        ("ARG =x", "ARG names can not be blank"),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: chown"),
        ("USER", "USER requires exactly one argument"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(SyntaxProblem, match=message) as caught:
        instructions(text)
    assert caught.value.line == 2


def test_problem_is_drawn() -> None:
    dockerfile = parse("FROM a\nRUN x \\\n  y\nCOPY --form=b \\\n  c d\n")
    with pytest.raises(SyntaxProblem) as caught:
        split_stages(dockerfile)
    assert explain(caught.value, "Dockerfile", dockerfile.lines).splitlines() == [
        "dockerfile parse error on line 4: unknown flag: --form (did you mean --from?)",
        "Dockerfile:4:6",
        "    4 | COPY --form=b \\",
        "      |      ^^^^^^",
    ]


def test_mount_defaults() -> None:
    assert parse_mount("target=/x") == Mount("bind", "/x", read_only=True)
    assert parse_mount("type=cache,dst=/a/../c,sharing=locked,mode=0755,uid=5") == Mount(
        "cache", "/a/../c", id="/c", sharing="locked", mode=0o755, uid=5
    )
    assert parse_mount("type=secret,id=tok,required").target == "/run/secrets/tok"
    assert parse_mount("type=secret,id=tok,env=TOKEN").target == ""
    assert parse_mount("type=tmpfs,target=/t,size=64m").size == 64 << 20
    assert parse_mount("type=ssh").id == "default"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bnd,target=/x", "unsupported mount type 'bnd' .did you mean bind"),
        ("type=cache", "target is required"),
        ("type=bind,target=/x,sise=1", "unexpected key 'sise'"),
        ("type=tmpfs,target=/x,id=1", "unexpected key 'id' for mount type 'tmpfs'"),
        ("type=cache,target=/x,sharing=all", "unsupported sharing"),
    ],
)
def test_mount_refusals(text: str, message: str) -> None:
    with pytest.raises(SyntaxProblem, match=message):
        parse_mount(text)


@pytest.mark.parametrize(
    ("patterns", "path", "matched"),
    [
        (["**"], "file", True), (["**"], "dir/file", True), (["**/"], "dir/file", True), (["**/**"], "dir/file", True),
        (["dir/**"], "dir/file", True), (["dir/**"], "dir/d2/f", True), (["**/dir"], "dir", True),
        (["**/dir"], "dir/file", True), (["**/dir2/*"], "dir/dir2/file", True), (["**file"], "dir/file", True),
        (["**/file"], "dir/file", True), (["dir"], "dirx", False), (["*.go"], "a.go", True),
        (["*.go"], "d/a.go", False),
        (["a*"], "abc/d", True), (["?"], "a", True), (["?"], "ab", False), (["a[b-d]e"], "ace", True),
        (["a[^b]c"], "abc", False), (["\\*"], "*", True), (["\\*"], "x", False), (["*", "!keep"], "keep", False),
        (["*", "!keep"], "other", True), (["*", "!d/keep"], "d/keep", False),
        (["d", "!d/keep", "d/keep"], "d/keep", True),
        (["**", "!b*.txt"], "bar.txt", False), (["a/b"], "a/b/c", True), (["/a"], "a", True),
        ([".git"], "x/.git", False),
        (["a(b)c"], "a(b)c", True), (["a.c"], "abc", False), (["abc.def"], "abc.def", True),
    ],
)  # fmt: skip
def test_ignore_patterns(patterns: list[str], path: str, matched: bool) -> None:
    assert Patterns(patterns).match(path) is matched


def test_ignore_file_is_cleaned() -> None:
    assert read_ignore_file("\ufeff# c\n\n a/../b \n! /x/\n./y\n/z\n") == ["b", "!x", "y", "z"]
    with pytest.raises(ValueError, match="illegal exclusion"):
        read_ignore_file("!\n")


def test_source_wildcards_do_not_cross_components() -> None:
    assert match_regex("a*/b?").fullmatch("ax/b1")
    assert not match_regex("a*").fullmatch("a/b")
    with pytest.raises(ValueError, match="syntax error in pattern"):
        match_regex("a[")
