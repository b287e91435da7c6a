"""Options of the Dockerfile frontend, as buildx, bake and Compose send them, to a Request. Pure.

Source: moby/buildkit frontend/dockerui/config.go for the names and their forms.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence

import msgspec

from ...cachespec import cache_text
from ...errors import BAD_OPTION
from ...model import Request
from .errors import NOT_SERVED

__all__ = ["LOCAL_CONTEXT", "LOCAL_DOCKERFILE", "UPLOAD_PREFIX", "check_frontend", "request_of"]

LOCAL_CONTEXT, LOCAL_DOCKERFILE = "context", "dockerfile"
UPLOAD_PREFIX = "http://buildkit-session/"
"""A context that the client feeds from its standard input."""
OWN_FRONTENDS = ("docker/dockerfile", "docker.io/docker/dockerfile", "docker/dockerfile-upstream")
NUMBERS = {
    "memory": "memory", "memswap": "memory_swap", "cpushares": "cpu_shares", "cpuperiod": "cpu_period",
    "cpuquota": "cpu_quota", "shm-size": "shm_size",
}  # fmt: skip


def check_frontend(name: str, opts: Mapping[str, str]) -> None:
    """``dockerfile.v0``, or a frontend image that is Docker's own (we speak its language ourselves). Raises
    NotImplementedYet."""
    if name == "dockerfile.v0":
        return
    source = opts.get("source", "")
    if name == "gateway.v0" and source.partition(":")[0].partition("@")[0] in OWN_FRONTENDS:
        return
    raise NOT_SERVED(what=f"the build frontend {source or name!r}")


def request_of(
    opts: Mapping[str, str], *, entitlements: Sequence[str] = (), imports: Sequence[tuple[str, Mapping[str, str]]] = (),
    exports: Sequence[tuple[str, Mapping[str, str]]] = (), id: str = "",
) -> Request:  # fmt: skip
    """Raises InvalidParameter, NotImplementedYet. Named contexts keep their specifiers; the main one is not in here."""
    platforms = [item for item in opts.get("platform", "").split(",") if item]
    if len(platforms) > 1:
        raise NOT_SERVED(what="a build for several platforms at once")
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
