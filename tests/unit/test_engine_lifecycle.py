"""The engine's decisions, on the twins of the rooms below: states, exits, policies, removal, waiting, recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dockyard.engine import recovery
from dockyard.engine.containers import Containers
from dockyard.engine.errors import STORE_FULL
from dockyard.engine.execs import Execs
from dockyard.engine.fake import FakeNetwork, FakeRootfs, FakeRuntime, FakeVolumes
from dockyard.engine.kit import Kit
from dockyard.engine.model import Record
from dockyard.engine.settings import Defaults
from dockyard.engine.store import Store
from dockyard.errors import Conflict, Exhausted, InvalidParameter, NotFound, NotModified, System
from dockyard.lib import clock
from dockyard.model import ContainerConfig, HostConfig, NetworkingConfig, RestartPolicy
from dockyard.model.exchange import AttachQuery

IMAGE = "sha256:" + "ab" * 32


class World:
    """An engine on twins that can be closed and opened again, as after a crash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rootfs, self.network, self.runtime, self.volumes = (
            FakeRootfs(),
            FakeNetwork(),
            FakeRuntime(),
            FakeVolumes(),
        )
        self.rootfs.add_image("busybox:latest", IMAGE, ContainerConfig(cmd=["sh"], env=["PATH=/bin"]))
        self.open()

    def open(self) -> None:
        self.kit = Kit(
            root=self.root, store=Store(self.root / "engine.db"), rootfs=self.rootfs, volumes=self.volumes,
            network=self.network, runtime=self.runtime, boot_id="boot",
        )  # fmt: skip
        self.containers = Containers(self.kit, Defaults())
        self.execs = Execs(self.kit, self.containers)

    async def crash(self) -> None:
        for task in [*self.kit.supervisor._watchers]:
            task.cancel()
        self.kit.store.close()
        self.open()
        await recovery.recover(self.kit)

    async def create(self, *cmd: str, name: str = "", **host: object) -> str:
        made = await self.containers.create(
            name, ContainerConfig(image="busybox", cmd=list(cmd)), HostConfig(**host), NetworkingConfig(), ""
        )
        return made.id

    def status(self, ref: str) -> str:
        return self.containers.find(ref).record.state.status


@pytest.fixture
async def world(tmp_path: Path):
    made = World(tmp_path)
    yield made
    await made.kit.supervisor.close()
    made.kit.store.close()


async def finish(world: World, ref: str, condition: str = "not-running") -> int:
    async with asyncio.timeout(5):
        return (await (await world.containers.wait(ref, condition))).code


async def test_a_container_runs_and_its_exit_code_is_told(world: World) -> None:
    identity = await world.create("sh", "-c", "exit 7", name="seven")
    assert world.status("seven") == "created"
    waiting = await world.containers.wait("seven", "next-exit")
    await world.containers.start("seven")
    assert (await waiting).code == 7
    document = msgspec.json.decode(await world.containers.inspect(identity[:12], size=False))
    assert document["State"]["ExitCode"] == 7
    assert document["State"]["Status"] == "exited"
    assert identity not in world.network.up
    assert identity not in world.rootfs.mounted


async def test_attach_before_start_misses_nothing(world: World) -> None:
    await world.create("echo", "hello", name="one")
    stream = await world.containers.attach("one", AttachQuery(stream=True, stdout=True))
    await world.containers.start("one")
    assert [frame.data async for frame in stream.frames()] == [b"hello\n"]


async def test_start_twice_is_not_modified_and_stop_twice_too(world: World) -> None:
    await world.create("top", name="one")
    await world.containers.start("one")
    with pytest.raises(NotModified):
        await world.containers.start("one")
    await world.containers.stop("one", signal="", timeout=1)
    assert world.status("one") == "exited"
    assert world.containers.find("one").record.state.exit_code == 143
    with pytest.raises(NotModified):
        await world.containers.stop("one", signal="", timeout=1)


async def test_auto_remove_takes_everything_away(world: World) -> None:
    identity = await world.create("true", auto_remove=True)
    removed = await world.containers.wait(identity, "removed")
    await world.containers.start(identity)
    assert (await removed).code == 0
    with pytest.raises(NotFound):
        world.containers.find(identity)
    assert not world.rootfs.layers
    assert list(world.kit.store.records()) == []


async def test_a_name_is_held_and_given_back(world: World) -> None:
    first = await world.create("top", name="web")
    with pytest.raises(Conflict, match=f'"/web" is already in use by container "{first}"'):
        await world.create("top", name="web")
    await world.containers.remove("web", volumes=False, link=False, force=False)
    await world.create("top", name="web")


async def test_a_failed_start_undoes_all_and_says_127(world: World) -> None:
    identity = await world.create("doesnotexist", name="one")
    with pytest.raises(InvalidParameter, match="executable file not found"):
        await world.containers.start("one")
    record = world.containers.find("one").record
    assert (record.state.status, record.state.exit_code) == ("created", 127)
    assert identity not in world.network.up
    assert identity not in world.rootfs.mounted


