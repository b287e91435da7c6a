"""Options of the Dockerfile frontend, as buildx, bake and Compose send them, to a Request. Pure.

Source: moby/buildkit frontend/dockerui/config.go for the names and their forms.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence

import msgspec

from ...cachespec import cache_text
from ...dockerfile.syntax import asked_frontend, is_dockerfiles
from ...errors import BAD_OPTION, FOREIGN_FRONTEND
from ...model import Request

__all__ = [
    "LOCAL_CONTEXT", "LOCAL_DOCKERFILE", "UPLOAD_PREFIX", "check_frontend", "check_syntax", "for_platform", "normal_platform",
    "platforms_of", "request_of",
]  # fmt: skip

LOCAL_CONTEXT, LOCAL_DOCKERFILE = "context", "dockerfile"
UPLOAD_PREFIX = "http://buildkit-session/"
"""A context that the client feeds from its standard input."""
MAX_PLATFORMS = 32
NUMBERS = {
    "memory": "memory", "memswap": "memory_swap", "cpushares": "cpu_shares", "cpuperiod": "cpu_period",
    "cpuquota": "cpu_quota", "shm-size": "shm_size",
}  # fmt: skip


def check_frontend(name: str, opts: Mapping[str, str]) -> None:
    """``dockerfile.v0``, or a frontend image that is Docker's own (we speak its language ourselves). Raises
    NotImplementedYet."""
    source = opts.get("source", "") if name == "gateway.v0" else opts.get("build-arg:BUILDKIT_SYNTAX", "")
    if source and not is_dockerfiles(source):
        raise FOREIGN_FRONTEND(name=source[:200], where="")
    if name not in ("dockerfile.v0", "gateway.v0") or (name == "gateway.v0" and not source):
        raise FOREIGN_FRONTEND(name=repr(name[:100]), where="")


def check_syntax(text: bytes, name: str, opts: Mapping[str, str]) -> None:
    """The file itself may ask for another frontend. Raises NotImplementedYet."""
    found, line = asked_frontend(text)
    if found and not opts.get("build-arg:BUILDKIT_SYNTAX") and not is_dockerfiles(found):
        raise FOREIGN_FRONTEND(name=found[:200], where=f", which {name}:{line} asks for,")


def request_of(
    opts: Mapping[str, str], *, entitlements: Sequence[str] = (), imports: Sequence[tuple[str, Mapping[str, str]]] = (),
    exports: Sequence[tuple[str, Mapping[str, str]]] = (), id: str = "",
) -> Request:  # fmt: skip
    """For the first platform (``for_platform`` makes the others). Raises InvalidParameter. Named contexts keep their
    specifiers; the main one is not in here."""
    platforms = platforms_of(opts)
    no_cache = opts.get("no-cache")
    remote = opts.get("context", "")
    request = Request(
        dockerfile=opts.get("filename", "") or "Dockerfile",
        target=opts.get("target", ""),
        platform=platforms[0] if platforms else "",
        build_args=_below(opts, "build-arg:"),
        labels={key: value or "" for key, value in _below(opts, "label:").items()},
        no_cache=no_cache == "",
        no_cache_stages=tuple(filter(None, (no_cache or "").split(","))),
        pull=opts.get("image-resolve-mode") == "pull",
        network="" if opts.get("force-network-mode") in (None, "sandbox") else opts["force-network-mode"],
        extra_hosts=_hosts(opts.get("add-hosts", "")),
        cgroup_parent=opts.get("cgroup-parent", ""),
        ulimits=_fields(opts.get("ulimit", "")),
        cpuset_cpus=opts.get("cpusetcpus", ""),
        cpuset_mems=opts.get("cpusetmems", ""),
        cache_from=tuple(dict.fromkeys(cache_text(kind, attrs) for kind, attrs in (*imports, *_imports(opts)))),
        cache_to=tuple(cache_text(kind, attrs) for kind, attrs in exports),
        remote="" if remote.startswith(UPLOAD_PREFIX) else remote,
        entitlements=tuple(entitlements),
        contexts={name: value or "" for name, value in _below(opts, "context:").items()},
        id=id,
    )
    numbers = {field: _number(name, opts[name]) for name, field in NUMBERS.items() if opts.get(name)}
    return msgspec.structs.replace(request, **numbers)


def platforms_of(opts: Mapping[str, str]) -> list[str]:
    """Those asked for, each once, in their order. Raises InvalidParameter."""
    found = dict.fromkeys(normal_platform(item) for item in opts.get("platform", "").split(",") if item.strip())
    if len(found) > MAX_PLATFORMS:
        raise BAD_OPTION(text=f"more than {MAX_PLATFORMS} platforms")
    return list(found)


def normal_platform(text: str) -> str:
    """As containerd writes it: the variant that an architecture has anyway is left out, arm's is never."""
    parts = text.strip().lower().split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise BAD_OPTION(text=f"invalid platform {text[:100]!r}: OS/ARCHITECTURE[/VARIANT] is expected, such as linux/arm64")
    if parts[1:] in (["arm64", "v8"], ["amd64", "v1"]):
        parts.pop()
    return "/".join([*parts, "v7"] if parts[1:] == ["arm"] else parts)


def for_platform(request: Request, platform: str) -> Request:
    """One of several builds. A linked context may have a result of its own for each (``NAME::PLATFORM``)."""
    contexts = {name: value for name, value in request.contexts.items() if "::" not in name}
    for name, value in request.contexts.items():
        plain, _, wanted = name.partition("::")
        if wanted == platform:
            contexts[plain] = value
    return msgspec.structs.replace(request, platform=platform, id=f"{request.id} {platform}", contexts=contexts)


def _below(opts: Mapping[str, str], prefix: str) -> dict[str, str | None]:
    return {key.removeprefix(prefix): value for key, value in opts.items() if key.startswith(prefix)}


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise BAD_OPTION(text=f"invalid {name}: {value[:100]!r} is not a number") from None


def _fields(value: str) -> tuple[str, ...]:
    """One line of CSV."""
    return tuple(next(csv.reader([value]), ())) if value else ()


def _hosts(value: str) -> tuple[str, ...]:
    """``name=address`` pairs to Docker's ``name:address``."""
    out = []
    for field in _fields(value):
        name, equals, address = field.partition("=")
        if not equals or not name or not address:
            raise BAD_OPTION(text=f"invalid host pair: {field[:200]}")
        out.append(f"{name}:{address}")
    return tuple(out)


def _imports(opts: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
    out: list[tuple[str, Mapping[str, str]]] = []
    try:
        for row in json.loads(opts.get("cache-imports") or "[]"):
            out.append((str(row["Type"]), {str(k): str(v) for k, v in (row.get("Attrs") or {}).items()}))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BAD_OPTION(text="invalid cache-imports: a JSON list of {Type, Attrs} is expected") from None
    out += [("registry", {"ref": ref}) for ref in opts.get("cache-from", "").split(",") if ref]
    return out
