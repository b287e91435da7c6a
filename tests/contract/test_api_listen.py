"""Where the engine listens, and what it does when it cannot."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dockyard.api.daemon import serve_until_signal
from dockyard.api.server import listen, make_server
from dockyard.api.settings import Settings
from dockyard.engine.dryrun import dry_engine
from dockyard.errors import DockyardError
from dockyard.http import Server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    engine = dry_engine(tmp_path / "state")
    made = make_server(engine, server_name="Docker/0 (linux)")
    yield made
    await made.close(1)
    await engine.close()


async def test_a_second_engine_leaves_the_first_ones_socket_and_pidfile(server: Server, tmp_path: Path) -> None:
    address, pidfile = f"unix://{tmp_path}/engine.sock", tmp_path / "pid"
    await listen(server, [address], group=None, tls=None)
    pidfile.write_text("1\n")
    second = dry_engine(tmp_path / "second")
    settings = dataclasses.replace(Settings(), hosts=(f"unix://{tmp_path}/own.sock", address), pidfile=str(pidfile), group="")
    with pytest.raises(DockyardError, match="another server answers there") as refused:
        await serve_until_signal(second, settings, second.close)
    assert f"DOCKER_HOST={address}" in refused.value.hint
    assert (tmp_path / "engine.sock").is_socket()
    assert pidfile.read_text() == "1\n"
    assert not (tmp_path / "own.sock").exists()


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1:2", "tcp://no.such.invalid:1", "tcp://127.0.0.1", "tcp://:99999", "udp://x:1"])
async def test_an_address_that_cannot_be_served_is_named(server: Server, host: str) -> None:
    with pytest.raises(DockyardError, match=f"^cannot listen on {host}: ") as refused:
        await listen(server, [host], group=None, tls=None)
    assert "dockyard engine -H" in refused.value.hint


def _engine(*words: str, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dockyard.cli", "engine", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **how)  # type: ignore[call-overload,no-any-return]


def test_a_data_root_that_cannot_be_made_is_the_engines_own_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = _engine("--data-root", str(tmp_path / "file/root"), "-H", f"unix://{tmp_path}/s", "--exec-root", str(tmp_path / "run"))
    assert ended.returncode == 1
    told = ended.stderr.splitlines()
    if os.geteuid() == 0:
        assert told[0].startswith(f"dockyard: cannot start the engine in {tmp_path}/file/root: ")
        assert "--data-root" in told[1]
    else:
        assert told[0] == "dockyard: cannot run containers: the engine needs root"
        assert "dockyard dryrun" in told[1]
