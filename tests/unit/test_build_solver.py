"""The solver on twins: what runs, what is shared, what is cancelled, what is given back. No root, no kernel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dockyard.build import service
from dockyard.build.fake import FakeExecutor, FakeImages, FakeLayers, FakeNetworks, FakeSession, FakeSource
from dockyard.build.model import Request
from dockyard.build.ports import Output, Process
from dockyard.build.progress import Event, VertexDone
from dockyard.build.records import Records
from dockyard.build.service import Builder, BuilderSettings, Result
from dockyard.errors import Cancelled, DockyardError, NotFound, System


def script(process: Process, output: Output) -> int:
    """``write NAME TEXT``, ``fail CODE``, ``say TEXT``: the last word of ``/bin/sh -c``."""
    verb, _, rest = process.args[-1].partition(" ")
    if verb == "write":
        name, _, text = rest.partition(" ")
        (process.root / name).write_text(text)
    elif verb == "say":
        output(1, rest.encode())
    return int(rest) if verb == "fail" else 0


@dataclass
class Lab:
    directory: Path
    layers: FakeLayers
    images: FakeImages
    executor: FakeExecutor
    networks: FakeNetworks
    builder: Builder
    sources: list[FakeSource] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    async def build(self, text: str, files: dict[str, bytes] | None = None, **request: Any) -> Result:
        source = FakeSource(self.directory, text, files)
        self.sources.append(source)
        self.events.clear()
        return await self.builder.build(Request(**request), source, FakeSession(), self.events.append)

    @property
    def commands(self) -> list[str]:
        return [process.args[-1] for process in self.executor.ran]

    def why(self) -> list[str]:
        return [event.why for event in self.events if isinstance(event, VertexDone) and event.why]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    layers = FakeLayers(tmp_path / "layers")
    images = FakeImages(layers)
    images.add("base", {"etc/passwd": b"root:x:0:0::/root:/bin/sh\n"}, {"Env": ["PATH=/bin"]})
    executor, networks = FakeExecutor(script), FakeNetworks()
    records = Records(tmp_path / "cache.db")
    layers.holders.append(records.layers)
    builder = Builder(tmp_path / "build", images, layers, executor, networks, records)
    made = Lab(tmp_path, layers, images, executor, networks, builder)
    yield made
    await builder.close()
    for source in made.sources:
        source.close()
    assert not layers.roots, "a root was not given back"
    assert not networks.attached, "a network place was not given back"
    assert not layers.leases
    assert not list((tmp_path / "build/run").iterdir())


async def test_steps_make_layers_and_a_config(lab: Lab) -> None:
    result = await lab.build("FROM base\nRUN write a 1\nENV X=1\nCOPY f /f\nCMD x\n", {"f": b"f"}, tags=("t",))
    document = json.loads(result.config)
    assert len(result.diff_ids) == 3
    assert document["rootfs"]["diff_ids"] == list(result.diff_ids)
    assert [row.get("empty_layer", False) for row in document["history"]] == [False, True, False, True]
    assert document["config"]["Env"] == ["PATH=/bin", "X=1"]
    assert lab.images.tags == {"docker.io/library/t:latest": result.image}


async def test_nothing_changed_nothing_runs(lab: Lab) -> None:
    text = "FROM base\nRUN write a 1\nCOPY f /f\n"
    first = await lab.build(text, {"f": b"1"})
    assert (await lab.build(text, {"f": b"1"})).image == first.image
    assert lab.commands == ["write a 1"]
    assert lab.why() == ["cached", "cached"]


async def test_why_a_step_ran(lab: Lab) -> None:
    text = "FROM base\nARG V\nRUN write a {}\nCOPY f g /d/\n"
    await lab.build(text.format(1), {"f": b"1", "g": b"1"}, build_args={"V": "1"}, tags=("t",))
    assert lab.why() == ["it has not been built here before"] * 3
    await lab.build(text.format(1), {"f": b"2", "g": b"1"}, build_args={"V": "1"}, tags=("t",))
    assert lab.why() == ["cached", "cached", "file f changed"]
    await lab.build(text.format(1), {"f": b"2", "g": b"1"}, build_args={"V": "2"}, tags=("t",))
    assert lab.why()[1] == "variable V changed"
    await lab.build(text.format(2), {"f": b"2", "g": b"1"}, build_args={"V": "2"}, tags=("t",))
    assert lab.why() == ["cached", "the instruction changed", "what it stands on changed"]


async def test_unused_stages_do_not_run(lab: Lab) -> None:
    await lab.build("FROM base AS unused\nRUN fail 1\nFROM base\nRUN write a 1\n")
    assert lab.commands == ["write a 1"]


async def test_copy_between_stages_is_found_without_opening_a_file(lab: Lab) -> None:
    text = "FROM base AS one\nRUN write a 1\nFROM base\nCOPY --from=one /a /b\n"
    await lab.build(text)
    count = len(list(lab.layers.directory.iterdir()))
    await lab.build(text)
    assert len(list(lab.layers.directory.iterdir())) == count


async def test_concurrent_builds_share_a_running_step(lab: Lab) -> None:
    lab.executor.gate = asyncio.Event()
    builds = [asyncio.create_task(lab.build("FROM base\nRUN write a 1\n")) for _ in range(5)]
    await _until(lambda: bool(lab.executor.ran))
    await asyncio.sleep(0)
    lab.executor.gate.set()
    results = await asyncio.gather(*builds)
    assert len({result.image for result in results}) == 1
    assert lab.commands == ["write a 1"]


async def test_one_that_leaves_does_not_stop_a_shared_step(lab: Lab) -> None:
    lab.executor.gate = asyncio.Event()
    first = asyncio.create_task(lab.build("FROM base\nRUN write a 1\n"))
    await _until(lambda: bool(lab.executor.ran))
    second = asyncio.create_task(lab.build("FROM base\nRUN write a 1\n"))
    await _until(lambda: _listeners(lab) == 2)
    first.cancel()
    await asyncio.wait({first})
    lab.executor.gate.set()
    assert (await second).diff_ids
    assert lab.commands == ["write a 1"]


async def test_the_last_one_that_leaves_does(lab: Lab) -> None:
    lab.executor.gate = asyncio.Event()
    build = asyncio.create_task(lab.build("FROM base\nRUN write a 1\n"))
    await _until(lambda: bool(lab.executor.ran))
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert not len(lab.builder._tools.shared)
    assert not lab.layers.roots


async def test_cancel_by_id(lab: Lab) -> None:
    lab.executor.gate = asyncio.Event()
    build = asyncio.create_task(lab.build("FROM base\nRUN write a 1\n", id="mine"))
    await _until(lambda: bool(lab.executor.ran))
    lab.builder.cancel("mine")
    with pytest.raises(Cancelled, match="build cancelled"):
        await build
    with pytest.raises(NotFound):
        lab.builder.cancel("mine")


async def test_a_failure_is_told_and_not_remembered(lab: Lab) -> None:
    for _ in range(2):
        with pytest.raises(System, match="returned a non-zero code: 3"):
            await lab.build("FROM base\nRUN fail 3\n")
    assert lab.commands == ["fail 3"] * 2


async def test_a_failing_stage_ends_the_others(lab: Lab) -> None:
    text = "FROM base AS a\nRUN write a 1\nFROM base\nRUN fail 2\nCOPY --from=a /a /a\n"
    gate = lab.executor.gate = asyncio.Event()

    def failing(process: Process, output: Output) -> int:
        return 2

    build = asyncio.create_task(lab.build(text))
    await _until(lambda: len(lab.executor.ran) == 2)
    lab.executor.script = failing
    gate.set()
    with pytest.raises(System, match="non-zero code: 2"):
        await build


async def test_places_are_handed_on(lab: Lab) -> None:
    await lab.build("FROM base\nRUN write a 1\nRUN write b 2\nRUN write c 3\n")
    assert lab.networks.made == 1


async def test_prune_frees_what_no_image_holds(lab: Lab) -> None:
    await lab.build("FROM base AS a\nRUN write a 1\nFROM base\nCOPY --from=a /a /b\n", tags=("t",))
    await _until(lambda: not lab.networks.attached)
    rows = {record.description: record.shared for record in lab.builder.usage()}
    assert rows == {"RUN write a 1": False, "COPY --from=a /a /b": True}
    pruned = await lab.builder.prune()
    assert len(pruned.deleted) == 1
    assert pruned.freed > 0
    assert len(lab.layers.tars) == 2, "the base's and the image's"


async def test_the_cache_stays_within_its_limit(lab: Lab) -> None:
    size = len(lab.layers.tars[lab.layers.add({"a": b"x" * 5000})])
    lab.builder.settings = BuilderSettings(max_cache=3 * size)
    for number in range(6):
        await lab.build(f"FROM base AS a\nRUN write a {number}{'x' * 4999}\nFROM base\nRUN say done\nCOPY --from=a /etc/passwd /p\n")
        await _until(lambda: not lab.builder._background)
        assert sum(record.size for record in lab.builder.usage() if not record.shared) <= 3 * size
    last = lab.builder.usage()
    assert any("write a 5" in record.description for record in last), "the newest stays"
    assert not any("write a 0" in record.description for record in last)


async def test_useless_records_are_forgotten(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_BARE_RECORDS", 3)
    await lab.build("FROM base\nENV A=1\nENV A=2\nENV A=3\nENV A=4\nENV A=5\nRUN write a 1\n")
    await _until(lambda: not lab.builder._background)
    records = lab.builder._records.steps.values()
    assert sorted(record.text for record in records) == ["ENV A=3", "ENV A=4", "ENV A=5", "RUN write a 1"]
    lab.layers.tars.pop(next(record.layer for record in records if record.layer))
    await lab.build("FROM base\nCMD x\n")
    await _until(lambda: not lab.builder._background)
    assert not any(record.layer for record in lab.builder._records.steps.values())


async def test_no_cache_of_one_stage(lab: Lab) -> None:
    text = "FROM base AS a\nRUN write a 1\nFROM base\nRUN write b 1\nCOPY --from=a /a /a\n"
    await lab.build(text)
    await lab.build(text, no_cache_stages=("a",))
    assert sorted(lab.commands) == ["write a 1", "write a 1", "write b 1"]


async def test_entitlements(lab: Lab) -> None:
    for text in ("RUN --security=insecure say x", "RUN --network=host say x"):
        with pytest.raises(DockyardError, match="is not allowed"):
            await lab.build(f"FROM base\n{text}\n")
    await lab.build("FROM base\nRUN --network=host say x\n", entitlements=("network.host",))
    await lab.build("FROM base\nRUN say y\n", network="host")


def _listeners(lab: Lab) -> int:
    return sum(len(running.listeners) for running in lab.builder._tools.shared._running.values())


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.01)
