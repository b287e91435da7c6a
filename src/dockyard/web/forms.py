"""From a form's fields to an operation of the administration API.

    _call   "PUT accounts/acme/members/{user}"      operation; {user} is the field path.user
    _back   "/n/acme/-/members"                     page to return to
    _done   "{user} joined"                         sentence for it
    NAME or NAME:TYPE                               the body

Types: ``bool`` (the last value counts, so a hidden field before a checkbox is its "off"), ``list``, ``int``,
``bytes`` (10 GB, 1.5 GiB), ``days`` (kept as seconds), ``json`` fields gathered into one text ``json.NAME.KEY``.
An empty ``int``, ``bytes`` or ``days`` means none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote

import msgspec

from dockyard.http import Request
from dockyard.registry.errors import VALUE_INVALID
from dockyard.web.session import safe_next

_FORM_MAX = 256 * 1024
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\Z", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_CALL = re.compile(r"(GET|POST|PUT|PATCH|DELETE) ([A-Za-z0-9._~/{}:@-]+)\Z")


@dataclass(frozen=True, slots=True)
class Form:
    token: str
    method: str
    path: str
    back: str
    done: str
    body: dict[str, Any]


async def read_fields(request: Request) -> dict[str, list[str]]:
    raw = await request.body(_FORM_MAX)
    try:
        return parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=500)
    except (UnicodeDecodeError, ValueError) as error:
        raise VALUE_INVALID(what="form", reason=str(error)) from error


def one(fields: dict[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[-1].strip()


def form_of(fields: dict[str, list[str]]) -> Form:
    match = _CALL.match(one(fields, "_call"))
    if match is None:
        raise VALUE_INVALID(what="form", reason="no operation")
    path, done = match[2], one(fields, "_done")
    body: dict[str, Any] = {}
    gathered: dict[str, dict[str, Any]] = {}
    for field, values in fields.items():
        name, _, kind = field.partition(":")
        if name.startswith("_"):
            continue
        if name.startswith("path."):
            place, value = "{" + name[5:] + "}", values[-1].strip()
            path = path.replace(place, quote(value, safe=""))
            done = done.replace(place, value)
        elif name.startswith("json."):
            _, outer, inner = name.split(".", 2)
            gathered.setdefault(outer, {})[inner] = _value(inner, kind, values)
        else:
            body[name] = _value(name, kind, values)
    if one(fields, "_unless"):  # this field empty: the whole gathered text is empty too (settings switched off)
        gathered = {k: v for k, v in gathered.items() if v.get(one(fields, "_unless"))}
        body.setdefault("value", "")
    body |= {name: msgspec.json.encode(value).decode() for name, value in gathered.items()}
    return Form(one(fields, "_csrf"), match[1], path, safe_next(one(fields, "_back")), done, body)


def _value(name: str, kind: str, values: list[str]) -> Any:
    text = values[-1].strip() if kind != "" else values[-1]
    if kind == "bool":
        return text not in {"", "0", "false", "off"}
    if kind == "list":
        return [value for value in values if value]
    if kind in {"int", "bytes", "days"} and not text:
        return None
    if kind == "int":
        return _int(name, text)
    if kind == "days":
        return str(_int(name, text) * 86400)
    if kind == "bytes":
        return parse_size(name, text)
    return text


def _int(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise VALUE_INVALID(what=name, reason="a whole number is needed")
    return int(text)


def parse_size(name: str, text: str) -> int:
    match = _SIZE.match(text)
    if match is None:
        raise VALUE_INVALID(what=name, reason="a size such as 500 MB or 10 GiB is needed")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])
