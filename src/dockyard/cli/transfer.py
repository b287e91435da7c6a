"""Pull and push as ``pull``, ``push``, ``run`` and ``create`` do them: request, credentials, progress, last line."""

from __future__ import annotations

from typing import Any, TextIO

from dockyard.cli import auths
from dockyard.cli.progress import Progress
from dockyard.cli.shell import Shell
from dockyard.client import quote_image
from dockyard.oci import parse_reference

Json = dict[str, Any]
SILENCE = 600.0
"""Seconds without any word of the engine: it waits for a registry that it gives up on itself far earlier."""


def pull(
    shell: Shell, image: str, *, platform: str = "", out: TextIO | None = None, quiet: bool = False,
    every_tag: bool = False,
) -> str:  # fmt: skip
    """Pulls and returns the full name. Raises the engine's refusal."""
    ref = parse_reference(image)
    if not every_tag:
        ref = ref.with_default_tag()
    query: Json = {"fromImage": ref.name, "platform": platform or None}
    if not every_tag:
        query["tag"] = str(ref.digest) if ref.digest else ref.tag
    headers = auths.header(ref.domain)
    Progress(out, quiet=quiet).show(
        shell.client.objects("POST", "/images/create", query, headers=headers, timeout=SILENCE)
    )
    return str(ref)


def push(shell: Shell, image: str, *, platform: Json | None = None, quiet: bool = False, every_tag: bool = False) -> str:
    """Pushes and returns the full name."""
    ref = parse_reference(image)
    if not every_tag:
        ref = ref.with_default_tag()
    query: Json = {"tag": None if every_tag else ref.tag, "platform": platform}
    Progress(quiet=quiet).show(
        shell.client.objects(
            "POST", f"/images/{quote_image(ref.name)}/push", query, headers=auths.header(ref.domain), timeout=SILENCE
        )
    )
    return str(ref)
