"""What one gets without a doctor: the engine's own warnings, and matching the error text against a list of messages."""

from __future__ import annotations

from bench.faults.case import Case
from bench.faults.lab import Lab
from dockyard.doctor.faults import all_rules
from dockyard.errors import DockyardError


def by_warnings(lab: Lab) -> set[str]:
    """Warnings of ``docker info``; a new one after the injection counts as a hit, whatever it says."""
    try:
        return set(lab.client.request("GET", "/info").get("Warnings") or [])
    except DockyardError:
        return set()


def by_message(lab: Lab, case: Case) -> bool:
    """Is the first fault whose messages match what the user saw the right one?"""
    text = "\n".join(_seen(lab, case))
    first = next((rule.id for rule in all_rules() if rule.matches(text)), "")
    return first in {case.id, *case.also}


def _seen(lab: Lab, case: Case) -> list[str]:
    """The error of the last start or exec, and the last words of the container."""
    found = [str(lab.vars.get("error", "")), str(lab.vars.get("output", ""))]
    try:
        state = lab.inspect(case.object)["State"]
        found += [str(state.get("Error", "")), f"exit {state['ExitCode']}" if state.get("ExitCode") else ""]
        with lab.client.open(
            "GET", f"/containers/{case.object}/logs", {"stdout": True, "stderr": True, "tail": "5"}
        ) as answer:
            found += [frame.data.decode("utf-8", "replace") for frame in answer.frames(tty=False)]
    except DockyardError:
        pass
    return found
