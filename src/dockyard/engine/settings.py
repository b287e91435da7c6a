"""What an administrator sets and the engine's own decisions need. The daemon's flags are parsed in ``api.settings``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dockyard.engine.errors import BAD_REQUEST
from dockyard.model import Ulimit

LOG_DRIVERS = frozenset({"json-file", "local", "none"})
LOG_OPTIONS = frozenset(
    {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}
)
DEFAULT_LOG_OPTIONS: Mapping[str, str] = {"max-size": "10m", "max-file": "3"}
"""Rotation is on from the start: logs that fill the disk are a ten-year-old complaint (moby#27957, #40207)."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a container gets that did not ask."""

    hostname: str = "localhost"
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_LOG_OPTIONS))
    ipc_mode: str = "private"
    cgroupns_mode: str = "host"
    shm_size: int = 64 << 20
    runtime: str = ""
    """Empty: the one that the host's probe prefers; its name is put here when the engine opens."""
    ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    init: bool = False
    init_path: str = ""
    """Of the init program; "" for the one found."""
    security_opt: Sequence[str] = ()
    """Security options of every container that is not privileged; its own win."""
    runtimes: frozenset[str] = frozenset()
    """Names that a container may ask for; none named: any."""

    def chosen_runtime(self, name: str) -> str:
        """Raises InvalidParameter in Docker's words for one that does not work here."""
        if name and self.runtimes and name not in self.runtimes:
            raise BAD_REQUEST(cause=f"unknown or invalid runtime name: {name}")
        return name or self.runtime

    def check_log_driver(self, driver: str, options: Mapping[str, str]) -> None:
        """Raises InvalidParameter with Docker's wording for a driver or option that we do not have."""
        name = driver or self.log_driver
        if name not in LOG_DRIVERS:
            raise BAD_REQUEST(cause=f"logger: no log driver named '{name}' is registered")
        for option, value in options.items():
            if option not in LOG_OPTIONS:
                raise BAD_REQUEST(cause=f"unknown log opt '{option}' for {name} log driver")
            if option == "max-size" and value != "-1" and not re.fullmatch(r"\d+(\.\d+)?\s*[kmgtKMGT]?[bB]?", value):
                raise BAD_REQUEST(cause=f"invalid value for max-size: {value}")
            if option == "max-file" and not (value.isdigit() and int(value) > 0):
                raise BAD_REQUEST(cause="max-file cannot be less than 1")
