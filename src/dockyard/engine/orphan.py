"""The exit helper: run by conmon's exit command when no daemon serves (``wiring.EXIT_HELPER`` asks before).

It opens the engine as a library, settles the one container that ended (``--rm``, restart policy) and goes. A restart is
started by it; the next exit brings the next helper.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    from dockyard.engine import recovery
    from dockyard.engine.wiring import load_settings, open_engine

    settings_file, container_id = argv
    settings = load_settings(Path(settings_file))

    async def settle() -> None:
        engine = await open_engine(settings, daemon=False)
        try:
            await recovery.settle_alone(engine.kit, container_id)
        finally:
            await engine.close()

    asyncio.run(settle())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
