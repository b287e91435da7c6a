"""Image references, parsed and printed as distribution/reference does (grammar at the head of its reference.go).

::

    reference := name [":" tag] ["@" digest]        name := [domain "/"] path
    docker.io/library/busybox:latest   full ("normalised") form: what is stored and compared
    busybox:latest                     familiar form: what people type and read

A reference without a domain means docker.io, and one path component there means ``library/``. The first component is a
domain only if it holds a dot, a colon or an upper-case letter, or is ``localhost``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .digest import Digest, is_digest
from .errors import INVALID_REFERENCE, REFERENCE_IS_AN_ID, REFERENCE_NOT_LOWERCASE, REFERENCE_TOO_LONG

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
MAX_NAME_LENGTH = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?\Z"
)
_TAG_ONLY = re.compile(_TAG + r"\Z")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}\Z")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A normalised reference; ``str()`` is its full form."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(OFFICIAL_PREFIX)
        return rest if "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> ImageRef:
        """The same with ``latest`` if it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> ImageRef:
        return replace(self, tag=parse_tag(tag))

    def __str__(self) -> str:
        return self.name + self._suffix()


def parse_reference(text: str) -> ImageRef:
    """What a user typed, normalised; no tag is added. Raises InvalidParameter with Docker's sentence."""
    if _IDENTIFIER.match(text):
        raise REFERENCE_IS_AN_ID(name=text)
    domain, rest = _split_domain(text)
    name = rest.partition("@")[0].partition(":")[0]
    if name != name.lower():
        raise REFERENCE_NOT_LOWERCASE(name=name)
    match = _REFERENCE.match(f"{domain}/{rest}")
    if match is None or match["domain"] is None:
        raise INVALID_REFERENCE(reference=text)
    if len(match["path"]) > MAX_NAME_LENGTH:
        raise REFERENCE_TOO_LONG(reference=text)
    digest = match["digest"]
    if digest is not None and not is_digest(digest):
        raise INVALID_REFERENCE(reference=text)
    return ImageRef(match["domain"], match["path"], match["tag"], Digest(digest) if digest else None)


def parse_tag(text: str) -> str:
    if not _TAG_ONLY.match(text):
        raise INVALID_REFERENCE(reference=text)
    return text


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    named = slash and (any(c in first for c in ".:") or first == "localhost" or first != first.lower())
    domain, rest = (first, rest) if named else (DEFAULT_DOMAIN, text)
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL_PREFIX + rest
    return domain, rest
