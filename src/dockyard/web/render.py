"""Templates to bytes: one environment, escaping always on, and the few words that pages share."""

from __future__ import annotations

import datetime
import functools
import hashlib
import time
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from dockyard.http import Request, Response
from dockyard.registry.errors import THING_UNKNOWN

STATIC = {
    "app.css": "text/css; charset=utf-8", "app.js": "text/javascript; charset=utf-8",
    "vendor/htmx.min.js": "text/javascript; charset=utf-8", "vendor/sse.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}  # fmt: skip
_UNITS = ("B", "kB", "MB", "GB", "TB")
_SPANS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
     " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
    ("Cache-Control", "no-store"),
]  # fmt: skip
"""Of every page. Nothing inline, nothing from elsewhere."""
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    media_type: str
    url: str


@functools.lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """By URL. The URL holds the content's digest, so browsers may keep it for ever."""
    found = {}
    for name, media_type in STATIC.items():
        content = resources.files("dockyard.web").joinpath("static", name).read_bytes()
        url = f"/static/{hashlib.sha256(content).hexdigest()[:12]}/{name}"
        found[url] = Asset(content, media_type, url)
    return found


def static(request: Request) -> Response:
    """A file of `assets`. Raises THING_UNKNOWN."""
    asset = assets().get(request.raw_path)
    if asset is None or request.method not in {"GET", "HEAD"}:
        raise THING_UNKNOWN(what="file", name=request.raw_path[:200])
    return Response(200, {"Content-Type": asset.media_type, "Cache-Control": _FOREVER}, asset.content)


def asset_url(name: str) -> str:
    return next(url for url in assets() if url.endswith(f"/{name}"))


def size(count: float | None) -> str:
    if count is None:
        return "–"
    value = float(count)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def ago(at: float | None, now: float | None = None) -> str:
    if at is None:
        return "never"
    seconds = (time.time() if now is None else now) - at
    for length, word in _SPANS:
        if abs(seconds) >= length:
            count = int(abs(seconds) // length)
            text = f"{count} {word}{'s' if count > 1 else ''}"
            return f"{text} ago" if seconds > 0 else f"in {text}"
    return "just now" if seconds >= 0 else "in a moment"


def span(seconds: str | float | None) -> str:
    """"90 minutes", "1 day": a length of time in its largest whole unit. What is no number is shown as it is."""
    try:
        count = float(seconds or 0)
    except ValueError:
        return str(seconds)
    length, word = next(((n, w) for n, w in _SPANS[2:] if count >= n and count % n == 0), (1, "second"))
    return plural(round(count / length), word)


def moment(at: float | None) -> str:
    """UTC, for machines and tooltips."""
    return "" if at is None else datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def short(digest: str) -> str:
    return digest.partition(":")[2][:12]


def plural(count: int, word: str, words: str = "") -> str:
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def place(path: str) -> str:
    """A path for a link: what people named is quoted, slashes stay."""
    return quote(path, safe="/:-._~@")


@functools.lru_cache(maxsize=1)
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("dockyard.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.filters |= {"size": size, "ago": ago, "span": span, "moment": moment, "short": short, "place": place}
    made.globals |= {"asset": asset_url, "plural": plural}
    return made


def render(template: str, **values: Any) -> bytes:
    return environment().get_template(template).render(**values).encode()
