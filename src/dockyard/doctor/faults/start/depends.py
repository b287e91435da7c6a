"""Services that need each other, as compose's label says: who is down first, who was not waited for, who cannot meet."""

from __future__ import annotations

from collections.abc import Iterator

from dockyard.doctor.faults.ports.published import listening
from dockyard.doctor.faults.start.ends import LOOP_RESTARTS
from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Container, View, when

WARM_UP = 300.0
"""Seconds after the start of a service in which "connection refused" means that it was not ready yet."""


def failing(container: Container) -> bool:
    """Down by a failure, in a restart loop, or unhealthy."""
    state = container.state
    unwell = (state.get("Health") or {}).get("Status") == "unhealthy"
    looping = bool(state.get("Restarting")) or int(container.document.get("RestartCount") or 0) >= LOOP_RESTARTS
    return unwell or looping or bool(container.error) or (state.get("Status") == "exited" and bool(container.exit_code))


def depends_on(container: Container) -> list[str]:
    """Services that compose started before this one (its label reads "db:service_started:false,...")."""
    label = container.labels.get("com.docker.compose.depends_on", "")
    return [part.split(":")[0] for part in label.split(",") if part]


def cascades(view: View) -> Iterator[Finding]:
    """The deepest service of a project that is down while those that need it fail."""
    services = _services(view)

    def down(container: Container) -> bool:
        return failing(container) or container.state.get("Status") in ("exited", "created", "dead", "paused")

    for (project, service), root in services.items():
        if not down(root) or any(down(up) for name in depends_on(root) if (up := services.get((project, name)))):
            continue
        hurt = _dependents(project, service, services)
        hurt = [container for container in hurt if failing(container)]
        if not hurt:
            continue
        names = ", ".join(sorted(container.name for container in hurt))
        status = str(root.state.get("Status"))
        yield finding(
            "CMP-10",
            "one service is down and others fail because of it",
            root.object,
            f"{names} fail; {root.name}, which they need, is {status} ({root.exit_code})",
            [
                Evidence("api", "label com.docker.compose.depends_on", f"{names} need {service}"),
                Evidence("api", f"State of {root.name}", f"{status}, exit {root.exit_code}", "running"),
            ],
            confidence=Confidence.LIKELY,
            affects=[root.id, *(container.id for container in hurt)],
            fix=Fix(f"cure {root.name}; the others recover when they try again", [f"docker start {root.name}"]),
            verify=f"docker ps --filter label=com.docker.compose.project={project}",
        )


def waits_for_health(view: View) -> Iterator[Finding]:
    """A service was not started because one that it waits for did not become healthy, or ended."""
    services = _services(view)
    for (project, _), container in services.items():
        if container.state.get("Status") != "created" or container.error:
            continue
        for name, condition in _conditions(container).items():
            needed = services.get((project, name))
            if needed is None or condition not in ("service_healthy", "service_completed_successfully"):
                continue
            health = str((needed.state.get("Health") or {}).get("Status", ""))
            unwell = health == "unhealthy" or (not needed.running and needed.state.get("Status") == "exited")
            if not unwell or (condition == "service_completed_successfully" and not needed.exit_code):
                continue
            status = f"{needed.state.get('Status')}, exit {needed.exit_code}"
            yield finding(
                "CMP-02",
                "a dependency failed, so the service was not started",
                needed.object,
                f'{container.name} was never started ("dependency failed to start"): it waits for {name} ({condition})',
                [
                    Evidence("api", f"State of {needed.name}", status, "healthy" if health else "exit 0"),
                    Evidence("api", "label com.docker.compose.depends_on", f"{container.name} needs {name}"),
                    Evidence("api", f"State of {container.name}", "created, exit 0", "running"),
                ],
                affects=[needed.id, container.id],
                fix=Fix(f"cure {needed.name} first (docker logs {needed.name}); then bring the project up again"),
                verify=f"docker ps --filter label=com.docker.compose.project={project}",
            )


def _conditions(container: Container) -> dict[str, str]:
    label = container.labels.get("com.docker.compose.depends_on", "")
    parts = (part.split(":") for part in label.split(",") if part)
    return {part[0]: part[1] if len(part) > 1 else "service_started" for part in parts}


