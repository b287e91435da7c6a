"""What ``docker rmi`` does: decided here, from values, exactly by dockerd's rules (moby daemon/images/image_delete.go).

- By name: the name goes; the image only if that was its last one. A name that is its last needs force while a container
  uses the image.
- By ID: the names go too if they are all of one repository with at most one tag; else it needs force.
- Hard conflicts cannot be forced: a running container, a child image. Parents without a name go along, quietly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dockyard.errors import DockyardError
from dockyard.oci import Digest, ImageRef, hex_of

from .errors import CANNOT_DELETE_IMAGE, CANNOT_REMOVE_REFERENCE
from .model import Deleted


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A container that was made from an image."""

    container: str
    running: bool


@dataclass(slots=True)
class ImagesView:
    """The records that a removal looks at."""

    refs: Mapping[Digest, list[ImageRef]]
    parents: Mapping[Digest, Digest | None]
    chains: Mapping[Digest, tuple[Digest, ...]]
    users: Mapping[Digest, list[ImageUser]]
    pinned_chains: frozenset[Digest] = frozenset()


@dataclass(slots=True)
class RemovalPlan:
    untag: list[ImageRef] = field(default_factory=list)
    delete: list[Digest] = field(default_factory=list)
    rows: list[Deleted] = field(default_factory=list)


def plan_removal(view: ImagesView, image: Digest, ref: ImageRef | None, *, force: bool, prune: bool) -> RemovalPlan:
    """``ref`` is the name it was asked for by, None for an ID. Raises Conflict with dockerd's sentences."""
    planner = _Planner(view)
    refs = planner.refs(image)
    if ref is not None:
        users = view.users.get(image, [])
        if not force and users and is_single_reference(refs):
            raise CANNOT_REMOVE_REFERENCE(ref=ref.familiar, container=users[0].container[:12], image=_short(image))
        planner.untag(ref, image)
        if ref.digest is None and not any(other.name == ref.name and not other.digest for other in planner.refs(image)):
            for other in [other for other in planner.refs(image) if other.name == ref.name]:
                planner.untag(other, image)
        if planner.refs(image):
            return planner.plan
    elif is_single_reference(refs):
        planner.check(image, force=force, references=False)
        for other in refs:
            planner.untag(other, image)
    planner.delete(image, force=force, prune=prune)
    return planner.plan


def is_single_reference(refs: list[ImageRef]) -> bool:
    """At most one tag, and all digests in its repository."""
    if len(refs) <= 1:
        return True
    tags = [ref for ref in refs if ref.digest is None]
    repositories = {ref.name for ref in refs if ref.digest is not None}
    return len(tags) <= 1 and repositories == {(tags or refs)[0].name}


class _Planner:
    def __init__(self, view: ImagesView) -> None:
        self._view = view
        self.plan = RemovalPlan()

    def refs(self, image: Digest) -> list[ImageRef]:
        return [ref for ref in self._view.refs.get(image, []) if ref not in self.plan.untag]

    def untag(self, ref: ImageRef, image: Digest) -> None:
        self.plan.untag.append(ref)
        self.plan.rows.append(Deleted(untagged=ref.familiar))

    def check(self, image: Digest, *, force: bool, references: bool = True) -> None:
        cause = self._hard_conflict(image)
        if cause:
            raise CANNOT_DELETE_IMAGE(image=_short(image), how="cannot be forced", cause=cause)
        cause = "" if force else self._soft_conflict(image, references)
        if cause:
            raise CANNOT_DELETE_IMAGE(image=_short(image), how="must be forced", cause=cause)

    def _hard_conflict(self, image: Digest) -> str:
        gone = self.plan.delete
        if any(parent == image and child not in gone for child, parent in self._view.parents.items()):
            return "image has dependent child images"
        for user in self._view.users.get(image, []):
            if user.running:
                return f"image is being used by running container {user.container[:12]}"
        return ""

    def _soft_conflict(self, image: Digest, references: bool) -> str:
        if references and self.refs(image):
            return "image is referenced in multiple repositories"
        for user in self._view.users.get(image, []):
            return f"image is being used by stopped container {user.container[:12]}"
        return ""

    def delete(self, image: Digest, *, force: bool, prune: bool) -> None:
        self.check(image, force=force)
        for ref in self.refs(image):
            self.untag(ref, image)
        self.plan.delete.append(image)
        self.plan.rows.append(Deleted(deleted=image))
        self.plan.rows += [Deleted(deleted=chain) for chain in self._freed_chains(image)]
        parent = self._view.parents.get(image)
        if prune and parent is not None and parent in self._view.chains and not self.refs(parent):
            try:
                self.delete(parent, force=False, prune=True)
            except DockyardError:
                return  # a parent in use stays, without a word

    def _freed_chains(self, image: Digest) -> list[Digest]:
        """Layer stacks that only this image held, top first."""
        held = set(self._view.pinned_chains)
        for other, chains in self._view.chains.items():
            if other not in self.plan.delete:
                held.update(chains)
        already = {row.deleted for row in self.plan.rows}
        return [chain for chain in reversed(self._view.chains[image]) if chain not in held and chain not in already]


def _short(image: Digest) -> str:
    return hex_of(image)[:12]


def users_of(in_use: Mapping[str, Iterable[tuple[str, bool]]]) -> dict[Digest, list[ImageUser]]:
    """From what the engine has at hand: image ID -> (container ID, running)."""
    return {Digest(image): [ImageUser(*pair) for pair in pairs] for image, pairs in in_use.items()}
