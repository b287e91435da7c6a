"""Where a project comes from: files, environment and flags, as Compose looks for them.

Order of the environment: the shell, then --env-file (or COMPOSE_ENV_FILES), else ``.env`` in the project's directory.
Files: -f, else COMPOSE_FILE, else the default names here or in a directory above.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dockyard.compose.canonical import boolean
from dockyard.compose.errors import NO_FILE
from dockyard.compose.loader import Reader, Request, absolute, find_files, load, read_env
from dockyard.compose.project import Project


@dataclass(frozen=True, slots=True)
class Source:
    """What the command line says. ``directory`` is --project-directory."""

    files: tuple[str, ...] = ()
    name: str = ""
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    directory: str = ""
    compatibility: bool = False


class HostReader:
    """Files of this host; ``-`` is the standard input, read once."""

    def __init__(self, stdin: str = "") -> None:
        self._stdin = stdin

    def read(self, path: str) -> str:
        if path == self._stdin:
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8")

    def exists(self, path: str) -> bool:
        return Path(path).is_file()


def environment_of(source: Source, environ: Mapping[str, str], directory: str, reader: Reader) -> dict[str, str]:
    """Raises NotFound for a named file that is not there, InvalidParameter for one that cannot be read."""
    named = source.env_files or tuple(filter(None, environ.get("COMPOSE_ENV_FILES", "").split(",")))
    paths = [absolute(path, os.getcwd()) for path in named]
    default = absolute(".env", directory)
    if not paths and not boolean(environ.get("COMPOSE_DISABLE_ENV_FILE", "")) and reader.exists(default):
        paths = [default]
    values: dict[str, str] = {}
    for path in paths:
        values |= read_env(reader, path, {**values, **environ})
    return {**values, **environ}


def find_project_files(source: Source, environment: Mapping[str, str], cwd: str, reader: Reader) -> list[str]:
    """Absolute paths. Raises NotFound."""
    if source.files:
        return [absolute("<stdin>" if path == "-" else path, cwd) for path in source.files]
    separator = environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    listed = [path for path in environment.get("COMPOSE_FILE", "").split(separator) if path]
    if listed:
        return [absolute(path, source.directory or cwd) for path in listed]
    found = find_files(absolute(source.directory, cwd) if source.directory else cwd, reader.exists)
    if not found:
        raise NO_FILE(directory=source.directory or cwd)
    return found


def open_project(
    source: Source, environ: Mapping[str, str], cwd: str, reader: Reader | None = None
) -> tuple[Project, dict[str, str]]:
    """The project and the environment that its files were read with. Raises NotFound and InvalidParameter."""
    reader = reader or HostReader(absolute("<stdin>", cwd) if "-" in source.files else "")
    guess = absolute(source.directory or (os.path.dirname(source.files[0]) if source.files else "") or ".", cwd)
    environment = environment_of(source, environ, guess, reader)
    files = find_project_files(source, environment, cwd, reader)
    directory = absolute(source.directory, cwd) if source.directory else os.path.dirname(files[0])
    if directory != guess:
        environment = environment_of(source, environ, directory, reader)
    request = Request(files, directory, environment, source.name, source.profiles)
    project = load(request, reader)
    compatible = source.compatibility or boolean(environment.get("COMPOSE_COMPATIBILITY", ""))
    return dataclasses.replace(project, compatibility=compatible), environment


def proxy_variables(config: Mapping[str, object], host: str) -> dict[str, str]:
    """Variables that the client's configuration gives to every container (``proxies`` in config.json)."""
    proxies = config.get("proxies")
    if not isinstance(proxies, Mapping):
        return {}
    chosen = proxies.get(host) or proxies.get("default") or {}
    names = {"httpProxy": "HTTP_PROXY", "httpsProxy": "HTTPS_PROXY", "ftpProxy": "FTP_PROXY", "noProxy": "NO_PROXY",
             "allProxy": "ALL_PROXY"}  # fmt: skip
    found = {name: str(chosen[key]) for key, name in names.items() if chosen.get(key)}
    return found | {name.lower(): value for name, value in found.items()}