@pytest.mark.parametrize("sysctls", [{}, {"net.ipv4.conf.eth0.forwarding": "1"}])
async def test_interfaces_are_there_before_the_program_and_a_failure_undoes_the_start(
    world: World, sysctls: dict[str, str]
) -> None:
    order: list[str] = []

    def noted(where: Any, name: str) -> None:
        real = getattr(where, name)

        async def call(*args: Any) -> Any:
            order.append(name)
            return await real(*args)

        setattr(where, name, call)

    noted(world.network, "wired")
    noted(world.runtime, "create")
    noted(world.runtime, "start")
    first = await world.create("top", sysctls=sysctls)
    await world.containers.start(first)
    assert order == (["wired", "create", "start"] if sysctls else ["create", "wired", "start"])

    async def refused(container_id: str) -> None:
        raise System("cannot connect the container: docker0 is missing")

    world.network.wired = refused  # type: ignore[method-assign]
    second = await world.create("top", name="two", sysctls=sysctls)
    with pytest.raises(System, match="docker0 is missing"):
        await world.containers.start(second)
    assert second not in world.network.up
    assert world.containers.find("two").record.state.status == "created"


async def test_running_container_is_removed_only_by_force(world: World) -> None:
    await world.create("top", name="one")
    await world.containers.start("one")
    with pytest.raises(Conflict, match="stop the container before removing or force remove"):
        await world.containers.remove("one", volumes=False, link=False, force=False)
    await world.containers.remove("one", volumes=False, link=False, force=True)
    with pytest.raises(NotFound):
        world.containers.find("one")


async def test_on_failure_restarts_up_to_its_limit(world: World) -> None:
    policy = RestartPolicy(name="on-failure", maximum_retry_count=1)
    await world.create("false", name="one", restart_policy=policy)
    await world.containers.start("one")
    assert await finish(world, "one") == 1
    assert world.containers.find("one").record.restart_count == 1


async def test_a_program_that_could_not_run_is_explained_by_inspect_and_not_by_wait(world: World) -> None:
    """The CLI takes an error of wait for its own failure (125): the exit code must stay the program's."""
    world.runtime.explanations["false"] = "false is built for arm64; use another image"
    await world.create("false", name="one")
    waiting = await world.containers.wait("one", "next-exit")
    await world.containers.start("one")
    async with asyncio.timeout(5):
        status = await waiting
    assert (status.code, status.error) == (1, "")
    document = msgspec.json.decode(await world.containers.inspect("one", size=False))
    assert document["State"]["Error"] == "false is built for arm64; use another image"


async def test_waiting_for_not_running_ends_before_a_restart(world: World) -> None:
    await world.create("false", name="one", restart_policy=RestartPolicy(name="always"))
    waiting = await world.containers.wait("one", "next-exit")
    stopped = world.containers.find("one").wait("removed")
    await world.containers.start("one")
    async with asyncio.timeout(5):
        await waiting
        await (await world.containers.wait("one", "not-running"))
    assert not stopped.done()
    await world.containers.remove("one", volumes=False, link=False, force=True)
    assert stopped.done()


async def test_an_attach_without_stream_is_the_past_alone(world: World) -> None:
    await world.create("echo", "hello", name="one")
    await world.containers.start("one")
    await finish(world, "one")
    stream = await world.containers.attach("one", AttachQuery(stdout=True, logs=True))
    async with asyncio.timeout(5):
        assert b"".join([frame.data async for frame in stream.frames()]) == b"hello\n"


async def test_statistics_end_with_the_container(world: World) -> None:
    await world.create("top", name="one")
    await world.containers.start("one")
    stream = await world.containers.stats("one", stream=True, one_shot=True)
    assert (await anext(stream))["name"] == "/one"
    await world.containers.remove("one", volumes=False, link=False, force=True)
    async with asyncio.timeout(5):
        assert [row async for row in stream] == []


async def test_a_link_is_removed_by_its_name(world: World) -> None:
    await world.create("top", name="db")
    await world.create("top", name="web", links=["db:store", "db:other"])
    await world.containers.remove("/web/store", volumes=False, link=True, force=False)
    assert world.containers.find("web").record.host.links == ["db:other"]
    with pytest.raises(NotFound, match="No such link: /web/store"):
        await world.containers.remove("web/store", volumes=False, link=True, force=False)


async def test_stop_ends_a_restarting_container(world: World) -> None:
    await world.create("false", name="one", restart_policy=RestartPolicy(name="always"))
    ended = await world.containers.wait("one", "next-exit")
    await world.containers.start("one")
    await ended
    await world.containers.stop("one", signal="", timeout=1)
    assert world.status("one") == "exited"


