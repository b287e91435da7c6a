"""Old files: no version key, every top key a service (docker-compose 1.x, "version 1").

They are turned into canonical services that live on the default bridge: ``links`` stay Engine links, so that hosts
entries and ``DB_PORT_...`` variables come about as they always did. Only ``$V`` and ``${V}`` are interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dockyard.compose import canonical
from dockyard.compose.document import Map, Seq, nearest, place
from dockyard.compose.errors import BAD_VALUE, UNKNOWN_KEY, WRONG_TYPE
from dockyard.compose.interpolate import interpolate
from dockyard.compose.merge import merge_files

_SPEC_ONLY = frozenset({"services", "networks", "volumes", "secrets", "configs", "include", "name"})

KEYS = frozenset(
    """
    build cap_add cap_drop cgroup_parent command container_name cpu_shares cpu_quota cpuset devices dns dns_search
    dockerfile domainname entrypoint env_file environment expose extends external_links extra_hosts hostname image
    ipc labels links log_driver log_opt mac_address mem_limit mem_reservation mem_swappiness memswap_limit net pid
    ports privileged read_only restart security_opt shm_size stdin_open stop_signal tty ulimits user volume_driver
    volumes volumes_from working_dir
    """.split()  # noqa: SIM905
)


def is_legacy(document: Mapping[str, Any]) -> bool:
    """No ``services`` and none of the later top keys, and every value a mapping (also one called version)."""
    if not document or "services" in document:
        return False
    if isinstance(document.get("version"), (str, int, float)):
        return False
    return not (set(document) & _SPEC_ONLY) and all(isinstance(item, dict) for item in document.values())


def convert(
    documents: Sequence[tuple[str, Map]], environment: Mapping[str, str], missing: Callable[[str], None]
) -> dict[str, Any]:
    """Canonical tree of all files. Raises InvalidParameter with file and line."""
    tree: dict[str, Any] = Map()
    for file, document in documents:
        plain = interpolate(document, environment, file, missing)
        services = Map({name: _service(name, raw, file, plain) for name, raw in plain.items()})
        tree = merge_files(tree, Map({"services": services}))
    return tree


def _service(name: str, raw: Any, file: str, document: Map) -> Map:
    if not isinstance(raw, Map):
        raise WRONG_TYPE(where=place(file, document, name), path=name, expected="a mapping", found=repr(raw))
    for key in raw:
        if key not in KEYS:
            raise UNKNOWN_KEY(where=place(file, raw, key), path=name, key=key, nearest=nearest(key, KEYS))
    if "image" in raw and "build" in raw:
        raise BAD_VALUE(
            where=place(file, raw, "build"), path=name, cause="has both an image and a build path; use one of them"
        )
    made = Map({key: value for key, value in raw.items() if key not in _RENAMED})
    made.line, made.lines = raw.line, raw.lines
    directory = file.rsplit("/", 1)[0]
    if "build" in raw:
        made["build"] = Map(
            {"context": _absolute(str(raw["build"]), directory), "dockerfile": raw.get("dockerfile", "Dockerfile")}
        )
    if "log_driver" in raw or "log_opt" in raw:
        made["logging"] = Map({"driver": raw.get("log_driver", "json-file"), "options": raw.get("log_opt") or Map()})
    made["network_mode"] = _network_mode(str(raw.get("net") or "bridge"), document)
    made = canonical.service(name, made, file)
    for mount in made.get("volumes") or []:
        if mount["type"] == "bind":
            mount["source"] = _absolute(mount["source"], directory)
        elif raw.get("volume_driver"):
            mount["driver"] = raw["volume_driver"]
    if "env_file" in made:
        made["env_file"] = Seq(Map(item | {"path": _absolute(item["path"], directory)}) for item in made["env_file"])
    return made


_RENAMED = frozenset({"build", "dockerfile", "log_driver", "log_opt", "net", "volume_driver"})


def _network_mode(net: str, document: Map) -> str:
    target = net.removeprefix("container:")
    return f"service:{target}" if target != net and target in document else net


def _absolute(path: str, directory: str) -> str:
    from dockyard.compose.loader import absolute, is_remote

    return path if is_remote(path) else absolute(path, directory)
