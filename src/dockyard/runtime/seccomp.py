"""From a seccomp profile in Docker's JSON form to ``linux.seccomp`` of one container. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec

from dockyard.lib.notjson import NOT_JSON
from dockyard.runtime import errors
from dockyard.runtime.seccomp_profile import NATIVE, default_profile

Profile = dict[str, Any]


def load_profile(text: str) -> Profile:
    """A profile given by the user (``--security-opt seccomp=...``, sent as its content). Raises InvalidParameter."""
    try:
        profile = msgspec.json.decode(text)
    except NOT_JSON as broken:
        raise errors.INVALID(cause=f"Decoding seccomp profile failed: {broken}") from None
    if not isinstance(profile, dict):
        raise errors.INVALID(cause="Decoding seccomp profile failed: it is not an object")
    if profile.get("architectures") and profile.get("archMap"):
        both = "both 'architectures' and 'archMap' are specified in the seccomp profile, use only one"
        raise errors.INVALID(cause=both)
    for rule in profile.get("syscalls") or ():
        if rule.get("name") and rule.get("names"):
            both = "use either 'name' or 'names'"
            raise errors.INVALID(cause=f"both 'name' and 'names' are specified in the seccomp profile, {both}")
    return profile


def filter_profile(
    profile: Profile | None, *, arch: str, kernel: tuple[int, int], capabilities: Collection[str]
) -> dict[str, Any]:
    """Keeps the rules that hold for this processor, kernel and bounding set; None means the default profile."""
    profile = default_profile() if profile is None else profile
    rules = [
        _rule(rule)
        for rule in profile.get("syscalls") or ()
        if _holds(rule.get("includes") or {}, rule.get("excludes") or {}, arch, kernel, capabilities)
    ]
    out: dict[str, Any] = {"defaultAction": profile["defaultAction"], "syscalls": rules}
    if (code := profile.get("defaultErrnoRet")) is not None:
        out["defaultErrnoRet"] = code
    if architectures := _architectures(profile, arch):
        out["architectures"] = architectures
    for key in ("flags", "listenerPath", "listenerMetadata"):
        if profile.get(key):
            out[key] = profile[key]
    return out


def _architectures(profile: Profile, arch: str) -> list[str]:
    native = f"SCMP_ARCH_{NATIVE.get(arch, '')}"
    for row in profile.get("archMap") or ():
        if row["architecture"] == native:
            return [native, *(row.get("subArchitectures") or ())]
    return list(profile.get("architectures") or ())


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    out = {"names": [rule["name"]] if rule.get("name") else list(rule["names"]), "action": rule["action"]}
    if rule.get("errnoRet") is not None:
        out["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        out["args"] = [{key: value for key, value in arg.items() if value is not None} for arg in rule["args"]]
    return out


def _holds(
    includes: dict[str, Any],
    excludes: dict[str, Any],
    arch: str,
    kernel: tuple[int, int],
    capabilities: Collection[str],
) -> bool:
    if arch in (excludes.get("arches") or ()) or any(cap in capabilities for cap in excludes.get("caps") or ()):
        return False
    if (least := excludes.get("minKernel")) and kernel >= _kernel(least):
        return False
    if (arches := includes.get("arches")) and arch not in arches:
        return False
    if any(cap not in capabilities for cap in includes.get("caps") or ()):
        return False
    return not ((least := includes.get("minKernel")) and kernel < _kernel(least))


def _kernel(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    if match is None:
        raise errors.INVALID(cause=f"Decoding seccomp profile failed: invalid kernel version: {text!r}")
    return int(match[1]), int(match[2])
