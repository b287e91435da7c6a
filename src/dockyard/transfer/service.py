"""The facade: pull, push, distribution, search, login."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dockyard.oci import Digest, ImageRef, parse_reference

from . import lookup
from .cancel import Cancel
from .download import Downloads, download
from .errors import PUSH_BY_DIGEST
from .feed import Feed
from .manifests import Descriptor, parse_platform
from .model import ANONYMOUS, ANY_ROW, Auth, Context, LoginResult, Progress, RawManifest, SearchFilter, SearchRow
from .partial import Partials
from .ports import ImageStore
from .pull import Pull
from .push import Compose, Push
from .records import Records
from .repository import MAX_CONFIG, Repository, first_good
from .session import Session, TokenCache
from .settings import Endpoint, Settings, endpoints_for
from .transport import Transport

MAX_OPERATIONS = 16
"""Pulls, pushes and look-ups that run at the same time; later ones wait."""

T = TypeVar("T")


class Transfer:
    """Made on the event loop; one per daemon. ``root`` holds transfer.db and what cut downloads
    left; None keeps the records in memory."""

    def __init__(self, settings: Settings, store: ImageStore, root: Path | None = None) -> None:
        self._settings = settings
        self._store = store
        self._transport = Transport(settings)
        self._tokens = TokenCache()
        self._records = Records(root / "transfer.db" if root else None)
        self._downloads = Downloads(settings.max_concurrent_downloads, Partials(root / "partial" if root else None))
        self._uploads = ThreadPoolExecutor(settings.max_concurrent_uploads, thread_name_prefix="upload")
        self._operations = ThreadPoolExecutor(MAX_OPERATIONS, thread_name_prefix="transfer")

    def close(self) -> None:
        self._operations.shutdown(wait=False, cancel_futures=True)
        self._uploads.shutdown(wait=False, cancel_futures=True)
        self._downloads.close()
        self._transport.close()
        self._records.close()

    async def pull(
        self, ref: str | ImageRef, *, platform: str = "", auth: Auth | Mapping[str, Any] | None = None,
        all_tags: bool = False,
    ) -> AsyncIterator[Progress]:  # fmt: skip
        """Progress of the pull. What fails before the image is found is raised here, later errors by the iterator.

        Closing the iterator cancels the pull. A ref with neither tag nor digest means ``latest``, or all its tags.
        """
        name = _parse(ref)
        name = name if all_tags else name.with_default_tag()
        wanted = parse_platform(platform) if platform else None
        feed, cancel = Feed(asyncio.get_running_loop()), Cancel()
        credentials = as_auth(auth)
        operation = Pull(
            lambda each: self._repositories(each, credentials, cancel, "pull"), self._store, self._records,
            self._downloads, feed, cancel, self._settings.max_download_attempts,
        )  # fmt: skip
        work = operation.run_all_tags if all_tags else operation.run
        return await _begun(feed.run(self._operations, functools.partial(work, name, wanted), cancel))

    async def push(
        self, ref: str | ImageRef, *, auth: Auth | Mapping[str, Any] | None = None, all_tags: bool = False
    ) -> AsyncIterator[Progress]:
        """Progress of the push, ending with exactly one aux object per tag. As for pull otherwise."""
        name = _parse(ref)
        if name.digest:
            raise PUSH_BY_DIGEST()
        name = name if all_tags else name.with_default_tag()
        feed, cancel, operation = self._push(name, auth)
        work = functools.partial(operation.run, name, all_tags=all_tags)
        return await _begun(feed.run(self._operations, work, cancel))

    async def push_parts(
        self, ref: str | ImageRef, layers: Sequence[Digest], compose: Compose, *,
        auth: Auth | Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Progress]:  # fmt: skip
        """Layers of the store, and the documents that ``compose`` makes of what they have become, under a tag: an index of
        several images, a build's cache. As for push otherwise; the caller holds the layers until the end."""
        name = _parse(ref).with_default_tag()
        feed, cancel, operation = self._push(name, auth)
        return await _begun(feed.run(self._operations, functools.partial(operation.run_parts, name, layers, compose), cancel))

    def _push(self, name: ImageRef, auth: Auth | Mapping[str, Any] | None) -> tuple[Feed, Cancel, Push]:
        feed, cancel = Feed(asyncio.get_running_loop()), Cancel()
        target = self._repositories(name, as_auth(auth), cancel, "push")[-1]
        return feed, cancel, Push(
            target, self._store, self._records, self._uploads, feed, cancel, self._settings.push_compression,
            self._settings.push_chunk,
        )  # fmt: skip

    async def manifest(
        self, ref: str | ImageRef, digest: str = "", *, auth: Auth | Mapping[str, Any] | None = None
    ) -> RawManifest:
        """What the name stands for in its registry, or a manifest of the same repository. Raises NotFound."""
        name, cancel = _parse(ref).with_default_tag(), Cancel()
        sources = self._repositories(name, as_auth(auth), cancel, "pull")
        wanted = digest or name.digest or name.tag or ""
        return await self._threaded(lambda: first_good(sources, lambda each: each.manifest(wanted)), cancel)

    async def blob(
        self, ref: str | ImageRef, digest: Digest, *, auth: Auth | Mapping[str, Any] | None = None, limit: int = MAX_CONFIG
    ) -> bytes:
        """A small blob of the name's repository, verified. Raises NotFound, DataLoss."""
        cancel = Cancel()
        sources = self._repositories(_parse(ref), as_auth(auth), cancel, "pull")
        return await self._threaded(lambda: first_good(sources, lambda each: each.blob_bytes(digest, limit)), cancel)

    async def layer(
        self, ref: str | ImageRef, blob: Descriptor, diff_id: Digest, *, auth: Auth | Mapping[str, Any] | None = None
    ) -> None:
        """One layer of the name's repository into the store, verified against both digests. The caller holds ``diff_id``
        by a lease of its own. Raises NotFound, DataLoss."""
        feed, cancel = Feed(asyncio.get_running_loop()), Cancel()
        sources = self._repositories(_parse(ref), as_auth(auth), cancel, "pull")
        attempts = self._settings.max_download_attempts

        def work() -> None:
            if not self._store.has_layer(diff_id):
                download(sources, blob, diff_id, self._store, feed, cancel, attempts, self._downloads.partials)

        future, _ = self._downloads.start(diff_id, work)
        await self._threaded(lambda: self._downloads.fetch(diff_id, work, cancel, future), cancel)

    async def distribution(self, ref: str | ImageRef, auth: Auth | Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The document of GET /distribution/{name}/json: descriptor and platforms, nothing downloaded."""
        name = _parse(ref).with_default_tag()
        cancel = Cancel()
        sources = self._repositories(name, as_auth(auth), cancel, "pull")
        return await self._threaded(functools.partial(lookup.distribution, sources, name), cancel)

    async def tags(self, ref: str | ImageRef, auth: Auth | Mapping[str, Any] | None = None) -> list[str]:
        name = _parse(ref)
        cancel = Cancel()
        return await self._threaded(self._repositories(name, as_auth(auth), cancel, "pull")[-1].tags, cancel)

    async def search(
        self, term: str, *, limit: int = 0, filter: SearchFilter = ANY_ROW,
        auth: Auth | Mapping[str, Any] | None = None,
    ) -> list[SearchRow]:  # fmt: skip
        domain, words = lookup.split_term(term)
        endpoint = lookup.search_endpoint(self._settings, domain)
        cancel = Cancel()
        session = self._session(endpoint, as_auth(auth), cancel, Context("search", name=term))
        return await self._threaded(functools.partial(lookup.search, session, words, limit, filter), cancel)

    async def login(self, auth: Auth | Mapping[str, Any]) -> LoginResult:
        """Prove the credentials to their server. Raises Unauthorized, or why the server cannot be asked."""
        credentials = as_auth(auth)
        cancel = Cancel()
        endpoint = endpoints_for(self._settings, lookup.login_domain(credentials.serveraddress), push=True)[-1]
        context = Context("login")
        session = Session(self._transport, TokenCache(), endpoint, credentials, context, cancel, offline=True)
        return await self._threaded(functools.partial(lookup.login, session), cancel)

    # ----------------------------------------------------------------------------------------------------------------

    def _repositories(self, ref: ImageRef, auth: Auth, cancel: Cancel, verb: str) -> list[Repository]:
        """Where ``ref`` may be, in the order to try; the registry itself is the last. Mirrors get no credentials."""
        context = Context(verb, ref.familiar, ref.familiar_name, ref.path)
        push = verb == "push"
        return [
            Repository(
                self._session(endpoint, ANONYMOUS if endpoint.mirror else auth, cancel, context), ref.path, push=push
            )
            for endpoint in endpoints_for(self._settings, ref.domain, push=push)
        ]

    def _session(self, endpoint: Endpoint, auth: Auth, cancel: Cancel, context: Context) -> Session:
        return Session(self._transport, self._tokens, endpoint, auth, context, cancel)

    async def _threaded(self, work: Callable[[], T], cancel: Cancel) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._operations, work)
        except asyncio.CancelledError:
            cancel.cancel()
            raise


def as_auth(auth: Auth | Mapping[str, Any] | None) -> Auth:
    if auth is None:
        return ANONYMOUS
    if isinstance(auth, Auth):
        return auth
    try:
        return msgspec.convert(dict(auth), Auth)
    except msgspec.ValidationError:
        return ANONYMOUS  # as dockerd: what cannot be read counts as no credentials


def _parse(ref: str | ImageRef) -> ImageRef:
    return ref if isinstance(ref, ImageRef) else parse_reference(ref)


async def _begun(stream: AsyncIterator[Progress]) -> AsyncIterator[Progress]:
    """``stream`` after its first object, so that an early failure can still become an HTTP status."""
    first = await anext(stream)

    async def whole() -> AsyncIterator[Progress]:
        async with aclosing(stream):  # type: ignore[type-var]
            yield first
            async for item in stream:
                yield item

    return whole()
