"""The user's config.json: shared with docker's CLI, so unknown keys stay, it is replaced in one step, and only its owner
reads it."""

from __future__ import annotations

import json
import os
from typing import Any

from dockyard.client.endpoint import config_dir, read_config
from dockyard.errors import Code, InvalidParameter

Json = dict[str, Any]
BROKEN_CONFIG = Code("DY-CLI-004", InvalidParameter, "cannot change {path}: {cause}", hint="python3 -m json.tool {path}")


def to_change() -> Json:
    """The document to be changed and saved: a file that cannot be read is not to be replaced by an empty one."""
    path = os.path.join(config_dir(os.environ), "config.json")
    found = read_config(config_dir(os.environ))
    if not found and os.path.exists(path):
        try:
            with open(path, "rb") as file:
                text = file.read()
            if text.strip() and json.loads(text) != {}:
                raise ValueError("it is not a JSON object")
        except (OSError, ValueError) as error:
            raise BROKEN_CONFIG(path=path, cause=error) from None
    return found


def save(config: Json) -> str:
    """The path written."""
    import tempfile

    folder = config_dir(os.environ)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.realpath(os.path.join(folder, "config.json"))
    handle, part = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".config.json-")  # mode 0600
    try:
        with os.fdopen(handle, "w") as out:
            json.dump(config, out, indent="\t")
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
    return path
