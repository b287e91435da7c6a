"""What a build fetches by itself: files by HTTP(S) and git repositories; for ADD and for remote contexts.

Hostile servers: bounded size, time and redirects. git runs with an environment of its own, without hooks, helpers or
the host's configuration, over https, http, git and ssh only, into a directory that nobody else sees; a ``ref:subdir`` is
then opened by descriptor, so that a symlink in the repository leads nowhere (CVE-2026-33748).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import posixpath
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dockyard.kernel import process

from .context import open_spool
from .errors import CONTEXT_TOO_BIG, FETCH_FAILED

__all__ = ["Download", "GitSource", "Secret", "clone", "download", "git_authorization", "is_git", "is_url", "parse_git"]

MAX_DOWNLOAD = 16 << 30
TIMEOUT = 60.0
"""Seconds without a byte."""
GIT_LIMIT = 1800.0
PIECE = 1 << 20
_GIT = re.compile(r"^(git://|git@|https?://.+\.git([#?].*)?$|ssh://)")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")


@dataclass(frozen=True, slots=True)
class Download:
    """``spool``: an open, unnamed file with the content; the owner closes it."""

    spool: int
    size: int
    digest: str
    name: str
    mtime_ns: int
    content_type: str


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def is_git(text: str) -> bool:
    return bool(_GIT.match(text))


def download(url: str, directory: Path, headers: Mapping[str, str] | None = None) -> Download:
    """In a thread. Raises System with the cause, Exhausted above the limit."""
    import urllib3

    timeout = urllib3.Timeout(connect=TIMEOUT, read=TIMEOUT)
    pool = urllib3.PoolManager(num_pools=2, retries=urllib3.Retry(total=2, redirect=10, raise_on_status=False))
    spool = open_spool(directory)
    try:
        given = {"Accept-Encoding": "identity", **(headers or {})}
        response = pool.request("GET", url, headers=given, preload_content=False, timeout=timeout)
        if response.status != 200:
            raise FETCH_FAILED(url=_shown(url), cause=f"{response.status} {response.reason or ''}".strip())
        sha, size = hashlib.sha256(), 0
        for piece in response.stream(PIECE, decode_content=False):
            size += len(piece)
            if size > MAX_DOWNLOAD:
                raise CONTEXT_TOO_BIG(what=_shown(url), limit=f"{MAX_DOWNLOAD >> 30} GiB")
            sha.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(spool, view) :]
        response.release_conn()
        return Download(
            spool, size, sha.hexdigest(), _name(url, response.headers), _modified(response.headers),
            response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
        )  # fmt: skip
    except urllib3.exceptions.HTTPError as error:
        os.close(spool)
        raise FETCH_FAILED(url=_shown(url), cause=str(error)) from None
    except BaseException:
        os.close(spool)
        raise
    finally:
        pool.clear()


def _shown(url: str) -> str:
    """Without a password that someone put into it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _name(url: str, headers: Mapping[str, str]) -> str:
    match = re.search(r'filename="?([^";/\\]+)"?', headers.get("Content-Disposition", ""))
    name = match[1] if match else posixpath.basename(unquote(urlsplit(url).path))
    return "download" if name in ("", ".", "..") or "/" in name or "\0" in name else name


def _modified(headers: Mapping[str, str]) -> int:
    try:
        return int(parsedate_to_datetime(headers["Last-Modified"]).timestamp()) * 1_000_000_000
    except (KeyError, ValueError, TypeError):
        return 0


@dataclass(frozen=True, slots=True)
class GitSource:
    url: str
    ref: str = ""
    subdir: str = ""

    @property
    def commit(self) -> str:
        """The full commit, where the reference is one."""
        return self.ref if _COMMIT.match(self.ref) else ""


def parse_git(text: str) -> GitSource:
    """``URL[#ref[:subdir]]``; ``github.com/...`` without a scheme is https."""
    url, _, fragment = text.partition("#")
    ref, _, subdir = fragment.partition(":")
    if url.startswith("github.com/"):
        url = "https://" + url
    return GitSource(url, ref, subdir.strip("/"))


Secret = Callable[[str], Awaitable[bytes | None]]


async def git_authorization(url: str, secret: Secret) -> str:
    """The Authorization header for a repository over HTTP, of the secrets that BuildKit names so (docs.docker.com/build,
    "Secrets"): GIT_AUTH_HEADER or GIT_AUTH_TOKEN, before them the same with ``.<host>``. "" without any."""
    if not url.startswith(("https://", "http://")):
        return ""
    host = urlsplit(url).netloc.rpartition("@")[2]
    for suffix in (f".{host}", ""):
        if (header := await secret(f"GIT_AUTH_HEADER{suffix}")) is not None:
            return header.decode("latin-1").strip()
        if (token := await secret(f"GIT_AUTH_TOKEN{suffix}")) is not None:
            return "basic " + base64.b64encode(b"x-access-token:" + token.strip()).decode()
    return ""


async def clone(
    source: GitSource, directory: Path, *, keep_git_dir: bool = False, authorization: str = ""
) -> str:
    """Checks ``source`` out below ``directory`` (which must not exist); the commit. ``authorization`` goes to the
    repository's own host only. Raises System with git's words."""
    git = shutil.which("git", path=process.PATH)
    if git is None:
        raise FETCH_FAILED(url=_shown(source.url), cause="git is not installed on this host")
    if source.url.startswith("-") or source.ref.startswith("-"):
        raise FETCH_FAILED(url=source.url, cause="not a repository")
    directory.mkdir(mode=0o700, parents=True)
    run = _Git(git, directory, source.url, authorization)
    await run("init", "--quiet", "--template=", ".")
    wanted = source.ref or "HEAD"
    await run("fetch", "--quiet", "--depth=1", "--no-tags", "--end-of-options", source.url, wanted)
    await run("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
    if (directory / ".gitmodules").is_file() and not (directory / ".gitmodules").is_symlink():
        await run("submodule", "update", "--init", "--recursive", "--depth=1")
    commit = (await run("rev-parse", "HEAD")).decode().strip()
    if not keep_git_dir:
        await asyncio.to_thread(shutil.rmtree, directory / ".git")
    return commit


@dataclass(frozen=True, slots=True)
class _Git:
    git: str
    directory: Path
    url: str
    authorization: str = ""

    async def __call__(self, *words: str) -> bytes:
        settings = ("protocol.allow=never", "protocol.https.allow=always", "protocol.http.allow=always",
                    "protocol.git.allow=always", "protocol.ssh.allow=always", "core.hooksPath=/dev/null",
                    "core.fsmonitor=false", "core.symlinks=true", "credential.helper=")  # fmt: skip
        command = [self.git, "-C", str(self.directory)]
        for each in settings:
            command += ["-c", each]
        env = {
            "PATH": process.PATH, "HOME": str(self.directory), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/false", "LC_ALL": "C",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -F /dev/null",
        }  # fmt: skip
        if self.authorization:  # by the environment: a command line is for everybody to see
            parts = urlsplit(self.url)
            key = f"http.{parts.scheme}://{parts.netloc.rpartition('@')[2]}/.extraHeader"
            env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": f"Authorization: {self.authorization}"}
        try:
            done = await process.run([*command, *words], timeout=GIT_LIMIT, env=env)
        except TimeoutError:
            raise FETCH_FAILED(url=_shown(self.url), cause=f"git took longer than {GIT_LIMIT:g} s") from None
        if done.code:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise FETCH_FAILED(url=_shown(self.url), cause=lines[-1] if lines else f"git ended with {done.code}")
        return done.stdout

