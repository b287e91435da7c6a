"""Names as they travel in URLs: repositories, tags, digests (distribution-spec, "Pulling manifests")."""

from __future__ import annotations

import hashlib
import re

from dockyard.registry.errors import DIGEST_INVALID, NAME_INVALID, TAG_INVALID

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
NAME_MAX = 255  # many clients limit host and name together to 255, so longer names could never be pulled

LIBRARY = "library"
"""The namespace of one-component names, as Docker Hub has it; it belongs to the administrators."""


def check_name(name: str) -> str:
    if len(name) > NAME_MAX or _NAME.match(name) is None:
        raise NAME_INVALID(name=name[:NAME_MAX])
    return name


def check_tag(tag: str) -> str:
    if _TAG.match(tag) is None:
        raise TAG_INVALID(tag=tag[:130])
    return tag


def check_digest(text: str) -> str:
    if _DIGEST.match(text) is None:
        raise DIGEST_INVALID(reason=f"{text[:140]!r} is neither sha256 nor sha512 in lower-case hex")
    return text


def looks_like_digest(reference: str) -> bool:
    return ":" in reference


def namespace_of(name: str) -> str:
    first, slash, _ = name.partition("/")
    return first if slash else LIBRARY


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
