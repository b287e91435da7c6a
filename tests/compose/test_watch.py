"""Changed files become steps: which service, which action, which paths."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from dockyard.compose.loader import Request, load
from dockyard.compose.watch import Step, archive, changed, rules_of, snapshot, steps


class One:
    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, path: str) -> str:
        return self._text

    def exists(self, path: str) -> bool:
        return False


def test_from_files_to_steps(tmp_path: Path) -> None:
    text = """
services:
  web:
    image: x
    develop: {watch: [
      {path: ./src, action: sync, target: /app, ignore: [node_modules/, '*.log']},
      {path: package.json, action: rebuild},
      {path: ./conf, action: sync+restart, target: /etc/app}]}
  job: {image: x, develop: {watch: [{path: ./src, action: sync+exec, target: /j, exec: {command: make test}}]}}
"""
    for name in ("src/a.py", "src/deep/b.py", "src/node_modules/m.js", "src/x.log", "conf/c", "package.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    rules = rules_of(load(Request([str(tmp_path / "c.yaml")], str(tmp_path), {}), One(text)))
    before = snapshot(rules)
    assert {os.path.relpath(path, tmp_path) for path in before} == {
        "src/a.py", "src/deep/b.py", "src/node_modules/m.js", "src/x.log", "conf/c", "package.json",
    }  # fmt: skip
    (tmp_path / "src/deep/b.py").write_text("changed, longer")
    (tmp_path / "src/x.log").write_text("noise, also longer")
    (tmp_path / "conf/c").unlink()
    files = changed(before, snapshot(rules))
    source = str(tmp_path / "src/deep/b.py")
    made = steps(rules, files)
    assert made == [
        Step("web", "sync", ((source, "/app/deep/b.py"),)),
        Step("web", "sync", ((str(tmp_path / "conf/c"), "/etc/app/c"),)),
        Step("web", "restart"),
        Step("job", "sync", ((source, "/j/deep/b.py"), (str(tmp_path / "src/x.log"), "/j/x.log"))),
        Step("job", "exec", exec={"command": ["make", "test"]}),
    ]
    tar, gone = archive([*made[0].files, *made[1].files])
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        assert [(entry.name, entry.uid) for entry in opened] == [("app/deep/b.py", 0)]
    assert gone == ["/etc/app/c"]


def test_a_rebuild_makes_the_rest_needless(tmp_path: Path) -> None:
    text = (
        "services: {a: {image: x, develop: {watch: [{path: p, action: rebuild}, {path: ., action: sync, target: /t}]}}}"
    )
    rules = rules_of(load(Request([str(tmp_path / "c.yaml")], str(tmp_path), {}), One(text)))
    assert steps(rules, [str(tmp_path / "p"), str(tmp_path / "q")]) == [Step("a", "rebuild")]
