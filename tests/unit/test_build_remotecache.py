"""Caches that travel between machines, on twins: what is written, what is believed, what is kept, what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dockyard.build.cachefile import CONFIG_TYPE, config_bytes, manifest_bytes, read_config, read_top
from dockyard.build.cachespec import CacheSpec, cache_text, parse_cache
from dockyard.build.fake import (
    FakeContentStore,
    FakeExecutor,
    FakeImages,
    FakeLayers,
    FakeNetworks,
    FakeSession,
    FakeSource,
)
from dockyard.build.model import Request
from dockyard.build.ports import Output, Process
from dockyard.build.progress import Event, Warned
from dockyard.build.records import Records, StepRecord
from dockyard.build.service import Builder, Result
from dockyard.errors import InvalidParameter, NotFound
from dockyard.oci.documents import DOCKER_LAYER_GZIP, OCI_LAYER_GZIP, Descriptor

STORE = "local:/cache"
TO = "type=local,dest=/cache"
TEXT = "FROM base AS tools\nRUN write tool 1\nFROM base\nRUN write a 1\nENV X=1\nCOPY --from=tools /tool /t\n"


def script(process: Process, output: Output) -> int:
    """``write NAME TEXT``."""
    _, name, text, *_ = process.args[-1].split(" ")
    (process.root / name).write_text(text)
    return 0


@dataclass
class Machine:
    directory: Path
    layers: FakeLayers
    executor: FakeExecutor
    records: Records
    builder: Builder
    session: FakeSession
    events: list[Event] = field(default_factory=list)

    async def build(self, text: str = TEXT, **request: Any) -> Result:
        source = FakeSource(self.directory, text, {})
        self.events.clear()
        try:
            return await self.builder.build(Request(**request), source, self.session, self.events.append)
        finally:
            source.close()

    @property
    def ran(self) -> list[str]:
        found = [process.args[-1] for process in self.executor.ran]
        self.executor.ran.clear()
        return found

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


@pytest.fixture
def store() -> FakeContentStore:
    return FakeContentStore()


@pytest.fixture
async def machine(tmp_path: Path, store: FakeContentStore) -> AsyncIterator[Callable[[str], Machine]]:
    async with AsyncExitStack() as stack:

        def make(name: str) -> Machine:
            directory = tmp_path / name
            layers = FakeLayers(directory / "layers")
            images = FakeImages(layers)
            images.add("base", {"etc/passwd": b"root:x:0:0::/root:/bin/sh\n"})
            records = Records(directory / "cache.db")
            layers.holders.append(records.layers)
            executor = FakeExecutor(script)
            builder = Builder(directory / "build", images, layers, executor, FakeNetworks(), records)
            stack.push_async_callback(builder.close)
            session = FakeSession()
            session.stores[STORE] = store
            return Machine(directory, layers, executor, records, builder, session)

        yield make


def source_of(store: FakeContentStore) -> str:
    """What a client says of the newest cache in its directory."""
    digest = next(digest for digest, raw in reversed(store.blobs.items()) if raw.startswith(b'{"schemaVersion"'))
    return f"type=local,src=/cache,digest={digest}"


async def test_max_serves_every_stage_on_a_machine_that_has_nothing(machine: Callable[[str], Machine], store: FakeContentStore) -> None:
    first, second = machine("first"), machine("second")
    made = await first.build(cache_to=(f"{TO},mode=max",))
    assert len(first.ran) == 2
    got = await second.build(cache_from=(source_of(store),))
    assert second.ran == []
    assert got.image == made.image, "times come from the cache's records"
    assert second.warnings == []


async def test_a_cache_that_is_read_and_written_again_stays_whole(machine: Callable[[str], Machine], store: FakeContentStore) -> None:
    """As machines of a CI do: each begins with what the one before left."""
    names = []
    for name in ("first", "second", "third"):
        each = machine(name)
        given = (source_of(store),) if names else ()
        await each.build(cache_from=given, cache_to=(f"{TO},mode=max", "type=inline"))
        names.append(source_of(store))
    assert len(set(names)) == 1, "the same records each time"
    last = machine("last")
    await last.build(TEXT.replace("RUN write tool 1", "RUN write tool 1 # again"), cache_from=(names[-1],))
    assert last.ran == ["write tool 1 # again"], "the COPY is found by what the stage came to"


async def test_min_has_the_targets_own_steps(machine: Callable[[str], Machine], store: FakeContentStore) -> None:
    first, second = machine("first"), machine("second")
    made = await first.build(cache_to=(TO,))
    got = await second.build(cache_from=(source_of(store),))
    assert second.ran == ["write tool 1"], "the other stage is not in it"
    assert got.diff_ids == made.diff_ids


async def test_what_was_imported_serves_no_build_that_does_not_name_it(
    machine: Callable[[str], Machine], store: FakeContentStore
) -> None:
    first, second = machine("first"), machine("second")
    await first.build(cache_to=(f"{TO},mode=max",))
    await second.build(cache_from=(source_of(store),))
    assert second.ran == []
    await second.build()
    assert sorted(second.ran) == ["write a 1", "write tool 1"]


async def test_imported_layers_are_counted_kept_and_pruned(machine: Callable[[str], Machine], store: FakeContentStore) -> None:
    first, second = machine("first"), machine("second")
    await first.build(cache_to=(f"{TO},mode=max",))
    spec = source_of(store)
    await second.build(cache_from=(spec,))
    rows = [row for row in second.builder.usage() if row.description == "imported from /cache"]
    assert len(rows) == 3
    assert all(row.size > 0 and row.kind == "regular" for row in rows)
    second.layers.collect()
    layers = {digest: raw for digest, raw in store.blobs.items() if raw.startswith(b"\x1f\x8b")}
    for digest in layers:
        del store.blobs[digest]
    await second.build(cache_from=(spec,))
    assert second.ran == []
    assert second.warnings == [], "nothing had to be fetched again"
    pruned = await second.builder.prune(all=True)
    assert len(pruned.deleted) >= 3
    assert second.builder.usage() == []


async def test_a_blob_that_lies_is_told_and_the_step_runs(machine: Callable[[str], Machine], store: FakeContentStore) -> None:
    first, second = machine("first"), machine("second")
    made = await first.build(cache_to=(f"{TO},mode=max",))
    spec = source_of(store)
    for digest, raw in store.blobs.items():
        if raw.startswith(b"\x1f\x8b"):
            store.blobs[digest] = b"no layer of anybody's"
    got = await second.build(cache_from=(spec,))
    assert sorted(second.ran) == ["write a 1", "write tool 1"]
    assert got.diff_ids[:2] == made.diff_ids[:2]
    assert any("cannot be used" in text for text in second.warnings)
    assert not any(record.key.startswith("imported") for record in second.records.steps.values())


@pytest.mark.parametrize("spec", ["type=registry,ref=r/x:1", "type=local,src=/elsewhere", "type=gha", "type=local,src=/cache,digest=sha256:x", "gone"])
async def test_a_cache_that_cannot_be_had_is_a_warning(machine: Callable[[str], Machine], spec: str) -> None:
    only = machine("only")
    await only.build(cache_from=(spec,))
    assert any("cannot be used" in text for text in only.warnings)
    assert len(only.ran) == 2


async def test_an_export_that_fails_fails_the_build_unless_told_otherwise(machine: Callable[[str], Machine]) -> None:
    only = machine("only")
    with pytest.raises(NotFound, match="elsewhere"):
        await only.build(cache_to=("type=local,dest=/elsewhere",))
    await only.build(cache_to=("type=local,dest=/elsewhere,ignore-error=true",))
    assert any("was not exported" in text for text in only.warnings)


@pytest.mark.parametrize("spec", ["type=s3,bucket=b", "type=registry", "type=local,dest=/cache,mode=middle", "type=local,colour=red"])
async def test_a_wish_that_means_nothing_is_refused_before_anything_runs(machine: Callable[[str], Machine], spec: str) -> None:
    only = machine("only")
    with pytest.raises(InvalidParameter, match="cache type="):
        await only.build(cache_to=(spec,))
    assert only.ran == []


async def test_no_cache_means_no_imported_cache_either(machine: Callable[[str], Machine], store: FakeContentStore) -> None:
    first, second = machine("first"), machine("second")
    await first.build(cache_to=(f"{TO},mode=max",))
    await second.build(cache_from=(source_of(store),), no_cache=True)
    assert len(second.ran) == 2


# -- the file ---------------------------------------------------------------------------------------------------------

KEY, LAYER, BLOB = "a" * 64, "sha256:" + "b" * 64, "sha256:" + "c" * 64
RECORDS = [
    StepRecord(KEY, LAYER, 9, "regular", "RUN x", 1_700_000_000_123_456_789, 0),
    StepRecord("d" * 64, "", 0, "meta", "ENV x", 1_700_000_000_000_000_000, 0),
]


def test_the_file_is_buildkits_and_comes_back_whole() -> None:
    blobs = {LAYER: Descriptor(DOCKER_LAYER_GZIP, BLOB, 77)}
    raw = config_bytes(RECORDS, blobs)
    document = json.loads(raw)
    assert document["layers"] == [
        {"blob": BLOB, "parent": -1, "annotations": {"mediaType": OCI_LAYER_GZIP, "diffID": LAYER, "size": 77}}
    ]
    assert document["records"][0] == {
        "digest": "sha256:" + KEY, "layers": [{"layer": 0, "createdAt": "2023-11-14T22:13:20.123456789Z"}]
    }  # fmt: skip
    back = read_config(raw, "r/x")
    assert {key: (row.layer, row.created) for key, row in back.records.items()} == {
        row.key: (row.layer, row.created) for row in RECORDS
    }
    assert back.blobs[LAYER].digest == BLOB
    for index in (False, True):
        top = read_top(manifest_bytes(raw, blobs, index=index)[1])
        assert top.config is not None
        assert top.config.media_type == CONFIG_TYPE


def test_a_cache_may_have_more_layers_than_an_image() -> None:
    blobs = {f"sha256:{n:064x}": Descriptor(OCI_LAYER_GZIP, BLOB, 1) for n in range(2000)}
    assert read_top(manifest_bytes(b"{}", blobs)[1]).config is not None


@pytest.mark.parametrize(
    "document",
    [
        {"records": [{"digest": "sha256:" + KEY, "layers": [{"layer": 4}]}]},
        {"records": [{"digest": "sha256:" + KEY, "layers": [{"layer": -1}]}]},
        {"records": [{"digest": "sha256:" + KEY, "chains": [{"layers": [0]}]}]},
        {"records": [{"digest": "sha256:" + KEY, "inputs": [[{"link": 1}]]}, {"digest": ""}]},
        {"layers": [{"blob": "../../etc/passwd", "annotations": {"diffID": LAYER}}],
         "records": [{"digest": "sha256:" + KEY, "layers": [{"layer": 0}]}]},
        {"layers": [{"blob": BLOB, "annotations": {"diffID": LAYER, "size": -1}}],
         "records": [{"digest": "sha256:" + KEY, "layers": [{"layer": 0}]}]},
        {"layers": [{"blob": BLOB, "annotations": {"diffID": LAYER, "size": 1}}],
         "records": [{"digest": "sha256:" + KEY, "layers": [{"layer": 0, "createdAt": "yesterday"}]}]},
    ],
)  # fmt: skip
def test_claims_that_do_not_hold_together_are_left_out(document: dict[str, Any]) -> None:
    assert read_config(json.dumps(document).encode(), "x").records == {}


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"layers": 3}', json.dumps({"records": [{}] * 50_001}).encode()])
def test_what_is_no_cache_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidParameter):
        read_config(raw, "x")


def test_specs_go_through_text_and_back() -> None:
    spec = CacheSpec("local", {"dest": "/a,b", "mode": "max"})
    assert parse_cache(cache_text(spec.kind, spec.attrs)) == spec
    assert parse_cache("r/x:1") == CacheSpec("", {"ref": "r/x:1"})
    assert parse_cache("ref=r/x") == CacheSpec("registry", {"ref": "r/x"})
    with pytest.raises(InvalidParameter):
        parse_cache("type=local,nonsense")
