"""What the pages show: read-only questions to the database, each one transaction, each bounded by a page."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.lib.notjson import NOT_JSON
from dockyard.registry.access import Caller, visible_sql
from dockyard.registry.database import Tx
from dockyard.registry.manifest import INDEXES, Manifest, Platform, parse_manifest
from dockyard.registry.search import find
from dockyard.registry.uploads import Blob, find_blob

PAGE = 50
_CONFIG_MAX = 4 * 1024 * 1024
_PLATFORMS_MAX = 50


@dataclass(frozen=True, slots=True)
class RepositoryRow:
    name: str
    description: str
    public: bool
    tags: int
    size: int
    """Bytes of all its blobs, each once."""
    pulls: int
    updated: float


@dataclass(frozen=True, slots=True)
class TagRow:
    name: str
    digest: str
    media_type: str
    platforms: tuple[str, ...]
    size: int
    pushed_by: str
    updated: float
    pulled: float | None


@dataclass(frozen=True, slots=True)
class LayerRow:
    digest: str
    size: int
    media_type: str
    command: str
    """What made it, from the image's history."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """How the image runs, from its configuration; hostile values are left out."""

    created: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    directory: str = ""
    ports: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of a tag: alone, or for one platform of an index."""

    digest: str
    platform: str
    size: int
    layers: tuple[LayerRow, ...] = ()
    run: RunRow = RunRow()
    present: bool = True


@dataclass(frozen=True, slots=True)
class ReferrerRow:
    digest: str
    artifact_type: str
    size: int
    created: float


@dataclass(frozen=True, slots=True)
class TagDetail:
    digest: str
    media_type: str
    artifact_type: str
    images: tuple[ImageRow, ...]
    referrers: tuple[ReferrerRow, ...]
    annotations: dict[str, str]


def repositories(
    tx: Tx, caller: Caller, *, text: str = "", namespace: str = "", after: str = "", count: int = PAGE
) -> list[RepositoryRow]:
    """Those the caller may see: found by `text` (best first), else by name behind `after`."""
    if text:
        found = [(r[0], r[1], r[3], r[4], r[5]) for r in find(tx, caller, text, count, namespace)]
    else:
        condition, args = visible_sql(caller)
        narrowed, more = (" AND r.namespace = ?", (namespace,)) if namespace else ("", ())
        rows = tx.all(
            "SELECT r.name, r.description, r.public, r.pulls, r.updated FROM repositories r WHERE"
            f" {condition}{narrowed} AND r.name > ? ORDER BY r.name LIMIT ?",
            (*args, *more, after, count),
        )
        found = [(r[0], r[1], r[2], r[3], r[4]) for r in rows]
    return [
        RepositoryRow(name, description, bool(public), *_totals(tx, name), pulls, updated)
        for name, description, public, pulls, updated in found
    ]


def _totals(tx: Tx, name: str) -> tuple[int, int]:
    row = tx.one(
        "SELECT (SELECT COUNT(*) FROM tags t WHERE t.repository = r.id), (SELECT COALESCE(SUM(b.size), 0) FROM links l"
        " JOIN blobs b ON b.digest = l.digest WHERE l.repository = r.id) FROM repositories r WHERE r.name = ?",
        (name,),
    )
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def tags(tx: Tx, name: str, *, text: str = "", page: int = 0, count: int = PAGE) -> list[TagRow]:
    """Newest first, one more than `count` if there are more."""
    pattern = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    rows = tx.all(
        "SELECT t.name, t.digest, m.media_type, m.content, m.content_size, t.pushed_by, t.updated, t.pulled"
        " FROM repositories r JOIN tags t ON t.repository = r.id JOIN manifests m ON m.repository = r.id AND m.digest ="
        " t.digest WHERE r.name = ? AND t.name LIKE ? ESCAPE '\\' ORDER BY t.updated DESC, t.name LIMIT ? OFFSET ?",
        (name, pattern, count + 1, page * count),
    )
    found = []
    for tag, digest, media_type, content, size, pushed_by, updated, pulled in rows:
        manifest = parse_manifest(bytes(content), media_type)
        platforms = tuple(_platforms(tx, name, manifest))
        total = size + (_children_size(tx, name, manifest) if manifest.children else 0)
        found.append(TagRow(tag, digest, media_type, platforms, total, pushed_by, updated, pulled))
    return found


def _platforms(tx: Tx, name: str, manifest: Manifest) -> list[str]:
    if manifest.media_type in INDEXES:
        known = [str(c.platform) for c in manifest.children if c.platform is not None and _real(c.platform)]
        return list(dict.fromkeys(known))[:_PLATFORMS_MAX]
    if manifest.config is None:
        return []
    return [p for p in [_config_platform(config(tx, name, manifest.config.digest))] if p]


def _real(platform: Platform) -> bool:
    """Attestations are listed as unknown/unknown."""
    return platform.os != "unknown"


def _children_size(tx: Tx, name: str, manifest: Manifest) -> int:
    total = 0
    for child in manifest.children[:_PLATFORMS_MAX]:
        row = tx.one(
            "SELECT m.content_size FROM repositories r JOIN manifests m ON m.repository = r.id WHERE r.name = ? AND"
            " m.digest = ?",
            (name, child.digest),
        )
        total += 0 if row is None else int(row[0])
    return total


def config(tx: Tx, name: str, digest: str) -> dict[str, Any]:
    """The image configuration, if it rests in the database (nearly all do); else {}."""
    blob = find_blob(tx, name, digest)
    return {} if blob is None or blob.content is None else parse_config(blob.digest, blob.content)


@functools.lru_cache(maxsize=1024)
def parse_config(digest: str, content: bytes) -> dict[str, Any]:
    """Hostile content is no error: it is a configuration that says nothing."""
    try:
        return msgspec.json.decode(content[:_CONFIG_MAX], type=dict[str, Any])
    except NOT_JSON:
        return {}


def _config_platform(found: dict[str, Any]) -> str:
    words = [found.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(str(word)[:40] for word in words if isinstance(word, str) and word)


def resolve(tx: Tx, name: str, reference: str) -> tuple[str, str, bytes] | None:
    """(digest, media type, content) of a tag or digest."""
    column = "= ?" if ":" in reference else "= (SELECT digest FROM tags WHERE repository = r.id AND name = ?)"
    row = tx.one(
        "SELECT m.digest, m.media_type, m.content FROM repositories r JOIN manifests m ON m.repository = r.id WHERE"
        f" r.name = ? AND m.digest {column}",
        (name, reference),
    )
    return None if row is None else (str(row[0]), str(row[1]), bytes(row[2]))


def configs_wanted(tx: Tx, name: str, reference: str) -> list[Blob]:
    """Configurations of that tag's images that are too large for the database: the caller reads them."""
    found = resolve(tx, name, reference)
    if found is None:
        return []
    manifest = parse_manifest(found[2], found[1])
    images = [manifest] if manifest.media_type not in INDEXES else [m for m in _children(tx, name, manifest) if m]
    blobs = [find_blob(tx, name, image.config.digest) for image in images if image.config is not None]
    return [b for b in blobs if b is not None and b.content is None and b.size <= _CONFIG_MAX]


