"""Images as the Engine API sees them, over storage (what is here) and transfer (what registries have)."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from dockyard.engine import lifecycle
from dockyard.engine.errors import BAD_REQUEST
from dockyard.engine.kit import Kit
from dockyard.engine.plan.names import no_such_image
from dockyard.engine.plan.select import Filters, flag, match_labels, prune_until
from dockyard.errors import NotFound
from dockyard.lib.clock import parse_rfc3339
from dockyard.model import ContainerConfig, encode
from dockyard.oci import ImageRef, parse_reference
from dockyard.storage import Image, Store
from dockyard.transfer import Transfer
from dockyard.transfer.model import SearchFilter

Json = dict[str, Any]
Rows = list[Json]
Progress = AsyncIterator[Json]
Users = dict[str, list[tuple[str, bool]]]
"""Image ID -> (container ID, running)."""


class Images:
    def __init__(self, store: Store, transfer: Transfer, kit: Kit, find: Any) -> None:
        self._store = store
        self._transfer = transfer
        self._kit = kit
        self._find = find

    def _get(self, ref: str) -> Image:
        try:
            return self._store.get_image(ref)
        except NotFound:
            raise no_such_image(ref) from None

    def _emit(self, action: str, actor: str, name: str) -> None:
        self._kit.events.emit("image", action, actor, name=name)

    # -- looking ----------------------------------------------------------------------------------------------------

    async def list(self, *, all: bool, filters: Filters, shared_size: bool, digests: bool, manifests: bool) -> Rows:
        images = self._store.list_images()
        parents = {image.parent for image in images}
        before = min((parse_rfc3339(self._get(ref).created) for ref in filters.get("before", ())), default=0)
        since = max((parse_rfc3339(self._get(ref).created) for ref in filters.get("since", ())), default=0)
        until = prune_until(filters, self._kit.now())
        rows = []
        for image in images:
            created = parse_rfc3339(image.created)
            if (before and created >= before) or (since and created <= since) or (until and created > until):
                continue
            if not all and not image.repo_tags and not image.repo_digests and image.id in parents:
                continue
            row = self._row(image, filters)
            if row is not None:
                rows.append(row)
        return sorted(rows, key=lambda row: -row["Created"])

    def _row(self, image: Image, filters: Filters) -> Json | None:
        labels = (image.config.document.config or {}).get("Labels")
        if not match_labels(filters.get("label", ()), labels):
            return None
        tags, digests = list(image.repo_tags), list(image.repo_digests)
        if patterns := filters.get("reference"):
            tags = [tag for tag in tags if any(_matches(pattern, tag) for pattern in patterns)]
            digests = [item for item in digests if any(_matches(pattern, item) for pattern in patterns)]
            if not tags and not digests:
                return None
        if (dangling := flag(filters, "dangling")) is not None and dangling != (not image.repo_tags):
            return None
        used = sum(container.record.image_id == image.id for container in self._kit.containers.values())
        return {
            "Id": image.id, "ParentId": image.parent or "", "RepoTags": tags, "RepoDigests": digests,
            "Created": parse_rfc3339(image.created) // 1_000_000_000, "Size": image.size, "SharedSize": -1,
            "Containers": used if filters.get("x-count") else -1, "Labels": labels,
        }  # fmt: skip

    async def inspect(self, ref: str, *, platform: str, manifests: bool) -> Json:
        image = self._get(ref)
        document = image.config.document
        raw = msgspec.json.decode(image.config.raw)
        base = f"{self._store.root}/layers"
        return {
            "Id": image.id, "RepoTags": list(image.repo_tags), "RepoDigests": list(image.repo_digests),
            "Parent": image.parent or "", "Comment": _comment(raw), "Created": document.created or "",
            "DockerVersion": raw.get("docker_version", ""), "Author": document.author,
            "Container": raw.get("container", ""), "ContainerConfig": raw.get("container_config"),
            "Config": document.config or {}, "Architecture": document.architecture, "Os": document.os,
            **({"Variant": document.variant} if document.variant else {}), "Size": image.size,
            "GraphDriver": {"Name": "overlay2", "Data": {"LayersDir": base}},
            "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        }  # fmt: skip

    async def history(self, ref: str, platform: str) -> Rows:
        self._get(ref)
        return [
            {
                "Id": row.id, "Created": row.created, "CreatedBy": row.created_by, "Tags": list(row.tags) or None,
                "Size": row.size, "Comment": row.comment,
            }
            for row in self._store.history(ref)
        ]  # fmt: skip

    # -- names and removal ------------------------------------------------------------------------------------------

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        image = self._get(ref)
        name = _named(repo, tag).with_default_tag()
        self._store.tag(ref, str(name))
        self._emit("tag", image.id, name.familiar)

    def _in_use(self) -> Users:
        used: Users = {}
        for container in self._kit.containers.values():
            record = container.record
            used.setdefault(record.image_id, []).append((record.id, record.live))
        return used

    async def remove(self, ref: str, *, force: bool, prune: bool, platforms: Sequence[str]) -> Rows:
        image = self._get(ref)
        removed = self._store.remove_image(ref, force=force, prune=prune, in_use=self._in_use())
        for row in removed:
            self._emit("untag" if row.untagged else "delete", row.deleted or image.id, row.untagged or row.deleted)
        self._kit.reserve.hold()
        return [{"Untagged": row.untagged} if row.untagged else {"Deleted": row.deleted} for row in removed]

    async def prune(self, filters: Filters) -> Json:
        dangling = flag(filters, "dangling", True) is True
        until = prune_until(filters, self._kit.now())

        def keep(image: Image) -> bool:
            labels = (image.config.document.config or {}).get("Labels")
            if until and parse_rfc3339(image.created) > until:
                return True
            if not match_labels(filters.get("label", ()), labels):
                return True
            return any(match_labels([item], labels) for item in filters.get("label!", ()))

        rows, freed = self._store.prune_images(dangling_only=dangling, in_use=self._in_use(), keep=keep)
        self._kit.reserve.hold()
        self._kit.events.emit("image", "prune", "", reclaimed=str(freed))
        deleted = [{"Untagged": row.untagged} if row.untagged else {"Deleted": row.deleted} for row in rows]
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": freed}

    # -- in and out -------------------------------------------------------------------------------------------------

    async def load(self, tar: AsyncIterator[bytes], *, quiet: bool, platforms: Sequence[str]) -> Progress:
        return self._loaded(tar)

    async def _loaded(self, tar: AsyncIterator[bytes]) -> Progress:
        for item in await self._store.load(tar):
            self._emit("load", item.id, item.name or item.id)
            for line in item.messages:
                yield {"stream": line + "\n"}

    async def save(self, refs: Sequence[str], platforms: Sequence[str]) -> AsyncIterator[bytes]:
        for ref in refs:
            image = self._get(ref)
            self._emit("save", image.id, ref)
        return self._store.save(refs)

    async def import_(
        self,
        tar: AsyncIterator[bytes],
        *,
        source: str,
        repo: str,
        tag: str,
        message: str,
        changes: Sequence[str],
        platform: str,
    ) -> Progress:
        if source != "-":
            raise BAD_REQUEST(cause="import from a URL is not served: fetch it and pipe it in (docker import -)")
        name = str(_named(repo, tag).with_default_tag()) if repo else ""
        image = await self._kit.supervisor.operate(
            self._store.import_(tar, name, changes=changes, message=message, platform=platform), "import"
        )
        self._emit("import", image.id, image.id)

        async def told() -> Progress:
            yield {"status": image.id}

        return told()

    async def commit(
        self, ref: str, *, repo: str, tag: str, comment: str, author: str, pause: bool, changes: Sequence[str],
        config: ContainerConfig | None,
    ) -> str:  # fmt: skip
        container = self._find(ref)
        record = container.record
        chosen = config or record.config
        document = msgspec.json.decode(encode(chosen))
        if config is not None:
            document = {
                **msgspec.json.decode(encode(record.config)),
                **{key: value for key, value in document.items() if value},
            }
        name = str(_named(repo, tag).with_default_tag()) if repo else ""
        paused = pause and record.state.status == "running" and await lifecycle.try_pause(container)
        try:
            image = await self._kit.supervisor.operate(
                self._store.commit(
                    record.id, document, base=record.image_id or None, ref=name, author=author, comment=comment,
                    changes=changes, created_by=" ".join([record.path, *record.args]),
                ),
                "commit",
            )  # fmt: skip
        finally:
            if paused and container.record.state.status == "paused":
                await lifecycle.unpause(container)
        container.emit("commit", comment=comment, imageID=image.id, imageRef=name)
        self._emit("create", image.id, name or image.id)
        return image.id

    # -- registries -------------------------------------------------------------------------------------------------

    async def pull(self, ref: str, tag: str, *, platform: str, auth: Json) -> Progress:
        parsed = parse_reference(f"{ref}@{tag}") if tag.startswith("sha256:") else _named(ref, tag)
        messages = await self._transfer.pull(parsed, platform=platform, auth=auth or None)
        return self._told(messages, "pull", parsed.with_default_tag().familiar)

    async def push(self, ref: str, tag: str, *, platform: str, auth: Json) -> Progress:
        parsed = _named(ref, tag)
        messages = await self._transfer.push(parsed, auth=auth or None, all_tags=not tag and parsed.tag is None)
        return self._told(messages, "push", parsed.familiar)

    async def _told(self, messages: AsyncIterator[Json], action: str, name: str) -> Progress:
        async for message in messages:
            yield message
        self._emit(action, name, name)

    async def search(self, term: str, *, limit: int, filters: Filters, auth: Json) -> Rows:
        stars = max((int(value) for value in filters.get("stars", ()) if value.isdigit()), default=0)
        official = filters.get("is-official")
        wish = SearchFilter(stars=stars, is_official=official[0] == "true" if official else None)
        found = await self._transfer.search(term, limit=limit, filter=wish, auth=auth or None)
        return [row.document() for row in found]

    async def distribution(self, ref: str, auth: Json) -> Json:
        return await self._transfer.distribution(ref, auth or None)

    async def usage(self) -> Json:
        usage = await self._store.disk_usage()
        rows = await self.list(all=False, filters={"x-count": ["1"]}, shared_size=True, digests=False, manifests=False)
        for row in rows:
            row["SharedSize"] = usage.images.get(row["Id"], (0, 0))[1]
        return {"LayersSize": usage.layers_size, "Images": rows}


def _comment(config: Json) -> str:
    """The image's, or that of its last step: OCI has no other place for it (as in moby)."""
    history = config.get("history") or [{}]
    return str(config.get("comment") or history[-1].get("comment") or "")


def _named(repo: str, tag: str) -> ImageRef:
    """A name and the tag that comes beside it, which wins over one in the name (moby's RepoTagReference)."""
    parsed = parse_reference(repo)
    return parsed.with_tag(tag) if tag else parsed


def _matches(pattern: str, name: str) -> bool:
    """reference.FamiliarMatch: the pattern against ``name:tag`` and against the name alone."""
    alone = name.partition("@")[0].rpartition(":")[0] or name
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(alone, pattern)
