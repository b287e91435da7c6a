"""Build caches that leave the machine: to a registry and to the client's directory, and back on an engine that has nothing."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.client import Client
from dockyard.testing import kit
from dockyard.testing.engines import PrivateEngine, private_engine
from dockyard.testing.registries import PASSWORD, USER, debian_registry, free_port

from .conftest import BuildClient, Built, context, until_listening
from .test_buildkit import Peer, client

pytestmark = pytest.mark.root

TEXT = (
    "FROM busybox AS tools\nRUN head -c 300000 /dev/urandom > /tool\nFROM busybox\nRUN date +%s%N > /made\nENV X=1\n"
    "COPY --from=tools /tool /t\n"
)


@pytest.fixture
def registry(engine: PrivateEngine, tmp_path: Path) -> Iterator[str]:
    """host:port of a registry inside the engine's namespace that wants a password."""
    port = free_port()
    (tmp_path / "registry").mkdir()
    with debian_registry(tmp_path / "registry", htpasswd=True, port=port, inside=engine.inside) as host:
        until_listening(engine, port)
        yield host


def emptied(builder: BuildClient) -> None:
    """Nothing of what was built is left on the machine."""
    for image in builder.client.request("GET", "/images/json"):
        if image["RepoTags"] != ["busybox:latest"]:
            builder.client.request("DELETE", f"/images/{image['Id']}", {"force": "1"})
    builder.client.request("POST", "/build/prune", {"all": "1"})
    assert builder.client.request("GET", "/system/df", {"type": "build-cache"})["BuildCache"] == []


