"""Archives that are not everyday: Docker's before 1.10, and images with attestations."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.errors import InvalidParameter
from dockyard.storage import Store

pytestmark = pytest.mark.root
Members = dict[str, bytes]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "root")
    yield opened
    await opened.close(unmount=True)


async def tar(members: Members) -> AsyncIterator[bytes]:
    yield pack(members)


def pack(members: Members) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def v1() -> Members:
    command = {"Cmd": ["/bin/sh", "-c", "#(nop) ADD file"]}
    base = {"id": "aa", "created": "2014-01-01T00:00:00Z", "container_config": command, "os": "linux",
            "architecture": "amd64", "config": {"Cmd": ["sh"]}, "Size": 3}  # fmt: skip
    top = {"id": "bb", "parent": "aa", "created": "2014-02-01T00:00:00Z", "author": "me", "comment": "later",
           "os": "linux", "architecture": "amd64", "config": {"Cmd": ["cat", "/file"]}}  # fmt: skip
    return {
        "aa/VERSION": b"1.0", "aa/json": json.dumps(base).encode(), "aa/layer.tar": pack({"file": b"old", "low": b"1"}),
        "bb/VERSION": b"1.0", "bb/json": json.dumps(top).encode(), "bb/layer.tar": pack({"file": b"new"}),
        "repositories": json.dumps({"ancient": {"1": "bb", "latest": "bb"}, "base": {"1": "aa"}}).encode(),
    }  # fmt: skip


async def test_an_archive_from_before_digests(store: Store) -> None:
    loaded = await store.load(tar(v1()))
    assert {item.name for item in loaded} == {"ancient:1", "ancient:latest", "base:1"}
    image = store.get_image("ancient:1")
    document = json.loads(image.config.raw)
    assert document["config"] == {"Cmd": ["cat", "/file"]}
    assert not {"id", "parent", "Size"} & set(document)
    assert [row.created_by for row in store.history("ancient:1")] == ["", "/bin/sh -c #(nop) ADD file"]
    assert store.history("ancient:1")[0].comment == "later"
    assert store.get_image("base:1").diff_ids == image.diff_ids[:1]
    store.prepare("look", image.id)
    root = store.mount("look")
    assert ((root / "file").read_text(), (root / "low").read_text()) == ("new", "1")
    again = await store.load(tar(v1()))
    assert {item.id for item in again} == {item.id for item in loaded}


def broken(change: str) -> Members:
    members = v1()
    if change == "loop":
        members["aa/json"] = json.dumps({"id": "aa", "parent": "bb"}).encode()
    elif change == "no parent":
        del members["aa/json"]
    elif change == "no layer":
        del members["bb/layer.tar"]
    elif change == "out of the archive":
        members["repositories"] = json.dumps({"x": {"1": "../../etc"}}).encode()
    else:
        members["bb/json"] = change.encode()
    return members


@pytest.mark.parametrize("change", ["loop", "no parent", "no layer", "out of the archive", "no json", "[]", '{"parent": 3'])
async def test_broken_ones_are_refused(store: Store, change: str) -> None:
    with pytest.raises(InvalidParameter):
        await store.load(tar(broken(change)))
    store.collect()
    assert (store.list_images(), store.layers.all()) == ([], [])


def attested() -> tuple[Members, str]:
    """An OCI layout with an image and what BuildKit attests about it."""
    members: Members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(data: bytes, kind: str, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        members[f"blobs/sha256/{digest}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}

    def manifest(config: dict[str, Any], *layers: dict[str, Any]) -> bytes:
        return json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
            "layers": layers,
        }).encode()  # fmt: skip

    kind, settings = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"
    layer = blob(pack({"file": b"x"}), "application/vnd.oci.image.layer.v1.tar")
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}})
    image = blob(manifest(blob(config.encode(), settings), layer), kind, platform={"os": "linux", "architecture": "amd64"})
    statement = blob(b'{"_type":"https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json")
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}
    nothing = blob(b'{"os":"unknown","architecture":"unknown","rootfs":{"type":"layers","diff_ids":[]}}', settings)
    attestation = blob(
        manifest(nothing, statement), kind, platform={"os": "unknown", "architecture": "unknown"}, annotations=about
    )
    index = {"schemaVersion": 2, "manifests": [image, attestation]}
    index["mediaType"] = "application/vnd.oci.image.index.v1+json"
    names = {"io.containerd.image.name": "docker.io/library/attested:1"}
    top = blob(json.dumps(index).encode(), index["mediaType"], annotations=names)
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    return members, attestation["digest"]


async def test_attestations_are_kept_and_not_unpacked(store: Store) -> None:
    members, digest = attested()
    (loaded,) = await store.load(tar(members))
    assert loaded.name == "attested:1"
    assert len(store.list_images()) == 1
    assert len(store.layers.all()) == 1
    kept = {item.digest: item for item in store.images.documents(loaded.id)}
    assert kept[digest].data == members[f"blobs/sha256/{digest.removeprefix('sha256:')}"]
    kinds = sorted(item.media_type for item in kept.values())
    assert kinds == ["application/vnd.in-toto+json", "application/vnd.oci.image.index.v1+json",
                     *["application/vnd.oci.image.manifest.v1+json"] * 2]  # fmt: skip
    store.remove_image("attested:1")
    assert (store.list_images(), store.layers.all()) == ([], [])
