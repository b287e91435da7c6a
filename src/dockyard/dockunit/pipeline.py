"""A pipeline: stages one after another, each with its containers, its stubs or its real dependencies. Pure.

::

    name: shop
    image: node:18                          # for stages that name none
    stages:
      compile:      {run: [npm ci, npm run build], keep: [dist, node_modules]}
      unit:         {dockunit: Dockunit.json}
      integration:  {compose: compose.yaml, services: [db], env: {DB: db}, run: npm run integration}
      performance:  {compose: compose.yaml, load: {url: "http://127.0.0.1:8080/", seconds: 10, p95: 0.2, errors: 1}}
      deploy:       {deploy: compose.yaml, project: shop}

A stage that fails ends the pipeline; those behind it are skipped. What a stage keeps, later ones find in their tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dockyard.dockunit.errors import BAD_PIPELINE, NO_STAGE
from dockyard.dockunit.matrix import Entry, parse_entries
from dockyard.dockunit.stub import Stub, known, parse_stubs, whole

FILES = ("pipeline.yaml", "pipeline.yml")
_TOP = frozenset({"name", "image", "stages"})
_STAGE = frozenset({"image", "run", "dockunit", "containers", "stubs", "compose", "services", "env", "keep", "load", "deploy",
                    "project", "limit"})  # fmt: skip
_LOAD = frozenset({"url", "seconds", "clients", "p50", "p95", "p99", "errors", "rate"})
_WORKS = ("run", "dockunit", "containers", "load", "deploy")
MOST_STAGES, MOST_SECONDS, MOST_CLIENTS = 50, 3600.0, 256


@dataclass(frozen=True, slots=True)
class Load:
    """``clients`` ask ``url`` for ``seconds``. ``most``: "p95" and its like to seconds; ``errors`` in percent; ``rate``: the
    least requests a second."""

    url: str
    seconds: float = 10.0
    clients: int = 4
    most: tuple[tuple[str, float], ...] = ()
    errors: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One of ``entries`` (or the file ``dockunit`` that has them), ``load`` and ``deploy`` (a Compose file). ``compose``:
    the real dependencies, of which ``services`` (all if empty) are started before and removed after."""

    name: str
    entries: tuple[Entry, ...] = ()
    dockunit: str = ""
    stubs: tuple[Stub, ...] = ()
    compose: str = ""
    services: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    load: Load | None = None
    deploy: str = ""
    project: str = ""
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    name: str
    stages: tuple[Stage, ...]

    def chosen(self, only: Sequence[str], skip: Sequence[str], until: str) -> Pipeline:
        """Raises NotFound for a stage that is not there."""
        names = [stage.name for stage in self.stages]
        for name in [*only, *skip, *([until] if until else [])]:
            if name not in names:
                raise NO_STAGE(name=name, known=", ".join(names))
        last = names.index(until) if until else len(names)
        kept = [
            stage for at, stage in enumerate(self.stages)
            if at <= last and (not only or stage.name in only) and stage.name not in skip
        ]  # fmt: skip
        return replace(self, stages=tuple(kept))


def parse_pipeline(tree: Mapping[str, Any], path: str, name: str) -> Pipeline:
    """``name`` is used where the file has none. Raises InvalidParameter with the place and the nearest key."""
    known(tree, _TOP, path, "the pipeline")
    stages = tree.get("stages")
    if not isinstance(stages, Mapping) or not 0 < len(stages) <= MOST_STAGES:
        raise BAD_PIPELINE(path=path, cause=f"it needs stages: 1 to {MOST_STAGES} of them, name to stage")
    image = str(tree.get("image") or "")
    return Pipeline(str(tree.get("name") or name), tuple(_stage(str(key), row, image, path) for key, row in stages.items()))


