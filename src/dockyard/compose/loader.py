"""From files to a project: interpolate each file, make it canonical, extend, merge, include, choose profiles.

Reads through a ``Reader`` only, so the whole is a function of texts and an environment. Order is the Compose
Specification's: interpolation per file, then extends, then merge over all ``-f`` files, then include, then profiles.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dockyard.compose import canonical, legacy
from dockyard.compose.consistency import check_consistency
from dockyard.compose.document import Map, nearest, parse, place
from dockyard.compose.errors import (
    BAD_PROJECT_NAME,
    BAD_VALUE,
    CANNOT_READ,
    EXTENDS_CYCLE,
    INCLUDE_CONFLICT,
    UNDEFINED,
)
from dockyard.compose.interpolate import interpolate, parse_env, parse_raw_env
from dockyard.compose.keys import ROOT, check
from dockyard.compose.merge import merge_files, merge_service, without_tags
from dockyard.compose.project import Project, check_references

DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_FILES = tuple(name.replace(".y", ".override.y") for name in DEFAULT_FILES)
MAX_INCLUDES = 64
MAX_EXTENDS = 64
_TOP = ("services", "networks", "volumes", "secrets", "configs")
_NOT_EXTENDED = ("depends_on", "links", "volumes_from")


class Reader(Protocol):
    def read(self, path: str) -> str:
        """Raises OSError."""
        ...

    def exists(self, path: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Request:
    """``files`` are absolute; ``environment`` holds the .env file's values below the shell's."""

    files: Sequence[str]
    directory: str
    environment: Mapping[str, str]
    name: str = ""
    profiles: Sequence[str] = ()


@dataclass(slots=True)
class _Load:
    reader: Reader
    environment: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)
    includes: int = 0

    def missing(self, name: str) -> None:
        warning = f'The "{name}" variable is not set. Defaulting to a blank string.'
        if warning not in self.warnings:
            self.warnings.append(warning)

    def text(self, path: str, where: str = "") -> str:
        try:
            return self.reader.read(path)
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise CANNOT_READ(path=f"{path} ({where})" if where else path, cause=cause) from None


def load(request: Request, reader: Reader) -> Project:
    """Raises InvalidParameter or NotFound with file, line and path."""
    state = _Load(reader, request.environment)
    documents = [(file, item) for file in request.files for item in parse(state.text(file), file)]
    old = [legacy.is_legacy(document) for _, document in documents]
    if any(old):
        file = request.files[old.index(True)]
        if not all(old):
            raise BAD_VALUE(
                where=file, path="version", cause="all files must be of the same version; this one has no services key"
            )
        tree = legacy.convert(documents, state.environment, state.missing)
    else:
        tree = _merged(state, documents, request.directory)
    name = project_name(request, tree)
    project = _project(name, tree, request, state, legacy_form=any(old))
    check_references(project)
    check_consistency(project)
    return project


def _merged(state: _Load, documents: Sequence[tuple[str, Map]], directory: str) -> dict[str, Any]:
    tree: dict[str, Any] = Map()
    for file, document in documents:
        tree = merge_files(tree, _one_file(state, file, document, directory))
    for entry in tree.pop("include", None) or []:
        _include(state, tree, entry, documents[0][0], directory)
    return tree


def _one_file(state: _Load, file: str, document: Map, directory: str) -> Map:
    """A file by itself: interpolated, checked, canonical, extended, paths absolute."""
    tree: Map = interpolate(document, state.environment, file, state.missing)
    check(tree, ROOT, file)
    services = tree.get("services")
    if services is not None:
        made = Map()
        made.line, made.lines, made.tag = services.line, services.lines, services.tag
        for name, service in services.items():
            if getattr(service, "tag", "") == "reset":
                made[name] = service
            else:
                made[name] = _extended(state, name, services, file, directory, ())
        tree["services"] = made
    for kind in ("secrets", "configs"):
        for item in (tree.get(kind) or {}).values():
            if isinstance(item, dict) and item.get("file"):
                item["file"] = absolute(item["file"], directory)
    for volume in (tree.get("volumes") or {}).values():
        options = (volume.get("driver_opts") or {}) if isinstance(volume, dict) else {}
        if options.get("o") == "bind" and "device" in options:
            options["device"] = absolute(str(options["device"]), directory)
    return tree


def _extended(state: _Load, name: str, services: Map, file: str, directory: str, trail: tuple[str, ...]) -> Map:
    raw = services[name]
    service = _with_paths(canonical.service(name, raw, file), directory)
    extends = service.pop("extends", None)
    if extends is None:
        return service
    terms = {"service": extends} if isinstance(extends, str) else dict(extends)
    here = f"{file}#{name}"
    if here in trail or len(trail) > MAX_EXTENDS:
        raise EXTENDS_CYCLE(path=" -> ".join([*trail, here]))
    base_file, base_directory, base_services = file, directory, services
    if terms.get("file"):
        base_file = absolute(terms["file"], directory)
        base_directory = posixpath.dirname(base_file)
        tree = parse(state.text(base_file, place(file, raw, "extends")), base_file)[0]
        tree = interpolate(tree, state.environment, base_file, state.missing)
        base_services = tree.get("services") or Map()
    base_name = terms.get("service") or name
    if base_name not in base_services:
        raise UNDEFINED(service=name, kind="base service", name=base_name, nearest=nearest(base_name, base_services))
    base = _extended(state, base_name, base_services, base_file, base_directory, (*trail, here))
    for key in _NOT_EXTENDED if terms.get("file") else ():
        base.pop(key, None)
    merged = merge_service(without_tags(base), service)
    assert isinstance(merged, Map)
    return merged


def absolute(path: Any, directory: str) -> str:
    plain = canonical.text(path)
    if plain.startswith("~"):
        return posixpath.expanduser(plain)
    return posixpath.normpath(posixpath.join(directory, plain))


def _with_paths(service: Map, directory: str) -> Map:
    for mount in service.get("volumes") or []:
        if isinstance(mount, dict) and mount.get("type") == "bind" and mount.get("source"):
            mount["source"] = absolute(str(mount["source"]), directory)
    build = service.get("build")
    if isinstance(build, dict) and build.get("context") and not is_remote(build["context"]):
        build["context"] = absolute(build["context"], directory)
    for item in service.get("env_file") or []:
        if isinstance(item, dict):
            item["path"] = absolute(item["path"], directory)
    if isinstance(service.get("label_file"), list):
        service["label_file"] = type(service["label_file"])(absolute(item, directory) for item in service["label_file"])
    for rule in (service.get("develop") or {}).get("watch") or []:
        rule["path"] = absolute(rule["path"], directory)
    return service


def is_remote(context: str) -> bool:
    return bool(re.match(r"(https?|git|ssh)://|git@|github\.com/|docker-image://|service:|target:", context))


def _include(state: _Load, tree: dict[str, Any], entry: Any, file: str, directory: str) -> None:
    """Another application, in its own directory and with its own .env, added beside this one; clashes are errors."""
    state.includes += 1
    if state.includes > MAX_INCLUDES:
        raise BAD_VALUE(where=file, path="include", cause=f"more than {MAX_INCLUDES} files are included")
    terms = {"path": entry} if isinstance(entry, str) else dict(entry)
    paths = [absolute(path, directory) for path in canonical.string_list(terms["path"])]
    inner_directory = absolute(terms.get("project_directory") or posixpath.dirname(paths[0]), directory)
    env_files = [absolute(path, directory) for path in canonical.string_list(terms.get("env_file") or [])]
    if not env_files and state.reader.exists(default := posixpath.join(inner_directory, ".env")):
        env_files = [default]
    environment = dict(state.environment)
    for path in env_files:
        environment = {**read_env(state.reader, path, environment), **environment}
    inner = _Load(state.reader, environment, state.warnings, state.includes)
    documents = [(path, item) for path in paths for item in parse(inner.text(path, f"included by {file}"), path)]
    included = _merged(inner, documents, inner_directory)
    state.includes = inner.includes
    for kind in _TOP:
        for name, item in (included.get(kind) or {}).items():
            own = tree.setdefault(kind, Map()) or Map()
            tree[kind] = own
            if name in own and without_tags(own[name]) != without_tags(item):
                raise INCLUDE_CONFLICT(where=paths[0], kind=kind.rstrip("s"), name=name)
            own[name] = item


def read_env(reader: Reader, path: str, lookup: Mapping[str, str], *, raw: bool = False) -> dict[str, str]:
    """Values of a ``.env`` file. Raises NotFound or InvalidParameter naming the file."""
    try:
        text = reader.read(path)
        values = parse_raw_env(text) if raw else parse_env(text, lookup)
    except OSError as error:
        raise CANNOT_READ(path=path, cause=error.strerror or str(error)) from None
    except ValueError as error:
        raise BAD_VALUE(where=path, path="env file", cause=str(error)) from None
    return {name: value for name, value in values.items() if value is not None}


def project_name(request: Request, tree: Mapping[str, Any]) -> str:
    """-p, then COMPOSE_PROJECT_NAME, then the file's ``name``, then the directory. Raises InvalidParameter."""
    given = request.name or request.environment.get("COMPOSE_PROJECT_NAME") or tree.get("name")
    if given:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", given):
            raise BAD_PROJECT_NAME(name=given)
        return str(given)
    plain = re.sub(r"[^a-z0-9_-]", "", posixpath.basename(request.directory).lower()).lstrip("_-")
    if not plain:
        raise BAD_PROJECT_NAME(name=posixpath.basename(request.directory))
    return plain


