"""``config``: the files in one canonical form, or a part of what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dockyard.cli.compose.render import dump, rendered
from dockyard.cli.compose.session import Session
from dockyard.cli.flags import Options, UsageError
from dockyard.compose.identity import service_hash
from dockyard.compose.images import needed

FLAGS = {
    "config": """
    --environment        Print environment used for interpolation
    --format FORMAT      yaml or json
    --hash SERVICES      Print the service config hash, one per line (* for all)
    --images             Print the image names, one per line
    --networks           Print the network names, one per line
    --no-interpolate     Don't interpolate environment variables
-o, --output FILE        Save to file
    --profiles           Print the profile names, one per line
-q, --quiet              Only validate the configuration
    --services           Print the service names, one per line
    --variables          Print model variables and default values
    --volumes            Print the volume names, one per line
""",
}


def config(session: Session, options: Options) -> int:
    project = session.project.select(session.chosen(session.project, options.words))
    if options.on("quiet"):
        return 0
    if options.given("hash"):
        wanted = options.text("hash")
        names = sorted(project.services) if wanted == "*" else session.chosen(project, wanted.split(","))
        for name in names:
            session.shell.say(f"{name} {service_hash(project.services[name])}")
        return 0
    lists: dict[str, list[str]] = {
        "services": list(project.services), "volumes": list(project.volumes), "networks": list(project.networks),
        "images": list(dict.fromkeys(needed(project).values())),
        "profiles": sorted({one for item in {**project.disabled, **project.services}.values() for one in item.get("profiles") or ()}),
        "environment": [f"{key}={value}" for key, value in sorted(session.environment.items())],
    }  # fmt: skip
    for flag, rows in lists.items():
        if options.on(flag):
            for row in rows:
                session.shell.say(row)
            return 0
    for flag in ("no-interpolate", "variables"):
        if options.on(flag):
            raise UsageError(f"--{flag} is not implemented yet")
    tree = rendered(project)
    text = json.dumps(tree, indent=2) if options.text("format") == "json" else dump(tree)
    if options.given("output"):
        Path(options.text("output")).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    return 0
