"""``dockyard registry ...``: the registry's command line, with pages."""

from __future__ import annotations

from dockyard.registry import serve
from dockyard.web.pages import pages


def main(argv: list[str] | None = None) -> int:
    return serve.main(argv, pages)
