"""``inspect``, and the same for one kind of object."""

from __future__ import annotations

import json
from typing import Any

from dockyard.cli.flags import Options, Refusal
from dockyard.cli.shell import Shell
from dockyard.client import quote, quote_image
from dockyard.errors import Code, DockyardError, InvalidParameter, NotFound, NotImplementedYet, Unavailable

Json = dict[str, Any]
_FORMAT = '-f, --format TEMPLATE  Go template, or "json"\n'
FLAGS = {
    "inspect": _FORMAT
    + """
-s, --size             Show sizes of containers
    --type KIND        Only objects of this kind (container, image, ...)
""",
    "inspect_container": _FORMAT + "-s, --size             Show sizes",
    "inspect_image": _FORMAT + "    --platform OS/ARCH  Platform of the image",
    "inspect_volume": _FORMAT,
    "inspect_network": _FORMAT + "-v, --verbose          Show more, for diagnosis",
}
EXAMPLES = {
    "inspect": "dockyard inspect -f '{{.State.Status}}' web\n"
    "dockyard inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web",
}
NO_SUCH_OBJECT = Code("DY-CLI-005", NotFound, "No such object: {name}", hint="dockyard ps -a, or dockyard images")
_PATHS = {
    "container": "/containers/{}/json", "image": "/images/{}/json", "network": "/networks/{}",
    "volume": "/volumes/{}", "service": "/services/{}", "task": "/tasks/{}", "node": "/nodes/{}",
    "plugin": "/plugins/{}/json", "secret": "/secrets/{}", "config": "/configs/{}",
}  # fmt: skip


def inspect(shell: Shell, options: Options) -> int:
    wanted = options.text("type")
    if wanted and wanted not in _PATHS:
        raise Refusal(f'unknown type: "{wanted}"; must be one of {", ".join(_PATHS)}')
    return _inspect(shell, options, (wanted,) if wanted else tuple(_PATHS), named=bool(wanted))


def inspect_container(shell: Shell, options: Options) -> int:
    return _inspect(shell, options, ("container",), named=True)


def inspect_image(shell: Shell, options: Options) -> int:
    return _inspect(shell, options, ("image",), named=True)


def inspect_volume(shell: Shell, options: Options) -> int:
    return _inspect(shell, options, ("volume",), named=True)


def inspect_network(shell: Shell, options: Options) -> int:
    return _inspect(shell, options, ("network",), named=True)


def _inspect(shell: Shell, options: Options, kinds: tuple[str, ...], *, named: bool) -> int:
    """Prints what was found even where some were not, as docker does."""
    form = options.text("format")
    found: list[Json] = []
    refused: list[DockyardError] = []
    for name in options.words:
        try:
            found.append(_find(shell, name, kinds, options))
        except NotFound as missing:
            refused.append(missing if named else NO_SUCH_OBJECT(name=name))
        except DockyardError as error:
            refused.append(error)
    if form == "json":
        for document in found:
            shell.say(json.dumps(document, separators=(",", ":"), ensure_ascii=False))
    elif form:
        from dockyard.cli.template import compiled

        render = compiled(form, strict=True)
        for document in found:
            shell.say(render(document))
    else:
        shell.say(json.dumps(found, indent=4, ensure_ascii=False))
    for refusal in refused:
        shell.refused(refusal)
    return 1 if refused else 0


def _find(shell: Shell, name: str, kinds: tuple[str, ...], options: Options) -> Json:
    """The first kind that knows the name. Kinds that an engine does not serve have no objects."""
    if not name.strip("/"):
        raise InvalidParameter("invalid name: it is empty")
    missing: DockyardError = NotFound(f"No such object: {name}")
    for kind in kinds:
        query: Json = {"size": True} if options.on("size") and kind == "container" else {}
        if kind == "image" and (platform := options.text("platform")):
            query["platform"] = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        if kind == "network" and options.on("verbose"):
            query["verbose"] = True
        try:
            document: Json = shell.client.request("GET", _PATHS[kind].format(quote_image(name) if kind == "image" else quote(name)), query)
        except NotFound as error:
            missing = error
        except (NotImplementedYet, Unavailable, InvalidParameter) as error:
            # No swarm answers 503, no such kind 501, and what cannot be a name of this kind 400.
            if len(kinds) == 1 or error.code:
                raise
        else:
            return document
    raise missing
