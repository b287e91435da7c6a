"""Requests made from the Engine API's specification, mostly right and a little wrong, and a judge of the answers.

Purely random values stop at the first check of a daemon. Here a request is built after its schema, then single places
get a value of another type, a bound, or a hostile string; so that most of it passes and the odd part goes deep. All of
it follows from a seed.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

Json = Any
HOSTILE_TEXT = (
    "", " ", "\0", "a\0b", "../../../etc/passwd", "/..//..", "%2e%2e%2f", "\r\nX-Injected: 1", "a" * 5000, "\u202e\ud83d\ude00",
    "\ud800", "'; DROP TABLE containers; --", "$(reboot)", "{{.}}", "-1", "0x10", "NaN", "1e999", "null", "true", ":", "@", "/", "//",
    "sha256:", "sha256:" + "0" * 64, "sha256:" + "z" * 64, "a:b:c:d:e", "[::1]:80", "http://[", "UPPER/case:Tag", "=", "a=b=c", "label!",
)  # fmt: skip
HOSTILE_NUMBERS: tuple[Json, ...] = (-1, 0, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308)
STRANGE: tuple[Json, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"b": {"c": []}}},
    [[[[[[[[]]]]]]]],
    [1, "a", None, {}],
)
STREAM_TYPES = ("application/x-tar", "application/octet-stream")
FIELDS: Mapping[str, Sequence[str]] = {
    "Cmd": ("true", "sh", "sleep"),
    "Entrypoint": ("true", "sh"),
    "User": ("", "0", "nobody", "1000:1000", "nosuch"),
    "NetworkMode": ("bridge", "none", "host", "container:x", "nosuch"),
    "WorkingDir": ("/", "/tmp", "relative"),
    "Device": ("/dev/null",),
    "Driver": ("", "bridge", "local", "none"),
    "Type": ("bind", "volume", "tmpfs", "local"),
    "Target": ("/mnt", "/", "rel"),
}
"""Values that get a request past the first checks, by field."""
BOUNDED_TIMES = frozenset({"t"})
"""Query names whose value is a grace that the daemon must wait: drawn small, or not a number."""


@dataclass(frozen=True, slots=True)
class Case:
    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    operation: str = ""
    """Method and path template."""

    def wire(self) -> bytes:
        """The request as it goes over the socket."""
        head = {"Host": "docker", "Connection": "close", **self.headers}
        if self.body or self.method in {"POST", "PUT"}:
            head["Content-Length"] = str(len(self.body))
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + self.body

    def __str__(self) -> str:
        return f"{self.method} {self.target[:300]} {dict(self.headers)} {self.body[:600]!r}"


class Generator:
    """``document``: a swagger 2.0 tree. ``known``: names that exist, by kind of object (container, image, ...).

    ``folder``: where host paths must begin, so that a fuzzed bind mount makes nothing elsewhere on this machine.
    """

    def __init__(
        self,
        document: Mapping[str, Json],
        seed: int,
        *,
        known: Mapping[str, Sequence[str]],
        folder: str,
        wrong: float = 0.06,
    ) -> None:
        self._document = document
        self._random = random.Random(seed)
        self._known = known
        self._folder = folder
        self._wrong = wrong

    def operations(self) -> Iterator[tuple[str, str, Mapping[str, Json]]]:
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                if method in {"get", "post", "put", "delete", "head"}:
                    yield (
                        method.upper(),
                        path,
                        operation | {"parameters": [*methods.get("parameters", ()), *operation.get("parameters", ())]},
                    )

    def case(self, method: str, path: str, operation: Mapping[str, Json]) -> Case:
        draw, target, query, headers, body = self._random, path, list[str](), dict[str, str](), b""
        for parameter in map(self._resolved, operation["parameters"]):
            name, where = parameter["name"], parameter["in"]
            if where == "path":
                target = target.replace(
                    "{" + name + "}", quote(self._path_value(path), safe="", errors="surrogatepass")
                )
            elif where == "body":
                body = self._body(parameter, operation, headers)
            elif draw.random() < (0.9 if parameter.get("required") else 0.4):
                value = self._query_value(parameter)
                if where == "query":
                    query += [f"{name}={quote(value, safe='', errors='surrogatepass')}"] * draw.choice((1, 1, 1, 2))
                elif where == "header":
                    headers[name] = value.replace("\r", "").replace("\n", "").replace("\0", "")
        if draw.random() < 0.03:
            query.append(quote(draw.choice(HOSTILE_TEXT), errors="surrogatepass"))
        prefix = draw.choice(("", "/v1.24", "/v1.41", "/v1.51", "/v1.51"))
        return Case(
            method, prefix + target + ("?" + "&".join(query) if query else ""), headers, body, f"{method} {path}"
        )

    # -- parts of a request ---------------------------------------------------------------------------------------

    def _resolved(self, node: Mapping[str, Json]) -> Mapping[str, Json]:
        while "$ref" in node:
            found: Json = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            node = found
        return node

    def _path_value(self, path: str) -> str:
        kind = path.split("/")[1].removesuffix("s")
        if self._random.random() < 0.9 and self._known.get(kind):
            return self._random.choice(self._known[kind])
        return self._random.choice(HOSTILE_TEXT) or "x"

    def _query_value(self, parameter: Mapping[str, Json]) -> str:
        draw, name = self._random, parameter["name"]
        if name in BOUNDED_TIMES:
            return draw.choice(("0", "1", "", "x", "1.5", "9" * 30))
        if name == "filters":
            return self._filters(str(parameter.get("description", "")))
        if name in {"path", "fromSrc"}:
            return draw.choice(("/", "/tmp", "/etc/passwd", "/proc/self/fd/0", "/etc/../../..", "-", *HOSTILE_TEXT))
        if draw.random() < 0.3:
            return draw.choice((*HOSTILE_TEXT, *map(str, HOSTILE_NUMBERS)))
        value = self._value(parameter, 0)
        return json.dumps(value) if isinstance(value, (dict, list, bool)) else str(value)

    def _filters(self, description: str) -> str:
        draw = self._random
        names = [word.split("=")[0].split(":")[0] for word in description.split("`")[1::2]]
        chosen = draw.sample(names, min(len(names), draw.randint(0, 2))) if names else []
        values = ("true", "x", "a=b", "1h", "running", "0", *HOSTILE_TEXT)
        tree: dict[str, Json] = {name: [draw.choice(values)] for name in chosen}
        if draw.random() < 0.3:
            tree[draw.choice(("label", "nonsense", ""))] = draw.choice((["x"], {"x": True}, {"x": 1}, *STRANGE))
        text = json.dumps(tree)
        return text[: draw.randint(0, len(text))] if draw.random() < 0.1 else text

    def _body(self, parameter: Mapping[str, Json], operation: Mapping[str, Json], headers: dict[str, str]) -> bytes:
        draw = self._random
        consumes = operation.get("consumes", ["application/json"])
        if any(kind in STREAM_TYPES for kind in consumes):
            headers["Content-Type"] = consumes[0]
            return self._tar()
        headers["Content-Type"] = (
            "application/json" if draw.random() < 0.97 else draw.choice(("text/plain", "", "application/x-tar"))
        )
        data = json.dumps(self._value(parameter.get("schema", {}), 0)).encode()
        match draw.random():
            case low if low < 0.03:
                return data[: draw.randint(0, len(data))]
            case low if low < 0.05:
                return data + b"}"
            case low if low < 0.06:
                return b"\xff\xfe" + data
            case low if low < 0.07:
                return b"[" * 20_000
            case low if low < 0.08:
                return data.replace(b'": ', b'" :\t\n', 3)
        return data

    def _tar(self) -> bytes:
        draw, out = self._random, io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for _ in range(draw.randint(0, 4)):
                entry = tarfile.TarInfo(
                    draw.choice(
                        ("a", "a/b", "../../escape", "/abs", "manifest.json", "x" * 300, "index.json", "Dockerfile")
                    )
                )
                entry.type = draw.choice(
                    (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"Z")
                )
                entry.linkname = draw.choice(("", "a", "/etc/passwd", "../../.."))
                data = draw.choice((b"", b"[]", b"{}", b"FROM scratch\n", draw.randbytes(700)))
                if entry.type == tarfile.REGTYPE:
                    entry.size = len(data)
                entry.mode = draw.choice((0o644, 0o4755, 0))
                tar.addfile(entry, io.BytesIO(data))
        data = out.getvalue()
        match draw.randint(0, 5):
            case 0:
                return data[: draw.randint(0, 1500)]
            case 1:
                return draw.randbytes(2048)
            case 2:
                spot = draw.randint(0, 511)
                return data[:spot] + draw.randbytes(3) + data[spot + 3 :]
        return data

    # -- values after a schema ------------------------------------------------------------------------------------

    def _value(self, schema: Mapping[str, Json], depth: int, name: str = "") -> Json:
        draw, schema = self._random, self._resolved(schema)
        if draw.random() < self._wrong:
            return draw.choice((*STRANGE, *HOSTILE_NUMBERS, *HOSTILE_TEXT))
        if depth > 8:
            return None
        if "allOf" in schema:
            merged: dict[str, Json] = {}
            for part in schema["allOf"]:
                made = self._value(part, depth, name)
                merged |= made if isinstance(made, dict) else {}
            return merged
        if "enum" in schema:
            return draw.choice(schema["enum"])
        match schema.get("type"):
            case "integer":
                return draw.choice((0, 1, 2, 1000, 10**9, *((HOSTILE_NUMBERS) if draw.random() < 0.15 else ())))
            case "number":
                return draw.choice((0.5, 1, 3))
            case "boolean":
                return draw.random() < 0.5
            case "array":
                return [self._value(schema.get("items", {}), depth + 1, name) for _ in range(draw.choice((0, 1, 1, 2)))]
            case "string":
                return self._text(schema, name)
        return self._tree(schema, depth)

    def _tree(self, schema: Mapping[str, Json], depth: int) -> dict[str, Json]:
        draw, made = self._random, dict[str, Json]()
        chance = 0.5 if depth == 0 else 0.25
        for key, below in schema.get("properties", {}).items():
            if draw.random() < chance or key in schema.get("required", ()) or key == "Image":
                made[key if draw.random() < 0.97 else key.lower()] = self._value(below, depth + 1, key)
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            for _ in range(draw.choice((0, 1, 2))):
                made[draw.choice(("80/tcp", "a", "com.example", "bridge", "53/udp", *HOSTILE_TEXT[:12]))] = self._value(
                    more, depth + 1
                )
        return made

    def _text(self, schema: Mapping[str, Json], name: str) -> str:
        draw = self._random
        if name in {"Binds", "Source", "PathOnHost"}:  # never a path of this host outside the folder
            source = draw.choice((f"{self._folder}/bind", f"{self._folder}/a/../b", "a-volume", "", "x"))
            return (
                source
                if name != "Binds"
                else source + draw.choice((":/mnt", ":/mnt:ro", ":/mnt:rw,z", ":", "", ":relative", ":/mnt:bad"))
            )
        special: Sequence[str] = (
            self._known.get(name.lower(), ()) if name in {"Image", "Container"} else FIELDS.get(name, ())
        )
        if special and draw.random() < 0.85:
            return draw.choice(special)
        example = schema.get("example", schema.get("default"))
        if isinstance(example, str) and draw.random() < 0.5 and not example.startswith("/"):
            return str(example)
        return str(draw.choice(("a", "abc", "1", "10.0.0.1", "true", *(HOSTILE_TEXT if draw.random() < 0.25 else ()))))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def fault_of(case: Case, answer: Answer | None) -> str:
    """What is wrong with the answer; "" if nothing. None: no whole head came in time."""
    if answer is None:
        return "no answer in time"
    if answer.status == 500 or not 100 < answer.status < 600:
        return f"status {answer.status}: {answer.body[:300]!r}"
    if (
        answer.status >= 400
        and case.method != "HEAD"
        and answer.headers.get("content-type", "").startswith("application/json")
    ):
        try:
            message = json.loads(answer.body)["message"]
        except (ValueError, KeyError, TypeError):
            return f"{answer.status} without a message: {answer.body[:200]!r}"
        if not isinstance(message, str) or not message or "Traceback" in message:
            return f"{answer.status} with an unusable message: {message!r}"
    return ""


def parse_answer(data: bytes) -> Answer | None:
    """The answer that ``data`` begins with; None while its head is not whole. A chunked body is joined."""
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    parts = first.split(" ", 2)
    status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
    return Answer(status, headers, _joined(body) if headers.get("transfer-encoding") == "chunked" else body)


def _joined(body: bytes) -> bytes:
    out = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        try:
            length = int(size, 16)
        except ValueError:
            break
        if not length:
            break
        out += body[:length]
        body = body[length + 2 :]
    return bytes(out)
