"""A container's life on the real kernel: create, start, exit, kill, delete, and what a new daemon finds."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from dockyard.errors import Conflict, NotFound, System
from dockyard.kernel.process import run, strays
from dockyard.runtime import Alive, Exit, Lost, Runtime

pytestmark = pytest.mark.root


async def test_exit_code_and_log(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    created = await runtime.create(container, bundle, spec, log_path=f"{bundle}/log")
    assert created.pid > 0
    await runtime.start(container)
    ended = await runtime.wait_exit(container)
    assert (ended.code, ended.oom_killed, ended.error) == (7, False, "")
    with open(f"{bundle}/log") as log:
        assert sorted(line.split(" ", 1)[1] for line in log) == ["stderr F err\n", "stdout F out\n"]
    await runtime.delete(container)
    assert not os.path.exists(f"/proc/{created.pid}")


async def test_killed_by_signal(runtime, box):
    container, bundle, spec = box.spec("/bin/sleep", "1000")
    await runtime.create(container, bundle, spec)
    await runtime.start(container)
    await runtime.kill(container, signal.SIGKILL)
    assert (await runtime.wait_exit(container)).code == 137
    with pytest.raises(Conflict):
        await runtime.kill(container, signal.SIGTERM)


async def test_never_started_is_deleted(runtime, box):
    container, bundle, spec = box.spec("/bin/true")
    await runtime.create(container, bundle, spec)
    with pytest.raises(Conflict):
        await runtime.delete(container)
    await runtime.delete(container, force=True)
    with pytest.raises(NotFound):
        await runtime.start(container)


async def test_missing_program_is_dockers_sentence(runtime, box):
    container, bundle, spec = box.spec("nope")
    with pytest.raises(System, match=r'OCI runtime create failed: .*exec: "nope": executable file not found in \$PATH'):
        await runtime.create(container, bundle, spec)


async def test_orphans_that_have_ended_are_reaped(runtime):
    """Of a failed start, conmon's exit command is left to us; a daemon that keeps such zombies runs out of process numbers."""
    made = await run(["/bin/sh", "-c", "/bin/sleep 0.3 >/dev/null & echo $!"], timeout=10)
    orphan = int(made.stdout)
    assert orphan in strays()
    for _ in range(100):
        if orphan in strays():
            await asyncio.sleep(0.05)
    assert orphan not in strays()


async def test_paused_container_dies_when_killed(runtime, box):
    container, bundle, spec = box.spec("/bin/sleep", "1000")
    await runtime.create(container, bundle, spec)
    await runtime.start(container)
    await runtime.pause(container)
    await runtime.kill(container)
    assert (await runtime.wait_exit(container)).code == 137


async def test_a_new_daemon_takes_over(runtime, box, host_facts, tmp_path):
    container, bundle, spec = box.spec("/bin/sleep", "1000")
    created = await runtime.create(container, bundle, spec)
    second = Runtime(host_facts, str(tmp_path / "dockyard-test-state"))
    assert await second.recover(container, bundle) == Alive(created.pid, started=False, paused=False)
    await second.start(container)
    await second.kill(container)
    assert (await second.wait_exit(container)).code == 137
    await second.close()
    third = Runtime(host_facts, str(tmp_path / "dockyard-test-state"))
    found = await third.recover(container, bundle)
    assert isinstance(found, Exit)
    assert found.code == 137
    assert isinstance(await third.recover("unknown", "/nonexistent"), Lost)
    await third.close()


async def test_conmon_killed(runtime, box):
    container, bundle, spec = box.spec("/bin/sleep", "1000")
    created = await runtime.create(container, bundle, spec)
    await runtime.start(container)
    os.kill(created.conmon_pid, signal.SIGKILL)
    ended = await runtime.wait_exit(container)
    assert ended.code == 255
    assert "conmon" in ended.error


async def test_many_at_once(runtime, box):
    async def one(code: int) -> int:
        container, bundle, spec = box.spec("/bin/sh", "-c", f"exit {code}")
        await runtime.create(container, bundle, spec)
        await runtime.start(container)
        ended = await runtime.wait_exit(container)
        await runtime.delete(container)
        return ended.code

    assert await asyncio.gather(*(one(code) for code in range(12))) == list(range(12))


async def test_start_failure_says_why_after_dockers_sentence(runtime, box, rootfs):
    container, bundle, spec = box.spec("/etc/passwd")
    with pytest.raises(System) as caught:
        await runtime.create(container, bundle, spec)
    message = str(caught.value)
    assert (
        'exec: "/etc/passwd": permission denied: unknown (/etc/passwd may not be executed by anybody (mode 0644)'
        in message
    )
    assert "chmod +x" in message


async def test_why_a_container_ended_at_once(runtime, box, rootfs):
    (rootfs / "bin/wrong").write_bytes(b"#!/bin/nothing\n")
    (rootfs / "bin/wrong").chmod(0o755)
    container, bundle, spec = box.spec("/bin/wrong")
    await runtime.create(container, bundle, spec)
    await runtime.start(container)
    assert (await runtime.wait_exit(container)).code != 0
    assert (await runtime.explain(spec)).cause == "no-interpreter"
