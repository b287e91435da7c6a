"""``cp`` and ``export``."""

from __future__ import annotations

import sys
from typing import Any

from dockyard.cli.commands.images import pieces, write_archive
from dockyard.cli.flags import Options, Refusal
from dockyard.cli.output import size
from dockyard.cli.shell import Shell
from dockyard.client import quote

Json = dict[str, Any]
FLAGS = {
    "cp": """
-a, --archive          Keep owner and group
-L, --follow-link      Follow a symbolic link as source
-q, --quiet            Say nothing
""",
    "export": "-o, --output FILE      Write to this file instead of stdout",
}
EXAMPLES = {
    "cp": "dockyard cp web:/etc/nginx/nginx.conf .\ndockyard cp ./site/. web:/var/www\n"
    "dockyard cp web:/var/log - | tar t",
    "export": "dockyard export web -o rootfs.tar",
}


def cp(shell: Shell, options: Options) -> int:
    from dockyard.cli import archive

    source, target = options.words[:2]
    from_container, from_path = archive.place(source)
    to_container, to_path = archive.place(target)
    follow, keep = options.on("follow-link"), options.on("archive")
    if not from_container and not to_container:
        raise Refusal("must specify at least one container source")
    if from_container and to_container:
        count = archive.between(shell, (from_container, from_path), (to_container, to_path), follow=follow, keep=keep)
        told = f"Successfully copied {size(count)} to {to_container}:{to_path}"
    elif from_container:
        if to_path == "-":
            if shell.on_terminal:
                raise Refusal("cowardly refusing to write a tar archive to a terminal. Redirect it")
            return archive.to_stdout(shell, from_container, from_path, follow=follow)
        count = archive.from_container(shell, from_container, from_path, to_path, follow=follow, keep=keep)
        told = f"Successfully copied {size(count)} to {archive.absolute(to_path)}"
    elif from_path == "-":
        archive.from_stdin(shell, to_container, to_path, pieces(sys.stdin.buffer), keep=keep)
        return 0
    else:
        count = archive.to_container(shell, from_path, to_container, to_path, follow=follow, keep=keep)
        told = f"Successfully copied {size(count)} to {to_container}:{to_path}"
    if not options.on("quiet") and shell.on_terminal:
        shell.complain(told)
    return 0


def export(shell: Shell, options: Options) -> int:
    return write_archive(shell, f"/containers/{quote(options.words[0])}/export", options.text("output"))
