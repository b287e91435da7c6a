"""In-memory twins of the rooms below the engine: the whole engine without root, kernel or disk.

They keep the ports' promises (idempotent undo halves, Docker's errors, output that a late reader does not get), so that
what passes on them is worth something: tests of decisions, and ``dockyard dryrun`` for people who test tools
against Docker's API. Processes are simulated (``process.py`` says which commands do what); nothing is ever executed.
"""

from dockyard.engine.fake.network import FakeNetwork
from dockyard.engine.fake.rootfs import FakeRootfs
from dockyard.engine.fake.runtime import FakeRuntime
from dockyard.engine.fake.volumes import FakeVolumes

__all__ = ["FakeNetwork", "FakeRootfs", "FakeRuntime", "FakeVolumes"]
