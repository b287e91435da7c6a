"""Manifests, tags and referrers of repositories."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import msgspec

from dockyard.registry.core import MANIFEST_MAX, Actor, Core, audit, ensure_repository, repository_id
from dockyard.registry.database import Tx
from dockyard.registry.errors import (
    DIGEST_INVALID,
    MANIFEST_BLOB_UNKNOWN,
    MANIFEST_INVALID,
    MANIFEST_TOO_LARGE,
    MANIFEST_UNKNOWN,
    NAME_UNKNOWN,
    TAG_IMMUTABLE,
)
from dockyard.registry.manifest import INDEXES, Descriptor, Manifest, parse_manifest, referrer_descriptor
from dockyard.registry.names import check_digest, check_tag, digest_of, looks_like_digest
from dockyard.registry.webhooks import Event, emit

REFERRERS_PAGE = 1000


@dataclass(frozen=True, slots=True)
class StoredManifest:
    digest: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Pushed:
    digest: str
    subject: str
    tags: tuple[str, ...]


class Content:
    def __init__(self, core: Core) -> None:
        self.core = core

    async def manifest(self, name: str, reference: str) -> StoredManifest:
        """Raises MANIFEST_UNKNOWN, NAME_UNKNOWN, DIGEST_INVALID."""
        return await self.core.db.read(lambda tx: find_manifest(tx, name, reference))

    async def put(self, name: str, reference: str, raw: bytes, content_type: str, actor: Actor,
                  tags: list[str], *, sparse: bool = False) -> Pushed:  # fmt: skip
        """`reference` is a tag, or the digest that the bytes must have; `tags` are more names for it.

        `sparse` leaves out the check of references: for a proxy cache, which fetches them when they are asked for.
        """
        if len(raw) > MANIFEST_MAX:
            raise MANIFEST_TOO_LARGE(limit=MANIFEST_MAX)
        self.core.blobs.check_room()
        algorithm = "sha256"
        names = [check_tag(tag) for tag in tags]
        if looks_like_digest(reference):
            algorithm = check_digest(reference).partition(":")[0]
        else:
            names.insert(0, check_tag(reference))
        digest = digest_of(raw, algorithm)
        if looks_like_digest(reference) and digest != reference:
            raise DIGEST_INVALID(reason=f"content is {digest}, not {reference}")
        manifest = parse_manifest(raw, content_type)
        now = self.core.clock()

        def store(tx: Tx) -> None:
            repository, made = ensure_repository(tx, name, now, public=self.core.config.public)
            if not sparse:
                check_references(tx, repository, manifest, now)
            insert_manifest(tx, repository, digest, manifest, actor, now)
            for tag in dict.fromkeys(names):
                self._tag(tx, repository, name, tag, digest, actor, now)
            tx.run("UPDATE repositories SET updated = ? WHERE id = ?", (now, repository))
            if made:
                emit(tx, now, Event("REPO_CREATED", name, actor=actor.name))
            emit(tx, now, Event("MANIFEST_PUSH", name, digest=digest, actor=actor.name))
            audit(tx, now, actor, "push", name, " ".join([*dict.fromkeys(names), digest]))
            tx.changed()

        await self.core.db.write(store)
        subject = manifest.subject.digest if manifest.subject is not None else ""
        return Pushed(digest, subject, tuple(dict.fromkeys(names)))

    def _tag(self, tx: Tx, repository: int, name: str, tag: str, digest: str, actor: Actor, now: float) -> None:
        row = tx.one(
            "SELECT r.immutable, t.digest FROM repositories r LEFT JOIN tags t ON t.repository = r.id AND t.name = ?"
            " WHERE r.id = ?",
            (tag, repository),
        )
        if row is not None and row[1] not in {None, digest} and is_immutable(row[0], tag):
            raise TAG_IMMUTABLE(tag=tag, name=name)
        tx.run(
            "INSERT INTO tags (repository, name, digest, created, updated, pushed_by) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (repository, name) DO UPDATE SET digest = excluded.digest, updated = excluded.updated,"
            " pushed_by = excluded.pushed_by",
            (repository, tag, digest, now, now, actor.name),
        )
        emit(tx, now, Event("TAG_PUSH", name, tag=tag, digest=digest, actor=actor.name))

    async def delete_manifest(self, name: str, digest: str, actor: Actor) -> None:
        """With every tag that points at it (spec end-9)."""
        check_digest(digest)
        now = self.core.clock()

        def delete(tx: Tx) -> None:
            repository = repository_id(tx, name)
            immutable = _immutable_pattern(tx, repository)
            tags = [t for (t,) in tx.all("SELECT name FROM tags WHERE repository = ? AND digest = ?",
                                         (repository, digest))]  # fmt: skip
            for tag in tags:
                if is_immutable(immutable, tag):
                    raise TAG_IMMUTABLE(tag=tag, name=name)
            if remove_manifest(tx, repository, digest) == 0:
                raise MANIFEST_UNKNOWN(reference=digest)
            for tag in tags:
                emit(tx, now, Event("TAG_DELETE", name, tag=tag, digest=digest, actor=actor.name))
            emit(tx, now, Event("MANIFEST_DELETE", name, digest=digest, actor=actor.name))
            audit(tx, now, actor, "manifest.delete", name, " ".join([digest, *tags]))
            tx.changed()

        await self.core.db.write(delete)

    async def delete_tag(self, name: str, tag: str, actor: Actor) -> None:
        check_tag(tag)
        now = self.core.clock()

        def delete(tx: Tx) -> None:
            repository = repository_id(tx, name)
            if is_immutable(_immutable_pattern(tx, repository), tag):
                raise TAG_IMMUTABLE(tag=tag, name=name)
            row = tx.one("SELECT digest FROM tags WHERE repository = ? AND name = ?", (repository, tag))
            if row is None:
                raise MANIFEST_UNKNOWN(reference=tag)
            tx.run("DELETE FROM tags WHERE repository = ? AND name = ?", (repository, tag))
            emit(tx, now, Event("TAG_DELETE", name, tag=tag, digest=row[0], actor=actor.name))
            audit(tx, now, actor, "tag.delete", f"{name}:{tag}", str(row[0]))
            tx.changed()

        await self.core.db.write(delete)

    async def tags(self, name: str, last: str, count: int | None) -> list[str]:
        """Sorted, behind `last`, at most `count`. Raises NAME_UNKNOWN."""

        def query(tx: Tx) -> list[str]:
            repository = repository_id(tx, name)
            limit = -1 if count is None else count
            rows = tx.all(
                "SELECT name FROM tags WHERE repository = ? AND name > ? ORDER BY name LIMIT ?",
                (repository, last, limit if limit >= 0 else 1_000_000),
            )
            return [row[0] for row in rows]

        return await self.core.db.read(query)

    async def referrers(self, name: str, subject: str, artifact_type: str, last: str) -> tuple[list[Descriptor], str]:
        """A page of manifests whose subject it is, and the digest the next page begins behind ("" = no more)."""
        check_digest(subject)

        def query(tx: Tx) -> list[tuple[str, str, bytes]]:
            row = tx.one("SELECT id FROM repositories WHERE name = ?", (name,))
            if row is None:
                return []
            narrowed = " AND artifact_type = ?" if artifact_type else ""
            rows = tx.all(
                "SELECT digest, media_type, content FROM manifests WHERE repository = ? AND subject = ? AND digest > ?"
                f"{narrowed} ORDER BY digest LIMIT ?",
                (row[0], subject, last, *((artifact_type,) if artifact_type else ()), REFERRERS_PAGE + 1),
            )
            found = [(r[0], r[1], bytes(r[2])) for r in rows]
            return found + ([] if last else _fallback(tx, row[0], subject, artifact_type, {r[0] for r in found}))

        rows = await self.core.db.read(query)
        more = rows[REFERRERS_PAGE - 1][0] if len(rows) > REFERRERS_PAGE else ""
        listed = [referrer_descriptor(parse_manifest(raw, media_type), digest)
                  for digest, media_type, raw in rows[:REFERRERS_PAGE]]  # fmt: skip
        return listed, more


def _fallback(
    tx: Tx, repository: int, subject: str, artifact_type: str, seen: set[str]
) -> list[tuple[str, str, bytes]]:
    """Referrers that old clients listed in an index under the tag `sha256-<hex>` (spec "Referrers Tag Schema")."""
    tag = subject.replace(":", "-")
    row = tx.one(
        "SELECT m.content, m.media_type FROM tags t JOIN manifests m ON m.repository = t.repository AND m.digest ="
        " t.digest WHERE t.repository = ? AND t.name = ?",
        (repository, tag),
    )
    if row is None or row[1] not in INDEXES:
        return []
    found = []
    for child in parse_manifest(bytes(row[0]), row[1]).children:
        stored = tx.one(
            "SELECT media_type, content, artifact_type FROM manifests WHERE repository = ? AND digest = ?",
            (repository, child.digest),
        )
        if stored is not None and child.digest not in seen and artifact_type in {"", stored[2]}:
            found.append((child.digest, str(stored[0]), bytes(stored[1])))
    return found


def find_manifest(tx: Tx, name: str, reference: str) -> StoredManifest:
    if looks_like_digest(reference):
        check_digest(reference)
        row = tx.one(
            "SELECT m.digest, m.media_type, m.content FROM repositories r JOIN manifests m ON m.repository = r.id"
            " AND m.digest = ? WHERE r.name = ?",
            (reference, name),
        )
    else:
        row = tx.one(
            "SELECT m.digest, m.media_type, m.content FROM repositories r JOIN tags t ON t.repository = r.id"
            " AND t.name = ? JOIN manifests m ON m.repository = r.id AND m.digest = t.digest WHERE r.name = ?",
            (check_tag(reference), name),
        )
    if row is not None:
        return StoredManifest(row[0], row[1], bytes(row[2]))
    if tx.one("SELECT 1 FROM repositories WHERE name = ?", (name,)) is None:
        raise NAME_UNKNOWN(name=name)
    raise MANIFEST_UNKNOWN(reference=reference)


def check_references(tx: Tx, repository: int, manifest: Manifest, now: float) -> None:
    """Every blob must be shown by the repository; taking its row's lock keeps the collector away."""
    # Everybody takes rows in this order: blobs before links, digests sorted. Otherwise two pushes that share a blob
    # could wait for each other.
    for digest in sorted(manifest.blobs):
        if (
            tx.run("UPDATE blobs SET touched = ? WHERE digest = ?", (now, digest)) == 0
            or tx.run("UPDATE links SET touched = ? WHERE repository = ? AND digest = ?", (now, repository, digest)) == 0
        ):
            raise MANIFEST_BLOB_UNKNOWN(digest=digest)
    if manifest.media_type in INDEXES and len(manifest.raw) > MANIFEST_MAX:
        raise MANIFEST_INVALID(reason="index too large")


