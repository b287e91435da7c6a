"""What ``create`` sends equals what the docker CLI sends, flag by flag (recorded.json, made by record.py)."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dockyard.cli import flags
from dockyard.cli.flags import UsageError
from dockyard.cli.request.create import document
from dockyard.cli.request.declaration import CREATE
from dockyard.client.client import _query


def _beside(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


record = _beside("record")
RECORDED = json.loads(record.RECORDED.read_text())


def made(line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, object]:
    monkeypatch.chdir(record.HERE)
    monkeypatch.delenv("ABSENT", raising=False)
    for key, value in record.ENVIRON.items():
        monkeypatch.setenv(key, value)
    options = flags.parse(flags.declared(CREATE), shlex.split(line), interspersed=False)
    query, body = document(options)
    return "/containers/create" + _query(query), json.loads(json.dumps(record.compact(body)))


@pytest.mark.parametrize("line", record.CASES)
def test_equals_what_docker_sends(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = RECORDED["cases"][line]
    target, body = made(line, monkeypatch)
    assert body == wanted["body"]
    assert target == wanted["target"]


VERBS = json.loads(record.RECORDED_VERBS.read_text())


@pytest.mark.parametrize("line", record.VERBS)
def test_other_verbs_ask_what_docker_asks(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dockyard.cli.main import run

    monkeypatch.chdir(record.HERE)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    with record.recorder(tmp_path) as (host, seen):
        monkeypatch.setenv("DOCKER_HOST", host)
        run(shlex.split(line))
    assert _sorted(record.asked(seen)) == _sorted(VERBS["cases"][line])


def _sorted(rows: list[Any]) -> list[Any]:
    """Attaching and waiting are asked in either order."""
    return sorted(rows, key=lambda row: row[:2])


def test_recording_is_what_this_docker_sends() -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker CLI here")
    version = subprocess.run([docker, "--version"], capture_output=True, text=True, check=True).stdout
    if RECORDED["docker"] not in version:
        pytest.skip(f"recorded from docker {RECORDED['docker']}, here is {version}")
    for line in record.CASES[::25]:
        (found,) = record.sent([docker, "create"], shlex.split(line))
        assert record.compact(json.loads(found.body)) == RECORDED["cases"][line]["body"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-p 99999:80 img", "invalid hostPort: 99999"),
        ("-p x:y:z:80 img", "invalid IP address: x:y"),
        ("-p 80-82:90-91 img", "invalid ranges specified for container and host Ports"),
        ("-p 80/foo img", "invalid proto: foo"),
        ("--expose 80:90 img", "invalid port format for --expose"),
        ("-m 1q img", "invalid size: '1q'"),
        ("--cpus x img", "failed to parse x as a rational number"),
        ("--cpus 0.0000000001 img", "value is too precise"),
        ("--health-interval 5 img", 'invalid duration "5"'),
        ("--no-healthcheck --health-cmd x img", "--no-healthcheck conflicts with --health-* options"),
        ("--restart always --rm img", "cannot specify both --restart and --rm"),
        ("--restart on-failure:x img", "maximum retry count must be an integer"),
        ("--mount type=bind,src=/a img", "target is required"),
        ("--mount type=bind,dst=/a,volume-nocopy img", "cannot mix 'volume-*' options with mount type 'bind'"),
        ("--mount what img", "must be a key=value pair"),
        ("--mount dst=/a,what=x img", "unexpected key 'what'"),
        ("-v :/data img", "empty section between colons"),
        ("-a stdfoo img", "valid streams are STDIN, STDOUT and STDERR"),
        ("--ulimit nofile img", "invalid ulimit argument: nofile"),
        ("--ulimit what=1 img", "invalid ulimit type: what"),
        ("--ulimit nofile=5:1 img", "soft limit must be less than or equal to hard limit"),
        ("--device /dev/a:/dev/b:q img", "invalid device specification"),
        ("--security-opt what img", "invalid --security-opt: what"),
        ("--security-opt seccomp=/nowhere/x img", "open /nowhere/x: no such file or directory"),
        ("--env-file /nowhere/x img", "open /nowhere/x: no such file or directory"),
        ("--network name=n --network host img", "cannot attach both user-defined and non-user-defined"),
        ("--network n --network n img", "specified multiple times"),
        ("--network name=n,alias=a --network-alias b img", "cannot specify both --network-alias and per-network alias"),
        ("--memory-swappiness 101 img", "Valid memory swappiness range is 0-100"),
        ("--memory-swappiness x img", "a number is expected"),
        ("--log-driver none --log-opt a=b img", "invalid logging opts for driver none"),
        ("--add-host what img", "bad format for add-host"),
        ("--sysctl what img", "must be key=value"),
    ],
)
def test_what_cannot_be_read_is_refused(line: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as refused:
        made(line, monkeypatch)
    assert told in str(refused.value)


def test_flags_come_after_files_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(record.HERE)
    options = flags.parse(flags.declared(CREATE), ["-e", "Z=1", "--env-file", "env.list", "-e", "A=2", "img"], interspersed=False)
    _, body = document(options, environ={"FROMENV": "x"})
    assert body["Env"] == ["A=1", "FROMENV=x", "B=with space  ", "D=a#b", "Z=1", "A=2"]
