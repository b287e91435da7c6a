"""Flags of ``dockyard build`` in the words of BuildKit's frontend (dockerui/config.go) and of buildx. Reads the environment
and what files are there; changes nothing.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.cli.flags import Options, UsageError
from dockyard.cli.request.values import size

__all__ = ["Output", "Wish", "wish_of"]

MAX_SECRET = 500 << 10
"""Bytes, BuildKit's limit."""
UPLOAD = "http://buildkit-session/context"
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")
_NUMBERS = {
    "memory": "memory", "memory-swap": "memswap", "shm-size": "shm-size", "cpu-shares": "cpushares", "cpu-period": "cpuperiod",
    "cpu-quota": "cpuquota",
}  # fmt: skip
_TEXTS = {"target": "target", "cgroup-parent": "cgroup-parent", "cpuset-cpus": "cpusetcpus", "cpuset-mems": "cpusetmems",
          "network": "force-network-mode"}  # fmt: skip
_NOT_HERE = ("squash", "explain", "security-opt")
Attrs = dict[str, str]


@dataclass(frozen=True, slots=True)
class Output:
    """``kind``: the exporter that the engine is asked for. ``dest``: a file, "-" for stdout, "" for nothing that comes here;
    with ``unpack`` a directory."""

    kind: str
    attrs: Attrs
    dest: str = ""
    unpack: bool = False


@dataclass
class Wish:
    opts: Attrs = field(default_factory=dict)
    directories: dict[str, Path] = field(default_factory=dict)
    upload: bool = False
    """The context is what standard input has."""
    secrets: dict[str, bytes] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    cache_from: list[tuple[str, Attrs]] = field(default_factory=list)
    cache_to: list[tuple[str, Attrs]] = field(default_factory=list)
    entitlements: list[str] = field(default_factory=list)


def wish_of(options: Options, place: str, arguments: Mapping[str, str | None], stack: ExitStack) -> Wish:
    """``stack``: what the build needs until its end. Raises UsageError."""
    for name in _NOT_HERE:
        if options.given(name):
            raise UsageError(f"--{name} does not go together with what only BuildKit's protocol has (--secret, --output, ...)")
    wish = Wish()
    _context(wish, options, place, stack)
    wish.opts |= {f"build-arg:{key}": value for key, value in arguments.items() if value is not None}
    wish.opts |= {f"label:{key}": value for key, _, value in (word.partition("=") for word in options.all("label"))}
    wish.opts |= {name: options.text(flag) for flag, name in _TEXTS.items() if options.given(flag)}
    wish.opts |= {name: str(size(options.text(flag), f"--{flag}")) for flag, name in _NUMBERS.items() if options.given(flag)}
    lists = {
        "platform": _commas(options.all("platform")), "ulimit": options.all("ulimit"), "add-hosts": _hosts(options.all("add-host")),
    }  # fmt: skip
    wish.opts |= {name: _joined(values) for name, values in lists.items() if values}
    if options.on("no-cache") or options.given("no-cache-filter"):
        wish.opts["no-cache"] = ",".join(_commas(options.all("no-cache-filter")))
    if options.on("pull"):
        wish.opts["image-resolve-mode"] = "pull"
    wish.opts |= _attestations(options)
    wish.entitlements = [*options.all("allow"), *(["network.host"] if options.text("network") == "host" else [])]
    _named_contexts(wish, options.all("build-context"))
    wish.secrets = dict(_secret(word) for word in options.all("secret"))
    wish.agents = dict(_agent(word) for word in options.all("ssh"))
    wish.cache_from = [_cache(word, "src") for word in options.all("cache-from")]
    wish.cache_to = [_cache(word, "dest") for word in options.all("cache-to")]
    wish.outputs = _outputs(options)
    return wish


def _context(wish: Wish, options: Options, place: str, stack: ExitStack) -> None:
    import sys

    file = options.text("file")
    if place == "-" or place.startswith(_REMOTE) or place.endswith(".git"):
        if file == "-":
            raise UsageError("invalid argument: can't use stdin for the Dockerfile of a context that is not a directory")
        wish.opts["context"] = UPLOAD if place == "-" else place
        wish.upload = place == "-"
        wish.opts |= {"filename": file} if file else {}
        return
    root = Path(place)
    if not root.is_dir():
        raise UsageError(f"unable to prepare context: path {place!r} not found")
    dockerfile = Path(file) if file else root / "Dockerfile"
    if file == "-":
        dockerfile = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dockyard-build-"))) / "Dockerfile"
        dockerfile.write_bytes(sys.stdin.buffer.read())
    if not dockerfile.is_file() and not dockerfile.with_name(dockerfile.name.lower()).is_file():
        raise UsageError(f"unable to prepare context: no Dockerfile at {dockerfile}")
    wish.directories |= {"context": root, "dockerfile": dockerfile.parent}
    wish.opts["filename"] = dockerfile.name


def _named_contexts(wish: Wish, words: Iterable[str]) -> None:
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise UsageError(f'invalid argument "{word}" for "--build-context" flag: NAME=DIRECTORY, docker-image://REF or URL')
        if "://" in value or value.startswith(_REMOTE):
            wish.opts[f"context:{name}"] = value
            continue
        if not Path(value).is_dir():
            raise UsageError(f"build context {name}: {value} is no directory")
        wish.directories[name] = Path(value)
        wish.opts[f"context:{name}"] = f"local:{name}"


