"""Questions to a registry that move no layers: distribution, search, login. Blocking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from dockyard.lib.notjson import NOT_JSON
from dockyard.oci import DEFAULT_DOMAIN, ImageRef, parse_reference

from .errors import LOGIN_FAILED, SEARCH_LIMIT, SERVER_ANSWER
from .manifests import ImageIndex, parse_config, parse_manifest, platform_document, platforms_of
from .model import LoginResult, SearchFilter, SearchRow
from .repository import Repository, first_good
from .session import Session
from .settings import HUB_HOST, HUB_INDEX, Endpoint, Settings, endpoints_for
from .transport import discard, operation

MAX_ANSWER = 4 << 20
DEFAULT_SEARCH_LIMIT = 25
MAX_SEARCH_LIMIT = 100


def distribution(sources: Sequence[Repository], ref: ImageRef) -> dict[str, Any]:
    return first_good(sources, lambda source: _distribution(source, ref))


def _distribution(source: Repository, ref: ImageRef) -> dict[str, Any]:
    raw = source.manifest(ref.digest or ref.tag or "")
    document = parse_manifest(raw, ref.familiar)
    if isinstance(document, ImageIndex):
        platforms = platforms_of(document)
    else:
        config = parse_config(source.blob_bytes(document.config.digest), len(document.layers), ref.familiar)
        platforms = [platform_document(config.platform)]
    descriptor = {"mediaType": raw.media_type, "digest": raw.digest, "size": len(raw.raw)}
    return {"Descriptor": descriptor, "Platforms": platforms}


# -- login -----------------------------------------------------------------------------------------------------------


def login_domain(serveraddress: str) -> str:
    """The domain that a login's server address means; Docker Hub has several spellings. Raises InvalidParameter."""
    address = serveraddress.partition("://")[2] or serveraddress
    host = address.partition("/")[0]
    if host in ("", HUB_INDEX, HUB_HOST, DEFAULT_DOMAIN, "hub.docker.com"):
        return DEFAULT_DOMAIN
    parse_reference(f"{host}/x")
    return host


def login(session: Session) -> LoginResult:
    url = session.url("/v2/")
    response = session.request("GET", url, want=(200, 401))
    discard(response)
    if response.status != 200:
        raise LOGIN_FAILED(url=url, status="401 Unauthorized")
    return LoginResult("Login Succeeded", session.refresh_token())


# -- search ----------------------------------------------------------------------------------------------------------

SEARCH_SCOPE = "registry:catalog:search"


def split_term(term: str) -> tuple[str, str]:
    """(domain, what to look for there), as moby registry/search.go splits it."""
    first, slash, rest = term.partition("/")
    if slash and (any(c in first for c in ".:") or first == "localhost"):
        return (DEFAULT_DOMAIN if first in (HUB_INDEX, DEFAULT_DOMAIN) else first), rest.removeprefix("library/")
    return DEFAULT_DOMAIN, term.removeprefix("library/")


def search_endpoint(settings: Settings, domain: str) -> Endpoint:
    if domain == DEFAULT_DOMAIN and not settings.default_registry:
        return Endpoint(HUB_INDEX, f"https://{HUB_INDEX}")
    return endpoints_for(settings, domain, push=True)[-1]


def search(session: Session, words: str, limit: int, filter: SearchFilter) -> list[SearchRow]:
    """Rows of the v1 search API, which the Hub and Dockyard's registry serve."""
    if not 0 <= limit <= MAX_SEARCH_LIMIT:
        raise SEARCH_LIMIT(limit=limit)
    url = session.url("/v1/search?" + urlencode({"q": words, "n": limit or DEFAULT_SEARCH_LIMIT}))
    headers = {"X-Docker-Token": "true"}
    scopes: tuple[str, ...] = ()
    if session.auth.identitytoken:  # as moby registry/search.go: /v2/ tells where a token for searching comes from
        scopes = (SEARCH_SCOPE,)
        discard(session.request("GET", session.url("/v2/"), want=(200,), scopes=scopes))
    elif session.auth.username:
        headers["Authorization"] = session.auth.basic()
    response = session.request("GET", url, want=(200,), headers=headers, scopes=scopes)
    raw = session.read(response, MAX_ANSWER)
    try:
        rows = [_row(item) for item in msgspec.json.decode(raw)["results"] or []]
    except (*NOT_JSON, KeyError, TypeError, ValueError) as error:
        raise SERVER_ANSWER(operation=operation("get", url), detail=f"not a search result: {error}") from error
    return [row for row in rows if _wanted(row, filter)]


def _row(item: dict[str, Any]) -> SearchRow:
    return SearchRow(
        str(item["name"]), str(item.get("description") or ""), int(item.get("star_count") or 0),
        bool(item.get("is_official")), bool(item.get("is_automated")),
    )  # fmt: skip


def _wanted(row: SearchRow, filter: SearchFilter) -> bool:
    return (
        (filter.is_official is None or row.is_official == filter.is_official)
        and (filter.is_automated is None or row.is_automated == filter.is_automated)
        and row.star_count >= filter.stars
    )
