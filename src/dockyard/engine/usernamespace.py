"""``userns-remap``: the one user namespace that the containers of this engine share, and who stays out of it.

One for all and not one each: what containers may do to each other is what they may do without remapping, for the other
namespaces keep them apart; ``--network container:`` and its like need one in common anyway; and it costs a start nothing
(ADR 206).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dockyard.kernel import netns, userns
from dockyard.model import HostConfig
from dockyard.model.idmap import UNCHANGED, IdMaps


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """``path`` is "" where there is none: ids are the host's own."""

    path: str = ""
    ids: IdMaps = UNCHANGED

    def of(self, host: HostConfig) -> UserNamespace:
        """That of one container: ``--userns=host`` opts out."""
        return SHARED_WITH_HOST if host.userns_mode == "host" else self


SHARED_WITH_HOST = UserNamespace()


def opened(run_dir: Path, ids: IdMaps) -> UserNamespace:
    """Found again after a restart of the engine, since running containers are in it; else made. It lasts as long as the
    boot. Raises OSError."""
    if not ids:
        return SHARED_WITH_HOST
    path, told = run_dir / "userns", run_dir / "userns.map"
    text = repr(ids)
    if not (netns.is_namespace(path) and told.exists() and told.read_text() == text):
        netns.remove(path)
        made = userns.create(*([(each.container, each.host, each.size) for each in side] for side in (ids.uids, ids.gids)))
        try:
            told.write_text(text)
            netns.keep(made, path)
        finally:
            os.close(made)
    return UserNamespace(str(path), ids)
