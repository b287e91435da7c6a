"""RUN --mount: from typed mounts to binds of this host, with everything that ends them on the caller's exit stack.

- bind: a snapshot over the source's layers (a stage, an image, or a layer made of the context's files); what is written
  to a ``rw`` one goes with the snapshot;
- cache: a directory of ``CacheMounts``, shared, private or locked;
- secret: a file on a tmpfs of its own, or a variable;
- ssh: the session's socket.

Sources are resolved inside their root, while nothing runs in it; a cache that others may write to is bound by descriptor
(CVE-2024-23651).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.kernel import mount as kmount
from dockyard.kernel import safefs

from .caches import CacheMounts
from .dockerfile.mounts import Mount
from .errors import COPY_MISSING, SECRET_MISSING
from .model import Exec, Origin
from .ports import BindMount, Layers, Session

__all__ = ["MountTable", "Mounts"]

MAX_SECRETS_BYTES = 16 << 20

Chain = Callable[[Origin, str], Awaitable[tuple[Sequence[str], str]]]
"""(origin, source path) -> (layers, the path in them): resolves stages, images and context files."""


@dataclass(slots=True)
class MountTable:
    binds: list[BindMount] = field(default_factory=list)
    env: list[str] = field(default_factory=list)


class Mounts:
    def __init__(self, layers: Layers, caches: CacheMounts, directory: Path) -> None:
        self._layers, self._caches, self._directory = layers, caches, directory

    async def resolve(
        self, stack: AsyncExitStack, run: str, operation: Exec, chain: Chain, session: Session
    ) -> MountTable:
        """Raises NotFound for a source or a required secret that is not there."""
        table = MountTable()
        secrets: list[tuple[Mount, bytes]] = []
        for number, (mount, origin) in enumerate(zip(operation.mounts, operation.origins, strict=True)):
            if mount.type == "bind":
                table.binds.append(await self._bind(stack, f"{run}.m{number}", mount, origin, chain))
            elif mount.type == "cache":
                table.binds.append(await self._cache(stack, f"{run}/cache{number}", mount, origin, chain))
            elif mount.type == "tmpfs":
                table.binds.append(BindMount(mount.target, read_only=mount.read_only, size=mount.size))
            elif mount.type == "secret":
                content = await session.secret(mount.id)
                if content is not None:
                    secrets.append((mount, content))
                elif mount.required:
                    raise SECRET_MISSING(id=mount.id)
            else:
                await self._ssh(table, mount, session)
        self._secrets(stack, run, secrets, table)
        if operation.files:
            self._scripts(stack, run, operation.files, table)
        return table

    async def _bind(self, stack: AsyncExitStack, key: str, mount: Mount, origin: Origin, chain: Chain) -> BindMount:
        layers, path = await chain(origin, mount.source)
        stack.push_async_callback(self._layers.release, key)
        root = await self._layers.prepare(key, layers)
        with safefs.root_fd(str(root)) as fd:
            try:
                real = safefs.real_path(fd, path or "/")
            except (FileNotFoundError, NotADirectoryError):
                raise COPY_MISSING(instruction="RUN --mount", path=mount.source) from None
        return BindMount(mount.target, str(root) + real.rstrip("/"), mount.read_only)

    async def _cache(
        self, stack: AsyncExitStack, place: str, mount: Mount, origin: Origin, chain: Chain
    ) -> BindMount:
        layers: Sequence[str] = ()
        path = mount.source
        if mount.origin:
            layers, path = await chain(origin, mount.source)
        directory = await stack.enter_async_context(self._caches.take(mount, layers, path))
        if mount.origin or not mount.source:
            return BindMount(mount.target, str(directory), mount.read_only)
        with safefs.root_fd(str(directory)) as root:
            try:
                fd = safefs.make_dirs(root, mount.source, owner=self._layers.ids.root)
            except OSError:
                raise COPY_MISSING(instruction="RUN --mount", path=mount.source) from None
        # Bound by descriptor to a place that is ours: what others make of the cache meanwhile leads nowhere.
        path = str(self._directory / place)
        try:
            os.mkdir(path, 0o700)
            kmount.bind(safefs.fd_path(fd), path)
        finally:
            os.close(fd)
        stack.callback(kmount.umount, path, kmount.UmountFlag.DETACH)
        return BindMount(mount.target, path, mount.read_only)

    async def _ssh(self, table: MountTable, mount: Mount, session: Session) -> None:
        socket = await session.ssh_socket(mount.id)
        if socket is None:
            if mount.required:
                raise SECRET_MISSING(id=mount.id)
            return
        count = sum(item.startswith("SSH_AUTH_SOCK=") for item in table.env)
        target = mount.target or f"/run/buildkit/ssh_agent.{count}"
        table.binds.append(BindMount(target, socket))
        if not count:
            table.env.append(f"SSH_AUTH_SOCK={target}")

    def _secrets(
        self, stack: AsyncExitStack, run: str, secrets: Sequence[tuple[Mount, bytes]], table: MountTable
    ) -> None:
        files = []
        for mount, content in secrets:
            if mount.env:
                table.env.append(f"{mount.env}={content.decode('utf-8', 'surrogateescape')}")
            if mount.target:
                files.append((mount, content))
        if not files:
            return
        directory = self._memory(stack, run, "secrets")
        for number, (mount, content) in enumerate(files):
            path = f"{directory}/{number}"
            _write(path, content, 0o400 if mount.mode is None else mount.mode, *self._layers.ids.outside(mount.uid, mount.gid))
            table.binds.append(BindMount(mount.target, path, read_only=True))

    def _scripts(
        self, stack: AsyncExitStack, run: str, files: Sequence[tuple[str, str]], table: MountTable
    ) -> None:
        directory = self._memory(stack, run, "scripts")
        for number, (name, content) in enumerate(files):
            path = f"{directory}/{number}"
            _write(path, content.encode("utf-8", "surrogateescape"), 0o755, *self._layers.ids.root)
            table.binds.append(BindMount(posixpath.join("/dev/pipes", name), path, read_only=True))

    def _memory(self, stack: AsyncExitStack, run: str, name: str) -> str:
        """A tmpfs of the run's own: secrets never reach a disk."""
        path = self._directory / run / name
        path.mkdir(mode=0o700, parents=True)
        kmount.mount("tmpfs", str(path), "tmpfs", kmount.MountFlag.NOSUID | kmount.MountFlag.NODEV,
                     f"mode=700,size={2 * MAX_SECRETS_BYTES}")  # fmt: skip
        stack.callback(kmount.umount, str(path), kmount.UmountFlag.DETACH)
        return str(path)


def _write(path: str, content: bytes, mode: int, uid: int, gid: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        os.fchown(file.fileno(), uid, gid)
        os.fchmod(file.fileno(), mode)
