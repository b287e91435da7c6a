"""Web: the registry's pages, for a browser, a phone, a keyboard, a screen reader; and the dash of a project (`dash`).

Nouns: a *page* is a function from a visit to a template and its values; a *visit* is one request and who makes it; a
*session* is a row in the database that a cookie names; a *form* is an operation of the administration API, spelled in
hidden fields (`forms.py`), so that rights, audit and errors are those of the API and no page has a rule of its own.

Pages are plain HTML that works without scripts. htmx (vendored, no build step) adds search as you type, answers in
place, and refreshing by the one stream of server-sent events, which carries no data but says what changed.

Invariants, stated as absences: nothing here writes to the database but by the administration API and the accounts; no
script or style is inline and none comes from elsewhere (Content-Security-Policy); no value reaches a page unescaped;
no form is accepted without its token or from another origin; no replica remembers a visitor.
"""

from dockyard.web.pages import Pages, pages

__all__ = ["Pages", "pages"]
