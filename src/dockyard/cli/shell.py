"""One invocation: the client, the streams, and how results and refusals look."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from dockyard.cli.flags import Options, Refusal, UsageError
from dockyard.client import Client, Tls
from dockyard.errors import DockyardError

Json = dict[str, Any]
_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "�")


def printable(text: str) -> str:
    """Without control characters but line ends and tabs: what an engine, a registry or an image says must not steer the
    terminal. (A carriage return stays, for progress of programs.)"""
    return text.translate(_CONTROL)


class Shell:
    def __init__(
        self, *, host: str = "", context: str = "", debug: bool = False, command: str = "", tls: Tls | None = None
    ) -> None:
        self._host, self._context, self.debug, self.command, self._tls = host, context, debug, command, tls
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The engine that flags, environment and contexts name; otherwise Dockyard's own where its socket is, else Docker's."""
        if self._client is None:
            self._client = Client.from_env(host=self._host, context=self._context, tls=self._tls)
        return self._client

    @property
    def reachable(self) -> bool:
        """Whether the engine's address could be read at all."""
        return self._client is not None

    def config(self, key: str) -> str:
        """A text of the user's config.json (``psFormat``, ``detachKeys``), "" without it."""
        from dockyard.client.endpoint import config_dir, read_config

        return str(read_config(config_dir(os.environ)).get(key, ""))

    @property
    def on_terminal(self) -> bool:
        return sys.stdout.isatty()

    def colour(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.on_terminal and not os.environ.get("NO_COLOR") else text

    def say(self, text: str = "") -> None:
        sys.stdout.write(text + "\n")

    def complain(self, text: str) -> None:
        sys.stdout.flush()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def refused(self, error: DockyardError) -> None:
        """An error as docker words it, and what to type next."""
        from dockyard.cli.hints import hint_line, in_our_words, next_command

        told = printable(str(error))
        # What came over the wire has a status as evidence and no code of ours.
        whose = "Error response from daemon: " if "status" in error.evidence and not error.code else "dockyard: "
        self.complain(whose + told)
        hint = in_our_words(printable(error.hint)) or next_command(told)
        if hint:
            self.complain(self._dim(hint_line(hint)))

    def _dim(self, text: str) -> str:
        return f"\033[2m{text}\033[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text

    def guarded(self, work: Callable[[Shell, Options], int | None], options: Options) -> int:
        try:
            return work(self, options) or 0
        except DockyardError as error:
            if self.debug:
                raise
            self.refused(error)
            return 1
        except Refusal as wrong:
            self.complain(f"dockyard: {wrong}")
            return 1
        except UsageError as wrong:
            self.complain(f"dockyard: {wrong}\n\nRun 'dockyard {self.command} --help' for more information")
            return 125
        except (BrokenPipeError, KeyboardInterrupt):
            raise
        except Exception as error:
            if self.debug:
                raise
            self.complain(printable(f"dockyard: cannot understand the engine's answer: {type(error).__name__}: {error}"))
            self.complain(self._dim(f"try: dockyard --debug {self.command} ..."))
            return 1
        finally:
            sys.stdout.flush()
            if self._client is not None:
                self._client.close()

    def each(self, names: Iterable[str], work: Callable[[str], str | None]) -> int:
        """Does ``work`` for each name, prints what it returns, goes on after a refusal; 1 if there was one."""
        status = 0
        for name in names:
            try:
                told = work(name)
            except DockyardError as error:
                self.refused(error)
                status = 1
            else:
                if told is not None:
                    self.say(told)
                    sys.stdout.flush()
        return status

    def confirm(self, warning: str, options: Options) -> bool:
        """Asks before something is lost; ``--force`` answers."""
        if options.on("force"):
            return True
        sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
        sys.stdout.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def filters(options: Options, name: str = "filter") -> dict[str, dict[str, bool]] | None:
    """``--filter key=value`` repeated, as the API's filters; None without any. Raises UsageError."""
    found: dict[str, dict[str, bool]] = {}
    for word in options.all(name):
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f'invalid argument "{word}" for "--{name}" flag: bad format of filter (expected name=value)')
        found.setdefault(key.strip().lower(), {})[value.strip()] = True
    return found or None