def _project(name: str, tree: dict[str, Any], request: Request, state: _Load, *, legacy_form: bool) -> Project:
    active = set(request.profiles) | set(filter(None, request.environment.get("COMPOSE_PROFILES", "").split(",")))
    services: dict[str, dict[str, Any]] = {}
    disabled: dict[str, dict[str, Any]] = {}
    for key, raw in (tree.get("services") or {}).items():
        service = _finished(key, without_tags(raw), state, request.directory)
        profiles = set(service.get("profiles") or ())
        enabled = not profiles or profiles & active or "*" in active
        (services if enabled else disabled)[key] = service
    networks = _named(tree.get("networks"), name, "_")
    needs_default = any(_uses_default(service) for service in {**services, **disabled}.values())
    if needs_default and not legacy_form and "default" not in networks:
        networks["default"] = {"name": f"{name}_default"}
    return Project(
        name=name, services=services, disabled=disabled, networks=networks,
        volumes=_named(tree.get("volumes"), name, "_"),
        secrets=_named(tree.get("secrets"), name, "_"), configs=_named(tree.get("configs"), name, "_"),
        directory=request.directory, files=tuple(request.files), environment=dict(request.environment),
        legacy=legacy_form, warnings=tuple(state.warnings),
    )  # fmt: skip


