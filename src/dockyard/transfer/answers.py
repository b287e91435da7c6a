"""What a registry's refusal means, in Docker's sentences and with the cause (pure).

The first part of every sentence equals Docker's (moby distribution/errors.go, distribution errcode): clients and
scripts match on it. After it comes what the registry did not say: which action the token lacks, whose namespace this
is, what the limit was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dockyard.errors import DockyardError
from dockyard.lib.notjson import NOT_JSON

from .errors import (
    MANIFEST_NOT_FOUND,
    NO_CREDENTIALS,
    PULL_DENIED,
    PULL_UNAUTHORIZED,
    PUSH_DENIED,
    REPOSITORY_NOT_FOUND,
    SERVER_ANSWER,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
)
from .model import Context, Limits

MAX_ERROR_BODY = 65536
_DEFAULTS = {
    "UNAUTHORIZED": "authentication required",
    "DENIED": "requested access to the resource is denied",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "NAME_UNKNOWN": "repository name not known to registry",
    "TOOMANYREQUESTS": "too many requests",
}


def error_for(status: int, headers: Mapping[str, str], body: bytes, operation: str, context: Context) -> DockyardError:
    """The error for an answer that was not the wanted one."""
    code, detail = read_error(status, body)
    evidence: dict[str, Any] = {
        "operation": operation, "detail": detail, "registry_status": status, "host": context.host, "path": context.path,
        "name": context.name, "registry_code": code,
    }  # fmt: skip
    if code == "TOOMANYREQUESTS" or status == 429:
        limits = limits_of(headers)
        text = detail.removeprefix("toomanyrequests: ")
        return TOO_MANY_REQUESTS(**evidence | {"detail": text, "limits": _limits_text(limits), "status": 429})
    if code in ("DENIED", "UNAUTHORIZED") or status in (401, 403):
        return _refusal(code, evidence, context)
    if code == "MANIFEST_UNKNOWN" or (status == 404 and not code and "/manifests/" in operation):
        return MANIFEST_NOT_FOUND(**evidence)
    if code == "NAME_UNKNOWN":
        return REPOSITORY_NOT_FOUND(**evidence | {"name": context.repository or context.path})
    return SERVER_ANSWER(**evidence)


def no_credentials(operation: str, context: Context) -> DockyardError:
    return NO_CREDENTIALS(operation=operation, host=context.host)


def read_error(status: int, body: bytes) -> tuple[str, str]:
    """(code, ``code: message`` as distribution's errcode prints it) of an error body; code "" if it has none."""
    try:
        document = msgspec.json.decode(body[:MAX_ERROR_BODY])
        first = document["errors"][0]
        code, message = str(first.get("code", "")).upper(), str(first.get("message") or "")
    except (*NOT_JSON, KeyError, IndexError, TypeError, AttributeError):
        fallback = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}
        code = fallback.get(status, "")
        text = body[:200].decode("utf-8", "replace").strip().partition("\n")[0]
        if not code:
            return "", f"received unexpected HTTP status: {status}" + (f": {text}" if text else "")
        message = ""
    words = code.lower().replace("_", " ")
    return code, f"{words}: {message or _DEFAULTS.get(code, words)}"


def limits_of(headers: Mapping[str, str]) -> Limits:
    def get(*names: str) -> str:
        return next((value for name in names if (value := headers.get(name))), "")

    return Limits(
        get("RateLimit-Limit", "X-RateLimit-Limit"), get("RateLimit-Remaining", "X-RateLimit-Remaining"),
        get("Retry-After", "X-Retry-After"), get("Docker-RateLimit-Source"),
    )  # fmt: skip


def _limits_text(limits: Limits) -> str:
    parts = [
        f"{label} {value}"
        for label, value in (
            ("limit", limits.limit), ("remaining", limits.remaining), ("retry after", limits.retry_after),
            ("counted for", limits.source),
        )
        if value
    ]  # fmt: skip
    return f" ({', '.join(parts)})" if parts else ""


def _refusal(code: str, evidence: dict[str, Any], context: Context) -> DockyardError:
    if context.missing:
        evidence["cause"] = f" (the token for {context.path} lacks: {', '.join(context.missing)})"
    else:
        evidence["cause"] = ""
    if context.verb == "push":
        if not context.account:
            evidence["cause"] += f" (not logged in to {context.host})"
            return PUSH_DENIED(**evidence, target=f"then docker login {context.host}")
        target = own_name(context)
        if target:
            owner = context.path.partition("/")[0]
            evidence["cause"] += f" (logged in as {context.account}, and {owner}/ is not that account's namespace)"
        return PUSH_DENIED(**evidence, target=target or "<account>/<name>")
    if context.verb == "pull":
        denied = code == "DENIED" or context.missing
        return PULL_DENIED(**evidence | {"name": context.repository}) if denied else PULL_UNAUTHORIZED(**evidence)
    return UNAUTHORIZED(**evidence)


def own_name(context: Context) -> str:
    """The name below the account's own namespace to push instead; "" if the name is already there."""
    owner, slash, rest = context.path.partition("/")
    if owner == context.account:
        return ""
    familiar_host = "" if context.host in ("registry-1.docker.io", "docker.io") else f"{context.host}/"
    tag = context.name.rpartition(":")[2] if ":" in context.name.rpartition("/")[2] else ""
    return f"{familiar_host}{context.account}/{rest if slash else owner}" + (f":{tag}" if tag else "")