def _stage(name: str, row: Any, image: str, path: str) -> Stage:
    where = f"stages.{name}"
    if not isinstance(row, Mapping):
        raise BAD_PIPELINE(path=path, cause=f"{where} must be a mapping")
    known(row, _STAGE, path, where)
    works = [key for key in _WORKS if row.get(key) is not None]
    if len(works) != 1:
        raise BAD_PIPELINE(path=path, cause=f"{where} needs one of {', '.join(_WORKS)}" + (f", not {' and '.join(works)}" if works else ""))
    load = _load(row["load"], path, f"{where}.load") if works == ["load"] else None
    env = row.get("env") or {}
    if not isinstance(env, Mapping):
        raise BAD_PIPELINE(path=path, cause=f"{where}.env must be a mapping")
    keep = _texts(row.get("keep"), path, f"{where}.keep")
    for one in keep:
        if one.startswith("/") or ".." in one.split("/"):
            raise BAD_PIPELINE(path=path, cause=f"{where}.keep: {one!r} must be a path below the project")
    if keep and works not in (["run"], ["containers"]):
        raise BAD_PIPELINE(path=path, cause=f"{where}.keep: only what run or containers make can be kept")
    return Stage(
        name, _entries(name, row, works[0], image, path, where), str(row.get("dockunit") or ""),
        parse_stubs(row.get("stubs"), path, f"{where}.stubs"), str(row.get("compose") or ""),
        tuple(_texts(row.get("services"), path, f"{where}.services")),
        tuple(f"{key}={'' if value is None else value}" for key, value in env.items()), tuple(keep), load,
        str(row.get("deploy") or ""), str(row.get("project") or ""), _number(row.get("limit", 0), path, f"{where}.limit"),
    )  # fmt: skip


def _entries(name: str, row: Mapping[str, Any], work: str, image: str, path: str, where: str) -> tuple[Entry, ...]:
    if work == "containers":
        return tuple(parse_entries(row["containers"], path))
    if work != "run":
        return ()
    own = str(row.get("image") or image)
    if not own:
        raise BAD_PIPELINE(path=path, cause=f"{where} needs an image (its own, or one for all at the top)")
    commands = _texts(row["run"], path, f"{where}.run")
    if not commands:
        raise BAD_PIPELINE(path=path, cause=f"{where}.run is empty")
    # Each command is told before it runs, and the first that fails ends the stage, as in CI.
    lines = [f"echo {_echoed(one)}; {{ {one}\n}} || exit" for one in commands]
    return (Entry(1, name, own, "\n".join(lines)),)


def _echoed(command: str) -> str:
    return "'$ " + " ".join(command.split()).replace("'", "'\\''") + "'"


def _load(row: Any, path: str, where: str) -> Load:
    if not isinstance(row, Mapping):
        raise BAD_PIPELINE(path=path, cause=f"{where} must be a mapping")
    known(row, _LOAD, path, where)
    url = str(row.get("url") or "")
    if not url.startswith("http://") or not url[7:].partition("/")[0]:
        raise BAD_PIPELINE(path=path, cause=f"{where}.url must be http://HOST[:PORT]/PATH")
    most = tuple((key, _number(row[key], path, f"{where}.{key}")) for key in ("p50", "p95", "p99") if key in row)
    seconds = _number(row.get("seconds", 10), path, f"{where}.seconds")
    clients = whole(row.get("clients", 4), MOST_CLIENTS, path, f"{where}.clients")
    if not seconds or not clients:
        raise BAD_PIPELINE(path=path, cause=f"{where}: seconds and clients must be more than 0")
    return Load(url, seconds, clients, most, _number(row.get("errors", 0), path, f"{where}.errors"),
                _number(row.get("rate", 0), path, f"{where}.rate"))  # fmt: skip


def _number(value: Any, path: str, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= MOST_SECONDS * 1000:
        raise BAD_PIPELINE(path=path, cause=f"{where} must be a number (of seconds, percent or requests)")
    return float(value)


def _texts(value: Any, path: str, where: str) -> list[str]:
    """A text, or a list of texts."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, Mapping) or not all(isinstance(one, str) for one in value):
        raise BAD_PIPELINE(path=path, cause=f"{where} must be a text or a list of texts")
    return list(value)


EXAMPLE = """\
# dockyard pipeline runs the stages one after another; the first that fails ends it.
image: busybox:latest
stages:
  compile:
    run: [mkdir -p dist, cp src/* dist/]
    keep: [dist]
  unit:
    run: sh test.sh
    stubs:
      rates: {port: 80, answers: [{path: /eur, json: {usd: 1.1}, calls: 1}]}
  integration:
    compose: compose.yaml
    services: [db]
    env: {DB_HOST: db}
    run: sh integration.sh
  performance:
    compose: compose.yaml
    load: {url: "http://127.0.0.1:8080/", seconds: 5, clients: 4, p95: 0.2, errors: 1}
  deploy:
    deploy: compose.yaml
    project: shop
"""
