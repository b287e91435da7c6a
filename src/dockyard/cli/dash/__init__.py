"""``dockyard dash``: a project at a glance, in the terminal (`screen`), once for scripts (`main`), or as a page (`web.dash`).

Nouns: the *desk* (`compose.desk`) looks and keeps the newest picture; *hands* do what a person asks for, with the same
pieces as ``dockyard compose``; a *view* turns a picture into lines (pure), the *screen* draws only the lines that changed.
"""

from dockyard.cli.dash.main import main

__all__ = ["main"]
