"""Contexts that lie elsewhere: a git repository, or a URL of a tar or of a Dockerfile by itself."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from pathlib import Path

from dockyard.kernel import safefs
from dockyard.oci import tar as oci_tar
from dockyard.storage.compress import sniff

from .context import Context, receive, single_file
from .errors import BAD_OPTION, COPY_MISSING
from .fetch import Secret, clone, download, git_authorization, is_git, is_url, parse_git
from .tree import RootTree

__all__ = ["remote_context"]


async def remote_context(
    remote: str, dockerfile: str, spool: Path, threads: Executor, stack: AsyncExitStack, secret: Secret | None = None
) -> Context:
    """Valid until ``stack`` closes. ``dockerfile`` is the name that a lone Dockerfile gets; ``secret`` asks the client, for
    repositories that want a token. Raises InvalidParameter, NotFound, System."""
    if is_git(remote) or remote.startswith("github.com/"):
        return await _git(remote, spool, stack, secret)
    if not is_url(remote):
        raise BAD_OPTION(text=f"unable to prepare context: {remote!r} is neither a URL nor a git repository")
    context = await _url(remote, dockerfile, spool, threads)
    stack.callback(context.close)
    return context


async def _url(remote: str, dockerfile: str, spool: Path, threads: Executor) -> Context:
    got = await asyncio.to_thread(download, remote, spool)
    try:
        head = os.pread(got.spool, oci_tar.BLOCK, 0)
        if sniff(head) or head[257:262] == b"ustar":
            return await receive(_spooled(got.spool), spool, threads)
        return single_file(spool, dockerfile, os.pread(got.spool, got.size, 0))
    finally:
        os.close(got.spool)


async def _git(remote: str, spool: Path, stack: AsyncExitStack, secret: Secret | None) -> Context:
    source, place = parse_git(remote), spool / secrets.token_hex(8)
    stack.callback(shutil.rmtree, place, ignore_errors=True)
    authorization = await git_authorization(source.url, secret) if secret is not None else ""
    await clone(source, place, authorization=authorization)
    root = safefs.open_root(str(place))
    stack.callback(os.close, root)
    if source.subdir:
        try:
            root = safefs.open_in_root(root, source.subdir, os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise COPY_MISSING(instruction="git context", path=source.subdir) from None
        stack.callback(os.close, root)
    return Context(RootTree(root))


async def _spooled(spool: int) -> AsyncIterator[bytes]:
    offset = 0
    while piece := os.pread(spool, 1 << 20, offset):
        offset += len(piece)
        yield piece
