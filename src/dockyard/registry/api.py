"""The distribution API (/v2/): paths, headers and answers; what they mean is in `content`, `uploads` and `gate`.

The fast path: a GET whose target was answered before, in this epoch, with a token that was verified before, is
answered by a plain function from memory. Everything else is a coroutine.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from dockyard.errors import DockyardError
from dockyard.http import FileResponse, Request, Response, StreamResponse
from dockyard.http.response import Answer
from dockyard.registry.access import visible_sql
from dockyard.registry.cache import ENTRY_BYTES, Cache, Entry
from dockyard.registry.content import Content, tags_document
from dockyard.registry.core import MANIFEST_MAX, Core
from dockyard.registry.errors import (
    BLOB_UNKNOWN,
    NAME_INVALID,
    SIZE_INVALID,
    UNSUPPORTED,
    UPLOAD_INVALID,
    WIRE,
)
from dockyard.registry.gate import Gate
from dockyard.registry.manifest import OCI_INDEX, index_document
from dockyard.registry.names import check_digest, check_name, looks_like_digest
from dockyard.registry.proxy import Proxy
from dockyard.registry.ranges import multipart, parse_ranges
from dockyard.registry.uploads import Blob, Upload, Uploads

Route = Callable[[Request, str, str], Awaitable[Answer]]

_ROUTE = re.compile(
    r"/v2/(?P<name>.+?)/(?:manifests/(?P<manifests>[^/]+)|blobs/uploads/?(?P<uploads>[^/]*)|blobs/(?P<blobs>[^/]+)"
    r"|(?P<tags>tags/list)|referrers/(?P<referrers>[^/]+)|_trust/(?P<trust>.*))\Z"
)
_MOUNT_SOURCES = 20
_TAGS_PUT_MAX = 100
_PAGE_MAX = 10_000
_JSON = {"Content-Type": "application/json"}


def error_document(error: DockyardError, status: int, code: str) -> Response:
    detail = {k: v for k, v in error.evidence.items() if isinstance(v, str | int) and k != "status"}
    if error.hint:
        detail["hint"] = error.hint
    body = msgspec.json.encode({"errors": [{"code": code, "message": error.message, "detail": detail}]})
    return Response(status, _JSON | error.evidence.get("headers", {}), body)


def wire_error(error: DockyardError) -> Response:
    if error.code in WIRE:
        return error_document(error, *WIRE[error.code])
    status = int(error.evidence.get("status", 500))
    return error_document(error, status, {413: "SIZE_INVALID", 408: "BLOB_UPLOAD_INVALID"}.get(status, "UNKNOWN"))


class Api:
    def __init__(self, core: Core, content: Content, uploads: Uploads, gate: Gate, proxy: Proxy) -> None:
        self.core = core
        self.content = content
        self.uploads = uploads
        self.gate = gate
        self.proxy = proxy
        self.cache = Cache()
        self.trust: Route | None = None
        """Takes /v2/GUN/_trust/*, when a trust server shares the port."""
        self._routes: dict[tuple[str, str], Route] = {
            ("manifests", "GET"): self.get_manifest, ("manifests", "HEAD"): self.get_manifest,
            ("manifests", "PUT"): self.put_manifest, ("manifests", "DELETE"): self.delete_manifest,
            ("blobs", "GET"): self.get_blob, ("blobs", "HEAD"): self.get_blob, ("blobs", "DELETE"): self.delete_blob,
            ("uploads", "POST"): self.post_upload, ("uploads", "GET"): self.get_upload,
            ("uploads", "PATCH"): self.patch_upload, ("uploads", "PUT"): self.put_upload,
            ("uploads", "DELETE"): self.delete_upload, ("tags", "GET"): self.get_tags,
            ("referrers", "GET"): self.get_referrers,
        }  # fmt: skip

    # ---- entry

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        method = request.method
        if method in {"GET", "HEAD"}:
            entry = self.cache.get(request.target)
            if entry is not None and entry.epoch == self.core.db.epoch_now():
                answer = self._from_cache(request, entry)
                if answer is not None:
                    return answer
        return self._route(request)

    def _from_cache(self, request: Request, entry: Entry) -> Answer:
        """None when headers or rights need a closer look."""
        authorization: bytes | None = None
        for name, value in request.headers.raw:
            length = len(name)
            if length == 13 and name.lower() == b"authorization":
                authorization = value
            elif (length == 5 and name.lower() == b"range") or (length == 13 and name.lower() == b"if-none-match"):
                return None
        if not self.gate.quick(authorization, entry.name, "pull"):
            return None
        if entry.response is None:
            try:
                return FileResponse(entry.path, 200, _blob_headers(entry.digest))
            except FileNotFoundError:
                return None
        if entry.manifest and request.method == "GET":
            self.cache.count(entry)
        return entry.response

    async def _route(self, request: Request) -> Answer:
        path = request.path
        if path in {"/v2/", "/v2"}:
            await self.gate.require_any(request)
            return Response(200, _JSON, b"{}")
        if path == "/v2/_catalog":
            return await self.get_catalog(request)
        match = _ROUTE.match(path)
        if match is None:
            raise NAME_INVALID(name=path[:300])
        kind = str(match.lastgroup)
        name = check_name(match["name"])
        if kind == "trust" and self.trust is not None:
            return await self.trust(request, name, match["trust"])
        route = self._routes.get((kind, request.method))
        if route is None:
            raise UNSUPPORTED(reason=f"{request.method} {kind}")
        return await route(request, name, match[kind])

    # ---- manifests

    async def get_manifest(self, request: Request, name: str, reference: str) -> Answer:
        name, upstream = await self.proxy.resolve(name, request.query_get("ns"))
        await self.gate.require(request, name, "pull")
        if upstream is not None:
            await self.proxy.freshen(upstream, name, reference)
        epoch = await self.core.db.epoch()
        entry = self.cache.get(request.target)
        if entry is None or entry.epoch != epoch or entry.response is None:
            stored = await self.content.manifest(name, reference)
            response = Response(
                200,
                {"Content-Type": stored.media_type, "Docker-Content-Digest": stored.digest,
                 "ETag": f'"{stored.digest}"', **_namespace(request)},
                stored.content,
            )  # fmt: skip
            tag = "" if looks_like_digest(reference) else reference
            entry = Entry(epoch, name, stored.digest, response, manifest=True, tag=tag)
            if len(stored.content) <= ENTRY_BYTES and upstream is None:
                self.cache.put(request.target, entry)
        if request.method == "GET":
            self.cache.count(entry)
        if _matches(request, entry.digest):
            return Response(304, {"ETag": f'"{entry.digest}"', "Docker-Content-Digest": entry.digest})
        return entry.response

    async def put_manifest(self, request: Request, name: str, reference: str) -> Answer:
        actor = await self.gate.require(request, name, "push")
        tags = request.query.get("tag", [])
        if len(tags) > _TAGS_PUT_MAX:
            raise SIZE_INVALID(reason=f"more than {_TAGS_PUT_MAX} tags in one request")
        raw = await request.body(MANIFEST_MAX)
        pushed = await self.content.put(name, reference, raw, request.headers.get("content-type"), actor, tags)
        headers = [("Location", f"/v2/{name}/manifests/{pushed.digest}"), ("Docker-Content-Digest", pushed.digest)]
        if pushed.subject:
            headers.append(("OCI-Subject", pushed.subject))
        if tags:
            headers += [("OCI-Tag", tag) for tag in pushed.tags]
        return Response(201, headers)

    async def delete_manifest(self, request: Request, name: str, reference: str) -> Answer:
        actor = await self.gate.require(request, name, "delete")
        self._check_delete()
        if looks_like_digest(reference):
            await self.content.delete_manifest(name, reference, actor)
        else:
            await self.content.delete_tag(name, reference, actor)
        return Response(202)

    def _check_delete(self) -> None:
        if not self.core.config.delete:
            raise UNSUPPORTED(reason="deletion is switched off")

    # ---- blobs

    async def get_blob(self, request: Request, name: str, digest: str) -> Answer:
        name, upstream = await self.proxy.resolve(name, request.query_get("ns"))
        await self.gate.require(request, name, "pull")
        check_digest(digest)
        epoch = await self.core.db.epoch()
        try:
            blob = await self.uploads.blob(name, digest)
        except BLOB_UNKNOWN.kind:
            if upstream is None:
                raise
            blob = await self.proxy.fetch_blob(upstream, name, digest)
        self._remember(request, name, blob, epoch)
        return await self._serve_blob(request, blob)

    def _remember(self, request: Request, name: str, blob: Blob, epoch: int) -> None:
        if blob.content is not None:
            response = Response(200, _blob_headers(blob.digest), blob.content)
            self.cache.put(request.target, Entry(epoch, name, blob.digest, response))
        else:
            path = self.core.blobs.path(blob.location)
            if path is not None:
                self.cache.put(request.target, Entry(epoch, name, blob.digest, None, path))

    async def _serve_blob(self, request: Request, blob: Blob) -> Answer:
        headers = _blob_headers(blob.digest) | _namespace(request)
        if _matches(request, blob.digest):
            return Response(304, headers)
        text = request.headers.get("range")
        ranges = parse_ranges(text, blob.size) if text and request.method == "GET" else None
        if ranges is None:
            return await self._blob_bytes(request, blob, 200, headers, 0, blob.size)
        if len(ranges) == 1:
            begin, end = ranges[0]
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{blob.size}"
            return await self._blob_bytes(request, blob, 206, headers, begin, end - begin)
        more, body = multipart(ranges, blob.size, lambda offset, count: self._read(blob, offset, count))
        return StreamResponse(206, headers | more, body)

    async def _blob_bytes(self, request: Request, blob: Blob, status: int, headers: dict[str, str],
                          offset: int, count: int) -> Answer:  # fmt: skip
        if blob.content is not None:
            return Response(status, headers, blob.content[offset : offset + count])
        path = self.core.blobs.path(blob.location)
        if path is None:
            headers["Content-Length"] = str(count)
            if request.method == "HEAD":
                return Response(status, headers)
            pieces = self.core.blobs.read(blob.location, offset, count)
            first = await anext(pieces, b"")  # a bucket that fails now is told by the status; later only by a cut
            return StreamResponse(status, headers, _from(first, pieces))
        try:
            return FileResponse(path, status, headers, offset=offset, count=count)
        except FileNotFoundError:  # the collector came between the look-up and now
            raise BLOB_UNKNOWN(digest=blob.digest) from None

    async def _read(self, blob: Blob, offset: int, count: int) -> AsyncIterator[bytes]:
        if blob.content is not None:
            yield blob.content[offset : offset + count]
            return
        async for data in self.core.blobs.read(blob.location, offset, count):
            yield data

    async def delete_blob(self, request: Request, name: str, digest: str) -> Answer:
        actor = await self.gate.require(request, name, "delete")
        self._check_delete()
        await self.uploads.unlink(name, check_digest(digest), actor)
        return Response(202)

    # ---- uploads

    async def post_upload(self, request: Request, name: str, upload: str) -> Answer:
        actor = await self.gate.require(request, name, "push")
        if upload:
            raise UNSUPPORTED(reason="POST to an upload")
        mount = request.query_get("mount")
        if mount:
            blob = await self.uploads.mount(name, check_digest(mount), await self._sources(request, mount), actor)
            if blob is not None:
                return _blob_created(name, blob)
        digest = request.query_get("digest")
        algorithm = request.query_get("digest-algorithm", "sha256")
        if digest:
            check_digest(digest)
            if _length(request) <= self.core.config.inline_max and "content-length" in request.headers:
                return _blob_created(name, await self.uploads.put_whole(name, digest, await request.body(), actor))
            begun = await self.uploads.begin(name, actor, digest.partition(":")[0])
            await self.uploads.append(name, begun.id, None, None, request.stream())
            return _blob_created(name, await self.uploads.finish(name, begun.id, digest, actor))
        return _upload_answer(202, await self.uploads.begin(name, actor, algorithm))

    async def _sources(self, request: Request, digest: str) -> list[str]:
        """Repositories that the blob may be mounted from: the one named, or any that the caller may read."""
        source = request.query_get("from")
        if source:
            candidates = [check_name(source)]
        else:
            rows = await self.core.db.read(
                lambda tx: tx.all(
                    "SELECT r.name FROM links l JOIN repositories r ON r.id = l.repository WHERE l.digest = ? LIMIT ?",
                    (digest, _MOUNT_SOURCES),
                )
            )
            candidates = [row[0] for row in rows]
        return [name for name in candidates if await self.gate.allows(request, name, "pull")]

    async def get_upload(self, request: Request, name: str, upload: str) -> Answer:
        await self.gate.require(request, name, "push")
        return _upload_answer(204, await self.uploads.get(name, upload))

    async def patch_upload(self, request: Request, name: str, upload: str) -> Answer:
        await self.gate.require(request, name, "push")
        begin, end = _content_range(request)
        return _upload_answer(202, await self.uploads.append(name, upload, begin, end, request.stream()))

    async def put_upload(self, request: Request, name: str, upload: str) -> Answer:
        actor = await self.gate.require(request, name, "push")
        digest = check_digest(request.query_get("digest"))
        begin, end = _content_range(request)
        small = begin is None and "content-length" in request.headers
        small = small and _length(request) <= self.core.config.inline_max
        if request.has_body and small and (await self.uploads.get(name, upload)).size == 0:
            data = await request.body()
            return _blob_created(name, await self.uploads.put_whole(name, digest, data, actor, upload))
        if request.has_body or begin is not None:
            await self.uploads.append(name, upload, begin, end, request.stream())
        return _blob_created(name, await self.uploads.finish(name, upload, digest, actor))

    async def delete_upload(self, request: Request, name: str, upload: str) -> Answer:
        await self.gate.require(request, name, "push")
        await self.uploads.cancel(name, upload)
        return Response(204)

    # ---- lists

    async def get_tags(self, request: Request, name: str, _: str) -> Answer:
        await self.gate.require(request, name, "pull")
        count, last = _page(request), request.query_get("last")
        listed = await self.content.tags(name, last, None if count is None else count + 1)
        link = {}
        if count is not None and len(listed) > count:
            listed = listed[:count]
            if count:
                link = _next(f"/v2/{name}/tags/list", n=count, last=listed[-1])
        return Response(200, _JSON | link, tags_document(name, listed))

    async def get_catalog(self, request: Request) -> Answer:
        caller = await self.gate.require_catalog(request)
        count = _page(request)
        limit = _PAGE_MAX if count is None else min(count, _PAGE_MAX)
        last = request.query_get("last")
        condition, args = visible_sql(caller)
        rows = await self.core.db.read(
            lambda tx: tx.all(
                f"SELECT r.name FROM repositories r WHERE {condition} AND r.name > ? ORDER BY r.name LIMIT ?",
                (*args, last, limit + 1),
            )
        )
        names = [row[0] for row in rows][:limit]
        link = _next("/v2/_catalog", n=limit, last=names[-1]) if len(rows) > limit and names else {}
        return Response(200, _JSON | link, msgspec.json.encode({"repositories": names}))

    async def get_referrers(self, request: Request, name: str, digest: str) -> Answer:
        await self.gate.require(request, name, "pull")
        wanted = request.query_get("artifactType")
        listed, more = await self.content.referrers(name, digest, wanted, request.query_get("last"))
        headers = {"Content-Type": OCI_INDEX}
        if wanted:
            headers["OCI-Filters-Applied"] = "artifactType"
        if more:
            filters = {"artifactType": wanted} if wanted else {}
            headers |= _next(f"/v2/{name}/referrers/{digest}", last=more, **filters)
        return Response(200, headers, index_document(listed))


def _blob_headers(digest: str) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream", "Docker-Content-Digest": digest, "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes", "Cache-Control": "max-age=31536000",
    }  # fmt: skip


def _namespace(request: Request) -> dict[str, str]:
    """The reply to `?ns=` (distribution-spec main, "Registry Proxying")."""
    ns = request.query_get("ns") if "ns=" in request.target else ""
    return {"OCI-Namespace": ns} if ns and "\n" not in ns and "\r" not in ns else {}


def _matches(request: Request, digest: str) -> bool:
    wanted = request.headers.get("if-none-match")
    return bool(wanted) and any(t.strip().strip('"') in {digest, "*"} for t in wanted.removeprefix("W/").split(","))


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _blob_created(name: str, blob: Blob) -> Response:
    return Response(201, {"Location": f"/v2/{name}/blobs/{blob.digest}", "Docker-Content-Digest": blob.digest})


def _upload_answer(status: int, upload: Upload) -> Response:
    """Range counts from 0 to the last byte; docker refuses an inverted one, so an empty upload says 0-0 too."""
    return Response(
        status,
        {"Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}", "Docker-Upload-UUID": upload.id,
         "Range": f"0-{max(0, upload.size - 1)}"},
    )  # fmt: skip


def _length(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def _content_range(request: Request) -> tuple[int | None, int | None]:
    text = request.headers.get("content-range")
    if not text:
        return None, None
    match = re.match(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/.*)?\Z", text.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise UPLOAD_INVALID(reason=f"Content-Range {text[:60]!r}")
    return int(match[1]), int(match[2])


def _page(request: Request) -> int | None:
    text = request.query_get("n")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise SIZE_INVALID(reason="n must be a number")
    return min(int(text), _PAGE_MAX)


def _next(path: str, **query: Any) -> dict[str, str]:
    return {"Link": f'<{quote(path, safe="/:")}?{urlencode(query)}>; rel="next"'}

