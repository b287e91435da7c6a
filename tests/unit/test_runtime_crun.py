"""What crun is told in other words than runc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dockyard.kernel.cgroup import Cgroups
from dockyard.runtime.crun import Dialect
from dockyard.runtime.messages import exit_code_for, translate


def spec(**linux: Any) -> dict[str, Any]:
    return {"process": {"args": ["x"]}, "mounts": [], "linux": {"namespaces": [], **linux}}


def test_only_directories_are_mounted_recursively_read_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = ["rbind", "ro", "rro", "rprivate"]
    wished = spec() | {"mounts": [{"source": str(path), "options": options} for path in (tmp_path, tmp_path / "file")]}
    folder, file = Dialect().spec(wished)["mounts"]
    assert folder["options"] == options
    assert file["options"] == ["rbind", "ro", "rprivate"]
    assert wished["mounts"][1]["options"] == options, "the plan is not touched"


def test_no_limit_of_processes_is_no_word(tmp_path: Path) -> None:
    dialect = Dialect()
    assert dialect.spec(spec(resources={"pids": {"limit": -1}, "cpu": {}}))["linux"]["resources"] == {"cpu": {}}
    assert dialect.spec(spec(resources={"pids": {"limit": 5}}))["linux"]["resources"] == {"pids": {"limit": 5}}
    (tmp_path / "group").mkdir()
    groups = Cgroups("v1", {"pids": str(tmp_path)}, frozenset(("pids",)))
    assert dialect.update(groups, "/group", {"pids": {"limit": -1}, "cpu": {"shares": 2}}) == {"cpu": {"shares": 2}}
    assert (tmp_path / "group/pids.max").read_text() == "max"
    assert dialect.update(groups, "/group", {"pids": {"limit": 7}}) == {"pids": {"limit": 7}}


@pytest.mark.parametrize(
    ("told", "ours", "code"),
    [
        ("open executable: Operation not permitted", 'exec: "/etc": permission denied', 126),
        ("open executable `/x`: Permission denied", 'exec: "/x": permission denied', 126),
        ("executable file `nope` not found in $PATH: No such file or directory", 'exec: "nope": executable file not', 127),
    ],
)  # fmt: skip
def test_errors_are_runcs_and_name_the_program(told: str, ours: str, code: int) -> None:
    assert ours in translate(told, "/etc")
    assert exit_code_for(translate(told, "/etc")) == code