async def test_pause_forbids_exec_and_kill_continues(world: World) -> None:
    await world.create("top", name="one")
    await world.containers.start("one")
    await world.containers.pause("one")
    with pytest.raises(Conflict, match="is paused, unpause the container before exec"):
        await world.execs.create("one", {"Cmd": ["true"]})
    with pytest.raises(Conflict, match="is already paused"):
        await world.containers.pause("one")
    await world.containers.unpause("one")
    assert world.status("one") == "running"


async def test_exec_gives_output_and_code(world: World) -> None:
    await world.create("top", name="one")
    await world.containers.start("one")
    made = await world.execs.create("one", {"Cmd": ["sh", "-c", "echo out; exit 3"], "AttachStdout": True})
    stream = await world.execs.start(made, detach=False, tty=False, size=None)
    assert stream is not None
    assert [frame.data async for frame in stream.frames()] == [b"out\n"]
    assert (await world.execs.inspect(made))["ExitCode"] == 3


async def test_running_containers_survive_a_crash(world: World) -> None:
    identity = await world.create("top", name="one")
    await world.containers.start("one")
    await world.crash()
    assert world.status("one") == "running"
    await world.containers.stop("one", signal="", timeout=1)
    assert world.containers.find(identity).record.state.exit_code == 143


async def test_an_exit_during_the_crash_is_settled_with_its_code(world: World) -> None:
    identity = await world.create("top", name="one")
    await world.containers.start("one")
    for task in [*world.kit.supervisor._watchers]:
        task.cancel()
    await asyncio.sleep(0)
    await world.runtime.kill(identity, 9)
    await world.crash()
    record = world.containers.find("one").record
    assert (record.state.status, record.state.exit_code) == ("exited", 137)


async def test_half_made_containers_are_taken_away(world: World) -> None:
    identity = await world.create("top", name="one")
    container = world.containers.find("one")
    container.save(container.record.replace(pending="create"))
    await world.crash()
    with pytest.raises(NotFound):
        world.containers.find(identity)
    await world.create("top", name="one")


async def test_filters_names_and_limits_of_the_list(world: World) -> None:
    for number in range(3):
        await world.create("top", name=f"c{number}")
    await world.containers.start("c1")

    async def names(**query: object) -> list[str]:
        terms = {"all": False, "limit": 0, "size": False, "filters": {}} | query
        return [row["Names"][0] for row in msgspec.json.decode(await world.containers.list(**terms))]

    assert await names() == ["/c1"]
    assert await names(all=True) == ["/c2", "/c1", "/c0"]
    assert await names(limit=1) == ["/c2"]
    assert await names(filters={"status": ["created"]}) == ["/c2", "/c0"]
    assert await names(all=True, filters={"name": ["c[12]"]}) == ["/c2", "/c1"]
    with pytest.raises(InvalidParameter, match="invalid filter 'status=bogus'"):
        await names(filters={"status": ["bogus"]})


async def test_events_before_now_need_a_since_or_an_until(world: World) -> None:
    world.kit.events.emit("container", "start", "one")
    now = clock.now()

    async def seen(since: int, until: int) -> list[str]:
        return [event["Action"] async for event in await world.kit.events.stream(since, until, {})]

    assert await seen(1, now) == await seen(0, now) == ["start"]
    live = await world.kit.events.stream(0, 0, {})
    world.kit.events.emit("container", "die", "one")
    world.kit.events.close()
    assert [event["Action"] async for event in live] == ["die"]


async def test_a_link_to_a_stopped_container_hinders_on_the_default_bridge_only(world: World) -> None:
    await world.create("sh", name="db")
    await world.create("sh", name="web", links=["db:data"])
    with pytest.raises(Conflict, match="Cannot link to a non running container"):
        await world.containers.start("web")
    await world.create("sh", name="other", links=["db:data"], network_mode="shop_default")
    await world.containers.start("other")
    assert world.status("other") == "running"


def test_a_runtime_that_does_not_work_here_is_refused() -> None:
    defaults = Defaults(runtime="crun", runtimes=frozenset({"crun", "runc"}))
    assert [defaults.chosen_runtime(name) for name in ("", "runc")] == ["crun", "runc"]
    with pytest.raises(InvalidParameter, match="unknown or invalid runtime name: nope"):
        defaults.chosen_runtime("nope")