def _children(tx: Tx, name: str, manifest: Manifest) -> list[Manifest | None]:
    found: list[Manifest | None] = []
    for child in manifest.children[:_PLATFORMS_MAX]:
        stored = resolve(tx, name, child.digest)
        found.append(None if stored is None else parse_manifest(stored[2], stored[1]))
    return found


def detail(tx: Tx, name: str, reference: str, read: dict[str, bytes]) -> TagDetail | None:
    """`read` holds configurations that were read from the blob store, by digest."""
    stored = resolve(tx, name, reference)
    if stored is None:
        return None
    digest, media_type, content = stored
    manifest = parse_manifest(content, media_type)
    images: list[ImageRow] = []
    if manifest.media_type in INDEXES:
        for child, inner in zip(manifest.children, _children(tx, name, manifest), strict=False):
            platform = str(child.platform) if child.platform is not None else ""
            if inner is None:
                images.append(ImageRow(child.digest, platform, child.size, present=False))
            else:
                images.append(_image(tx, name, child.digest, inner, platform, read))
    else:
        images.append(_image(tx, name, digest, manifest, "", read))
    rows = tx.all(
        "SELECT m.digest, m.artifact_type, m.content_size, m.created FROM repositories r JOIN manifests m ON"
        " m.repository = r.id WHERE r.name = ? AND m.subject = ? ORDER BY m.created DESC LIMIT ?",
        (name, digest, PAGE),
    )
    referrers = tuple(ReferrerRow(*row) for row in rows)
    return TagDetail(digest, media_type, manifest.artifact_type, tuple(images), referrers, manifest.annotations)


