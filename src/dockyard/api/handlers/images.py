"""images, distribution, commit and build."""

from __future__ import annotations

from typing import Any

from dockyard.api import answers
from dockyard.api.call import BAD_PARAMETER, Call
from dockyard.api.platforms import platform_of
from dockyard.http import Answer
from dockyard.model import ContainerConfig


async def list(call: Call) -> Answer:
    filters = call.filters()
    if legacy := call.text("filter"):  # API below 1.41
        filters.setdefault("reference", []).append(legacy)
    rows = await call.engine.images.list(
        all=call.flag("all"), filters=filters, shared_size=call.flag("shared-size"), digests=call.flag("digests"),
        manifests=call.flag("manifests"),
    )  # fmt: skip
    return answers.json(rows)


async def inspect(call: Call) -> Answer:
    found = await call.engine.images.inspect(
        call.params["name"], platform=platform_of(call.text("platform")), manifests=call.flag("manifests")
    )
    if call.version >= (1, 45):  # these two were removed; no shaping can add them, for it does not know the image
        found.pop("Container", None)
        found.pop("ContainerConfig", None)
    elif found.get("ContainerConfig") is None:
        # docker-compose 1.x reads an image's volumes there and cannot recreate a container without. Today's images have
        # none of their own; what they say of themselves is what it was for.
        found["ContainerConfig"] = found.get("Config") or {}
    return answers.json(found)


async def history(call: Call) -> Answer:
    return answers.json(await call.engine.images.history(call.params["name"], platform_of(call.text("platform"))))


async def tag(call: Call) -> Answer:
    await call.engine.images.tag(call.params["name"], call.text("repo"), call.text("tag"))
    return answers.empty(201)


async def remove(call: Call) -> Answer:
    rows = await call.engine.images.remove(
        call.params["name"], force=call.flag("force"), prune=not call.flag("noprune"),
        platforms=[platform_of(item) for item in call.all("platforms")],
    )  # fmt: skip
    return answers.json(rows)


async def prune(call: Call) -> Answer:
    return answers.json(await call.engine.images.prune(call.filters()))


async def search(call: Call) -> Answer:
    limit = call.number("limit", 25)
    if not 1 <= limit <= 100:
        raise BAD_PARAMETER(cause=f"Limit {limit} is outside the range of [1, 100]")
    found = call.engine.images.search(
        call.text("term"), limit=limit, filters=call.filters(), auth=call.registry_auth()
    )
    return answers.json(await call.while_client_stays(found))


async def distribution(call: Call) -> Answer:
    asked = call.engine.images.distribution(call.params["name"], call.registry_auth())
    return answers.json(await call.while_client_stays(asked))


async def create(call: Call) -> Answer:
    """A pull (``fromImage``) or an import (``fromSrc``)."""
    images, platform = call.engine.images, platform_of(call.text("platform"))
    if image := call.text("fromImage"):
        pulled = images.pull(image, call.text("tag"), platform=platform, auth=call.registry_auth())
        messages = await call.while_client_stays(pulled)
        return answers.progress(messages)
    source = call.text("fromSrc")
    if not source:
        raise BAD_PARAMETER(cause="one of fromImage and fromSrc is needed")
    messages = await images.import_(
        call.stream(), source=source, repo=call.text("repo"), tag=call.text("tag"), message=call.text("message"),
        changes=call.all("changes"), platform=platform,
    )  # fmt: skip
    return answers.progress(messages)


async def push(call: Call) -> Answer:
    pushed = call.engine.images.push(
        call.params["name"], call.text("tag"), platform=platform_of(call.text("platform")), auth=call.registry_auth()
    )
    return answers.progress(await call.while_client_stays(pushed))


async def load(call: Call) -> Answer:
    platforms = [platform_of(item) for item in call.all("platform")]
    return answers.progress(await call.engine.images.load(call.stream(), quiet=call.flag("quiet"), platforms=platforms))


async def save(call: Call) -> Answer:
    return await _save(call, [call.params["name"]])


async def save_many(call: Call) -> Answer:
    names = [name for item in call.all("names") for name in item.split(",") if name]
    if not names:
        raise BAD_PARAMETER(cause="no images to save")
    return await _save(call, names)


async def _save(call: Call, names: Any) -> Answer:
    platforms = [platform_of(item) for item in call.all("platform")]
    return answers.tar(await call.engine.images.save(names, platforms))


async def commit(call: Call) -> Answer:
    config = await call.json(ContainerConfig, empty=ContainerConfig())
    changes = [line for item in call.all("changes") for line in item.splitlines() if line.strip()]
    image = await call.engine.images.commit(
        call.text("container"), repo=call.text("repo"), tag=call.text("tag"), comment=call.text("comment"),
        author=call.text("author"), pause=call.flag("pause", default=True), changes=changes,
        config=config if config != ContainerConfig() else None,
    )  # fmt: skip
    return answers.json({"Id": image}, 201)


async def build(call: Call) -> Answer:
    messages = await call.engine.builds.build(call.request.query, call.registry_config(), call.stream())
    return answers.progress(messages)


async def build_cancel(call: Call) -> Answer:
    await call.engine.builds.cancel(call.text("id"))
    return answers.empty()


async def build_prune(call: Call) -> Answer:
    return answers.json(await call.engine.builds.prune(call.request.query, call.filters()))


async def build_mount(call: Call) -> Answer:
    return answers.tar(await call.engine.builds.mount(call.text("id")))


async def build_mount_fill(call: Call) -> Answer:
    await call.engine.builds.fill_mount(call.text("id"), call.stream())
    return answers.empty()
