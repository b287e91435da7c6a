"""``--change`` of commit and import: the eleven Dockerfile instructions that only change a config (moby
builder/dockerfile/builder.go). A small reader of its own: no stages, no files, no expansion of build arguments.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any

import msgspec

from dockyard.lib.notjson import NOT_JSON

from .errors import BAD_CHANGE

INSTRUCTIONS = frozenset((
    "CMD", "ENTRYPOINT", "HEALTHCHECK", "ENV", "EXPOSE", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
))  # fmt: skip
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}

Config = dict[str, Any]


def apply_changes(config: Config, changes: Iterable[str]) -> Config:
    """A new container config with the changes applied in order. Raises InvalidParameter as dockerd words it."""
    config = {**config}
    for change in changes:
        for line in change.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                _apply(config, line.strip())
    return config


def _apply(config: Config, line: str) -> None:
    word, _, rest = line.partition(" ")
    word, rest = word.upper(), rest.strip()
    if word not in INSTRUCTIONS:
        raise BAD_CHANGE(cause=f"{word} is not a valid change command" if word.isalpha() else f"unknown: {line}")
    if not rest and word not in ("CMD", "ENTRYPOINT"):
        raise BAD_CHANGE(cause=f"{word} requires at least one argument")
    if word in ("CMD", "ENTRYPOINT"):
        config[word.title() if word == "CMD" else "Entrypoint"] = _command(config, rest)
    elif word == "ENV":
        pairs = _pairs(word, rest)
        kept = [item for item in config.get("Env") or [] if item.partition("=")[0] not in pairs]
        config["Env"] = kept + [f"{key}={value}" for key, value in pairs.items()]
    elif word == "LABEL":
        config["Labels"] = {**(config.get("Labels") or {}), **_pairs(word, rest)}
    elif word == "EXPOSE":
        config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **{port: {} for port in _ports(rest)}}
    elif word == "VOLUME":
        places = _array(rest) or rest.split()
        config["Volumes"] = {**(config.get("Volumes") or {}), **{place: {} for place in places}}
    elif word == "ONBUILD":
        config["OnBuild"] = [*(config.get("OnBuild") or []), rest]
    elif word == "WORKDIR":
        config["WorkingDir"] = _join(config.get("WorkingDir") or "/", rest)
    elif word == "HEALTHCHECK":
        config["Healthcheck"] = _healthcheck(config, rest)
    else:
        config["User" if word == "USER" else "StopSignal"] = rest


def _array(text: str) -> list[str] | None:
    """The JSON form, or None where the text is not one."""
    if not text.startswith("["):
        return None
    try:
        return msgspec.json.decode(text.encode(), type=list[str])
    except NOT_JSON:
        return None


def _command(config: Config, text: str) -> list[str]:
    words = _array(text)
    if words is not None:
        return words
    return [*(config.get("Shell") or ["/bin/sh", "-c"]), text] if text else []


def _pairs(word: str, text: str) -> dict[str, str]:
    first = text.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise BAD_CHANGE(cause=f"{word} must have two arguments")
        return {first[0]: first[1]}
    try:
        items = shlex.split(text)
    except ValueError as error:
        raise BAD_CHANGE(cause=f"{word}: {error}") from None
    pairs: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise BAD_CHANGE(cause=f"Syntax error - can't find = in \"{item}\". Must be of the form: name=value")
        pairs[key] = value
    return pairs


def _ports(text: str) -> list[str]:
    ports = []
    for item in text.split():
        match = _PORT.match(item)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last < 65536:
            raise BAD_CHANGE(cause=f"invalid containerPort: {item}")
        ports += [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]
    return ports


def _join(base: str, path: str) -> str:
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{base}/{path}").split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _healthcheck(config: Config, text: str) -> Config:
    check: Config = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        name, _, value = flag[2:].partition("=")
        text = text.strip()
        if name == "retries":
            if not value.isdigit():
                raise BAD_CHANGE(cause=f"HEALTHCHECK: invalid retries {value!r}")
            check["Retries"] = int(value)
        elif name in ("interval", "timeout", "start-period", "start-interval"):
            check[name.title().replace("-", "")] = _nanoseconds(value)
        else:
            raise BAD_CHANGE(cause=f"unknown flag: {name}")
    kind, _, rest = text.partition(" ")
    if kind.upper() == "NONE":
        return {"Test": ["NONE"]}
    if kind.upper() != "CMD" or not rest.strip():
        cause = "Missing command after HEALTHCHECK CMD" if kind.upper() == "CMD" else f"unknown type: {kind}"
        raise BAD_CHANGE(cause=cause)
    words = _array(rest.strip())
    return {"Test": ["CMD", *words] if words is not None else ["CMD-SHELL", rest.strip()], **check}


def _nanoseconds(text: str) -> int:
    """A Go duration such as 1m30s."""
    found = _DURATION.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise BAD_CHANGE(cause=f'time: invalid duration "{text}"')
    return int(sum(float(number) * _UNITS[unit] for number, unit in found))
