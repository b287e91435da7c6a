"""What a container may do: capabilities, seccomp, masked paths, security options. Pure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from dockyard.kernel import caps
from dockyard.runtime import errors, seccomp

DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    )
)
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def normalize_capabilities(words: Sequence[str] | str | None, option: str) -> list[str]:
    """``NET_ADMIN``, ``cap_net_admin`` and ``ALL``. Raises InvalidParameter as Docker does (``option``: CapAdd)."""
    out = []
    for word in [words] if isinstance(words, str) else words or ():
        name = word.upper()
        if name != "ALL":
            name = name if name.startswith("CAP_") else f"CAP_{name}"
            if name not in caps.NAMES:
                raise errors.INVALID(cause=f'invalid {option}: unknown capability: "{name}"')
        out.append(name)
    return out


def plan_capabilities(
    add: Sequence[str] | str | None, drop: Sequence[str] | str | None, host: frozenset[str], *, privileged: bool
) -> tuple[list[str], list[str]]:
    """The set, in the kernel's order, and warnings that name what was wished for but this host does not have."""
    added, dropped = normalize_capabilities(add, "CapAdd"), normalize_capabilities(drop, "CapDrop")
    if privileged:
        wanted = set(caps.NAMES)
    elif "ALL" in added:
        wanted = set(caps.NAMES) - set(dropped)
    elif "ALL" in dropped:
        wanted = set(added)
    else:
        wanted = (set(DEFAULT_CAPABILITIES) - set(dropped)) | set(added)
    missing = [name for name in caps.NAMES if name in wanted and name not in host]
    warnings = (
        [f"this host cannot give the container {', '.join(missing)}: the engine has not got it"] if missing else []
    )
    return [name for name in caps.NAMES if name in wanted and name in host], warnings


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """``seccomp``: the profile's text, "" for the default, "unconfined" for none."""

    no_new_privileges: bool = False
    seccomp: str = ""
    apparmor: str = ""
    writable_cgroups: bool = False


def parse_security_options(options: Sequence[str]) -> SecurityOptions:
    """``key=value``, the old ``key:value``, and ``no-new-privileges`` alone. Raises InvalidParameter as Docker."""
    found: dict[str, str | bool] = {}
    for option in options:
        if option in ("no-new-privileges", "disable"):
            found["no_new_privileges"] = option != "disable"
            continue
        key, _, value = option.partition("=" if "=" in option else ":")
        if key == "label":
            continue  # SELinux labels mean nothing here, and saying so for each container helps nobody
        if key in ("no-new-privileges", "writable-cgroups") and value in ("true", "false"):
            found[key.replace("-", "_")] = value == "true"
        elif key in ("seccomp", "apparmor") and value:
            found[key] = "" if key == "seccomp" and value == "builtin" else value
        else:
            raise errors.INVALID(cause=f'invalid --security-opt 2: "{option}"')
    return SecurityOptions(**found)  # type: ignore[arg-type]


def plan_seccomp(
    options: SecurityOptions, *, privileged: bool, arch: str, kernel: tuple[int, int], capabilities: Sequence[str]
) -> dict[str, object] | None:
    """None: no filter. Privileged containers have one only if a profile is named."""
    if options.seccomp == "unconfined" or (privileged and not options.seccomp):
        return None
    if not options.seccomp:
        return _default_filter(arch, kernel, tuple(capabilities))
    profile = seccomp.load_profile(options.seccomp)
    return seccomp.filter_profile(profile, arch=arch, kernel=kernel, capabilities=capabilities)


@functools.lru_cache(maxsize=64)
def _default_filter(arch: str, kernel: tuple[int, int], capabilities: tuple[str, ...]) -> dict[str, object]:
    """Shared by all containers with these capabilities: nobody changes a section of a configuration."""
    return seccomp.filter_profile(None, arch=arch, kernel=kernel, capabilities=capabilities)
