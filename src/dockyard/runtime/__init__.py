"""Runtime: from a request to a running process, and everything about that process until it is gone.

Nouns: *spec* (OCI runtime configuration, made by the pure ``plan``), *bundle* (directory of one container: spec, log,
attach socket, exit code), *conmon* (one small process that watches one container and outlives the daemon), *task* (a
supervised container), *hub* (the one attach connection and its many clients), *frame*, *log line*, *exec session*.

Invariants:
- A container never depends on the daemon's life: stdio, log and exit code belong to its conmon.
- There is never a second connection to conmon's attach socket, nor is it left unread for longer than a named grace.
- A container's file system is never resolved by path: by descriptor, in its root, without following links out of it.
- No name service, no program and no library is ever looked up inside a container.
- No thread and no poll per container. Never imports engine, network or storage.
"""

from dockyard.runtime.attach import Attachment, Overflow
from dockyard.runtime.detach import DetachKeys, parse_detach_keys
from dockyard.runtime.devices import block_numbers, host_devices, resolve_devices
from dockyard.runtime.execs import ExecRequest, ExecSession
from dockyard.runtime.forensics import Explanation
from dockyard.runtime.logline import format_stamp
from dockyard.runtime.logs import LogWish, log_files, log_usage
from dockyard.runtime.messages import exit_code_for
from dockyard.runtime.model import (
    Alive,
    Created,
    Exit,
    Frame,
    HostFacts,
    LogLimits,
    LogLine,
    Lost,
    Plan,
    Recovered,
    RuntimeFacts,
    State,
)
from dockyard.runtime.plan import make_spec, make_update, plan_process
from dockyard.runtime.probe import probe
from dockyard.runtime.request import DeviceNode, Namespaces, ResolvedMount, SpecRequest
from dockyard.runtime.service import Runtime
from dockyard.runtime.signals import parse_signal
from dockyard.runtime.stats import Sample, shape
from dockyard.runtime.top import Top
from dockyard.runtime.users import User, resolve

__all__ = [
    "Alive", "Attachment", "Created", "DetachKeys", "DeviceNode", "ExecRequest", "ExecSession", "Exit",
    "Explanation", "Frame", "HostFacts", "LogLimits", "LogLine", "LogWish", "Lost", "Namespaces",
    "Overflow", "Plan", "Recovered", "ResolvedMount", "Runtime", "RuntimeFacts", "Sample", "SpecRequest", "State",
    "Top", "User", "block_numbers", "exit_code_for", "format_stamp", "host_devices", "log_files", "log_usage",
    "make_spec", "make_update", "parse_detach_keys", "parse_signal", "plan_process", "probe", "resolve",
    "resolve_devices", "shape",
]  # fmt: skip
