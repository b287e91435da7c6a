"""What the dash does when a person asks: the same plans as ``dockyard compose restart``, ``update`` and ``outdated``."""

from __future__ import annotations

from collections.abc import Sequence

from dockyard.cli.compose.board import Quiet
from dockyard.cli.compose.session import Session
from dockyard.cli.compose.update import NEWER, outdated_rows, replace
from dockyard.cli.flags import Options
from dockyard.cli.shell import Shell
from dockyard.compose.control import plan_restart
from dockyard.compose.errors import NO_FILE
from dockyard.errors import DockyardError


class SessionHands:
    """Each action opens the files anew: they may have been edited since, and that is what an update is for."""

    def __init__(self, shell: Shell, top: Options) -> None:
        self._shell, self._top = shell, top
        self._pull = False

    def _session(self) -> Session:
        return Session(self._shell, self._top, Quiet())

    def restart(self, services: Sequence[str]) -> None:
        session = self._session()
        project = session.named
        session.carry_out(project, session.state(project), plan_restart(project, session.state(project), services))

    def update(self, services: Sequence[str]) -> int:
        return replace(self._session(), services, pull=self._pull)

    def outdated(self, *, registries: bool) -> dict[str, str]:
        """Without files there is nothing to compare with."""
        try:
            rows = outdated_rows(self._session(), (), registries=registries)
        except DockyardError as error:
            if error.code == NO_FILE.id:
                return {}
            raise
        self._pull = any(row["Why"] == NEWER for row in rows)
        return {row["Name"]: row["Why"] for row in rows}
