"""``# syntax=``: where it is looked for, which frontends are the Dockerfile's own, what is said of others."""

from __future__ import annotations

import pytest

from dockyard.build.dockerfile.syntax import asked_frontend, is_dockerfiles
from dockyard.build.doors.buildkit.frontend import check_frontend, check_syntax
from dockyard.errors import NotImplementedYet


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# syntax=docker/dockerfile:1\nFROM a\n", ("docker/dockerfile:1", 1)),
        ("\ufeff#syntax = x/y:1 cmdline\nFROM a\n", ("x/y:1", 1)),
        ("#!/usr/bin/env x\n# escape=`\n# SYNTAX=x/y\nFROM a\n", ("x/y", 3)),
        ("// syntax=x/y\nkind: z\n", ("x/y", 1)),
        ('{"syntax": "x/y", "a": 1}', ("x/y", 1)),
        ("# a comment\n# syntax=x/y\nFROM a\n", ("", 0)),
        ("FROM a\n# syntax=x/y\n", ("", 0)),
        ("\n# syntax=x/y\nFROM a\n", ("", 0)),
        ('{"syntax": 3}', ("", 0)), ("{no json", ("", 0)), ("", ("", 0)),
    ],
)  # fmt: skip
def test_where_it_is_looked_for(text: str, found: tuple[str, int]) -> None:
    assert asked_frontend(text.encode()) == found


@pytest.mark.parametrize(
    ("reference", "own"),
    [
        ("docker/dockerfile", True), ("docker/dockerfile:1.7-labs", True), ("docker.io/docker/dockerfile:1@sha256:0", True),
        ("docker/dockerfile-upstream:master", True), ("mirror.corp:5000/hub/docker/dockerfile:1", True),
        ("mirror.corp:5000/docker/dockerfile", True), ("evil/dockerfile", False), ("notdocker/dockerfile", False), ("x/y:1", False),
    ],
)  # fmt: skip
def test_which_are_the_dockerfiles_own(reference: str, own: bool) -> None:
    assert is_dockerfiles(reference) is own


def test_others_are_told_what_to_do() -> None:
    with pytest.raises(NotImplementedYet, match=r"frontend x/y, which app\.hlb:1 asks for, is not implemented .* buildx create"):
        check_syntax(b"# syntax=x/y\nfs default() {}\n", "app.hlb", {})
    check_syntax(b"# syntax=docker/dockerfile:1\nFROM a\n", "Dockerfile", {})
    check_syntax(b"# syntax=x/y\nFROM a\n", "Dockerfile", {"build-arg:BUILDKIT_SYNTAX": "docker/dockerfile:1"})
    for name, opts in (
        ("gateway.v0", {"source": "x/y"}), ("gateway.v0", {}), ("other.v0", {}), ("dockerfile.v0", {"build-arg:BUILDKIT_SYNTAX": "x/y"}),
    ):  # fmt: skip
        with pytest.raises(NotImplementedYet):
            check_frontend(name, opts)
    check_frontend("dockerfile.v0", {})
    check_frontend("gateway.v0", {"source": "docker/dockerfile:1"})