@pytest.mark.parametrize("mode", ["max", "min"])
async def test_a_registry_carries_the_cache(builder: BuildClient, tmp_path: Path, registry: str, mode: str) -> None:
    (tmp_path / "Dockerfile").write_text(TEXT)
    ref = f"{registry}/cache:{mode}"
    async with client(builder, tmp_path, credentials={registry: (USER, PASSWORD)}) as made:
        made.cache_to = [("registry", {"ref": ref, "mode": mode})]
        first = await made.build({}, [("moby", {"name": "exported:1"})])
        assert "exporting cache to registry" in first.vertexes()
        assert json.loads(first.response["cache.manifest"])["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
        emptied(builder)
        made.cache_to, made.cache_from = [], [("registry", {"ref": ref})]
        second = await made.build({}, [("moby", {"name": "imported:1"})])
        cached = {name: vertex.cached for name, vertex in second.vertexes().items() if "RUN" in name or "COPY" in name}
        assert [name for name, hit in cached.items() if not hit and "date" in name] == []
        if mode == "max":
            assert all(cached.values()), cached
            assert second.response["containerimage.digest"] == first.response["containerimage.digest"]
        else:
            assert [name for name, hit in cached.items() if not hit], "the other stage is not in the cache"
        emptied(builder)
        made.cache_from = []
        third = await made.build({}, [("moby", {})])
        assert third.response["containerimage.digest"] != first.response["containerimage.digest"]
    emptied(builder)


async def test_a_directory_of_the_client_carries_the_cache(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(TEXT)
    async with client(builder, tmp_path, stores={"local:/c": {}}) as made:
        made.cache_to = [("local", {"dest": "/c", "mode": "max"})]
        first = await made.build({}, [("moby", {})])
        digest = json.loads(first.response["cache.manifest"])["digest"]
        await made.build({}, [("moby", {})])  # the same blobs again
        emptied(builder)
        made.cache_to, made.cache_from = [], [("local", {"src": "/c", "digest": digest})]
        second = await made.build({}, [("moby", {})])
        assert second.response["containerimage.digest"] == first.response["containerimage.digest"]
        emptied(builder)
        for blob in made.stores["local:/c"]:
            if blob != digest:
                made.stores["local:/c"][blob] = b"damaged"
        third = await made.build({}, [("moby", {})])
        assert "cannot be used" in str([row.short for part in third.status for row in part.warnings])
        assert third.response["containerimage.digest"] != first.response["containerimage.digest"]
    emptied(builder)


def test_an_image_in_a_registry_carries_its_cache_inline(builder: BuildClient, registry: str) -> None:
    """Through POST /build, without the image being pulled as an image."""
    auths = {registry: {"username": USER, "password": PASSWORD}}
    text = "FROM busybox\nRUN date +%s%N > /made\nENV A=1\n"
    name = f"{registry}/inline:1"
    first = _build(builder, text, auths, t=name, cacheto='["type=inline"]').image
    auth = base64.urlsafe_b64encode(json.dumps({**auths[registry], "serveraddress": registry}).encode()).decode()
    pushed = list(builder.client.objects("POST", f"/images/{registry}/inline/push", {"tag": "1"}, headers={"X-Registry-Auth": auth}))
    assert not any("error" in message for message in pushed), pushed[-1]
    emptied(builder)
    again = _build(builder, text, auths, cachefrom=f'["type=registry,ref={name}"]', cacheto='["type=inline"]')
    assert again.cached >= 1, again.text
    assert again.image == first
    assert not any(name in (row["RepoTags"] or []) for row in builder.client.request("GET", "/images/json"))
    refused = _build(builder, text, {}, nocache="0", cachefrom=f'["type=registry,ref={name}"]')
    assert "cannot be used" in refused.text
    assert refused.image, "a cache that cannot be had is no reason to fail"
    emptied(builder)


def _build(builder: BuildClient, text: str, auths: dict[str, dict[str, str]], **query: str) -> Built:
    headers = {
        "Content-Type": "application/x-tar",
        "X-Registry-Config": base64.urlsafe_b64encode(json.dumps(auths).encode()).decode(),
    }
    with Client(builder.engine.host, timeout=60) as api:
        return Built(list(api.objects("POST", "/build", query, context({"Dockerfile": text}), headers=headers)))


async def test_buildkit_parses_our_caches_and_we_parse_its(builder: BuildClient, tmp_path: Path, engine: PrivateEngine) -> None:
    """Neither finds a key of its own in the other's, and neither minds. dockerd's BuildKit (0.8) knows the index form only."""
    folder, port = tmp_path / "context", free_port()
    folder.mkdir()
    (folder / "Dockerfile").write_text(TEXT)
    ours, theirs = f"127.0.0.1:{port}/ours:1", f"127.0.0.1:{port}/theirs:1"
    (tmp_path / "registry").mkdir()
    with debian_registry(tmp_path / "registry", port=port, inside=engine.inside):
        until_listening(engine, port)
        async with client(builder, folder, cache_to=[("registry", {"ref": ours, "mode": "max", "image-manifest": "false"})]) as made:
            await made.build({}, [("moby", {})])
    root = Path(tempfile.mkdtemp(prefix="peer-", dir="/tmp"))  # containerd's sockets need short paths
    with private_engine("dockerd", root) as peer, debian_registry(tmp_path / "registry", port=port, inside=peer.inside):
        until_listening(peer, port)
        peer.docker("load", "-i", str(kit.archive(tmp_path / "kit.tar")))
        async with client(Peer(peer), folder) as made:
            made.cache_from, made.cache_to = [("registry", {"ref": ours})], [("inline", {})]
            read = await made.build({"cache-imports": json.dumps([{"Type": "registry", "Attrs": {"ref": ours}}])}, [("moby", {"name": theirs})])
            importing = next(vertex for name, vertex in read.vertexes().items() if name.startswith("importing cache manifest"))
            assert importing.error == "", read.log
            assert not any(vertex.cached for name, vertex in read.vertexes().items() if "RUN" in name)
        pushed = peer.docker("push", theirs)
        assert pushed.returncode == 0, pushed.stderr
    with debian_registry(tmp_path / "registry", port=port, inside=engine.inside):
        until_listening(engine, port)
        async with client(builder, folder, cache_from=[("registry", {"ref": theirs})]) as made:
            answer = await made.build({}, [("moby", {})])
            assert "cannot be used" not in str([row.short for part in answer.status for row in part.warnings])
