"""The planner: stages, scopes of ARG and ENV, triggers, what is refused. Values in, values out."""

from __future__ import annotations

from typing import Any

import pytest

from dockyard.build.dockerfile.parser import SyntaxProblem, parse
from dockyard.build.model import BaseImage, Copy, Exec, Graph, Request
from dockyard.build.plan import NeedImages, plan
from dockyard.errors import DockyardError

HOST = "linux/amd64"


def graph(text: str, config: dict[str, Any] | None = None, **request: Any) -> Graph:
    base = BaseImage("base", "sha256:1", {"config": config or {"Env": ["PATH=/bin"]}}, ("sha256:d",))
    images = {(ref, HOST): base for ref in ("base", "other", "base:1")}
    return plan(parse(text), Request(**request), images, HOST)


def execs(found: Graph) -> list[Exec]:
    return [s.operation for stage in found.stages for s in stage.steps if isinstance(s.operation, Exec)]


def test_only_what_the_target_needs_is_planned() -> None:
    text = "FROM base AS a\nRUN a\nFROM base AS unused\nRUN no\nFROM base AS c\nCOPY --from=a /x /y\n"
    found = graph(text)
    assert [s.name for s in found.stages] == ["a", "c"]
    assert found.stages[1].needs == {0}
    assert [s.name for s in graph(text, target="unused").stages] == ["unused"]


def test_images_are_asked_for_all_at_once() -> None:
    text = "FROM one AS a\nFROM two\nCOPY --from=a / /\nCOPY --from=three /x /y\n"
    with pytest.raises(NeedImages) as asked:
        plan(parse(text), Request(), {}, HOST)
    assert {ref for ref, _ in asked.value.refs} == {"one", "two", "three"}


def test_arg_scopes() -> None:
    found = graph(
        "ARG TAG=1\nARG G=global\nFROM base:$TAG\nRUN a\nARG G\nARG L=$G-local\nENV G2=$L L=env\nRUN b\n",
        build_args={"G": "given"},
    )
    first, second = execs(found)
    assert first.env == ("PATH=/bin",)
    assert second.env == ("PATH=/bin", "G2=given-local", "L=env", "G=given")


def test_one_instruction_sees_one_snapshot() -> None:
    found = graph("FROM base\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n")
    assert found.stages[0].config["Env"][1:] == ["abc=bye", "def=hello", "ghi=bye"]


def test_proxies_reach_the_process_but_not_key_or_history() -> None:
    found = graph("FROM base\nRUN x\n", build_args={"HTTP_PROXY": "http://secret"})
    (run,) = execs(found)
    assert run.env == ("PATH=/bin",)
    assert run.hidden_env == ("HTTP_PROXY=http://secret",)
    assert found.warnings == ()
    assert "secret" not in found.stages[0].steps[0].history


def test_unused_build_args_are_told() -> None:
    assert graph("FROM base", build_args={"X": "1"}).warnings == (
        "[Warning] One or more build-args [X] were not consumed",
    )


def test_platform_args() -> None:
    (run,) = execs(graph("FROM --platform=$BUILDPLATFORM base\nARG TARGETARCH BUILDOS\nRUN x"))
    assert run.env[1:] == ("TARGETARCH=amd64", "BUILDOS=linux")


def test_config_instructions() -> None:
    config = dict(graph(
        "FROM base\nEXPOSE 80 90-91/udp\nVOLUME /a /b\nUSER u:g\nWORKDIR /x\nWORKDIR y\nLABEL a=1 b='2 3'\n"
        'SHELL ["/bin/bash","-c"]\nENTRYPOINT ["e"]\nCMD c d\nSTOPSIGNAL SIGQUIT\nHEALTHCHECK --retries=2 CMD h\n'
        "ONBUILD RUN t\n",
        labels={"z": "9"},
    ).stages[0].config)  # fmt: skip
    assert list(config["ExposedPorts"]) == ["80/tcp", "90/udp", "91/udp"]
    assert config["Volumes"] == {"/a": {}, "/b": {}}
    assert (config["User"], config["WorkingDir"]) == ("u:g", "/x/y")
    assert config["Labels"] == {"a": "1", "b": "2 3", "z": "9"}
    assert config["Cmd"] == ["/bin/bash", "-c", "c d"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "h"], "Retries": 2}
    assert config["OnBuild"] == ["RUN t"]


