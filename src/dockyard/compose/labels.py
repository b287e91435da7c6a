"""Labels by which Compose finds its own things again (docker/compose, pkg/api/labels.go), and the names it gives them."""

from __future__ import annotations

from typing import Any

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
CONFIG_HASH = "com.docker.compose.config-hash"
NUMBER = "com.docker.compose.container-number"
VOLUME = "com.docker.compose.volume"
NETWORK = "com.docker.compose.network"
WORKING_DIR = "com.docker.compose.project.working_dir"
CONFIG_FILES = "com.docker.compose.project.config_files"
ENVIRONMENT_FILE = "com.docker.compose.project.environment_file"
ONEOFF = "com.docker.compose.oneoff"
SLUG = "com.docker.compose.slug"
IMAGE = "com.docker.compose.image"
DEPENDENCIES = "com.docker.compose.depends_on"
VERSION = "com.docker.compose.version"
REPLACE = "com.docker.compose.replace"
HOOK = "com.docker.compose.hook"
"""On containers of pre_start hooks; its value is the hook's kind."""


def container_name(project: str, separator: str, service: str, number: int, given: str = "") -> str:
    """``shop-web-1``; ``given`` is the file's ``container_name``."""
    return given or separator.join((project, service, str(number)))

OURS = "dockyard."
"""Labels of ours begin so."""


def image_name(project: str, separator: str, name: str, service: dict[str, Any]) -> str:
    """The image of a service; one that is only built is called after project and service."""
    return str(service.get("image") or f"{project}{separator}{name}")
