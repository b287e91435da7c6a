"""Healthchecks: run the test, keep the last results, say healthy or unhealthy (moby daemon/health.go).

Times are nanoseconds in the config; zero means Docker's default. During the start period failures do not count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from dockyard.engine.container import Container
from dockyard.engine.model import Health, HealthResult
from dockyard.errors import DockyardError
from dockyard.model import ContainerConfig, HealthConfig, new_id

DEFAULT_INTERVAL = 30.0
DEFAULT_TIMEOUT = 30.0
DEFAULT_START_INTERVAL = 5.0
DEFAULT_RETRIES = 3
KEPT_RESULTS = 5
KEPT_OUTPUT = 4096
"""Bytes of a probe's output that are kept."""

_log = logging.getLogger("dockyard.engine")


def wanted(config: ContainerConfig) -> bool:
    check = config.healthcheck
    return check is not None and bool(check.test) and check.test != ["NONE"]


def probe_command(config: ContainerConfig) -> list[str]:
    assert config.healthcheck is not None
    kind, *words = config.healthcheck.test or ["NONE"]
    if kind == "CMD-SHELL":
        return [*(config.shell or ["/bin/sh", "-c"]), *words]
    return words


def next_health(health: Health, result: HealthResult, retries: int, *, starting: bool) -> Health:
    """The state after one more result; ``starting``: within the start period, where failures do not count."""
    log = (*health.log, result)[-KEPT_RESULTS:]
    if result.exit_code == 0:
        return Health("healthy", 0, log)
    if starting and health.status == "starting":
        return Health("starting", 0, log)
    streak = health.failing_streak + 1
    return Health("unhealthy" if streak >= retries else health.status, streak, log)


def seconds(nanoseconds: int, default: float) -> float:
    return nanoseconds / 1e9 if nanoseconds else default


async def run(container: Container, on_unhealthy: Callable[[Container], Awaitable[None]]) -> None:
    """Checks for as long as the container runs; cancelled at its end."""
    check = container.record.config.healthcheck or HealthConfig()
    started = container.record.state.started_at
    start_period = check.start_period
    retries = check.retries or DEFAULT_RETRIES
    while True:
        health = container.record.state.health or Health()
        in_start = start_period > 0 and container.kit.now() - started < start_period and health.status == "starting"
        await asyncio.sleep(
            seconds(check.start_interval, DEFAULT_START_INTERVAL)
            if in_start
            else seconds(check.interval, DEFAULT_INTERVAL)
        )
        if container.record.state.status != "running":
            continue
        result = await _probe(container, seconds(check.timeout, DEFAULT_TIMEOUT))
        starting = container.kit.now() - started < start_period
        before = container.record.state.health or Health()
        after = next_health(before, result, retries, starting=starting)
        if after.status != before.status:
            container.save(container.record.with_state(health=after))
            container.emit(f"health_status: {after.status}")
        else:
            container.show(container.record.with_state(health=after))
        if after.status == "unhealthy" and before.status != "unhealthy":
            await on_unhealthy(container)


async def _probe(container: Container, timeout: float) -> HealthResult:
    kit, record = container.kit, container.record
    began = kit.now()
    command = probe_command(record.config)
    process: dict[str, Any] = {"Cmd": command, "Env": [], "User": "", "WorkingDir": "", "Privileged": False}
    output = bytearray()
    try:
        running = await kit.runtime.exec_start(record, new_id(), process, tty=False, stdin=False, size=None)
    except DockyardError as error:
        return HealthResult(began, kit.now(), -1, str(error))
    try:
        async with asyncio.timeout(timeout):
            async for frame in running.stream.frames():
                if len(output) < KEPT_OUTPUT:
                    output += frame.data[: KEPT_OUTPUT - len(output)]
            code = await running.wait()
    except TimeoutError:
        await running.kill()
        return HealthResult(began, kit.now(), -1, f"Health check exceeded timeout ({timeout:g}s)")
    finally:
        await running.stream.close()
    return HealthResult(began, kit.now(), code, output.decode("utf-8", "replace"))
