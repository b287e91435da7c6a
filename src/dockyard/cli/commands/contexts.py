"""``context``: names for engines."""

from __future__ import annotations

import json
import os
from typing import Any

from dockyard.cli import configfile
from dockyard.cli.flags import Options, Refusal
from dockyard.cli.output import FORMAT, Column, show
from dockyard.cli.request.values import boolean, csv_fields
from dockyard.cli.shell import Shell
from dockyard.client import contexts, parse_host
from dockyard.client.endpoint import DEFAULT_CONTEXT, config_dir, read_config, usual_host
from dockyard.client.errors import BAD_CONTEXT_NAME, CONTEXT_IN_USE
from dockyard.errors import DockyardError

Json = dict[str, Any]
FLAGS = {
    "create": """
    --description TEXT     What it is
    --docker KEY=VALUE...  host=ADDRESS,ca=FILE,cert=FILE,key=FILE,...
""",
    "ls": FORMAT + "-q, --quiet                Names only",
    "inspect": '-f, --format TEMPLATE      Go template, or "json"',
    "rm": "-f, --force                Even the one in use; no error if there is none",
}
EXAMPLES = {
    "create": "dockyard context create prod --docker host=tcp://prod:2376,ca=ca.pem,cert=cert.pem,key=key.pem",
    "use": "dockyard context use prod",
}
_COLUMNS = (
    Column("NAME", "Shown"), Column("DESCRIPTION", "Description", soft=True),
    Column("DOCKER ENDPOINT", "DockerEndpoint", soft=True), Column("ERROR", "Error"),
)  # fmt: skip
_PEM = ("ca", "cert", "key")


def _folder() -> str:
    return config_dir(os.environ)


def current() -> str:
    """The context in use; ``default`` where DOCKER_HOST says where the engine is."""
    if os.environ.get("DOCKER_HOST"):
        return DEFAULT_CONTEXT
    return os.environ.get("DOCKER_CONTEXT") or str(read_config(_folder()).get("currentContext") or DEFAULT_CONTEXT)


def ls(shell: Shell, options: Options) -> int:
    used = current()
    default = contexts.Context(DEFAULT_CONTEXT, "Current DOCKER_HOST based configuration", _default_host(), {}, ())
    rows = [_row(context, used) for context in sorted([default, *contexts.every(_folder())])]
    if used not in [row["Name"] for row in rows]:
        rows.append({"Name": used, "Shown": f"{used} *", "Description": "", "DockerEndpoint": "", "Current": True,
                     "Error": "context not found"})  # fmt: skip
    return show(shell, options, rows, _COLUMNS, key="Name")


def _row(context: contexts.Context, used: str) -> Json:
    mark = " *" if context.name == used else ""
    return {
        "Name": context.name, "Shown": context.name + mark, "Description": context.description,
        "DockerEndpoint": context.host, "Current": context.name == used, "Error": "",
    }  # fmt: skip


def _default_host() -> str:
    return os.environ.get("DOCKER_HOST") or usual_host()


def show_(shell: Shell, options: Options) -> int:
    shell.say(current())
    return 0


def use(shell: Shell, options: Options) -> int:
    name = options.words[0]
    config = configfile.to_change()
    if name == DEFAULT_CONTEXT:
        config.pop("currentContext", None)
    else:
        contexts.one(_folder(), name)
        config["currentContext"] = name
    configfile.save(config)
    shell.say(name)
    if os.environ.get("DOCKER_HOST"):
        shell.complain(f'Warning: DOCKER_HOST overrides the context. Unset it to use "{name}".')
    return 0


def create(shell: Shell, options: Options) -> int:
    name = options.words[0]
    given: dict[str, str] = {}
    for word in options.all("docker"):
        for field in csv_fields(word):
            key, equals, value = field.partition("=")
            if not equals or key not in ("host", "skip-tls-verify", *_PEM):
                raise Refusal(f"unable to create docker endpoint config: {key}: unrecognized config key")
            given[key] = value
    host = given.get("host") or _default_host()
    parse_host(host)
    try:
        contexts.create(
            _folder(), name, host=host, description=options.text("description"),
            skip_verify=boolean(given.get("skip-tls-verify", "0"), "skip-tls-verify"),
            pem={kind: given.get(kind, "") for kind in _PEM},
        )  # fmt: skip
    except OSError as error:
        raise Refusal(f"{error.strerror}: {error.filename}") from None
    shell.say(name)
    shell.complain(f'Successfully created context "{name}"')
    return 0


def inspect(shell: Shell, options: Options) -> int:
    folder = _folder()
    found = []
    for name in options.words or [current()]:
        if name == DEFAULT_CONTEXT:
            document: Json = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": _default_host(), "SkipTLSVerify": False}}}
            found.append(document | {"TLSMaterial": {}, "Storage": {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"}})
            continue
        context = contexts.one(folder, name)
        material = {"docker": list(context.tls)} if context.tls else {}
        found.append(context.document | {"TLSMaterial": material, "Storage": contexts.places(folder, name)})
    form = options.text("format")
    if form and form != "json":
        from dockyard.cli.template import render

        for document in found:
            shell.say(render(form, document, strict=True))
    else:
        shell.say(json.dumps(found, indent=None if form else 4))
    return 0


def rm(shell: Shell, options: Options) -> int:
    force, used = options.on("force"), current()

    def one(name: str) -> str:
        if name == DEFAULT_CONTEXT:
            raise BAD_CONTEXT_NAME(name=name)
        if name == used and not force:
            raise CONTEXT_IN_USE(name=name)
        try:
            contexts.remove(_folder(), name)
        except DockyardError:
            if not force:
                raise
        if name == read_config(_folder()).get("currentContext"):
            config = configfile.to_change()
            del config["currentContext"]
            configfile.save(config)
        return name

    return shell.each(options.words, one)
