"""Retention: which tags may go. The plan is pure; a dry run shows it, a run performs exactly it.

A rule names repositories and tags by shell patterns and says what to keep: the newest N, those pushed within some
days, those pulled within some days. A tag that any rule keeps stays; immutable tags stay; what matches no rule stays.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from dockyard.registry.content import is_immutable
from dockyard.registry.core import Actor, Core, audit
from dockyard.registry.database import Tx
from dockyard.registry.webhooks import Event, emit

DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Rule:
    repository: str
    tags: str
    keep_last: int | None
    keep_days: float | None
    pulled_days: float | None


@dataclass(frozen=True, slots=True)
class Tag:
    name: str
    updated: float
    pulled: float | None


@dataclass(frozen=True, slots=True)
class Removal:
    repository: str
    tag: str
    reason: str


def plan(repository: str, tags: list[Tag], rules: list[Rule], immutable: str, now: float) -> list[Removal]:
    kept: set[str] = set()
    doomed: dict[str, str] = {}
    for rule in rules:
        if not fnmatch.fnmatchcase(repository, rule.repository):
            continue
        matching = sorted((t for t in tags if fnmatch.fnmatchcase(t.name, rule.tags)), key=lambda t: -t.updated)
        for rank, tag in enumerate(matching):
            if _keeps(rule, rank, tag, now):
                kept.add(tag.name)
            else:
                doomed.setdefault(tag.name, _reason(rule, tag, now))
    return [
        Removal(repository, name, reason) for name, reason in sorted(doomed.items())
        if name not in kept and not is_immutable(immutable, name)
    ]  # fmt: skip


def _keeps(rule: Rule, rank: int, tag: Tag, now: float) -> bool:
    if rule.keep_last is None and rule.keep_days is None and rule.pulled_days is None:
        return True  # a rule that says nothing removes nothing
    return (
        (rule.keep_last is not None and rank < rule.keep_last)
        or (rule.keep_days is not None and now - tag.updated <= rule.keep_days * DAY)
        or (rule.pulled_days is not None and tag.pulled is not None and now - tag.pulled <= rule.pulled_days * DAY)
    )


def _reason(rule: Rule, tag: Tag, now: float) -> str:
    said = []
    if rule.keep_last is not None:
        said.append(f"not among the newest {rule.keep_last}")
    if rule.keep_days is not None:
        said.append(f"pushed {(now - tag.updated) / DAY:.0f} days ago")
    if rule.pulled_days is not None:
        said.append("never pulled" if tag.pulled is None else f"pulled {(now - tag.pulled) / DAY:.0f} days ago")
    return ", ".join(said)


class Retention:
    def __init__(self, core: Core) -> None:
        self.core = core

    async def plan(self, namespace: str) -> list[Removal]:
        now = self.core.clock()
        return await self.core.db.search(lambda tx: _plan_namespace(tx, namespace, now))

    async def run_all(self, actor: Actor) -> None:
        """Every namespace that has rules, each in its own transaction."""
        found = await self.core.db.read(lambda tx: tx.all("SELECT DISTINCT namespace FROM rules WHERE active = 1"))
        for (namespace,) in found:
            await self.run(str(namespace), actor)

    async def run(self, namespace: str, actor: Actor) -> list[Removal]:
        """Plan and perform in one transaction, so a tag pushed meanwhile is judged as it is."""
        now = self.core.clock()

        def work(tx: Tx) -> list[Removal]:
            removals = _plan_namespace(tx, namespace, now)
            for removal in removals:
                tx.run(
                    "DELETE FROM tags WHERE name = ? AND repository = (SELECT id FROM repositories WHERE name = ?)",
                    (removal.tag, removal.repository),
                )
                emit(tx, now, Event("TAG_RETENTION", removal.repository, tag=removal.tag, actor=actor.name))
                audit(tx, now, actor, "tag.retention", f"{removal.repository}:{removal.tag}", removal.reason)
            if removals:
                tx.changed()
            return removals

        return await self.core.db.write(work)


def _plan_namespace(tx: Tx, namespace: str, now: float) -> list[Removal]:
    rules = [
        Rule(*row)
        for row in tx.all(
            "SELECT repository, tags, keep_last, keep_days, pulled_days FROM rules WHERE namespace = ? AND active = 1",
            (namespace,),
        )
    ]
    removals: list[Removal] = []
    if rules:
        for id_, name, immutable in tx.all(
            "SELECT id, name, immutable FROM repositories WHERE namespace = ? ORDER BY name", (namespace,)
        ):
            tags = [Tag(*t) for t in tx.all("SELECT name, updated, pulled FROM tags WHERE repository = ?", (id_,))]
            removals += plan(name, tags, rules, immutable, now)
    return removals
