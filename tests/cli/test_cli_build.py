"""``dockyard build``: what is sent, what is shown, and the answers that need no engine."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dockyard.cli import flags
from dockyard.cli.buildview import BuildView, explained
from dockyard.cli.commands import build
from dockyard.cli.context import open_context
from dockyard.cli.flags import UsageError
from dockyard.cli.main import run
from dockyard.errors import NotFound


def members(context: Any) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(context.tar()))) as archive:
        return {member.name: member for member in archive}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (
        ("Dockerfile", "FROM a\n"), ("keep/a", "1"), ("drop/b", "2"), ("drop/back", "3"), (".dockerignore", "drop\n!drop/back\nDockerfile\n"),
    ):  # fmt: skip
        path = tmp_path / "context" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "context" / "link").symlink_to("keep/a")
    return tmp_path / "context"


def test_the_context_leaves_out_what_is_ignored_but_never_the_dockerfile(folder: Path) -> None:
    os.chmod(folder / "keep" / "a", 0o755)
    found = members(open_context(str(folder), ""))
    assert sorted(found) == [".dockerignore", "Dockerfile", "drop/back", "keep", "keep/a", "link"]
    assert found["keep/a"].mode == 0o755
    assert (found["keep/a"].uid, found["keep/a"].gid) == (0, 0)
    assert found["link"].linkname == "keep/a"


def test_a_dockerfile_from_elsewhere_travels_under_a_spare_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "Other").write_text("FROM b\n")
    (tmp_path / "Other.dockerignore").write_text("keep\n")
    context = open_context(str(folder), str(tmp_path / "Other"))
    assert context.dockerfile.startswith(".dockerfile.")
    found = members(context)
    assert found[context.dockerfile].size == 7
    assert "keep" not in found
    assert "drop" in found  # the other ignore file counts
    typed = open_context(str(folder), "-", b"FROM c\n")
    assert typed.text == b"FROM c\n"
    with pytest.raises(NotFound, match="not found"):
        open_context(str(folder / "nowhere"), "")
    with pytest.raises(NotFound, match="Dockerfile path"):
        open_context(str(folder), str(folder / "Missing"))


def wishes(*words: str) -> dict[str, list[str]]:
    options = flags.parse(flags.declared(build.FLAGS["build"]), [*words, "."])
    found: dict[str, list[str]] = {}
    for name, value in build._wishes(options, build.build_args(options.all("build-arg"))):
        found.setdefault(name, []).append(value)
    return found


def test_flags_become_the_query_of_post_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "env")
    monkeypatch.delenv("NOT_HERE", raising=False)
    found = wishes(
        "-t", "a:1", "-t", "b", "--build-arg", "X=1", "--build-arg", "FROM_HERE", "--build-arg", "NOT_HERE", "--label", "l=v",
        "-m", "1g", "--ulimit", "nofile=10:20", "--network", "mine", "--no-cache", "--add-host", "h:1.2.3.4",
    )  # fmt: skip
    assert found["t"] == ["a:1", "b"]
    assert json.loads(found["buildargs"][0]) == {"X": "1", "FROM_HERE": "env", "NOT_HERE": None}
    assert json.loads(found["ulimits"][0]) == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert found["memory"] == [str(1 << 30)]
    assert (found["networkmode"], found["nocache"], found["extrahosts"]) == (["mine"], ["1"], ["h:1.2.3.4"])
    assert "steps" not in wishes("-q")
    with pytest.raises(UsageError, match="soft"):
        wishes("--ulimit", "nofile")


def row(**aux: Any) -> dict[str, Any]:
    return {"id": "dockyard.step", "aux": aux}


MESSAGES = [
    row(number=1, total=2, stage="0", name="FROM a", place=1, count=2, state="queued"),
    row(number=2, total=2, stage="0", name="RUN false", place=2, count=2, state="queued"),
    row(number=1, state="running"),
    {"stream": "Step 1/2 : FROM a\n"},
    row(number=1, state="done", cached=True, seconds=0, why="cached", error=""),
    {"stream": " ---> 0123\n"},
    row(number=2, state="running"),
    {"stream": "Step 2/2 : RUN false\n"},
    {"stream": "about to fail\n"},
    row(number=2, state="failed", cached=False, seconds=1.25, why="file x changed", error="boom"),
    {"errorDetail": {"message": "boom", "hint": "look"}, "error": "boom"},
]


def test_steps_are_lines_and_a_failed_one_shows_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = io.StringIO()
    view = BuildView(plain=False, quiet=False, out=out)
    view.show(MESSAGES)
    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines] == [
        ["[1/2]", "FROM", "a", "CACHED"], ["[2/2]", "RUN", "false", "FAILED"], ["about", "to", "fail"],
    ]  # fmt: skip
    assert [len(line) for line in lines[:2]] == [39, 39]  # the last column would wrap
    assert (view.error, view.hint) == ("boom", "look")
    told = explained(view.steps.values(), 0)
    assert told[2].split() == ["2/2", "[2/2]", "RUN", "false", "failed", "1.2s", "file", "x", "changed"]


def test_the_plain_view_is_the_transcript_and_the_quiet_one_the_id() -> None:
    out = io.StringIO()
    BuildView(plain=True, quiet=False, out=out).show(MESSAGES)
    assert out.getvalue() == "Step 1/2 : FROM a\n ---> 0123\nStep 2/2 : RUN false\nabout to fail\n"
    quiet = BuildView(plain=False, quiet=True, out=io.StringIO())
    quiet.show([{"stream": "sha256:abc\n"}])
    assert quiet.image == "sha256:abc"


def test_checks_need_no_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a AS Base\nENV a b\nCMD echo hi\n")
    assert run(["build", "--check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    for rule in ("StageNameCasing", "LegacyKeyValueFormat", "JSONArgsRecommended"):
        assert f"WARNING: {rule} - https://docs.docker.com/go/dockerfile/rule/" in out
    assert "   2 | >>> ENV a b" in out
    (tmp_path / "Dockerfile").write_text("# check=skip=JSONArgsRecommended\nFROM a\nCMD echo hi\n")
    assert run(["build", "--check", str(tmp_path)]) == 0
    assert "no warnings" in capsys.readouterr().out
    assert run(["build", "--call", "targets", "--json", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["targets"][0]["base"] == "a"
    (tmp_path / "Dockerfile").write_text("FORM a\n")
    assert run(["build", "--check", str(tmp_path)]) == 1
    assert "did you mean FROM" in capsys.readouterr().err


def test_an_unknown_call_names_those_that_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a\n")
    assert run(["build", "--call", "dance", str(tmp_path)]) == 1
    assert "check, outline or targets" in capsys.readouterr().err