def _uses_default(service: Mapping[str, Any]) -> bool:
    return (
        not service.get("network_mode")
        and not service.get("provider")
        and "default" in (service.get("networks") or {"default"})
    )


def _finished(name: str, service: dict[str, Any], state: _Load, directory: str) -> dict[str, Any]:
    """env_file and label_file read in, default network joined, the image or build checked."""
    environment: dict[str, str | None] = {}
    for item in service.pop("env_file", None) or []:
        if not canonical.boolean(item.get("required", True)) and not state.reader.exists(item["path"]):
            continue
        environment |= read_env(state.reader, item["path"], state.environment, raw=item.get("format") == "raw")
    for key, value in (service.get("environment") or {}).items():
        environment[key] = state.environment.get(key) if value is None else value
    if environment:
        service["environment"] = environment
    labels: dict[str, str] = {}
    for path in service.pop("label_file", None) or []:
        labels |= read_env(state.reader, path, state.environment)
    if labels:
        service["labels"] = labels | (service.get("labels") or {})
    if not service.get("image") and not service.get("build") and not service.get("provider"):
        raise BAD_VALUE(
            where=directory, path=f"services.{name}", cause="has neither an image nor a build context specified"
        )
    if not service.get("network_mode") and not service.get("networks") and not service.get("provider"):
        service["networks"] = {"default": None}
    elif service.get("network_mode") and service.get("networks"):
        raise BAD_VALUE(
            where=directory, path=f"services.{name}", cause="declares mutually exclusive `network_mode` and `networks`"
        )
    return service


def _named(raw: Any, project: str, separator: str) -> dict[str, dict[str, Any]]:
    """Top-level networks, volumes, secrets and configs with the name that the Engine will know."""
    made: dict[str, dict[str, Any]] = {}
    for key, item in (without_tags(raw) or {}).items():
        entry = dict(item or {})
        external = entry.get("external")
        if isinstance(external, dict):
            entry["name"] = external.get("name", key)
            entry["external"] = True
        elif external is not None:
            entry["external"] = canonical.boolean(external)
        if "labels" in entry:
            entry["labels"] = canonical.pairs(entry["labels"])
        entry.setdefault("name", key if entry.get("external") else f"{project}{separator}{key}")
        made[key] = entry
    return made


Finder = Callable[[str], bool]


def find_files(directory: str, exists: Finder) -> list[str]:
    """The default file of ``directory`` or the nearest parent that has one, with its override file beside it."""
    current = directory
    while True:
        for index, name in enumerate(DEFAULT_FILES):
            path = posixpath.join(current, name)
            if exists(path):
                overrides = [OVERRIDE_FILES[index], *OVERRIDE_FILES]
                second = next((item for item in overrides if exists(posixpath.join(current, item))), None)
                return [path, *([posixpath.join(current, second)] if second else [])]
        if current == "/":
            return []
        current = posixpath.dirname(current)
