"""How containers end: exit 137, 139, 143, 0, restart loops, failing health checks, zombies."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockyard.doctor.collect.forensics import SHELLS, candidates, health_command
from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix, Severity
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Container, View, when

LOOP_RESTARTS = 3
SHORT_LIFE = 10.0  # restart back-off is reset after ten seconds (moby restartmanager)
MANY_ZOMBIES = 5
GRACE_LEAST = 0.5  # seconds between SIGTERM and SIGKILL that show that nobody listened


def ignores_term(view: View) -> Iterator[Finding]:
    """A stop that ended in SIGKILL: the events tell the order, the process (if it runs) whether it has a handler."""
    for container in view.containers:
        if container.running or container.exit_code != 137 or container.state.get("OOMKilled"):
            continue
        kills = [
            (float(event.get("timeNano", 0)) / 1e9, str((event["Actor"].get("Attributes") or {}).get("signal", "")))
            for event in view.events_of(container)
            if event.get("Action") == "kill"
        ]
        if len(kills) < 2 or kills[-1][1] != "9" or kills[-2][1] == "9" or kills[-1][0] - kills[-2][0] < GRACE_LEAST:
            continue
        waited = kills[-1][0] - kills[-2][0]
        yield finding(
            "CTR-11",
            "the program does not end on SIGTERM",
            container.object,
            f"stopping {container.name} took {waited:.0f} s and ended in SIGKILL (exit 137)",
            [
                Evidence(
                    "api", "GET /events", f"kill {kills[-2][1]}, {waited:.1f} s later kill 9", "die after the first"
                ),
                Evidence("api", "State.OOMKilled", "false", ""),
            ],
            severity=Severity.RISK,
            cause=[
                "PID 1 has no default action for signals: without a handler SIGTERM does nothing (pid_namespaces(7))"
            ],
            ruled_out={"RES-01": "OOMKilled is false and no oom event precedes"},
            affects=[container.id],
            fix=Fix("run it with --init, in exec form, or set STOPSIGNAL to what it obeys"),
            verify=f"time docker stop {container.name}",
        )


def segfault(view: View) -> Iterator[Finding]:
    for container in view.containers:
        if container.running or container.exit_code != 139:
            continue
        name = container.command[0].rpartition("/")[2][:15]
        line = next((item for item in reversed(view.facts.host.kernel_log) if "segfault" in item and name in item), "")
        seen = [Evidence("api", "State.ExitCode", "139 (128 + SIGSEGV)", "0")]
        seen += [Evidence("log", "kernel log", line)] if line else []
        yield finding(
            "CTR-13",
            "the program crashed (segmentation fault)",
            container.object,
            f"{container.name} ended with 139",
            seen,
            affects=[container.id],
            ruled_out={"RES-01": "that would be 137"},
            fix=Fix("a bug of the program, or an old C library that needs vsyscall=emulate; debug with a core file"),
            verify=f"docker start {container.name}",
        )


def nothing_in_front(view: View) -> Iterator[Finding]:
    for container in view.containers:
        command = container.command
        shell = command[0].rpartition("/")[2] in SHELLS and len([word for word in command if word]) == 1
        if container.state.get("Status") != "exited" or container.exit_code or not shell:
            continue
        if container.config.get("OpenStdin") or container.seconds_up > 2:
            continue
        yield finding(
            "CTR-14",
            "nothing runs in the foreground",
            container.object,
            f"{container.name} ends at once with 0",
            [
                Evidence("api", "Cmd", " ".join(command), "a program that stays"),
                Evidence("api", "Config.OpenStdin", "false", "true for an interactive shell"),
                Evidence("api", "State", f"ran {container.seconds_up:.1f} s"),
            ],
            severity=Severity.RISK,
            affects=[container.id],
            fix=Fix("give it a command that stays in the foreground, or run it with -it"),
        )


def restart_loop(view: View) -> Iterator[Finding]:
    for container in view.containers:
        policy = (container.host_config.get("RestartPolicy") or {}).get("Name") or "no"
        count = int(container.document.get("RestartCount") or 0)
        short = container.seconds_up < SHORT_LIFE or container.state.get("Restarting")
        looping = count >= LOOP_RESTARTS or (count and container.state.get("Restarting"))
        if policy == "no" or not looping or not short:
            continue
        up = view.facts.taken_at - when(container.state.get("StartedAt"))
        if container.running and up > 2 * SHORT_LIFE:
            continue
        last = [line for line in view.log(container).splitlines() if line.strip()][-1:]
        seen = [Evidence("api", "RestartCount", str(count), "0")]
        ends = "" if container.state.get("Running") and not container.state.get("Restarting") else f" and ends with {container.exit_code}"
        seen += [Evidence("api", "State.ExitCode", str(container.exit_code), "0")] if ends else []
        seen += [Evidence("log", f"docker logs {container.name}", last[0][:300])] if last else []
        yield finding(
            "CTR-16",
            "the restart policy hides a crash",
            container.object,
            f"{container.name} has been restarted {count} times{ends}",
            seen,
            cause=[f'policy "{policy}" starts it again with growing pauses (100 ms to 1 min)'],
            affects=[container.id],
            fix=Fix("cure the first failure; see its last lines", [f"docker logs --tail 50 {container.name}"]),
            verify=f"docker inspect -f '{{{{.RestartCount}}}}' {container.name}",
        )


def unhealthy(view: View) -> Iterator[Finding]:
    for container in view.running:
        health = container.state.get("Health") or {}
        log = [entry for entry in health.get("Log") or [] if isinstance(entry, dict)]
        words = health_command(container.document)
        if not int(health.get("FailingStreak") or 0) or not log or not words:
            continue
        last = log[-1]
        output, code = str(last.get("Output", "")), int(last.get("ExitCode", 0))
        done = health.get("Status") == "unhealthy"
        places = [view.facts.files.get(f"{container.id}:{path}") for path in candidates(container.document, words[0])]
        looked = [fact for fact in places if fact is not None]
        absent = bool(looked) and all(fact.error == "ENOENT" for fact in looked)
        if absent or re.search(r"not found|no such file", output):
            yield _health(
                container, "CTR-17", words, Evidence("file", f"{words[0]} in the image", "absent", "present"), done
            )
        elif "exceeded timeout" in output:
            seen = Evidence("api", "State.Health.Log", output[:200], "an answer in time")
            yield _health(container, "CTR-18", words, seen, done)
        elif done:
            seen = Evidence("api", "State.Health.Log", f"exit {code}: {output.strip()[:200]}", "exit 0")
            yield _health(container, "CTR-17", words, seen, done, Confidence.LIKELY)


def _health(
    container: Container, rule: str, words: list[str], seen: Evidence, done: bool, sure: Confidence = Confidence.PROVED
) -> Finding:
    titles = {"CTR-17": "the health check itself fails", "CTR-18": "the health check gets too little time"}
    fixes = {
        "CTR-17": f"make the check run in this image: is {words[0]} there, are port and path right?",
        "CTR-18": "raise --health-timeout, or --health-start-period for a slow start",
    }
    return finding(
        rule,
        titles[rule],
        container.object,
        f"{container.name} is {'unhealthy' if done else 'failing its health check'}; its program runs",
        [seen, Evidence("api", "Config.Healthcheck.Test", " ".join(words)[:200])],
        severity=Severity.FAULT if done else Severity.RISK,
        confidence=sure,
        affects=[container.id],
        fix=Fix(fixes[rule]),
        verify=f"docker inspect -f '{{{{.State.Health.Status}}}}' {container.name}",
    )


def zombies(view: View) -> Iterator[Finding]:
    for container in view.running:
        process = view.process(container)
        if process is None or process.zombies < MANY_ZOMBIES:
            continue
        yield finding(
            "CTR-24",
            "ended child processes are not collected",
            container.object,
            f"{container.name} holds {process.zombies} zombies, more with time, until no process can be made",
            [Evidence("process", f"children of pid {process.pid} in state Z", str(process.zombies), "0")],
            severity=Severity.RISK,
            cause=["PID 1 inherits orphans and must wait for them; this program does not"],
            affects=[container.id],
            fix=Fix("run it with --init (docker run --init, or init: true in compose)"),
        )


_API = ("containers",)
RULES = (
    Rule(
        "CTR-11",
        "the program does not end on SIGTERM",
        "docker stop sends the stop signal, waits (10 s), then kills. The first process of a container ignores every "
        "signal it has no handler for; a shell as PID 1 does not pass signals on.",
        ignores_term,
        ("containers", "events"),
        severity=Severity.RISK,
        lookalikes=("RES-01", "RES-02", "CTR-12"),
        messages=(r"\b137\b",),
        decides="events: kill 15, pause, kill 9; OOMKilled is false",
    ),
    Rule(
        "CTR-12",
        "the program ended on SIGTERM, as it should",
        "143 is 128 + 15: it was stopped and obeyed. Nothing is wrong.",
        messages=(r"\b143\b",),
        severity=Severity.ADVICE,
        decides="a stop or kill event just before the end",
    ),
    Rule(
        "CTR-13",
        "the program crashed (segmentation fault)",
        "139 is 128 + SIGSEGV.",
        segfault,
        _API,
        causes=("CTR-16", "CMP-10"),
        messages=(r"\b139\b", r"segmentation fault"),
        decides="the kernel's segfault line",
    ),
    Rule(
        "CTR-14",
        "nothing runs in the foreground",
        "A container lives as long as its first process. A shell without a terminal reads end of file and ends.",
        nothing_in_front,
        _API,
        severity=Severity.RISK,
        messages=(r"exited \(0\)",),
        decides="Cmd and OpenStdin",
    ),
    Rule(
        "CTR-16",
        "the restart policy hides a crash",
        "always and unless-stopped start a failing program again, so `docker ps` looks alive. The cause is in its log.",
        restart_loop,
        _API,
        messages=(r"restarting \(",),
        decides="RestartCount and the last log lines",
    ),
    Rule(
        "CTR-17",
        "the health check itself fails",
        "The check runs inside the container: its tool must be in the image, its address right.",
        unhealthy,
        ("containers", "files"),
        causes=("CMP-02",),
        lookalikes=("CTR-18",),
        messages=(r"unhealthy", r"is unhealthy"),
        decides="State.Health.Log and the tool in the image",
    ),
    Rule(
        "CTR-18",
        "the health check gets too little time",
        "Defaults: every 30 s, 30 s long, 3 failures. A start longer than that needs start_period.",
        causes=("CMP-02",),
        messages=(r"Health check exceeded timeout", r"unhealthy"),
        decides="State.Health.Log",
    ),
    Rule(
        "CTR-24",
        "ended child processes are not collected",
        "Zombies keep a process id each.",
        zombies,
        ("containers", "processes"),
        severity=Severity.RISK,
        causes=("RES-04",),
        messages=(r"cannot fork", r"resource temporarily unavailable"),
        decides="children of PID 1 in state Z",
    ),
)
