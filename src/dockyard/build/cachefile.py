"""A build cache as a document that travels: BuildKit's cache manifest. Pure.

::

    image manifest ─┬─ config   application/vnd.buildkit.cacheconfig.v0: {"layers": [...], "records": [...]}
                    └─ layers   one blob a layer, packed
    (or an index of the same descriptors, for registries that refuse the config's type: image-manifest=false)

    layers:  {"blob": digest, "parent": -1, "annotations": {mediaType, diffID, size, createdAt}}
    records: {"digest": step key, "layers": [{"layer": place above, "createdAt"}]}
                      "dockyard.content": step key that names the same by what was read, where this one is of a definition
    a step without a layer says its time as {"chains": [{"layers": [], "createdAt"}]}

BuildKit reads the file and finds nothing of its own in it, as we do in one of BuildKit's: the digests of a record are the
step keys of whoever wrote it. Everything in a file is a claim. Records are believed only by the build that names the
cache, blobs are checked against both of their digests when they are fetched. Source: moby/buildkit
cache/remotecache/v1/spec.go and doc.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.errors import DockyardError
from dockyard.lib.clock import parse_rfc3339, rfc3339
from dockyard.oci.digest import parse_digest, sha256_of
from dockyard.oci.documents import (
    DOCKER_LAYER_GZIP,
    INDEX_TYPES,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    check_descriptor,
    decode,
    parse_index,
    parse_manifest,
)

from .errors import BAD_CACHE
from .records import StepRecord

__all__ = ["CONFIG_TYPE", "CacheFile", "Top", "config_bytes", "manifest_bytes", "read_config", "read_top"]

CONFIG_TYPE = "application/vnd.buildkit.cacheconfig.v0"
MAX_RECORDS = 50_000
MAX_LAYERS = 10_000
_SHA = "sha256:"


@dataclass(frozen=True, slots=True)
class CacheFile:
    """``blobs`` by diff ID: how a layer is called where the cache is."""

    records: Mapping[str, StepRecord]
    blobs: Mapping[str, Descriptor]


@dataclass(frozen=True, slots=True)
class Top:
    """What a reference leads to: the config of a cache, or the manifests of images, which may carry one inline."""

    config: Descriptor | None = None
    image: Manifest | None = None
    images: tuple[Descriptor, ...] = ()


class _Annotations(msgspec.Struct, rename="camel", omit_defaults=True):
    media_type: str = ""
    diff_id: str = msgspec.field(default="", name="diffID")
    size: int = 0
    created_at: str = ""


class _Layer(msgspec.Struct):
    blob: str = ""
    parent: int = 0
    annotations: _Annotations | None = None


class _Result(msgspec.Struct, rename="camel"):
    layer: int = 0
    created_at: str = ""


class _Chain(msgspec.Struct, rename="camel"):
    layers: list[int] = []
    created_at: str = ""


class _Record(msgspec.Struct, omit_defaults=True):
    digest: str = ""
    layers: list[_Result] = []
    chains: list[_Chain] = []
    content: str = msgspec.field(default="", name="dockyard.content")


class _Config(msgspec.Struct):
    layers: list[_Layer] = []
    records: list[_Record] = []


# -- writing ---------------------------------------------------------------------------------------------------------


def config_bytes(records: Iterable[StepRecord], blobs: Mapping[str, Descriptor]) -> bytes:
    """``blobs``: of every layer that the records name. Deterministic."""
    places = {diff_id: place for place, diff_id in enumerate(sorted(blobs))}
    layers = [
        _Layer(blobs[diff_id].digest, -1, _Annotations(_oci(blobs[diff_id].media_type), diff_id, blobs[diff_id].size))
        for diff_id in places
    ]
    rows = {}
    for record in records:
        created = rfc3339(record.created)
        if not record.layer:
            rows[record.key] = _Record(_SHA + record.key, chains=[_Chain([], created)], content=record.content)
        elif record.layer in places:
            result = _Result(places[record.layer], created)
            rows[record.key] = _Record(_SHA + record.key, layers=[result], content=record.content)
    return msgspec.json.encode(_Config(layers, [rows[key] for key in sorted(rows)]))


def manifest_bytes(config: bytes, blobs: Mapping[str, Descriptor], *, index: bool = False) -> tuple[str, bytes]:
    """(media type, bytes)."""
    about = {"mediaType": CONFIG_TYPE, "digest": sha256_of(config), "size": len(config)}
    layers = [
        {"mediaType": _oci(blobs[diff_id].media_type), "digest": blobs[diff_id].digest, "size": blobs[diff_id].size}
        for diff_id in sorted(blobs)
    ]
    if index:
        return OCI_INDEX, _document({"mediaType": OCI_INDEX, "manifests": [*layers, about]})
    return OCI_MANIFEST, _document({"mediaType": OCI_MANIFEST, "config": about, "layers": layers})


def _document(fields: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({"schemaVersion": 2, **fields})


def _oci(media_type: str) -> str:
    return OCI_LAYER_GZIP if media_type == DOCKER_LAYER_GZIP else media_type


# -- reading ---------------------------------------------------------------------------------------------------------


def read_top(raw: bytes) -> Top:
    """Raises InvalidParameter for what is neither manifest nor index."""
    shape = decode("cache manifest", raw, _Shape)
    if shape.media_type in INDEX_TYPES or shape.manifests is not None:
        index: Index = parse_index(raw)
        config = next((each for each in index.manifests if each.media_type == CONFIG_TYPE), None)
        return Top(config, None, tuple(each for each in index.manifests if not each.is_attestation))
    if shape.config is not None and shape.config.media_type == CONFIG_TYPE:  # may have more layers than an image
        check_descriptor(shape.config)
        return Top(shape.config)
    return Top(None, parse_manifest(raw))


class _Shape(msgspec.Struct, rename="camel"):
    media_type: str = ""
    config: Descriptor | None = None
    manifests: list[Any] | None = None


def read_config(raw: bytes, where: str) -> CacheFile:
    """Records by step key. What does not hold together is left out; raises InvalidParameter for what is no such file."""
    document = decode("cache config", raw, _Config)
    if len(document.records) > MAX_RECORDS or len(document.layers) > MAX_LAYERS:
        raise BAD_CACHE(cause=f"more than {MAX_RECORDS} records or {MAX_LAYERS} layers")
    layers: list[str] = []
    blobs: dict[str, Descriptor] = {}
    for layer in document.layers:
        found = _blob(layer)
        layers.append(found[0] if found else "")
        if found:
            blobs[found[0]] = found[1]
    records = {}
    for row in document.records:
        key = row.digest.removeprefix(_SHA)
        if (record := _record(row, key, layers, where)) is not None:
            records[key] = record
    return CacheFile(records, blobs)


def _blob(layer: _Layer) -> tuple[str, Descriptor] | None:
    about = layer.annotations
    if about is None or not 0 <= about.size < 1 << 46:
        return None
    try:
        return parse_digest(about.diff_id), Descriptor(about.media_type, parse_digest(layer.blob), about.size)
    except DockyardError:
        return None


def _record(row: _Record, key: str, layers: Sequence[str], where: str) -> StepRecord | None:
    try:
        if row.layers:
            place, told = row.layers[0].layer, row.layers[0].created_at
            layer = layers[place] if 0 <= place < len(layers) else ""
            if not layer:
                return None
        elif row.chains and not row.chains[0].layers:
            layer, told = "", row.chains[0].created_at
        else:
            return None
        created = parse_rfc3339(told)
    except ValueError:
        return None
    return StepRecord(key, layer, 0, "imported", f"imported from {where}", created, created, content=row.content)
