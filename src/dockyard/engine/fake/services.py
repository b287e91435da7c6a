"""Images, volumes and networks in memory, as the API sees them: what ``dockyard dryrun`` serves."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from dockyard.engine.errors import NO_SUCH_IMAGE
from dockyard.engine.events import Events
from dockyard.engine.fake.rootfs import FakeRootfs
from dockyard.engine.plan.select import match_labels
from dockyard.errors import Code, Conflict, Forbidden, InvalidParameter, NotFound, NotImplementedYet
from dockyard.lib import clock
from dockyard.model import ContainerConfig, new_id
from dockyard.oci import parse_reference

Json = dict[str, Any]
Rows = list[Json]
Filters = Mapping[str, Sequence[str]]

NO_SUCH_VOLUME = Code("DY-FAKE-010", NotFound, "get {name}: no such volume")
VOLUME_IN_USE = Code("DY-FAKE-011", Conflict, "remove {name}: volume is in use")
NO_SUCH_NETWORK = Code("DY-FAKE-012", NotFound, "network {ref} not found")
NETWORK_EXISTS = Code("DY-FAKE-013", Conflict, "network with name {name} already exists")
PREDEFINED = Code("DY-FAKE-014", Forbidden, "{name} is a pre-defined network and cannot be removed")
NOT_SIMULATED = Code("DY-FAKE-015", NotImplementedYet, "{what} is not simulated by dockyard dryrun")
NAME_NEEDED = Code("DY-FAKE-016", InvalidParameter, "invalid network name: name is empty")


def _digest(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


class FakeImages:
    """Every pull succeeds: any name becomes an image that runs the simulated commands."""

    def __init__(self, rootfs: FakeRootfs, events: Events) -> None:
        self._rootfs = rootfs
        self._events = events

    def _add(self, name: str) -> str:
        digest = _digest(name)
        self._rootfs.add_image(name, digest, ContainerConfig(cmd=["sh"], env=["PATH=/usr/bin:/bin"]))
        return digest

    def _document(self, name: str) -> Json:
        image = self._rootfs.image(name)
        return {
            "Id": image.id, "RepoTags": list(image.names), "RepoDigests": [], "Parent": "", "Comment": "", "Author": "",
            "Created": "2026-01-01T00:00:00Z", "Architecture": "amd64", "Os": "linux", "Size": 0,
            "Config": image.config, "GraphDriver": {"Name": "overlay2", "Data": None},
            "RootFS": {"Type": "layers", "Layers": []}, "Metadata": {},
        }  # fmt: skip

    async def list(self, *, all: bool, filters: Filters, shared_size: bool, digests: bool, manifests: bool) -> Rows:
        seen = {image.id: image for image in self._rootfs.images.values()}
        wanted = filters.get("reference", ())
        return [
            {"Id": image.id, "ParentId": "", "RepoTags": [*image.names], "RepoDigests": [], "Created": 1767225600,
             "Size": 0, "SharedSize": -1, "Containers": -1, "Labels": None}
            for image in seen.values()
            if not wanted or any(item in {name, name.rpartition(":")[0]} for item in wanted for name in image.names)
        ]  # fmt: skip

    async def inspect(self, ref: str, *, platform: str, manifests: bool) -> Json:
        return self._document(ref)

    async def history(self, ref: str, platform: str) -> Rows:
        image = self._rootfs.image(ref)
        return [
            {"Id": image.id, "Created": 1767225600, "CreatedBy": "", "Tags": [*image.names], "Size": 0, "Comment": ""}
        ]

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        image = self._rootfs.image(ref)
        name = parse_reference(f"{repo}:{tag or 'latest'}").familiar
        self._rootfs.add_image(name, image.id, image.config)

    async def remove(self, ref: str, *, force: bool, prune: bool, platforms: Sequence[str]) -> Rows:
        image = self._rootfs.image(ref)
        for key in [key for key, item in self._rootfs.images.items() if item.id == image.id]:
            del self._rootfs.images[key]
        self._events.emit("image", "delete", image.id, name=image.id)
        return [{"Untagged": name} for name in image.names] + [{"Deleted": image.id}]

    async def prune(self, filters: Filters) -> Json:
        return {"ImagesDeleted": None, "SpaceReclaimed": 0}

    async def pull(self, ref: str, tag: str, *, platform: str, auth: Json) -> AsyncIterator[Json]:
        parsed = parse_reference(ref)
        name = (parsed.with_tag(tag) if tag and not tag.startswith("sha256:") else parsed.with_default_tag()).familiar
        if "doesnotexist" in name or "does-not-exist" in name:
            raise NO_SUCH_IMAGE(ref=name)
        self._add(name)
        self._events.emit("image", "pull", name, name=name)

        async def told() -> AsyncIterator[Json]:
            yield {"status": f"Pulling from {ref}", "id": tag or "latest"}
            yield {"status": f"Status: Downloaded newer image for {name}"}

        return told()

    async def load(self, tar: AsyncIterator[bytes], *, quiet: bool, platforms: Sequence[str]) -> AsyncIterator[Json]:
        raise NOT_SIMULATED(what="loading images")

    async def save(self, refs: Sequence[str], platforms: Sequence[str]) -> AsyncIterator[bytes]:
        raise NOT_SIMULATED(what="saving images")

    async def import_(self, tar: AsyncIterator[bytes], **wish: Any) -> AsyncIterator[Json]:
        raise NOT_SIMULATED(what="importing images")

    async def commit(self, ref: str, *, repo: str, tag: str, **wish: Any) -> str:
        return self._add(f"{repo or new_id()}:{tag or 'latest'}")

    async def push(self, ref: str, tag: str, *, platform: str, auth: Json) -> AsyncIterator[Json]:
        raise NOT_SIMULATED(what="pushing images")

    async def search(self, term: str, *, limit: int, filters: Filters, auth: Json) -> Rows:
        return []

    async def distribution(self, ref: str, auth: Json) -> Json:
        raise NOT_SIMULATED(what="registry access")


class FakeVolumeService:
    def __init__(self, users: dict[str, set[str]], events: Events) -> None:
        self._users = users
        self._events = events
        self._documents: dict[str, Json] = {}

    def _document(self, name: str) -> Json:
        if name not in self._users:
            raise NO_SUCH_VOLUME(name=name)
        return self._documents.get(name) or self._made(name, {}, {})

    def _made(self, name: str, options: Json, labels: Json) -> Json:
        document = {
            "Name": name, "Driver": "local", "Mountpoint": f"/nowhere/volumes/{name}/_data", "Scope": "local",
            "CreatedAt": clock.rfc3339(clock.now()), "Labels": labels or None, "Options": options or None,
        }  # fmt: skip
        self._documents[name] = document
        return document

    async def list(self, filters: Filters) -> Json:
        names = filters.get("name", ())
        rows = [self._document(name) for name in self._users if not names or any(item in name for item in names)]
        rows = [row for row in rows if match_labels(filters.get("label", ()), row["Labels"])]
        return {"Volumes": rows, "Warnings": None}

    async def create(self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> Json:
        name = name or new_id()
        if name in self._users:
            return self._document(name)
        self._users[name] = set()
        self._events.emit("volume", "create", name, driver=driver)
        return self._made(name, options, labels)

    async def inspect(self, name: str) -> Json:
        return self._document(name)

    async def remove(self, name: str, *, force: bool) -> None:
        if name not in self._users and force:
            return
        self._document(name)
        if self._users[name]:
            raise VOLUME_IN_USE(name=name)
        del self._users[name], self._documents[name]
        self._events.emit("volume", "destroy", name, driver="local")

    async def prune(self, filters: Filters) -> Json:
        gone = [name for name, users in self._users.items() if not users]
        for name in gone:
            await self.remove(name, force=True)
        return {"VolumesDeleted": gone, "SpaceReclaimed": 0}


_PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}


class FakeNetworkService:
    def __init__(self, events: Events) -> None:
        self._events = events
        self._networks = {
            name: self._made(name, driver)
            for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null"))
        }

    @staticmethod
    def _made(name: str, driver: str, wish: Mapping[str, Any] | None = None) -> Json:
        wish = wish or {}
        return {
            "Name": name, "Id": new_id(), "Created": clock.rfc3339(clock.now()), "Scope": "local", "Driver": driver,
            "EnableIPv4": True, "EnableIPv6": bool(wish.get("EnableIPv6")), "Internal": bool(wish.get("Internal")),
            "IPAM": wish.get("IPAM") or {"Driver": "default", "Options": None, "Config": []}, "Ingress": False,
            "Attachable": bool(wish.get("Attachable")), "ConfigFrom": {"Network": ""}, "ConfigOnly": False,
            "Containers": {}, "Options": wish.get("Options") or {}, "Labels": wish.get("Labels") or {},
        }  # fmt: skip

    def _find(self, ref: str) -> Json:
        for document in self._networks.values():
            if ref in {document["Name"], document["Id"]} or (len(ref) >= 4 and document["Id"].startswith(ref)):
                return document
        raise NO_SUCH_NETWORK(ref=ref)

    def identify(self, name: str) -> str:
        """The network's ID; the name itself where there is none such."""
        return str(self._networks[name]["Id"]) if name in self._networks else name

    async def list(self, filters: Filters) -> Rows:
        names = filters.get("name", ())
        return [
            document
            for document in self._networks.values()
            if (not names or any(item in document["Name"] for item in names))
            and match_labels(filters.get("label", ()), document["Labels"])
        ]

    async def create(self, request: Json) -> Json:
        name = request.get("Name") or ""
        if not name:
            raise NAME_NEEDED()
        if name in self._networks:
            raise NETWORK_EXISTS(name=name)
        self._networks[name] = self._made(name, request.get("Driver") or "bridge", request)
        self._events.emit("network", "create", self._networks[name]["Id"], name=name, type="bridge")
        return {"Id": self._networks[name]["Id"], "Warning": ""}

    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> Json:
        return self._find(ref)

    async def remove(self, ref: str) -> None:
        document = self._find(ref)
        if document["Name"] in _PREDEFINED:
            raise PREDEFINED(name=document["Name"])
        del self._networks[document["Name"]]
        self._events.emit("network", "destroy", document["Id"], name=document["Name"], type="bridge")

    async def connect(self, ref: str, container: str, endpoint: Json) -> None:
        self._find(ref)

    async def disconnect(self, ref: str, container: str, *, force: bool) -> None:
        self._find(ref)

    async def prune(self, filters: Filters) -> Json:
        gone = [name for name in self._networks if name not in _PREDEFINED]
        for name in gone:
            await self.remove(name)
        return {"NetworksDeleted": gone or None}
