"""Words of flags as values: sizes, spans of time, fractions of CPUs, key=value lists and files of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from dockyard.cli.flags import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(i?b)?\Z", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_FILE_LIMIT = 16 << 20
"""A file that a flag names is read whole; this is far beyond any list of variables."""


def size(word: str, flag: str) -> int:
    """Bytes of ``10m``, ``1.5g``, ``512`` (powers of 1024, as Docker's RAMInBytes)."""
    if word == "-1":
        return -1
    found = _SIZE.match(word)
    if not found:
        raise UsageError(f'invalid argument "{word}" for "{flag}" flag: invalid size: \'{word}\'')
    return int(float(found[1]) * 1024 ** " kmgtp".index(found[2].lower() or " "))


def span(word: str, flag: str) -> int:
    """Nanoseconds of Go's durations: ``1m30s``, ``500ms``, ``0``."""
    if word in ("0", ""):
        return 0
    total, position = 0.0, 0
    while position < len(word):
        found = _SPAN.match(word, position)
        if not found:
            raise UsageError(f'invalid argument "{word}" for "{flag}" flag: time: invalid duration "{word}"')
        total += float(found[1]) * _NANOSECONDS[found[2]]
        position = found.end()
    return int(total)


def nano_cpus(word: str) -> int:
    """Billionths of a CPU."""
    from decimal import Decimal, InvalidOperation

    try:
        billionths = Decimal(word) * 10**9
    except InvalidOperation:
        raise UsageError(f'invalid argument "{word}" for "--cpus" flag: failed to parse {word} as a rational number') from None
    if not billionths.is_finite() or billionths != billionths.to_integral_value():
        raise UsageError(f'invalid argument "{word}" for "--cpus" flag: value is too precise')
    return int(billionths)


def mapping(words: Iterable[str]) -> dict[str, str]:
    """``key=value`` words; a key alone has an empty value."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def strict_mapping(words: Iterable[str], flag: str) -> dict[str, str]:
    """``key=value`` words, each with its ``=``."""
    for word in words:
        if "=" not in word:
            raise UsageError(f'invalid argument "{word}" for "{flag}" flag: invalid {flag.lstrip("-")}: must be key=value')
    return mapping(words)


def environment(files: Iterable[str], words: Iterable[str], environ: Mapping[str, str] | None = None) -> list[str]:
    """``KEY=VALUE`` of files and flags. A key alone takes its value from ``environ``: from a file it is left out where
    there is none there, as a flag it stays alone (the engine then unsets it)."""
    env = os.environ if environ is None else environ
    found = []
    for file in files:
        for word in file_lines(file):
            key, equals, _ = word.partition("=")
            if equals:
                found.append(word)
            elif key in env:
                found.append(f"{key}={env[key]}")
    for word in words:
        key, equals, _ = word.partition("=")
        if not key:
            raise UsageError(f'invalid argument "{word}" for "-e, --env" flag: invalid environment variable: {word}')
        found.append(word if equals or key not in env else f"{key}={env[key]}")
    return found


_PROXIES = {
    "httpProxy": "HTTP_PROXY", "httpsProxy": "HTTPS_PROXY", "noProxy": "NO_PROXY", "ftpProxy": "FTP_PROXY",
    "allProxy": "ALL_PROXY",
}  # fmt: skip


def proxies(config: Mapping[str, Any], host: str, given: Iterable[str]) -> list[str]:
    """Variables that ``proxies`` of config.json adds to new containers, in both spellings; ``given`` ones win.
    ``host`` is the engine's address, for which there may be settings of its own."""
    settings = config.get("proxies") or {}
    chosen = settings.get(host) or settings.get("default") or {}
    taken = {word.partition("=")[0] for word in given}
    pairs = [(name, chosen[key]) for key, name in _PROXIES.items() if chosen.get(key)]
    return [f"{word}={value}" for name, value in pairs for word in (name, name.lower()) if word not in taken]


def labels(files: Iterable[str], words: Iterable[str]) -> dict[str, str]:
    """Labels of files (lines without ``=`` are passed over, as docker does) and flags."""
    return mapping([word for file in files for word in file_lines(file) if "=" in word] + list(words))


def file_lines(path: str) -> list[str]:
    """The ``KEY=VALUE`` lines of a file: no comments, no blank lines, values as they are."""
    found = []
    for number, line in enumerate(text_of(path).splitlines()):
        word = line.lstrip() if number else line.removeprefix("\ufeff").lstrip()
        if not word or word.startswith("#"):
            continue
        key = word.partition("=")[0]
        if not key:
            raise UsageError(f"invalid env file ({path}): no variable name on line '{word}'")
        if any(letter.isspace() for letter in key):
            raise UsageError(f"invalid env file ({path}): variable '{key}' contains whitespaces")
        found.append(word)
    return found


def text_of(path: str) -> str:
    """A file that a flag names. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > _FILE_LIMIT:
        raise UsageError(f"{path} is longer than {_FILE_LIMIT >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"env file {path} contains invalid utf8 bytes") from None


def csv_fields(word: str) -> list[str]:
    """Fields of one CSV record (``--mount``, ``--network``, ``--gpus``)."""
    if '"' not in word:
        return word.split(",")
    import csv

    try:
        return next(csv.reader([word], strict=True))
    except csv.Error as error:
        raise UsageError(f"invalid field list {word}: {error}") from None


def boolean(word: str, key: str) -> bool:
    """Go's strconv.ParseBool."""
    if word in ("1", "t", "T", "true", "TRUE", "True", ""):
        return True
    if word in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError(f"invalid value for {key}: {word}")
