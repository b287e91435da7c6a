"""ADD: what COPY cannot take. URLs become files (mode 600, the server's date), git repositories trees, and local archives
are unpacked: their members are indexed like a context, so nothing is extracted before it is in the layer.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from dockyard.errors import DockyardError
from dockyard.kernel import safefs
from dockyard.oci import tar
from dockyard.storage.compress import Plain, sniff

from .context import ContextLimits, read_context
from .copy import Selected, select, selection_key
from .dockerfile.patterns import Patterns
from .errors import BAD_OPTION, COPY_MISSING, FETCH_FAILED
from .fetch import Download, clone, download, git_authorization, is_git, is_url, parse_git
from .model import Copy
from .ports import Session, Source
from .steps import Material
from .tree import ContextTree, Entry, RootTree, Tree

__all__ = ["Adding"]

NOTHING = Patterns(())
TAR_MAGIC = 257


class Adding:
    def __init__(self, directory: Path, limits: ContextLimits) -> None:
        """``directory`` holds what is being fetched; emptied here of what a crash left."""
        self._directory, self._limits = directory, limits
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)

    def definition(self, operation: Copy) -> str:
        """What is added, named without fetching it: only for URLs with a checksum and full commits."""
        if operation.inline:
            return ""
        names = []
        for source in operation.sources:
            if is_git(source) and (parse_git(source).commit or operation.checksum):
                names.append(f"git {source} {operation.checksum}")
            elif is_url(source) and operation.checksum:
                names.append(f"url {source} {operation.checksum}")
            else:
                return ""
        return " ".join(names)

    async def material(
        self, operation: Copy, source: Source, session: Session, stack: AsyncExitStack
    ) -> Material:
        """Raises NotFound, System (cannot fetch), InvalidParameter (checksum)."""
        local = tuple(s for s in operation.sources if not is_url(s) and not is_git(s))
        if operation.checksum and local:
            raise BAD_OPTION(text="checksum can't be specified for non-HTTP(S) and non-Git sources")
        chosen: list[Selected] = []
        tree: Tree = ContextTree({}, -1)
        if local or operation.inline:
            context = await source.context(operation.origin.context, local)
            tree = context.tree
            only = msgspec.structs.replace(operation, sources=local)
            found = await asyncio.to_thread(select, only, tree, context.ignore)
            chosen += await self._unpacked(found, tree, operation, stack)
        for name in operation.sources:
            if is_git(name):
                chosen += await self._git(operation, name, session, stack)
            elif is_url(name):
                chosen += await self._url(operation, name, session, stack)
        return Material(tree, chosen, await asyncio.to_thread(selection_key, chosen, tree))

    async def _unpacked(
        self, found: list[Selected], tree: Tree, operation: Copy, stack: AsyncExitStack
    ) -> list[Selected]:
        if operation.unpack is False:
            return found
        out = []
        for item in found:
            if item.into and item.body is None and item.entry.kind == tar.REG:
                members = await self._members(item.entry, tree, stack)
                if members is not None:
                    out += members
                    continue
            out.append(item)
        return out

    async def _members(self, entry: Entry, tree: Tree, stack: AsyncExitStack) -> list[Selected] | None:
        """None for what is no archive."""
        if not await asyncio.to_thread(_is_archive, entry, tree):
            return None
        reader = _EntryReader(tree, entry)
        context = await asyncio.to_thread(read_context, reader, self._directory, self._limits, owners=True)
        stack.callback(context.close)
        inner = context.tree
        top = inner.lookup("")
        assert top is not None
        return [Selected(item.path, item, tree=inner) for item in inner.walk(top)]

    async def _url(self, operation: Copy, url: str, session: Session, stack: AsyncExitStack) -> list[Selected]:
        headers = await _auth(url, session)
        got = await asyncio.to_thread(download, url, self._directory, headers)
        stack.callback(os.close, got.spool)
        if operation.checksum and operation.checksum != "sha256:" + got.digest:
            raise FETCH_FAILED(url=url, cause=f"digest mismatch sha256:{got.digest}: {operation.checksum}")
        entry = _entry_of(got)
        tree = ContextTree({entry.path: entry}, got.spool)
        item = Selected(entry.path, entry, into=True, tree=tree)
        return await self._unpacked([item], tree, operation, stack) if operation.unpack else [item]

    async def _git(self, operation: Copy, text: str, session: Session, stack: AsyncExitStack) -> list[Selected]:
        source = parse_git(text)
        place = self._directory / secrets.token_hex(8)
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        authorization = await git_authorization(source.url, session.secret)
        commit = await clone(source, place, keep_git_dir=operation.keep_git_dir, authorization=authorization)
        if operation.checksum and not commit.startswith(operation.checksum):
            raise FETCH_FAILED(url=text, cause=f"expected checksum to match {operation.checksum}, got {commit}")
        root = safefs.open_root(str(place))
        stack.callback(os.close, root)
        if source.subdir:
            try:
                root = safefs.open_in_root(root, source.subdir, os.O_PATH | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                raise COPY_MISSING(instruction="ADD", path=source.subdir) from None
            stack.callback(os.close, root)
        tree = RootTree(root)
        top = tree.lookup("")
        assert top is not None
        exclude = Patterns(operation.exclude)
        entries = await asyncio.to_thread(lambda: list(tree.walk(top)))
        return [
            Selected(e.path, msgspec.structs.replace(e, uid=0, gid=0), tree=tree)
            for e in entries
            if not (exclude and exclude.match(e.path))
        ]


def _entry_of(got: Download) -> Entry:
    digest = bytes.fromhex(got.digest)
    return Entry(got.name, tar.REG, 0o600, size=got.size, mtime_ns=got.mtime_ns, digest=digest)


async def _auth(url: str, session: Session) -> dict[str, str]:
    """The reference's secrets for a host: a whole header, or a token."""
    host = urlsplit(url).hostname or ""
    header = await session.secret(f"HTTP_AUTH_HEADER_{host}")
    if header is None:
        token = await session.secret(f"HTTP_AUTH_TOKEN_{host}")
        header = b"Bearer " + token if token is not None else None
    return {} if header is None else {"Authorization": header.decode("latin-1").strip()}


class _EntryReader:
    """An entry's content as a stream."""

    def __init__(self, tree: Tree, entry: Entry) -> None:
        self._pieces: Iterator[bytes] = tree.read(entry)
        self._held = b""

    def read(self, size: int = -1, /) -> bytes:
        if not self._held:
            self._held = next(self._pieces, b"")
        taken = self._held if size < 0 else self._held[:size]
        self._held = self._held[len(taken) :]
        return taken


def _is_archive(entry: Entry, tree: Tree) -> bool:
    """A tar, compressed or not: a compressed file of something else is copied as it is."""
    head = _EntryReader(tree, entry).read(TAR_MAGIC + 8)
    if not sniff(head) and head[TAR_MAGIC : TAR_MAGIC + 5] != b"ustar" and entry.size < tar.BLOCK:
        return False
    with suppress(DockyardError, OSError):
        reader = Plain(_EntryReader(tree, entry))
        return tar.StreamReader(reader.read, 10).next() is not None
    return False

