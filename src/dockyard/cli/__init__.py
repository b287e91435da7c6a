"""The command line: docker's words and flags, for people without docker's CLI, over the API client.

Nouns: *catalogue* (every command in one table), *flags* (what a command takes, written as its help shows it), *options*
(what was given), *request* (flags as the documents that the API takes), *session* (a container's stdio on our own),
*shell* (client, streams and looks of one invocation), *listing* (rows of tables), *template* (``--format``).

A verb is a row of the catalogue, a function ``(shell, options)`` in a module of ``commands/``, its flags in the module's
``FLAGS`` as help shows them and examples in ``EXAMPLES``; ``make docs`` writes its page.

Invariants: a command imports nothing that it does not need, and only its own module is loaded; decisions (a create
request from flags, a table from rows) are pure functions; nothing here knows the engine but through the API, with two
exceptions that start one (``engine``, ``dryrun``). Colour and progress are for terminals only. Exit codes are docker's:
125 for our own and the daemon's refusals of run and exec, 126 and 127 from the start of a process, else its own.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    from dockyard.cli.main import run

    return run(argv)
