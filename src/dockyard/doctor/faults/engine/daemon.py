"""The engine itself: is it there, may the caller use it, is its configuration sound, do client and engine fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.firewall import walk
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import View

_API = Object("engine", "API")
# Keys of daemon.json by moby daemon/config (20.10 to 29), used to find misspelt ones.
_KEYS = """
allow-direct-routing allow-nondistributable-artifacts api-cors-header authorization-plugins bip bip6 bridge
bridge-accept-fwmark builder cdi-spec-dirs cgroup-parent config-file containerd containerd-namespace containerd-
plugin-namespace cluster-advertise cluster-store cluster-store-opts cpu-rt-period cpu-rt-runtime cri-containerd
data-root debug default-address-pools default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode
default-network-opts default-runtime default-shm-size default-ulimits dns dns-opts dns-search exec-opts exec-
root experimental features firewall-backend fixed-cidr fixed-cidr-v6 graph group host-gateway-ip host-gateway-
ips hosts http-proxy https-proxy icc init init-path insecure-registries ip ip-forward ip-forward-no-drop ip-masq
ip6tables iptables ipv6 labels live-restore log-driver log-format log-level log-opts max-concurrent-downloads
max-concurrent-uploads max-download-attempts metrics-addr min-api-version mtu network-control-plane-mtu network-
diagnostic-port no-new-privileges no-proxy node-generic-resources oom-score-adjust pidfile proxies raw-logs
registry-mirrors rootless runtimes seccomp-profile selinux-enabled shutdown-timeout storage-driver storage-opts
swarm-default-advertise-addr tls tlscacert tlscert tlskey tlsverify userland-proxy userland-proxy-path userns-
remap
"""
KNOWN_KEYS = frozenset(_KEYS.split())


def _addressed(view: View) -> Evidence:
    engine = view.facts.engine
    return Evidence(
        "api", f"{engine.host} ({engine.source})", engine.reach_detail or engine.reach, "an answer to /_ping"
    )


def unreachable(view: View) -> Iterator[Finding]:
    engine = view.facts.engine
    if engine.reach in ("absent", "refused", "silent"):
        socket = engine.socket
        lies = "a socket lies there, nobody listens" if socket and not socket.error else "nothing there"
        seen = [_addressed(view), Evidence("file", socket.path if socket else engine.host, lies, "a listening socket")]
        titles = {"silent": "the engine accepts connections and does not answer"}
        yield finding(
            "INS-01",
            titles.get(engine.reach, "the engine is not running"),
            _API,
            '"Cannot connect to the Docker daemon"' if engine.reach != "silent" else "every command hangs",
            seen,
            ruled_out={"INS-02": "not a matter of rights"},
            fix=Fix(
                "start it, and read its last words if it does not stay",
                ["systemctl start docker", "journalctl -u docker -n 20"],
            ),
            verify="docker version",
        )
    elif engine.reach == "denied":
        yield from _denied(view)
    elif engine.reach == "tls":
        yield finding(
            "INS-15",
            "client and engine do not agree on TLS",
            _API,
            '"Client sent an HTTP request to an HTTPS server" or a malformed answer',
            [_addressed(view)],
            fix=Fix("set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH to the directory with ca.pem, cert.pem, key.pem"),
        )


def _denied(view: View) -> Iterator[Finding]:
    caller, socket = view.facts.caller, view.facts.engine.socket
    if socket is None:
        return
    later = socket.gid in caller.group_file and socket.gid not in caller.groups
    yield finding(
        "INS-02",
        "the caller may not use the engine's socket",
        _API,
        '"permission denied while trying to connect to the Docker daemon socket"',
        [
            Evidence(
                "file", socket.path, f"uid {socket.uid} gid {socket.gid} mode {socket.mode:04o}", "w for the caller"
            ),
            Evidence("process", "uid and groups of the caller", f"{caller.uid}, {caller.groups}", f"gid {socket.gid}"),
        ],
        cause=["the user was added to the group after this login"] if later else [],
        fix=Fix(
            "log in again (or: newgrp docker)"
            if later
            else "add the user to the socket's group (root-equivalent!) and log in again",
            risk="members of that group are root on this host",
        ),
    )


def elsewhere(view: View) -> Iterator[Finding]:
    engine = view.facts.engine
    if engine.others and engine.reach == "ok" and engine.source not in ("default", "given", "--host"):
        yield finding(
            "INS-03",
            "commands go to another engine than the one on this host",
            Object("engine", engine.host),
            'containers are "missing"',
            [
                Evidence("api", engine.source, engine.host, "the engine meant"),
                Evidence("process", "other engines here", "; ".join(engine.others)[:300]),
            ],
            severity=Severity.RISK,
            confidence=Confidence.POSSIBLE,
            fix=Fix("unset DOCKER_HOST, or: docker context use default"),
        )
    elif len(engine.others) >= 1 and engine.reach == "ok":
        yield finding(
            "INS-07",
            "two engines share this host",
            Object("engine", "second engine"),
            "images and containers differ from one command to the next",
            [Evidence("process", "engines", "; ".join([" ".join(engine.command), *engine.others])[:400], "one")],
            severity=Severity.ADVICE,
            confidence=Confidence.POSSIBLE,
            fix=Fix("keep one (snap or package), or give them contexts of different names"),
        )


def bad_config(view: View) -> Iterator[Finding]:
    engine = view.facts.engine
    if not engine.config_text or not engine.config_text.strip():
        return
    where = Object("engine", engine.config_path)
    try:
        config = json.loads(engine.config_text)
    except (ValueError, RecursionError) as error:
        yield finding(
            "INS-05",
            "the engine's configuration file is not JSON",
            where,
            '"unable to configure the Docker daemon with file" at its next start',
            [Evidence("file", engine.config_path, str(error), "valid JSON")],
            fix=Fix(
                "correct that place (no trailing commas, no comments)", [f"python3 -m json.tool {engine.config_path}"]
            ),
            verify=f"python3 -m json.tool {engine.config_path}",
        )
        return
    if not isinstance(config, dict):
        return
    yield from _unknown_keys(view, config, where)
    clash = [key for key in config if key in ("hosts", "data-root", "exec-root", "pidfile", "tls", "log-level", "bip",
             "storage-driver") and _as_flag(view, key)]  # fmt: skip
    if clash:
        yield finding(
            "INS-04",
            "a setting is given as a flag and in the file",
            where,
            '"the following directives are specified both as a flag and in the configuration file"',
            [
                Evidence("file", engine.config_path, ", ".join(clash)),
                Evidence("process", "command line of the engine", " ".join(engine.command)[:300], "without these"),
            ],
            fix=Fix("remove one of them: a unit drop-in with an empty ExecStart= and one without -H"),
        )


def _as_flag(view: View, key: str) -> bool:
    flags = {"hosts": ("-H", "--host"), "pidfile": ("-p", "--pidfile")}.get(key, (f"--{key}",))
    return any(word.split("=")[0] in flags for word in view.facts.engine.command)


def _unknown_keys(view: View, config: dict[str, Any], where: Object) -> Iterator[Finding]:
    unknown = [key for key in config if key not in KNOWN_KEYS]
    if not unknown:
        return
    import difflib

    near = difflib.get_close_matches(unknown[0], KNOWN_KEYS, 1)
    yield finding(
        "INS-05",
        "the engine's configuration file has an unknown key",
        where,
        '"the following directives don\'t match any configuration option" at its next start',
        [Evidence("file", view.facts.engine.config_path, ", ".join(unknown), near[0] if near else "a known key")],
        confidence=Confidence.LIKELY,
        fix=Fix(f"did you mean {near[0]}?" if near else "remove it"),
    )


def versions(view: View) -> Iterator[Finding]:
    engine = view.facts.engine
    pinned = view.facts.caller.environ.get("DOCKER_API_VERSION", "")
    most, least = str(engine.version.get("ApiVersion", "")), str(engine.version.get("MinAPIVersion", ""))
    accepted = f"{least} to {most}" if most else _said_range(engine.reach_detail)
    if engine.reach == "version" or (pinned and most and not _number(least) <= _number(pinned) <= _number(most)):
        old = "too old" in engine.reach_detail or _number(pinned) < _number(least or "1.0")
        yield finding(
            "INS-08" if old else "INS-09",
            "the client's API version is older than the engine accepts"
            if old
            else "the client's API version is too new",
            _API,
            engine.reach_detail or f"every request for /v{pinned} is refused with 400",
            [
                Evidence("api", "DOCKER_API_VERSION", pinned or "from the client", accepted),
                _addressed(view),
            ],
            fix=Fix("unset DOCKER_API_VERSION, so that the client negotiates, or upgrade the older side"),
        )


def _said_range(detail: str) -> str:
    """What a refusal says of the versions that are accepted, where /version itself was refused."""
    bound = re.search(r"(Minimum|Maximum) supported API version is (\S+?),? ", detail + " ")
    return f"{bound[2]} or {'later' if bound[1] == 'Minimum' else 'earlier'}" if bound else "what the engine accepts"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def two_backends(view: View) -> Iterator[Finding]:
    """Rules in iptables-legacy and in iptables-nft at once: each tool shows half of what decides."""
    filled: dict[str, int] = {}
    for chain in view.firewall.chains.values():
        if chain.owner != "nft":
            filled[chain.owner] = filled.get(chain.owner, 0) + len(chain.rules)
    dropping = [chain for chain in view.firewall.chains.values() if chain.policy == "drop" and chain.owner != "nft"]
    lost = _lost_in(view, "iptables-legacy")
    if all(filled.get(owner) for owner in ("iptables-legacy", "iptables-nft")):
        lesser = min(("iptables-legacy", "iptables-nft"), key=lambda owner: filled[owner])
        yield finding(
            "INS-12",
            "rules live in iptables-legacy and iptables-nft at once",
            Object("host", "iptables"),
            "rules look right and traffic is still dropped: each tool shows one half",
            [
                Evidence("nft", "iptables-legacy-save", f"{filled['iptables-legacy']} rules", "one back end only"),
                Evidence("nft", "iptables-nft-save", f"{filled['iptables-nft']} rules"),
            ]
            + ([lost] if lost else [Evidence("nft", chain.place, "policy drop") for chain in dropping[:2]]),
            severity=Severity.FAULT if lost else Severity.RISK,
            fix=Fix(f"move the rules of {lesser} to the other and flush it; choose with update-alternatives"),
        )


def _lost_in(view: View, owner: str) -> Evidence | None:
    """The rule of that back end which ends what containers send outside."""
    for network in view.bridges:
        if network.internal or not view.uplink or not view.members(network):
            continue
        outcome = walk(view.firewall, "forward", view.outbound(network))
        if outcome.kind in ("drop", "reject") and outcome.chain is not None and outcome.chain.owner == owner:
            return Evidence("nft", outcome.place, outcome.kind, "accept")
    return None


def open_api(view: View) -> Iterator[Finding]:
    for address, answer in view.facts.engine.tls_probe.items():
        if answer != "clear":
            continue
        outside = not re.match(r"tcp://(127\.|localhost|\[::1\])", address)
        yield finding(
            "INS-14",
            "the engine's API answers anyone without TLS",
            Object("engine", address),
            "whoever can connect is root on this host",
            [Evidence("probe", f"GET {address}/_ping", "200 without a certificate", "a TLS handshake")],
            severity=Severity.RISK,
            cause=["reachable from other machines"]
            if outside
            else ["reachable by every user and container of this host"],
            fix=Fix("use the unix socket, ssh, or tlsverify with client certificates"),
        )


def modules_gone(view: View) -> Iterator[Finding]:
    said = [
        c for c in view.containers if re.search(r"host <=> sandbox pair interfaces: operation not supported", c.error)
    ]
    if not said:
        return
    yield finding(
        "INS-10",
        "the running kernel cannot make the links that containers need",
        Object("host", view.facts.host.release),
        f"{said[0].name} does not start: {said[0].error[:160]}",
        [
            Evidence("api", f"State.Error of {said[0].name}", said[0].error[:200]),
            Evidence(
                "file", f"/lib/modules/{view.facts.host.release}", "present" if view.facts.host.modules else "absent"
            ),
        ],
        affects=[container.id for container in said],
        cause=["the kernel was upgraded and not rebooted"] if not view.facts.host.modules else [],
        fix=Fix("reboot into the installed kernel"),
    )


_SOCKET = (
    r"cannot connect to the docker daemon",
    r"failed to connect to the docker API",
    r"is the docker daemon running",
)
RULES = (
    Rule(
        "INS-01",
        "the engine is not running",
        "No socket: never started, or another path. A socket that refuses: it died. One that is silent: it hangs.",
        unreachable,
        (),
        lookalikes=("INS-02", "INS-03"),
        messages=_SOCKET,
        decides="stat of the socket, connect, and the answer to /_ping",
    ),
    Rule(
        "INS-02",
        "the caller may not use the engine's socket",
        "Connecting needs write permission on the socket; groups are read at login.",
        messages=(r"permission denied.*docker (daemon )?(socket|API)",),
        decides="groups of the process and of the socket",
    ),
    Rule(
        "INS-03",
        "commands go to another engine",
        "DOCKER_HOST overrides contexts; contexts override the default.",
        elsewhere,
        ("engine",),
        severity=Severity.RISK,
        messages=_SOCKET,
        decides="DOCKER_HOST, currentContext, engine ID",
    ),
    Rule(
        "INS-05",
        "the engine's configuration file is wrong",
        "The engine refuses to start with a broken file; a running one does not notice until then.",
        bad_config,
        ("engine",),
        causes=("INS-01",),
        messages=(r"unable to configure the Docker daemon with file", r"don.t match any configuration option"),
        decides="parse daemon.json; compare keys",
    ),
    Rule(
        "INS-04",
        "a setting is given as a flag and in the file",
        "Debian's and Docker's units pass -H fd://.",
        causes=("INS-01",),
        messages=(r"specified both as a flag and in the configuration file",),
        decides="ExecStart against daemon.json",
    ),
    Rule(
        "INS-08",
        "the client's API version is older than the engine accepts",
        "Engine 29 accepts 1.44 and later.",
        versions,
        ("engine",),
        messages=(r"client version \S+ is too old",),
        decides="the version in the request path against MinAPIVersion",
    ),
    Rule(
        "INS-09",
        "the client's API version is too new",
        "The client should negotiate down.",
        messages=(r"client version \S+ is too new", r"Maximum supported API version"),
        decides="as INS-08",
    ),
    Rule(
        "INS-10",
        "the running kernel cannot make the links that containers need",
        "After a kernel upgrade the modules of the running one are gone.",
        modules_gone,
        ("containers", "host"),
        causes=("CTR-16", "CMP-10"),
        messages=(r"host <=> sandbox pair interfaces",),
        decides="/lib/modules of uname -r",
    ),
    Rule(
        "INS-12",
        "rules live in iptables-legacy and iptables-nft at once",
        "Both are in force in the kernel at the same time.",
        two_backends,
        ("firewall",),
        severity=Severity.RISK,
        causes=("NET-03", "NET-14", "PUB-12", "DNS-03", "NET-23"),
        messages=(r"timed? ?out", r"iptables.*not found"),
        decides="both -save tools list rules",
    ),
    Rule(
        "INS-14",
        "the engine's API answers anyone without TLS",
        "The API is root access.",
        open_api,
        ("engine",),
        severity=Severity.RISK,
        messages=(r"API is accessible on .* without encryption",),
        decides="GET /_ping in clear",
    ),
    Rule(
        "INS-15",
        "client and engine do not agree on TLS",
        "A TLS port answers plain HTTP with an alert (15 03).",
        messages=(r"malformed HTTP response", r"HTTP request to an HTTPS server", r"tlsverify"),
        decides="the first bytes of the answer",
    ),
)