def no_common_network(view: View) -> Iterator[Finding]:
    """A service that fails and one that it needs, which runs, cannot meet: no network has both."""
    services = _services(view)
    for (project, _), container in services.items():
        if not failing(container) or container.network_mode.startswith(("host", "container:")):
            continue
        for name in depends_on(container):
            needed = services.get((project, name))
            if needed is None or not needed.running or needed.network_mode.startswith(("host", "container:")):
                continue
            mine, theirs = sorted(container.networks), sorted(needed.networks)
            if set(mine) & set(theirs) or container.host_config.get("Links"):
                continue
            joined = mine[0] if mine else "NETWORK"
            yield finding(
                "NET-15",
                "a service and one that needs it share no network",
                needed.object,
                f"{container.name} fails: it cannot reach {needed.name}, which runs",
                [
                    Evidence("api", f"networks of {container.name}", ", ".join(mine) or "none"),
                    Evidence("api", f"networks of {needed.name}", ", ".join(theirs) or "none", f"one of {', '.join(mine)}"),
                    Evidence("api", "label com.docker.compose.depends_on", f"{container.name} needs {name}"),
                ],
                affects=[container.id, needed.id],
                fix=Fix(
                    f"connect {needed.name} to a network of {container.name}, under the name that it is called by",
                    [f"docker network connect --alias {name} {joined} {needed.name}"],
                    [f"docker network disconnect {joined} {needed.name}"],
                    machine=bool(mine),
                ),
                verify=f"docker exec {container.name} getent hosts {name}",
            )


def _services(view: View) -> dict[tuple[str, str], Container]:
    """By project and service; of a scaled service the last."""
    return {
        (c.labels.get("com.docker.compose.project", ""), c.labels.get("com.docker.compose.service", "")): c
        for c in view.containers
        if c.labels.get("com.docker.compose.service")
    }


def _dependents(project: str, service: str, services: dict[tuple[str, str], Container]) -> list[Container]:
    found: dict[str, Container] = {}
    todo = [service]
    while todo:
        name = todo.pop()
        for (other, key), container in services.items():
            if other == project and name in depends_on(container) and container.id not in found:
                found[container.id] = container
                todo.append(key)
    return list(found.values())


def not_waited_for(view: View) -> Iterator[Finding]:
    """A service that failed because one that it needs had been started but did not listen yet; now it does."""
    services = _services(view)
    for (project, _), container in services.items():
        if container.running or not container.exit_code:
            continue
        line = view.log_line(container, r"connection refused")
        ended = when(container.state.get("FinishedAt"))
        for name, condition in _conditions(container).items():
            needed = services.get((project, name))
            if not line or needed is None or not needed.running or condition != "service_started":
                continue
            net = view.net(needed)
            ports = sorted({item.port for item in listening(net, "tcp")}) if net else []
            if not ports or not 0 <= ended - when(needed.state.get("StartedAt")) < WARM_UP:
                continue
            yield finding(
                "CMP-01",
                "depends_on waited for the start, not until it was ready",
                container.object,
                f"{container.name} ended because {needed.name} refused its connection; now {needed.name} listens",
                [
                    Evidence("log", f"docker logs {container.name}", line),
                    Evidence("api", "label com.docker.compose.depends_on", f"{container.name} needs {name}"),
                    Evidence("process", f"listening TCP ports in {needed.name}", ", ".join(map(str, ports))),
                ],
                confidence=Confidence.LIKELY,
                ruled_out={"CMP-10": f"{needed.name} runs and listens"},
                affects=[container.id],
                fix=Fix(
                    f"start it again; for good: give {name} a healthcheck and wait for it (condition: service_healthy), and let the "
                    "program try again",
                    [f"docker start {container.name}"],
                    [f"docker stop {container.name}"],
                    machine=True,
                ),
                verify=f"docker logs --tail 5 {container.name}",
            )


_API = ("containers",)
RULES = (
    Rule(
        "NET-15",
        "a service and one that needs it share no network",
        "Containers reach each other by name on a network that both are on.",
        no_common_network,
        _API,
        causes=("CMP-10", "CTR-16", "CTR-17", "CMP-01", "CMP-02"),
        messages=(r"could not resolve host", r"name or service not known", r"bad address"),
        decides="the networks of both, from docker inspect",
    ),
    Rule(
        "CMP-02",
        "a dependency failed, so the service was not started",
        "With service_healthy or service_completed_successfully compose starts a service only after the other; the first "
        "that fails is the cause.",
        waits_for_health,
        _API,
        causes=(),
        lookalikes=("CMP-10",),
        messages=(r"dependency failed to start", r"container .* is unhealthy", r"didn.t complete successfully"),
        decides="the condition in the label and the state of the dependency",
    ),
    Rule(
        "CMP-10",
        "one service is down and others fail because of it",
        "Follow the dependencies to the first that is down; the others are consequences.",
        cascades,
        _API,
        causes=("CTR-16", "CTR-17", "CTR-13", "CTR-18"),
        messages=(r"502 bad gateway", r"connection refused"),
        decides="the dependency graph and who failed first",
    ),
    Rule(
        "CMP-01",
        "depends_on waited for the start, not until it was ready",
        "Without a condition compose starts a service as soon as the other's process runs; a database listens seconds later.",
        not_waited_for,
        ("containers", "logs", "nets"),
        causes=("CTR-16",),
        lookalikes=("CMP-10", "NET-15"),
        messages=(r"connection refused",),
        decides="the first failure is older than the listener, and no condition is in the label",
    ),
)