def _image(tx: Tx, name: str, digest: str, manifest: Manifest, platform: str, read: dict[str, bytes]) -> ImageRow:
    known: dict[str, Any] = {}
    if manifest.config is not None:
        key = manifest.config.digest
        known = parse_config(key, read[key]) if key in read else config(tx, name, key)
    history = known.get("history")
    commands = [
        str(step.get("created_by", "")) for step in (history if isinstance(history, list) else [])
        if isinstance(step, dict) and not step.get("empty_layer")
    ]  # fmt: skip
    commands += [""] * len(manifest.layers)
    layers = tuple(
        LayerRow(layer.digest, layer.size, layer.media_type, command[:2000])
        for layer, command in zip(manifest.layers, commands, strict=False)
    )
    return ImageRow(digest, platform or _config_platform(known), manifest.content_size, layers, run_row(known))


def run_row(known: dict[str, Any]) -> RunRow:
    inner = known.get("config")
    run: dict[str, Any] = inner if isinstance(inner, dict) else {}
    labels = run.get("Labels")
    return RunRow(
        _text(known.get("created")), _words(run.get("Entrypoint")), _words(run.get("Cmd")), _words(run.get("Env")),
        _text(run.get("User")), _text(run.get("WorkingDir")), _words(run.get("ExposedPorts")),
        tuple((str(k), str(v)) for k, v in labels.items()) if isinstance(labels, dict) else (),
    )  # fmt: skip


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _words(value: Any) -> tuple[str, ...]:
    """A list of texts, the keys of an object, or one text."""
    if isinstance(value, str):
        return (value,)
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list | dict) else ()


def totals(tx: Tx) -> dict[str, int]:
    """The whole registry in numbers."""
    row = tx.one(
        "SELECT (SELECT COUNT(*) FROM repositories), (SELECT COUNT(*) FROM tags), (SELECT COUNT(*) FROM manifests),"
        " (SELECT COUNT(*) FROM blobs), (SELECT COALESCE(SUM(size), 0) FROM blobs), (SELECT COUNT(*) FROM uploads)"
    )
    names = ("repositories", "tags", "manifests", "blobs", "bytes", "uploads")
    return dict(zip(names, (int(v) for v in row or (0,) * len(names)), strict=True))


def namespaces(tx: Tx, caller: Caller) -> list[tuple[str, str, int]]:
    """(namespace, kind, repositories) of what the caller may see, and his own, by name."""
    condition, args = visible_sql(caller)
    rows = tx.all(
        f"SELECT r.namespace, COUNT(*) FROM repositories r WHERE {condition} GROUP BY r.namespace ORDER BY r.namespace"
        " LIMIT 1000",
        tuple(args),
    )
    found = {str(row[0]): int(row[1]) for row in rows}
    if caller.account is not None:
        mine = tx.all(
            "SELECT o.name FROM memberships m JOIN accounts o ON o.id = m.org WHERE m.account = ?", (caller.account,)
        )
        for name in [caller.name, *(row[0] for row in mine)]:
            found.setdefault(name, 0)
    kinds = {}
    for name in found:
        row = tx.one("SELECT kind FROM accounts WHERE name = ?", (name,))
        kinds[name] = "" if row is None else str(row[0])
    return sorted((name, kinds[name], count) for name, count in found.items() if name)
