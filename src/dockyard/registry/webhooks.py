"""Webhooks: an event is written into the same transaction as the change it tells of, so none is lost or invented.

Forms of the payload: ``dtr`` ({type, createdAt, contents, location} as Docker Trusted Registry sends), ``hub``
({callback_url, push_data, repository} as Docker Hub does), ``harbor`` is left out until someone asks.
Delivery: any replica leases a due row (`due` moves ahead by the lease), posts it, and records the outcome; failures
are repeated with growing pauses. The history stays, and a row can be sent again.
"""

from __future__ import annotations

import datetime
import fnmatch
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.registry.database import Tx
from dockyard.registry.settings import read_setting

EVENTS = (
    "TAG_PUSH", "TAG_PULL", "TAG_DELETE", "MANIFEST_PUSH", "MANIFEST_PULL", "MANIFEST_DELETE", "REPO_CREATED",
    "REPO_UPDATED", "REPO_DELETED", "POLL_MIRRORING", "PUSH_MIRRORING", "QUOTA_EXCEED", "TAG_RETENTION",
)  # fmt: skip
LEASE_SECONDS = 60.0
POST_SECONDS = 10.0
ANSWER_KEPT = 1000
PAUSES = (5.0, 30.0, 300.0, 1800.0, 7200.0)  # then it is given up; "send again" starts anew


@dataclass(frozen=True, slots=True)
class Event:
    type: str
    repository: str
    tag: str = ""
    digest: str = ""
    actor: str = ""
    count: int = 0
    """Pulls are told together, every ten seconds."""


@dataclass(frozen=True, slots=True)
class About:
    """What messages say of a repository beside the event."""

    domain: str
    """Host that clients use, from the settings; "" when nobody said."""
    public: bool = False
    description: str = ""
    readme: str = ""
    created: float = 0.0


def _about(tx: Tx, name: str, now: float) -> About:
    row = tx.one("SELECT public, description, readme, created FROM repositories WHERE name = ?", (name,))
    domain = read_setting(tx, "domain")
    return About(domain, created=now) if row is None else About(domain, bool(row[0]), row[1], row[2], row[3])


def emit(tx: Tx, now: float, event: Event) -> None:
    """Queue a delivery for every webhook that wants it. The namespace's own and the repository's."""
    namespace = event.repository.partition("/")[0] if "/" in event.repository else "library"
    hooks = tx.all(
        "SELECT id, repository, events, form FROM webhooks WHERE namespace = ? AND active = 1", (namespace,)
    )
    wanted = [
        (hook, form) for hook, pattern, events, form in hooks
        if event.type in events.split() and (not pattern or fnmatch.fnmatchcase(event.repository, pattern))
    ]  # fmt: skip
    if wanted:
        about = _about(tx, event.repository, now)
        for hook, form in wanted:
            tx.run(
                "INSERT INTO deliveries (webhook, event, payload, created, due) VALUES (?, ?, ?, ?, ?)",
                (hook, event.type, msgspec.json.encode(payload(event, form, now, about)).decode(), now, now),
            )


def payload(event: Event, form: str, now: float, about: About) -> dict[str, Any]:
    namespace, _, short = event.repository.rpartition("/")
    if form == "hub":
        return {
            "callback_url": "",
            "push_data": {"pushed_at": int(now), "pusher": event.actor, "tag": event.tag, "images": []},
            "repository": {
                "name": short, "namespace": namespace or "library", "owner": namespace or "library",
                "repo_name": event.repository, "repo_url": f"https://{about.domain}/r/{event.repository}" if about.domain else "",
                "is_private": not about.public, "is_official": not namespace, "is_trusted": False, "status": "Active",
                "description": about.description, "full_description": about.readme, "dockerfile": "", "star_count": 0,
                "comment_count": 0, "date_created": int(about.created),
            },
        }  # fmt: skip
    contents: dict[str, Any] = {"namespace": namespace or "library", "repository": short, "author": event.actor}
    at = datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat().replace("+00:00", "Z")
    if event.tag:
        host = f"{about.domain}/" if about.domain else ""
        contents |= {"tag": event.tag, "imageName": f"{host}{event.repository}:{event.tag}"}
    if event.type in {"TAG_PUSH", "MANIFEST_PUSH"}:
        contents["pushedAt"] = at
    if event.digest:
        contents["digest"] = event.digest
    if event.count:
        contents["count"] = event.count
    return {
        "type": event.type, "createdAt": at, "contents": contents,
        "location": f"/repositories/{event.repository}",
    }  # fmt: skip


def signature(secret: str, body: bytes) -> str:
    """Value of X-Dockyard-Signature-256; the receiver compares it to know that the body is ours."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def next_due(attempts: int, now: float) -> float | None:
    """When to try again after `attempts` failures; None: give up."""
    return now + PAUSES[attempts - 1] if attempts <= len(PAUSES) else None