async def test_a_network_that_does_not_exist_is_refused_at_start_and_may_come_later(world: World) -> None:
    """A 404 of create is "no such image" to the docker CLI, which would pull; dockerd refuses the start."""
    known = {"bridge": "b" * 64}

    def identify(name: str) -> str:
        if name not in known:
            raise NotFound(f"network {name} not found")
        return known[name]

    world.network.identify = identify
    identity = await world.create("top", name="one", network_mode="nope")
    with pytest.raises(NotFound, match=r"^network nope not found$"):
        await world.containers.start("one")
    assert world.status("one") == "created"
    await world.crash()
    known["nope"] = "c" * 64
    await world.containers.start("one")
    assert world.network.networks_of(identity) == ["nope"]
    assert world.containers.find("one").record.networking is None
    await world.create("top", name="two", network_mode="other", auto_remove=True)
    with pytest.raises(NotFound, match="network other not found"):
        await world.containers.start("two")
    with pytest.raises(NotFound, match="No such container: two"):
        world.containers.find("two")


async def test_a_start_that_fails_ends_the_wait_without_an_error_of_its_own(world: World) -> None:
    """The docker CLI prints an error of wait beside the start's own, on two lines that say the same."""
    await world.create("top", name="one", network_mode="nope")
    waiting = await world.containers.wait("one", "next-exit")

    def identify(name: str) -> str:
        raise NotFound(f"network {name} not found")

    world.network.identify = identify
    world.containers.find("one").save(world.containers.find("one").record.replace(networking=NetworkingConfig()))
    with pytest.raises(NotFound):
        await world.containers.start("one")
    async with asyncio.timeout(5):
        status = await waiting
    assert (status.code, status.error) == (128, "")


async def test_a_full_disk_keeps_no_end_from_being_told_and_no_container_from_being_removed(world: World) -> None:
    """Until the disk has room nothing can be recorded; the reserve is that room."""
    reserve, put, delete = world.kit.reserve, world.kit.store.put, world.kit.store.delete
    refused: list[str] = []

    def full(work: Callable[[Record], None]) -> Callable[[Record], None]:
        def guarded(record: Record) -> None:
            if (world.root / "reserve").exists():
                refused.append(record.name)
                raise STORE_FULL(name=record.name)
            work(record)

        return guarded

    async def end(name: str) -> int:
        waiting = await world.containers.wait(name, "next-exit")
        await world.containers.start(name)
        reserve.hold()
        world.kit.store.put, world.kit.store.delete = full(put), full(delete)
        try:
            async with asyncio.timeout(10):
                await world.containers.kill(name, "KILL")
                return (await waiting).code
        finally:
            world.kit.store.put, world.kit.store.delete = put, delete

    await world.create("top", name="kept")
    await world.create("top", name="gone", auto_remove=True)
    assert await end("kept") == 137
    assert world.status("kept") == "exited"
    removed = world.containers.find("gone").wait("removed")
    assert await end("gone") == 137
    async with asyncio.timeout(10):
        await removed
    assert refused == ["kept", "gone"]
    reserve.hold()
    world.kit.store.put = full(put)
    await world.containers.remove("kept", volumes=False, link=False, force=False)
    assert not world.kit.containers
    assert refused == ["kept", "gone", "kept"]
    assert (world.root / "reserve").exists()  # held again, now that there is room
    with pytest.raises(Exhausted, match="no space left on device"):
        await world.create("top", name="new")  # what takes room is refused at once
    assert (world.root / "reserve").exists()


async def test_an_end_on_a_full_disk_is_told_at_once_and_written_down_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dockyard.engine.lifecycle.FULL_DISK_PAUSE", 0.01)
    await world.create("top", name="one")
    waiting = await world.containers.wait("one", "next-exit")
    await world.containers.start("one")
    put, tries, room = world.kit.store.put, asyncio.Semaphore(0), asyncio.Event()

    def full(record: Record) -> None:
        if not room.is_set():
            tries.release()
            raise STORE_FULL(name=record.name)
        put(record)

    world.kit.reserve.spend()
    monkeypatch.setattr(world.kit.store, "put", full)
    await world.runtime.kill(world.containers.find("one").record.id, 9)
    async with asyncio.timeout(10):
        assert (await waiting).code == 137
        assert world.status("one") == "exited"
        for _ in range(3):
            await tries.acquire()
        assert [item.state.status for item in world.kit.store.records()] == ["running"]
        room.set()
        await world.containers.find("one").watcher
    assert [item.state.status for item in world.kit.store.records()] == ["exited"]


@pytest.mark.parametrize(
    ("mode", "word"), [("network_mode", "network"), ("pid_mode", "PID"), ("ipc_mode", "IPC")], ids=lambda value: str(value)
)
async def test_namespaces_of_a_container_that_does_not_run_cannot_be_joined(world: World, mode: str, word: str) -> None:
    owner = await world.create("top", name="owner", ipc_mode="shareable")
    await world.create("top", name="guest", **{mode: "container:owner"})
    with pytest.raises(Conflict, match=f"cannot join {word} of a non running container: {owner}"):
        await world.containers.start("guest")
    await world.containers.remove("owner", volumes=False, link=False, force=True)
    with pytest.raises(NotFound, match=f"No such container: {owner}"):
        await world.containers.start("guest")
