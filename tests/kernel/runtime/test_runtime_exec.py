"""Exec with the real runtime: streams, codes, terminals, failures, and nothing left of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest

from dockyard.errors import Conflict, System
from dockyard.model import new_id
from dockyard.runtime import ExecRequest, User, exit_code_for, plan_process

pytestmark = pytest.mark.root
LIMIT = 20


@pytest.fixture
async def running(runtime, box):
    container, bundle, spec = box.spec("/bin/sleep", "1000")
    await runtime.create(container, bundle, spec)
    await runtime.start(container)
    return container, bundle


@pytest.fixture
def execute(runtime, running):
    async def execute(*argv: str, tty: bool = False, size=None, user=User(), **streams):  # noqa: B008
        process = plan_process(
            argv, env=("PATH=/bin",), cwd="/", user=user, tty=tty, size=size, hostname="", capabilities=["CAP_KILL"],
            no_new_privileges=False,
        )  # fmt: skip
        return await runtime.exec_start(ExecRequest(running[0], new_id(), process, **streams), size=size)

    return execute


async def output(session) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    async with asyncio.timeout(LIMIT):
        async for frame in session.frames():
            out[frame.stream] = out.get(frame.stream, b"") + frame.data
    return out


async def test_streams_and_exit_code(execute, running, tmp_path):
    session = await execute("sh", "-c", "echo out; echo err >&2; id -u; exit 3", user=User(7))
    assert await output(session) == {1: b"out\n7\n", 2: b"err\n"}
    assert await session.wait() == 3
    assert os.listdir(tmp_path / "dockyard-test-state/execs" / running[0]) == []


async def test_stdin_to_its_end(execute):
    session = await execute("cat", stdin=True)
    reading = asyncio.ensure_future(output(session))
    await session.write(b"x" * 300_000)
    await session.write_eof()
    assert await reading == {1: b"x" * 300_000}
    assert await session.wait() == 0
    with pytest.raises(BrokenPipeError):
        await session.write(b"late")


async def test_terminal_has_its_size_from_the_start(execute):
    # crun gives the terminal no size; ours is there a moment later. Until then busybox's stty fails.
    script = "while ! stty size 2>/dev/null; do :; done; read x; stty size; echo $x"
    session = await execute("sh", "-c", script, tty=True, size=(33, 101), stdin=True)
    frames, text = session.frames(), b""
    async with asyncio.timeout(LIMIT):
        while b"\n" not in text:
            text += (await anext(frames)).data
        session.resize(10, 20)
        await session.write(b"typed\n")
        async for frame in frames:
            text += frame.data
    assert text.replace(b"\r", b"").split() == b"33 101 typed 10 20 typed".split()
    assert await session.wait() == 0


async def test_killed(execute):
    session = await execute("sleep", "1000", stdout=False, stderr=False)
    assert os.path.exists(f"/proc/{session.pid}")
    session.kill(signal.SIGTERM)
    assert await asyncio.wait_for(session.wait(), LIMIT) == 143
    with pytest.raises(Conflict):
        session.kill(signal.SIGTERM)


@pytest.mark.parametrize(("argv", "sentence", "code"), [
    (("nope",), 'exec: "nope": executable file not found in $PATH', 127),
    (("/etc",), 'exec: "/etc": permission denied', 126),
])  # fmt: skip
@pytest.mark.parametrize("tty", [False, True])
async def test_failures_in_dockers_words(execute, running, argv, sentence, code, tty, tmp_path):
    with pytest.raises(
        System, match="OCI runtime exec failed: exec failed: unable to start container process"
    ) as caught:
        await execute(*argv, tty=tty)
    assert sentence in str(caught.value)
    assert exit_code_for(str(caught.value)) == code
    assert os.listdir(tmp_path / "dockyard-test-state/execs" / running[0]) == []


async def test_a_daemon_that_keeps_the_pipe_does_not_keep_the_client(execute, monkeypatch):
    from dockyard.runtime import execs

    monkeypatch.setattr(execs, "OUTPUT_GRACE", 0.2)
    session = await execute("sh", "-c", "sleep 1000 & echo started")
    assert await output(session) == {1: b"started\n"}
    assert await session.wait() == 0


async def test_a_client_that_leaves_does_not_end_the_process(execute):
    session = await execute("sh", "-c", "seq 100000; exit 4")
    await session.close()
    assert await asyncio.wait_for(session.wait(), LIMIT) == 4


async def test_many_at_once_leave_nothing(execute, runtime):
    sessions = await asyncio.gather(*(execute("sh", "-c", f"exit {code}") for code in range(10)))
    assert [await session.wait() for session in sessions] == list(range(10))
    for session in sessions:
        assert await output(session) == {}


async def test_the_container_ends_while_an_exec_runs(execute, runtime, running):
    session = await execute("sleep", "1000")
    await runtime.kill(running[0])
    assert await asyncio.wait_for(session.wait(), LIMIT) == 137
    assert await output(session) == {}
    with pytest.raises(Conflict):
        await execute("true")


async def test_an_exec_given_up_midway_does_not_keep_the_container(execute, runtime, running):
    """A probe that is cancelled has its runc killed; what runc had begun must not stay in the container's namespace."""
    for milliseconds in range(0, 60, 3):
        task = asyncio.ensure_future(execute("true"))
        await asyncio.sleep(milliseconds / 1000)  # another stage of runc each time
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            session = await task
            await session.wait()
    ended = asyncio.ensure_future(runtime.wait_exit(running[0]))
    await runtime.kill(running[0])
    assert (await asyncio.wait_for(ended, LIMIT)).code == 137
