"""COPY and ADD: from sources in a tree and a look at the target's root to the members of one layer tar.

    select   which entries go where, relative to the target           (also gives the content key)
    place    against the target's root: symlinks resolved, missing parents added, conflicts refused
    pack     the tar, streamed

Nothing is written into a root file system, so no symlink there can be raced (CVE-2024-23651); the layer is what the
store makes of the tar. A source named ``.wh.x`` is refused: in a layer it would delete ``x``.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Generator
from dataclasses import dataclass

import msgspec

from dockyard.kernel import safefs
from dockyard.oci import tar
from dockyard.oci.tar import TarHeader, encode_header, padding
from dockyard.runtime import users

from .dockerfile.patterns import Patterns, clean, has_wildcard
from .errors import BAD_OPTION, COPY_CONFLICT, COPY_MISSING
from .model import Copy
from .stubs import follow
from .tree import ROOT, ContextTree, Entry, Tree, glob

__all__ = ["Selected", "TargetRoot", "apply_chmod", "pack", "place", "select", "selection_key"]

WHITEOUT = ".wh."


class Selected(msgspec.Struct, frozen=True):
    """``relative`` is the path below the target ("" = the target itself); a body wins over the entry's content.

    A Struct, as Entry and Placed: there are as many as files, and a frozen dataclass takes eight times as long to make."""

    relative: str
    entry: Entry
    body: bytes | None = None
    into: bool = False  # a single file: goes into the target where that is a directory
    tree: Tree | None = None  # where the content is, if not in the tree at hand


class Placed(msgspec.Struct, frozen=True):
    name: str
    entry: Entry
    body: bytes | None = None
    created: bool = False  # a parent that nobody asked for
    tree: Tree | None = None


def select(operation: Copy, tree: Tree, ignore: Patterns) -> list[Selected]:
    """Raises NotFound for a source that is not there. Order: as given, each source sorted."""
    out: list[Selected] = []
    exclude = Patterns(operation.exclude)
    for name, content in operation.inline:
        body = content.encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(body).digest()
        out.append(Selected(name, Entry(name, tar.REG, 0o644, size=len(body), digest=digest), body, into=True))
    for source in operation.sources:
        found = 0
        for path in glob(tree, source.replace("/./", "/") if operation.parents else source):
            entry = tree.lookup(path)
            if entry is None or (ignore and entry.path and not _visible(entry, ignore)):
                continue
            found += 1
            out += _one(operation, source, path if path != "." else "", entry, tree, ignore, exclude)
        if not found:
            raise COPY_MISSING(instruction="ADD" if operation.add else "COPY", path=source)
    return out


def _visible(entry: Entry, ignore: Patterns) -> bool:
    return not ignore.match(entry.path) or (entry.is_dir and ignore.has_negation)


def _one(
    operation: Copy, source: str, path: str, entry: Entry, tree: Tree, ignore: Patterns, exclude: Patterns
) -> list[Selected]:
    prefix = ""
    if operation.parents:
        _, pivot, rest = source.partition("/./")
        depth = clean(source.partition("/./")[0]).count("/") + 1 if pivot else 0
        prefix = "/".join(path.split("/")[depth:]) if not has_wildcard(rest) or pivot else path
    if not entry.is_dir:
        if exclude and exclude.match(posixpath.basename(path)):
            return []
        return [Selected(prefix or posixpath.basename(path), entry, into=not operation.parents)]
    out = [Selected(prefix, entry)]
    top = entry.path
    for child in tree.walk(entry):
        inner = child.path[len(top) + 1 :] if top else child.path
        if exclude and exclude.match(inner):
            continue
        if ignore and not _visible(child, ignore):
            continue
        out.append(Selected(f"{prefix}/{inner}" if prefix else inner, child))
    if ignore and ignore.has_negation:
        out = _without_empty_ignored(out, ignore)
    return out


def _without_empty_ignored(chosen: list[Selected], ignore: Patterns) -> list[Selected]:
    """Directories that are ignored themselves stay only for what a ``!pattern`` takes back below them."""
    needed: set[str] = set()
    for item in reversed(chosen):
        if not item.entry.is_dir or not ignore.match(item.entry.path) or item.entry.path in needed:
            parent = posixpath.dirname(item.entry.path)
            needed.add(parent)
            needed.add(item.entry.path)
    return [i for i in chosen if not i.entry.path or i.entry.path in needed or not ignore.match(i.entry.path)]


def selection_key(chosen: list[Selected], tree: Tree) -> str:
    """Names, kinds, modes, owners, links, xattrs and content; never times."""
    sha = hashlib.sha256()
    for item in chosen:
        e = item.entry
        owner = item.tree or tree
        digest = e.digest or (owner.digest(e) if e.kind == tar.REG and item.body is None else b"")
        device = f"{e.major}:{e.minor}" if e.kind in (tar.CHAR, tar.BLOCK_DEV) else ""
        row = f"{item.relative}\0{e.kind}{device}\0{e.mode:o}\0{e.uid}\0{e.gid}\0{e.link}\0{sorted(e.xattrs.items()) or ''}\0"
        sha.update(row.encode("utf-8", "surrogateescape") + digest)
    return sha.hexdigest()


class TargetRoot:
    """A look at the root that a COPY goes to; ``fd`` is None for scratch."""

    def __init__(self, fd: int | None) -> None:
        self.fd = fd

    def resolve(self, path: str) -> tuple[str, list[str]]:
        """(canonical existing part without leading slash, missing components)."""
        if self.fd is None:
            return "", [part for part in path.split("/") if part]
        try:
            return follow(self.fd, path)
        except NotADirectoryError:
            raise COPY_CONFLICT(source="", target=path, cause="a parent is not a directory") from None

    def is_dir(self, path: str) -> bool | None:
        """None: not there. A symlink is not a directory here."""
        import stat

        if self.fd is None:
            return None
        try:
            return stat.S_ISDIR(safefs.stat_in_root(self.fd, path, follow=False).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def owner(self, spec: str) -> tuple[int, int]:
        texts = ("", "") if self.fd is None else (users.read_etc(self.fd, "passwd"), users.read_etc(self.fd, "group"))
        user = users.decide(*texts, spec)
        number = spec.partition(":")[0]
        # "--chown=5" without a group means group 5 too (Dockerfile reference, COPY --chown).
        return user.uid, int(number) if number.isdigit() and ":" not in spec else user.gid


def place(operation: Copy, chosen: list[Selected], root: TargetRoot) -> list[Placed]:
    """Raises Conflict where a file would have to replace a directory or the other way round."""
    target = operation.target
    base, missing = root.resolve(target)
    existing_dir = not missing and root.is_dir(base) is not False
    into_dir = target.endswith("/") or existing_dir or len(chosen) > 1 or operation.parents
    if operation.link and not target.endswith("/") and len(chosen) == 1:
        into_dir = False
    out: dict[str, Placed] = {}
    for item in chosen:
        single_file = item.into
        below = item.relative if not single_file or into_dir else ""
        parts = [*missing, *[p for p in below.split("/") if p]]
        if any(p.startswith(WHITEOUT) for p in parts):
            raise COPY_CONFLICT(source=item.entry.path, target=target, cause="the name is reserved for whiteouts")
        name = "/".join([p for p in (base, *parts) if p])
        _implied(out, base, parts[:-1])
        if not name:
            continue
        fresh = bool(missing)
        if not fresh:
            there = root.is_dir(name)
            if there is not None and there != item.entry.is_dir and (there or item.entry.is_dir):
                what = "a directory" if there else "not a directory"
                raise COPY_CONFLICT(source=item.entry.path or ".", target="/" + name, cause=f"the target is {what}")
            if there and name == base:
                continue  # the target directory itself keeps its owner and mode
        out[name] = Placed(name, item.entry, item.body, tree=item.tree)
    return list(out.values())


def _implied(out: dict[str, Placed], base: str, parts: list[str]) -> None:
    name = base
    for part in parts:
        name = f"{name}/{part}" if name else part
        # Existing directories need no member; those below ``base`` that sources bring come before their content.
        if name not in out:
            out[name] = Placed(name, ROOT, created=True)


@dataclass(frozen=True, slots=True)
class Packing:
    """Changes on the way into the tar."""

    owner: tuple[int, int] | None = None
    chmod: str = ""
    epoch: int | None = None
    now_ns: int = 0


def pack(placed: list[Placed], tree: Tree, packing: Packing) -> Generator[bytes, None, None]:
    """Names of an unpacked archive that share their content are hard links, as they were there."""
    shared: dict[tuple[int, int], bytes] = {}
    for item in placed:
        entry = item.entry
        uid, gid = packing.owner or ((0, 0) if item.created else (entry.uid, entry.gid))
        change = "" if item.created else packing.chmod
        mode = apply_chmod(change, entry.mode, entry.is_dir) if change else entry.mode
        mtime = packing.now_ns if item.created else entry.mtime_ns
        if packing.epoch is not None:
            mtime = min(mtime, packing.epoch * 1_000_000_000)
        name = os.fsencode(item.name + "/" if entry.is_dir else item.name)
        header = TarHeader(
            name, entry.kind, 0o777 if entry.kind == tar.SYMLINK else mode, uid, gid, entry.size, mtime,
            os.fsencode(entry.link), entry.major, entry.minor, entry.xattrs,
        )  # fmt: skip
        if item.tree is not None and entry.kind == tar.REG and entry.size:
            first = shared.setdefault((id(item.tree), entry.offset), name)
            if first != name and isinstance(item.tree, ContextTree):
                yield encode_header(TarHeader(name, tar.LINK, mode, uid, gid, 0, mtime, first))
                continue
        yield encode_header(header)
        if entry.kind == tar.REG:
            if item.body is not None:
                yield item.body
            else:
                yield from (item.tree or tree).read(entry)
            yield padding(entry.size)
    yield tar.END_OF_ARCHIVE


_SYMBOLIC = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")


def apply_chmod(change: str, mode: int, is_dir: bool) -> int:
    """Octal, or chmod(1)'s symbolic form with commas."""
    if re.fullmatch(r"[0-7]{1,5}", change):
        return int(change, 8) & 0o7777
    for clause in change.split(","):
        match = _SYMBOLIC.fullmatch(clause.strip())
        if not match:
            raise BAD_OPTION(text=f"invalid chmod parameter: '{change}'. it should be octal or symbolic notation")
        who = match[1] or "a"
        who = "ugo" if "a" in who else who
        for each in who:
            shift = {"u": 6, "g": 3, "o": 0}[each]
            bits = special = 0
            for perm in match[3]:
                if perm in "rwx":
                    bits |= {"r": 4, "w": 2, "x": 1}[perm]
                elif perm == "X" and (is_dir or mode & 0o111):
                    bits |= 1
                elif perm == "s" and each in "ug":
                    special |= 0o4000 if each == "u" else 0o2000
                elif perm == "t":
                    special |= 0o1000
            if match[2] == "+":
                mode |= bits << shift | special
            elif match[2] == "-":
                mode &= ~(bits << shift | special)
            else:
                mode = mode & ~(7 << shift) | bits << shift | special
    return mode
