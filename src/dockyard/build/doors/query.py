"""The query of POST /build (Engine API) as a Request. Pure. Errors in Docker's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.lib.notjson import NOT_JSON
from dockyard.oci import parse_reference
from dockyard.runtime.plan_resources import MIN_MEMORY

from ..errors import BAD_OPTION
from ..model import Request

__all__ = ["Wish", "parse_build_query"]

Query = Mapping[str, Sequence[str]]
_FALSE = frozenset({"", "0", "no", "false", "none"})
_SYSTEMS = frozenset({"linux"})
_ARCHITECTURES = frozenset({
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x",
})  # fmt: skip
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}


@dataclass(frozen=True, slots=True)
class Wish:
    """``remove``: whether the transcript tells of removed containers (they always are). Who says ``rm=false`` wants to
    look into what is left: the root of a failed step is kept then, as an image. ``steps``: a word of ours, asks for rows
    beside the transcript."""

    request: Request
    quiet: bool
    remove: bool
    steps: bool = False


class _Ulimit(msgspec.Struct, frozen=True):
    Name: str
    Hard: int
    Soft: int


def parse_build_query(query: Query, auths: Mapping[str, Any], default_id: str) -> Wish:
    """Raises InvalidParameter."""

    def text(name: str) -> str:
        return query.get(name, [""])[0]

    def flag(name: str, default: bool = False) -> bool:
        return text(name).strip().lower() not in _FALSE if query.get(name) else default

    if text("version") == "2":
        raise BAD_OPTION(text="a session build (version=2) comes over /grpc; POST /build takes a context")
    tags = tuple(item for item in query.get("t", ()) if item)
    for tag in tags:
        if parse_reference(tag).digest is not None:
            raise BAD_OPTION(text="refusing to create a tag with a digest reference")
    isolation = text("isolation").lower()
    if isolation not in ("", "default"):
        raise BAD_OPTION(text=f'Unsupported isolation: "{text("isolation")}"')
    ulimits = _document(text("ulimits"), list[_Ulimit], "ulimits")
    memory, swap = _memory(_number(text("memory"), "memory"), _number(text("memswap"), "memswap"))
    request = Request(
        dockerfile=text("dockerfile") or "Dockerfile", classic=True, tags=tags, target=text("target"),
        platform=_platform(text("platform")), build_args=_document(text("buildargs"), dict[str, str | None], "build args"),
        labels=_document(text("labels"), dict[str, str], "labels"), quiet=flag("q"), no_cache=flag("nocache"),
        pull=flag("pull"), squash=flag("squash"), network=_network(text("networkmode")),
        extra_hosts=tuple(item for item in query.get("extrahosts", ()) if item), shm_size=_number(text("shmsize"), "shmsize"),
        memory=memory, memory_swap=swap,
        cpu_shares=_number(text("cpushares"), "cpushares"), cpu_quota=_number(text("cpuquota"), "cpuquota"),
        cpu_period=_number(text("cpuperiod"), "cpuperiod"), cpuset_cpus=text("cpusetcpus"),
        cpuset_mems=text("cpusetmems"), cgroup_parent=text("cgroupparent"),
        ulimits=tuple(f"{u.Name}={u.Soft}:{u.Hard}" for u in ulimits),
        security_opt=tuple(_document(text("securityopt"), list[str], "security options")),
        cache_from=tuple(_document(text("cachefrom"), list[str], "cache-from")),
        cache_to=tuple(_document(text("cacheto"), list[str], "cache-to")), remote=text("remote"),
        entitlements=("network.host",), isolation=isolation, keep_failed=not flag("rm", True),
        id=text("buildid") or default_id, auths=_auths(auths),
    )  # fmt: skip
    return Wish(request, request.quiet, flag("rm", True), flag("steps"))


def _document(text: str, kind: Any, what: str) -> Any:
    """JSON of a query value; absent and null are empty."""
    if not text or text == "null":
        return kind()
    try:
        return msgspec.json.decode(text.encode(), type=kind)
    except NOT_JSON as error:
        raise BAD_OPTION(text=f"error reading {what}: {error}") from None


def _number(text: str, name: str) -> int:
    if not text:
        return 0
    try:
        number = int(text)
    except ValueError:
        raise BAD_OPTION(text=f'{name}: strconv.ParseInt: parsing "{text[:100]}": invalid syntax') from None
    if abs(number) >= 1 << 63:
        raise BAD_OPTION(text=f'{name}: strconv.ParseInt: parsing "{text[:100]}": value out of range')
    return number


def _memory(memory: int, swap: int) -> tuple[int, int]:
    """Refused before the build, where moby's own builder comes to it with the first step that needs a container."""
    for wrong, cause in (
        (0 < memory < MIN_MEMORY, "Minimum memory limit allowed is 6MB"),
        (0 < swap < memory, "Minimum memoryswap limit should be larger than memory limit, see usage"),
        (not memory and swap > 0, "You should always set the Memory limit when using Memoryswap limit, see usage"),
    ):
        if wrong:
            raise BAD_OPTION(text=cause)
    return memory, swap


def _network(mode: str) -> str:
    return "" if mode in ("default", "bridge") else mode


def _platform(text: str) -> str:
    if not text:
        return ""
    parts = [part.lower() for part in text.split("/")]
    if len(parts) == 1:
        word = _ALIASES.get(parts[0], parts[0])
        if word in _SYSTEMS:
            return ""
        parts = ["linux", word]
    parts[1] = _ALIASES.get(parts[1], parts[1])
    if len(parts) > 3 or parts[0] not in _SYSTEMS or parts[1] not in _ARCHITECTURES or not all(parts):
        raise BAD_OPTION(text=f'"{text}": unknown operating system or architecture: invalid argument')
    return "/".join(parts)


def _auths(auths: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """X-Registry-Config; what cannot be read counts as no credentials, as in moby."""
    found = {}
    for host, value in auths.items():
        if isinstance(value, dict):
            found[host] = {key: item for key, item in value.items() if isinstance(item, str)}
    return found
