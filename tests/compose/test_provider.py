"""Services of other programs: what they are asked, what comes of their answers, and what is wrong with an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dockyard.client import Client

Compose = Callable[..., str]
FILE = """
services:
  web: {image: "alpine:latest", command: sleep 1000, depends_on: [db], environment: {PLAIN: old}}
  other: {image: "alpine:latest", command: sleep 1000}
  db: {provider: {type: clouddb, options: {size: 3, tag: [a, b], odd: x}}}
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A program that writes down how it was called and answers as told."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(*answers: str, status: int = 0, metadata: str = "") -> Path:
        body = "\n".join(f"echo '{answer}'" for answer in answers)
        described = f"echo '{metadata}'; exit 0" if metadata else "exit 1"
        script = f'#!/bin/sh\nif [ "$2" = metadata ]; then {described}; fi\necho "$@" >> {calls}\n{body}\nexit {status}\n'
        (folder / "clouddb").write_text(script)
        (folder / "clouddb").chmod(0o755)
        return calls

    return make


def message(kind: str, text: str) -> str:
    return json.dumps({"type": kind, "message": text})


def test_a_provider_is_asked_and_its_variables_reach_who_depends_on_it(
    compose: Compose, client: Client, program: Callable[..., Path]
) -> None:
    calls = program(message("info", "making"), message("setenv", "URL=a=b"), message("rawsetenv", "PLAIN=new"), message("debug", "x"))
    told = compose("up", "-d", file=FILE)
    assert 'provider "db" overrides environment variable "PLAIN" in service "web"' in told
    environment = client.request("GET", "/containers/shop-web-1/json")["Config"]["Env"]
    assert {"DB_URL=a=b", "PLAIN=new"} <= set(environment)
    assert "DB_URL=a=b" not in client.request("GET", "/containers/shop-other-1/json")["Config"]["Env"]
    assert "shop-web-1  Running" in compose("up", "-d"), "the same answers change nothing"
    compose("down")
    first, again, down = calls.read_text().splitlines()
    assert first == again == "compose --project-name=shop up --size=3 --tag=a --tag=b --odd=x db"
    assert down == first.replace(" up ", " down ")


def test_options_are_those_that_the_program_knows(compose: Compose, program: Callable[..., Path]) -> None:
    known = {"description": "d", "up": {"parameters": [{"name": "size", "required": True}]}}
    calls = program(metadata=json.dumps(known))
    compose("up", "-d", file=FILE)
    assert calls.read_text() == "compose --project-name=shop up --size=3 db\n"
    known["up"] = {"parameters": [{"name": "region", "required": True}]}
    program(metadata=json.dumps(known))
    assert 'required parameter "region" is missing' in compose("up", "-d", status=1)


@pytest.mark.parametrize(
    ("answers", "status", "wrong"),
    [
        ((message("error", "no money"),), 0, "no money"), (("hello",), 0, "its answer is no message"), ((), 3, "ended with 3"),
        ((message("sing", "la"),), 0, "its answer is no message"), ((message("setenv", "no sign"),), 0, "no message"),
        (("[1]",), 0, "no message"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_nothing_is_made(
    answers: tuple[str, ...], status: int, wrong: str, compose: Compose, program: Callable[..., Path]
) -> None:
    program(*answers, status=status)
    told = compose("up", "-d", status=1, file=FILE)
    assert 'cannot provide service "db"' in told
    assert wrong in told
    program()
    assert compose("ps", "-aq") == ""


@pytest.mark.parametrize("kind", ["absent", "compose", "../bin/sh"])
def test_a_program_that_is_not_there(kind: str, compose: Compose, program: Callable[..., Path]) -> None:
    program()
    told = compose("up", "-d", status=1, file=FILE.replace("clouddb", kind))
    assert "there is no program" in told
    compose("--dry-run", "up", file=FILE)
