"""The page of ``dockyard dash --web``: one project, live.

The templates, styles and headers are those of the registry's pages. One stream of server-sent events says that the picture
changed; the page asks again. Who may see it has the secret of the address that the command prints: it can restart and
replace containers, so loopback alone would let every local user do so.
"""

from dockyard.web.dash.serve import serve

__all__ = ["serve"]