def _secret(word: str) -> tuple[str, bytes]:
    fields = _fields(word, "--secret")
    id, kind = fields.get("id", ""), fields.get("type", "")
    source, variable = fields.get("src", fields.get("source", "")), fields.get("env", "")
    if not id or fields.keys() - {"id", "src", "source", "env", "type"}:
        raise UsageError(f'invalid argument "{word}" for "--secret" flag: id=NAME,src=FILE or id=NAME,env=VARIABLE')
    if kind == "env" or (not variable and not source and kind != "file" and id in os.environ):
        variable, source = variable or source or id, ""
    if variable:
        if variable not in os.environ:
            raise UsageError(f"secret {id}: the environment has no {variable}")
        return id, os.environb[variable.encode()]
    try:
        with open(source or id, "rb") as file:
            data = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise UsageError(f"secret {id}: cannot read {source or id}: {error.strerror}") from None
    if len(data) > MAX_SECRET:
        raise UsageError(f"secret {id}: larger than {MAX_SECRET >> 10} KiB")
    return id, data


def _agent(word: str) -> tuple[str, str]:
    id, _, place = word.partition("=")
    path = place or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise UsageError(f"--ssh {word}: SSH_AUTH_SOCK is not set: start an agent (eval $(ssh-agent); ssh-add)")
    if not Path(path).is_socket():
        raise UsageError(f"--ssh {word}: {path} is no agent's socket: ssh-add FILE gives a key to the agent")
    return id or "default", path


def _cache(word: str, side: str) -> tuple[str, Attrs]:
    if "=" not in word:
        return "registry", {"ref": word}
    attrs = _fields(word, "--cache-to" if side == "dest" else "--cache-from")
    kind = attrs.pop("type", "registry")
    if kind == "local" and not attrs.get(side):
        raise UsageError(f"cache type=local needs {side}=DIRECTORY")
    return kind, attrs


def _outputs(options: Options) -> list[Output]:
    names = {"name": ",".join(options.all("tag"))} if options.all("tag") else {}
    push = {"push": "true"} if options.on("push") else {}
    names |= dict(_annotation(word) for word in options.all("annotation"))
    found = [_output(word, names, push) for word in options.all("output")]
    if push and not options.all("tag") and not any(each.kind == "moby" for each in found):
        raise UsageError("--push needs a name: -t REGISTRY/NAME:TAG")
    if push and not any(each.kind == "moby" for each in found):
        found.append(Output("moby", names | push))
    if sum(each.dest == "-" for each in found) > 1:
        raise UsageError("only one output can go to stdout")
    return found or [Output("moby", names | push)]


def _output(word: str, names: Attrs, push: Attrs) -> Output:
    if "=" not in word:  # -o DIRECTORY, -o -
        return Output("tar", {}, "-") if word == "-" else Output("tar", {}, word, unpack=True)
    attrs = _fields(word, "--output")
    kind, dest = attrs.pop("type", ""), attrs.pop("dest", "")
    if kind in ("image", "moby", "registry"):
        return Output("moby", names | attrs | (push or ({"push": "true"} if kind == "registry" else {})))
    if kind == "local":
        if not dest or dest == "-":
            raise UsageError("--output type=local needs dest=DIRECTORY")
        return Output("tar", attrs, dest, unpack=True)
    if kind in ("tar", "oci", "docker"):
        return Output(kind, (attrs if kind == "tar" else names | attrs), dest or "-")
    raise UsageError(f"--output type={kind}: image, registry, local, tar, oci and docker are known")


def _annotation(word: str) -> tuple[str, str]:
    """``[LEVEL[PLATFORM]:]KEY=VALUE`` as the exporter's attribute."""
    key, equals, value = word.partition("=")
    level, colon, name = key.partition(":")
    plain = level.partition("[")[0]
    if not equals or not key:
        raise UsageError(f'invalid argument "{word}" for "--annotation" flag: KEY=VALUE, or index:KEY=VALUE')
    if colon and plain in ("manifest", "manifest-descriptor", "index"):
        return f"annotation-{level}.{name}", value
    return f"annotation.{key}", value


def _attestations(options: Options) -> Attrs:
    found: Attrs = {}
    for word in options.all("attest"):
        attrs = _fields(word, "--attest")
        kind = attrs.pop("type", "")
        if not kind:
            raise UsageError(f'invalid argument "{word}" for "--attest" flag: type=sbom or type=provenance')
        found[f"attest:{kind}"] = _joined([f"{key}={value}" for key, value in attrs.items()])
    for kind in ("sbom", "provenance"):
        if options.given(kind):
            value = options.text(kind)
            found[f"attest:{kind}"] = {"true": "", "1": "", "false": "disabled=true", "0": "disabled=true"}.get(value, value)
    return found


def _fields(word: str, flag: str) -> Attrs:
    found: Attrs = {}
    for item in next(csv.reader([word]), []):
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f'invalid argument "{word}" for "{flag}" flag: {item!r} is not KEY=VALUE')
        found[key.strip().lower()] = value
    return found


def _hosts(words: Iterable[str]) -> list[str]:
    pairs = [(word.partition("=") if "=" in word else word.partition(":")) for word in words]
    return [f"{host}={address}" for host, _, address in pairs]


def _commas(words: Iterable[str]) -> list[str]:
    return [item for word in words for item in word.split(",") if item]


def _joined(values: Iterable[str]) -> str:
    """One line of CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(list(values))
    return out.getvalue()
