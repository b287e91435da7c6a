"""Keys, explanations, records, pruning: values in, values out (and one file of SQLite)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dockyard.build import keys
from dockyard.build.cachekeeper import CacheRecord, Limits, choose_pruned, parse_filters
from dockyard.build.model import Copy, Exec
from dockyard.build.records import Records, StepRecord
from dockyard.errors import InvalidParameter

RUN = Exec(("/bin/sh", "-c", "x"), ("A=1",), "/", "")
SECOND = 1_000_000_000


def test_a_key_is_what_goes_in() -> None:
    key = keys.step_key(RUN, "state", [])
    assert key == keys.step_key(RUN, "state", [])
    assert key == keys.step_key(msgspec.structs.replace(RUN, hidden_env=("HTTP_PROXY=secret",)), "state", [])
    different = [
        keys.step_key(msgspec.structs.replace(RUN, env=("A=2",)), "state", []),
        keys.step_key(msgspec.structs.replace(RUN, user="nobody"), "state", []),
        keys.step_key(RUN, "other", []),
        keys.step_key(RUN, "state", ["files x"]),
        keys.step_key(RUN, "state", [], 0),
        keys.step_key(Copy(("a",), "/a"), "state", []),
    ]
    assert len({key, *different}) == 7


def test_parts_cannot_run_together() -> None:
    assert keys.step_key(RUN, "ab", ["c"]) != keys.step_key(RUN, "a", ["bc"])
    assert keys.step_key(RUN, "a", ["b", "c"]) != keys.step_key(RUN, "a", ["bc"])
    assert keys.state_of(["ab"]) != keys.state_of(["a", "b"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"instruction": "RUN y"}, "the instruction changed"),
        ({"base": "other"}, "what it stands on changed"),
        ({"file a": "2"}, "file a changed"),
        ({"file b": "1"}, "file b is new"),
        ({}, "its result is no longer in the cache"),
    ],
)
def test_explanations_name_what_changed(change: dict[str, str], sentence: str) -> None:
    before = {"instruction": "RUN x", "base": "b", "file a": "1"}
    assert keys.explain(before, before | change) == sentence


def test_explanations_hold_no_values() -> None:
    operation = msgspec.structs.replace(RUN, env=("TOKEN=sesame",))
    parts = keys.parts_of("RUN x", operation, "s", {}, None)
    assert "sesame" not in str(parts)
    changed = keys.parts_of("RUN x", msgspec.structs.replace(RUN, env=("TOKEN=other",)), "s", {}, None)
    assert keys.explain(parts, changed) == "variable TOKEN changed"
    assert keys.explain(None, parts) == "it has not been built here before"


def test_many_files_are_one_part() -> None:
    files = {f"f{n}": "x" for n in range(5000)}
    assert len(keys.parts_of("COPY", Copy(("a",), "/a"), "s", files, None)) == 3


def step(key: str, layer: str = "l", used: int = 0, slot: str = "") -> StepRecord:
    return StepRecord(key, layer, 10, "regular", f"RUN {key}", used, used, 0, slot, {"base": "b"})


def test_records_survive(tmp_path: Path) -> None:
    records = Records(tmp_path / "cache.db")
    records.put(step("a", "layer-a", slot="s"))
    records.put(step("b", "layer-b"))
    records.touch("a", 7)
    mount = records.add_mount("name", "/root/.cache", 5)
    records.used_mount(mount.number, 99, 6)
    records.close()
    again = Records(tmp_path / "cache.db")
    assert again.get("a") == StepRecord("a", "layer-a", 10, "regular", "RUN a", 0, 7, 1, "s", {"base": "b"})
    assert again.layers() == {"layer-a", "layer-b"}
    assert again.last("s") == again.get("a")
    assert [(m.text, m.size, m.uses) for m in again.mounts_named("name")] == [("/root/.cache", 99, 1)]
    again.drop(["a"])
    again.drop_mount(mount.number)
    again.close()
    assert Records(tmp_path / "cache.db").layers() == {"layer-b"}


def test_only_the_newest_of_a_place_keeps_its_parts(tmp_path: Path) -> None:
    records = Records(tmp_path / "cache.db")
    records.put(step("a", "1", used=1, slot="s"))
    records.put(step("b", "2", used=2, slot="s"))
    records.put(step("alias", "2"))
    assert [bool(records.steps[key].parts) for key in ("a", "b", "alias")] == [False, True, False]
    records.close()
    again = Records(tmp_path / "cache.db")
    assert again.last("s") == step("b", "2", used=2, slot="s")
    assert again.last("") is None
    again.close()


def row(id: str, used: int, size: int = 100, **more: object) -> CacheRecord:
    return CacheRecord(id, "regular", f"RUN {id}", size, used, used * SECOND, 1, **more)  # type: ignore[arg-type]


ROWS = [row("old", 1), row("mid", 2), row("new", 3), row("busy", 0, in_use=True), row("shared", 0, shared=True)]


def pruned(limits: Limits, filters: dict[str, list[str]] | None = None, *, all: bool = False) -> list[str]:
    wanted = parse_filters(filters or {}, now=10 * SECOND)
    return [record.id for record in choose_pruned(ROWS, wanted, limits, all=all)]


def test_prune_takes_the_oldest_and_spares_what_is_used() -> None:
    assert pruned(Limits()) == ["old", "mid", "new"]
    assert pruned(Limits(), all=True) == ["shared", "old", "mid", "new"]
    assert pruned(Limits(max_used=400)) == ["old"]
    assert pruned(Limits(reserved=400)) == ["old"]
    assert pruned(Limits(min_free=150, free=100)) == ["old"]
    assert pruned(Limits(max_used=500)) == []


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"until": ["9s"]}, ["shared", "old"]),
        ({"unused-for": ["8s"]}, ["shared", "old", "mid"]),
        ({"id": ["mi"]}, ["mid"]),
        ({"description": ["new"]}, ["new"]),
        ({"type": ["exec.cachemount"]}, []),
        ({"private": []}, ["old", "mid", "new"]),
        ({"shared": ["true"]}, ["shared"]),
        ({"inuse": ["true"]}, []),
        ({"id": ["old", "new"], "until": ["9s"]}, ["old"]),
    ],
)
def test_prune_filters(filters: dict[str, list[str]], expected: list[str]) -> None:
    assert pruned(Limits(), filters, all=True) == expected


@pytest.mark.parametrize("filters", [{"until": ["soon"]}, {"until": ["1h", "2h"]}, {"color": ["red"]}])
def test_bad_prune_filters(filters: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidParameter):
        parse_filters(filters, 0)
