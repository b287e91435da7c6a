"""Evidence bundles: facts as one compressed JSON file, secrets stripped, examined anywhere by the same rules.

Format: gzip of the JSON form of `Facts` (``format`` 1; a reader refuses other numbers, ignores unknown fields). Removed
before writing: values of environment variables and labels that look secret, credentials in URLs, log lines and
command arguments with such words, file contents beyond what formats need (magic bytes, first line).
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from dockyard.doctor.facts import FORMAT, Facts, FileFact
from dockyard.errors import InvalidParameter
from dockyard.lib.notjson import NOT_JSON

MAX_BYTES = 512 << 20
STRIPPED = "(stripped)"
_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|auth|cookie|private|dsn|connection.?string", re.IGNORECASE)
_PAIR = re.compile(
    r"((?:pass(?:word|wd)?|secret|token|api.?key|credential|authorization|bearer)[\"']?\s*[=:\s]\s*)(\S+)",
    re.IGNORECASE,
)
_URL = re.compile(r"(\w+://)[^/\s:@]+(?::[^/\s@]*)?@")
_OPTION = re.compile(r"^--?[\w-]*(?:pass|secret|token|key)[\w-]*$", re.IGNORECASE)


def save(facts: Facts, path: str) -> int:
    """Write the stripped facts; bytes written. The file is readable by its owner only."""
    data = gzip.compress(msgspec.json.encode(strip(facts)), mtime=0)
    target = Path(path)
    target.touch(mode=0o600)
    target.chmod(0o600)
    target.write_bytes(data)
    return len(data)


def load(path: str) -> Facts:
    """Facts of a bundle. Raises InvalidParameter when it is none, or of a later format."""
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InvalidParameter(f"cannot read bundle {path}: it unpacks to more than {MAX_BYTES} bytes")
        facts = msgspec.json.decode(data, type=Facts)
    except (*NOT_JSON, OSError, EOFError) as error:
        raise InvalidParameter(f"cannot read bundle {path}: {error}") from None
    if facts.format != FORMAT:
        raise InvalidParameter(f"cannot read bundle {path}: format {facts.format}, this doctor reads {FORMAT}")
    return facts


def strip(facts: Facts) -> Facts:
    """Facts without secrets. Everything that rules need stays."""
    return replace(
        facts,
        engine=replace(
            facts.engine,
            proxies={name: _text(value) for name, value in facts.engine.proxies.items()},
            config_text=_text(facts.engine.config_text) if facts.engine.config_text else facts.engine.config_text,
            command=_words(facts.engine.command),
            others=[_text(line) for line in facts.engine.others],
            info=_document(facts.engine.info),
        ),
        caller=replace(facts.caller, environ={name: _text(value) for name, value in facts.caller.environ.items()}),
        containers=[_container(document) for document in facts.containers],
        networks=_document(facts.networks),
        volumes=_document(facts.volumes),
        images=_document(facts.images),
        events=_document(facts.events),
        usage=_document(facts.usage),
        logs={key: _text(text) for key, text in facts.logs.items()},
        port_owners={key: _text(text) for key, text in facts.port_owners.items()},
        said=_text(facts.said),
        files={key: _file(fact) for key, fact in facts.files.items()},
    )


def _text(text: str) -> str:
    return _PAIR.sub(rf"\1{STRIPPED}", _URL.sub(rf"\1{STRIPPED}@", text))


def _words(words: list[Any]) -> list[str]:
    """Arguments; the word after ``--password`` and the like goes too."""
    found: list[str] = []
    for word in words:
        hide = bool(found) and bool(_OPTION.match(found[-1]))
        found.append(STRIPPED if hide else _text(str(word)))
    return found


def _document(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _document(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_document(item, name) for item in value]
    if isinstance(value, str):
        return STRIPPED if value and _SECRET_NAME.search(name) else _text(value)
    return value


_HARMLESS = {"Args", "Cmd", "Entrypoint", "Env", "SandboxKey", "Test"}


def _container(document: dict[str, Any]) -> dict[str, Any]:
    config = dict(document.get("Config") or {})
    pairs = (str(entry).partition("=") for entry in config.get("Env") or [])
    env = [f"{name}={value if name == 'PATH' else STRIPPED}" for name, _, value in pairs]
    for key in ("Cmd", "Entrypoint"):
        if config.get(key):
            config[key] = _words(config[key])
    kept = {key: config[key] for key in config if key in _HARMLESS}
    cleaned = _document(document)
    cleaned["Config"] = {**_document(config), **kept, "Env": env}
    cleaned["Args"] = _words(document.get("Args") or [])
    return dict(cleaned)


def _file(fact: FileFact) -> FileFact:
    if fact.head[:4] == b"\x7fELF":
        return fact
    return replace(fact, head=fact.head.split(b"\n", 1)[0][:120] + (b"\n" if b"\n" in fact.head else b""))