def insert_manifest(tx: Tx, repository: int, digest: str, manifest: Manifest, actor: Actor, now: float) -> None:
    subject = manifest.subject.digest if manifest.subject is not None else ""
    row = tx.one(
        "INSERT INTO manifests (repository, digest, media_type, size, content, content_size, artifact_type, subject,"
        " pushed_by, created, touched) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (repository, digest)"
        " DO UPDATE SET touched = excluded.touched, media_type = excluded.media_type RETURNING id",
        (repository, digest, manifest.media_type, len(manifest.raw), manifest.raw, manifest.content_size,
         manifest.artifact_type, subject, actor.name, now, now),
    )  # fmt: skip
    assert row is not None
    edges = [(row[0], repository, blob, "blob") for blob in manifest.blobs]
    edges += [(row[0], repository, child.digest, "manifest") for child in manifest.children]
    if subject:
        edges.append((row[0], repository, subject, "subject"))
    tx.many(
        "INSERT INTO edges (manifest, repository, digest, kind) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        dict.fromkeys(edges),
    )


def remove_manifest(tx: Tx, repository: int, digest: str) -> int:
    tx.run("DELETE FROM tags WHERE repository = ? AND digest = ?", (repository, digest))
    return tx.run("DELETE FROM manifests WHERE repository = ? AND digest = ?", (repository, digest))


def is_immutable(patterns: str, tag: str) -> bool:
    """`patterns` are shell patterns with spaces between them; "" protects nothing."""
    return any(fnmatch.fnmatchcase(tag, pattern) for pattern in patterns.split())


def _immutable_pattern(tx: Tx, repository: int) -> str:
    row = tx.one("SELECT immutable FROM repositories WHERE id = ?", (repository,))
    return "" if row is None else str(row[0])


def tags_document(name: str, tags: list[str]) -> bytes:
    return msgspec.json.encode({"name": name, "tags": tags})