def test_entrypoint_drops_the_inherited_cmd_only() -> None:
    inherited = {"Cmd": ["old"]}
    assert "Cmd" not in graph('FROM base\nENTRYPOINT ["e"]', inherited).stages[0].config
    assert graph('FROM base\nCMD ["c"]\nENTRYPOINT ["e"]', inherited).stages[0].config["Cmd"] == ["c"]


def test_onbuild_triggers_run_first_and_vanish() -> None:
    found = graph("FROM base\nRUN own\n", {"OnBuild": ["RUN trigger", "COPY . /src"]})
    texts = [s.text for s in found.stages[0].steps]
    assert texts == ["ONBUILD RUN trigger", "ONBUILD COPY . /src", "RUN own"]
    assert "OnBuild" not in found.stages[0].config


def test_heredocs() -> None:
    found = graph(
        "FROM base\nENV v=1\nRUN <<E\n#!/bin/awk\nx\nE\nRUN <<E\na\nb\nE\nRUN cat <<E >/x\nq\nE\nCOPY <<E <<'F' /d/\n$v\nE\n$v\nF\n"
    )
    script, shell, piped = execs(found)
    assert script.args == ("/dev/pipes/E",)
    assert script.files == (("E", "#!/bin/awk\nx\n"),)
    assert shell.args == ("/bin/sh", "-c", "a\nb\n")
    assert piped.args[2] == "cat <<E >/x\nq\nE\n"
    copy = found.stages[0].steps[-1].operation
    assert isinstance(copy, Copy)
    assert copy.inline == (("E", "1\n"), ("F", "$v\n"))


def test_copy_from_expands_and_paths_are_absolute() -> None:
    found = graph("FROM base AS s1\nFROM base\nARG n=1\nWORKDIR /w\nCOPY --from=s$n a b/ ./c/\n")
    copy = found.stages[-1].steps[-1].operation
    assert isinstance(copy, Copy)
    assert (copy.origin.stage, copy.target) == (0, "/w/c/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM base\nCOPY a b /c", "more than one source file"),
        ("FROM base AS x\nCOPY --from=y / /\nFROM base AS y\nCOPY --from=x / /", "circular dependency: stage y"),
        ("FROM base AS x\nCOPY --from=x / /", "circular dependency: stage x"),
        ("FROM $NOPE", "should not be blank"),
        ("FROM base\nENV a=${b:?missing}", "b: missing"),
        ("FROM base\nEXPOSE x", "invalid containerPort: x"),
        ("RUN x\nFROM base", "no build stage in current context"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(SyntaxProblem, match=message):
        graph(text)


def test_unknown_target_suggests() -> None:
    with pytest.raises(DockyardError, match=r"failed to reach build target buidl in Dockerfile \(did you mean build"):
        graph("FROM base AS build\nFROM base", target="buidl")


def test_history_is_told_as_the_door_has_it() -> None:
    """moby's own builder: |N and the arguments before the command, #(nop) for what ran nothing; BuildKit: the instruction."""
    text = (
        "FROM scratch\nARG A=1\nENV B=2\nRUN x\nCOPY a b /c/\nWORKDIR /w\nCMD [\"p\", \"q r\"]\nEXPOSE 81 80/udp\n"
        "SHELL [\"/bin/bash\", \"-c\"]\nRUN [\"y\", \"z\"]\nUSER u\nVOLUME /v\n"
    )

    def given(*, classic: bool = False) -> Request:
        return Request(classic=classic, build_args={"A": "9"})

    classic = [step.history for step in plan(parse(text.encode()), given(classic=True), {}, "linux/amd64").stages[0].steps]
    assert classic == [
        "/bin/sh -c #(nop)  ARG A=1", "/bin/sh -c #(nop)  ENV B=2", "|1 A=9 /bin/sh -c x", "/bin/sh -c #(nop) COPY a b in /c/ ",
        "/bin/sh -c #(nop) WORKDIR /w", '/bin/sh -c #(nop)  CMD ["p" "q r"]', "/bin/sh -c #(nop)  EXPOSE 80/udp 81/tcp",
        "/bin/bash -c #(nop)  SHELL [/bin/bash -c]", "|1 A=9 y z", "/bin/bash -c #(nop)  USER u", "/bin/bash -c #(nop)  VOLUME [/v]",
    ]  # fmt: skip
    other = [step.history for step in plan(parse(text.encode()), given(), {}, "linux/amd64").stages[0].steps]
    assert other[0] == "ARG A=9"
    assert other[2] == "RUN |1 A=9 /bin/sh -c x # buildkit"
    assert other[3] == "COPY a b /c/ # buildkit"
