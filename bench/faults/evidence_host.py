"""Readers of the kernel's side: sysctls, links, rules, sockets, processes, cgroups, files."""

from __future__ import annotations

import ast
import io
import ipaddress
import json
import os
import re
import struct
import subprocess
import tarfile
from pathlib import Path

from bench.faults.evidence import Ground, _run, numbers, reads, words
from bench.faults.lab import OUTSIDE, wait
from dockyard.doctor.finding import Evidence

Result = tuple[bool, str]
Match = re.Match[str]
DEFAULT_CAPABILITIES = {"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP",
                        "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"}  # fmt: skip


@reads("sysctl", r"[a-z][\w.-]+")
def _sysctl(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = ground.host(f"sysctl -n {match[0]}").strip()
    return read == cited.observed.split()[0], read


# Rule sets -----------------------------------------------------------------------------------------------------------


@reads("nft", r"iptables-save -t nat \(both back ends\)")
def _no_chain(ground: Ground, cited: Evidence, _: Match) -> Result:
    return not re.search(r"^(:|\s*chain )DOCKER\b", ground.rules, re.MULTILINE), f"{len(ground.rules)} bytes of rules"


@reads("nft", r"(?P<tool>iptables-(?:legacy|nft))-save")
def _count(ground: Ground, cited: Evidence, match: Match) -> Result:
    found = len(re.findall(r"^(\[\d+:\d+\] )?-A ", ground.host(f"{match['tool']}-save"), re.MULTILINE))
    return found == numbers(cited.observed)[0], str(found)


@reads("nft", r"postrouting of (?P<source>\S+) to \S+ out of (?P<link>\S+)")
def _untranslated(ground: Ground, cited: Evidence, match: Match) -> Result:
    """No rule of any back end translates that source."""
    address = ipaddress.ip_address(match["source"])
    for line in ground.rules.splitlines():
        if not re.search(r"masquerade|snat", line, re.IGNORECASE) or re.search(r"-d |ip daddr", line):
            continue
        nets = re.findall(r"(?:-s|ip saddr) (\d[\d./]*)", line)
        if not nets or any(address in ipaddress.ip_network(net, strict=False) for net in nets):
            return False, line.strip()
    return True, "no rule for that source"


@reads("nft", r"(?P<hook>\w+) hook for (?P<source>\S+) to (?P<target>\S+) (?P<proto>tcp|udp)/(?P<port>\d+)")
def _lost_there(ground: Ground, cited: Evidence, match: Match) -> Result:
    """A real packet of that network, followed by the kernel's own trace, is dropped in that hook."""
    iif, _, oif = cited.observed.removesuffix(" ends there").partition(" to ")
    bridge = iif if iif.startswith(("br-", "docker", "dy")) else oif
    port = int(match["port"]) if match["proto"] == "udp" else 8000
    before = _legacy_drops(ground)
    read = trace_drop(ground, bridge, match["proto"], port)
    if _legacy_drops(ground) > before:  # rules of that back end do not show in the trace; their counters tell
        return match["hook"] == "forward", "a rule of iptables-legacy counted it"
    if read.startswith("nothing was dropped"):  # another fault keeps packets from getting so far: only the rules can be read
        text = rf'iifname "{iif}".*drop|-i {iif} .*-j (DROP|REJECT)|^:FORWARD DROP|hook forward .*policy drop|dport {port} .*drop'
        line = re.search(text, ground.rules, re.MULTILINE)
        return line is not None, f"masked; {line[0] if line else ''}"
    return f"hook {match['hook']}" in read and f'iif "{iif}"' in read and f'oif "{oif}"' in read, read


def _legacy_drops(ground: Ground) -> int:
    """Packets that dropping rules of iptables-legacy in FORWARD have counted."""
    lines = ground.host("iptables-legacy-save -c -t filter").splitlines()
    return sum(numbers(line)[0] for line in lines if "-A FORWARD" in line and line.endswith(("DROP", "REJECT")))


def trace_drop(ground: Ground, bridge: str, proto: str, port: int) -> str:
    """Send from a container on ``bridge`` to the outside host and name the hook where the kernel drops packet or answer.

    A table of the checker's own, before all others, switches the trace on for this one flow; it is removed again.
    """
    member = _member(ground, bridge)
    rule = f"add rule ip evidence c meta l4proto {proto} {proto}"
    table = ("add table ip evidence; add chain ip evidence c { type filter hook prerouting priority -400; }; "
             f"{rule} dport {port} meta nftrace set 1; {rule} sport {port} meta nftrace set 1")  # fmt: skip
    command = ["nsenter", "-t", str(ground.lab.holder), "-n", "stdbuf", "-oL", "nft", "monitor", "trace"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as monitor:
        try:
            wait(lambda: _listens(monitor.pid), 3)
            ground.host(f"nft '{table}'")
            kind = "SOCK_DGRAM" if proto == "udp" else "SOCK_STREAM"
            send = f"s.settimeout(1); s.connect(('{OUTSIDE}', {port})); s.send(b'2'); s.recv(2)"
            ground.within(member, f'python3 -c "import socket; s = socket.socket(socket.AF_INET, socket.{kind}); {send}"')
        finally:
            ground.host("nft delete table ip evidence")
            monitor.terminate()
        assert monitor.stdout is not None
        lines = monitor.stdout.read().decode("utf-8", "replace").splitlines()
    dropped = [line for line in lines if "drop" in line or "reject" in line]
    ids = [line.split()[2] for line in dropped[:1]]
    way = [re.sub(r".*(iif .*?) ether.*", r"\1", line) for line in lines if line.split()[2:3] == ids and " packet: " in line]
    return f"{_hook_of(ground, dropped)}; {way[-1] if way else ''}"


def _listens(pid: int) -> bool:
    """Has the process joined a group of nfnetlink (protocol 12)? Its namespace's table says so."""
    rows = (line.split() for line in Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:])
    return any(row[1] == "12" and row[2] == str(pid) and int(row[3], 16) for row in rows)


def _hook_of(ground: Ground, lines: list[str]) -> str:
    """The base chain of a dropping line: the chain itself, or for a user's chain any that jumps to it."""
    if not lines:
        return "nothing was dropped"
    family, table, chain = lines[0].split("trace id ")[1].split()[1:4]
    for _ in range(8):
        text = ground.host(f"nft list chain {family} {table} {chain}")
        hook = re.search(r"hook (\w+)", text)
        if hook:
            return f"hook {hook[1]}: {lines[0]}"
        everything = ground.host(f"nft list table {family} {table}")
        owner = re.search(rf"chain (\S+) {{[^}}]*(?:jump|goto) {re.escape(chain)}\b", everything)
        if owner is None:
            break
        chain = owner[1]
    return f"unknown hook: {lines[0]}"


def _member(ground: Ground, bridge: str) -> str:
    for row in ground.api("/containers/json"):
        for value in row["NetworkSettings"]["Networks"].values():
            if _bridge(ground.api(f"/networks/{value['NetworkID']}")) == bridge:
                return str(row["Id"])
    raise KeyError(f"no running container on {bridge}")


def _bridge(network: dict[str, object]) -> str:
    options = network.get("Options")
    own = options.get("com.docker.network.bridge.name") if isinstance(options, dict) else None
    return str(own or f"br-{str(network['Id'])[:12]}")


@reads("nft", r"(?P<owner>nft|iptables-nft|iptables-legacy) (?P<family>\w+) (?P<table>\S+) (?P<chain>[^\s:]+): (?P<rule>.+)")
def _rule(ground: Ground, cited: Evidence, match: Match) -> Result:
    """That rule (or policy) is there, drops or sends where it says, and has counted at least as many packets."""
    if match["owner"] == "nft":
        text = ground.host(f"nft list chain {match['family']} {match['table']} {match['chain']}")
    else:
        save = ground.host(f"{match['owner']}-save -c -t {match['table']}")
        text = "\n".join(line for line in save.splitlines() if re.match(rf":{match['chain']} |\[\d+:\d+\] -A {match['chain']} ", line))
    if match["rule"].startswith("handle "):
        return _handle(ground, cited, match)
    if match["rule"].startswith("policy "):
        policy = match["rule"].split()[1]
        there = re.search(rf"policy {policy};|^:\S+ {policy.upper()} ", text, re.MULTILINE)
        return bool(there) and cited.observed.startswith(policy), text[:200]
    lines = [line for line in text.splitlines() if _same_rule(line, match["rule"])]
    if not lines:
        return False, text[:200]
    counted = max(numbers(line)[0] for line in lines) if match["owner"] != "nft" else 1 << 62
    wanted = re.search(r"(\d+) packets", cited.observed)
    return _does(lines[0], cited.observed) and (wanted is None or counted >= int(wanted[1])), lines[0]


def _handle(ground: Ground, cited: Evidence, match: Match) -> Result:
    """A native nft rule, by its handle: what it does, and what was cited of it."""
    text = ground.host(f"nft -a list chain {match['family']} {match['table']} {match['chain']}")
    handle, _, verb = match["rule"].removeprefix("handle ").partition(": ")
    line = next((line for line in text.splitlines() if line.endswith(f"# handle {handle}")), "")
    right = verb.split()[0] in line if verb else False
    if cited.observed.startswith(("drop", "reject")):
        right = right and cited.observed.split(",")[0] in line
    if cited.observed == "looks up where to in a map":
        right = right and " map " in line
    return right, line or text[:200]


def _same_rule(line: str, cited: str) -> bool:
    return re.sub(r"^\[\d+:\d+\] ", "", line).split() == cited.split() or cited.split() == line.split()


def _does(line: str, observed: str) -> bool:
    if observed.startswith(("drop", "reject")):
        return observed.split(",")[0].split()[0] in line.lower()
    if observed.startswith("translates"):
        return "DNAT" in line
    return observed.rpartition(" ")[2] in line


# Links ---------------------------------------------------------------------------------------------------------------


@reads("netlink", r"link (?P<link>\S+)(?: in (?P<name>.+))?")
def _link(ground: Ground, cited: Evidence, match: Match) -> Result:
    ask = f"ip -o link show {match['link']}"
    read = ground.within(match["name"], ask) if match["name"] else ground.host(ask)
    if cited.observed == "absent":
        return "does not exist" in read, read
    flags = re.search(r"<([^>]*)>", read)
    up = bool(flags and "UP" in flags[1].split(","))
    return up == (cited.observed == "up"), read


@reads("netlink", r"host end of (?P<link>\S+) \(index (?P<index>\d+)\)")
def _no_end(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = ground.host("ip -o link")
    return not re.search(rf"^{match['index']}: ", read, re.MULTILINE), read


@reads("netlink", r"addresses in (?P<name>.+)")
def _no_address(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = ground.within(match["name"], "ip -4 -o addr")
    return f" {cited.observed.rpartition(' ')[2]}/" not in read, read


@reads("netlink", r"master of (?P<link>\S+)")
def _master(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = ground.host(f"ip -o link show {match['link']}")
    master = re.search(r"master (\S+)", read)
    return (master[1] if master else "none") == cited.observed, read


@reads("netlink", r"mtu of (?P<bridge>\S+) / (?P<up>\S+)")
def _mtu(ground: Ground, cited: Evidence, match: Match) -> Result:
    """The greatest of the bridge's ports' other ends, and the way out."""
    member = ground.within(_member(ground, match["bridge"]), "ip -o link")
    inner = max(int(item) for item in re.findall(r"^\d+: (?!lo).* mtu (\d+)", member, re.MULTILINE))
    out = int(re.findall(r"mtu (\d+)", ground.host(f"ip -o link show {match['up']}"))[0])
    return cited.observed == f"{inner} / {out}", f"{inner} / {out}"


@reads("netlink", r"neighbour (?P<address>\S+) on (?P<link>\S+) of (?P<name>.+)")
def _neighbour(ground: Ground, cited: Evidence, match: Match) -> Result:
    ask = f"ip neigh show {match['address']} dev {match['link']}"
    read = ground.host(ask) if match["name"] == "host" else ground.within(match["name"], ask)
    return cited.observed.split()[0] in read, read


@reads("netlink", r"hardware address on (?P<name>.+)")
def _twice(ground: Ground, cited: Evidence, match: Match) -> Result:
    held = ground.api(f"/networks/{match['name']}")["Containers"]
    macs = [mac for key in held for mac in re.findall(r"link/ether (\S+)", ground.within(key, "ip -o link"))]
    return macs.count(cited.observed.split()[0]) > 1, str(macs)


@reads("netlink", r"route (?P<route>\S+) on (?P<link>\S+)")
def _route(ground: Ground, cited: Evidence, match: Match) -> Result:
    _, name, subnet = cited.observed.split()
    there = ground.host(f"ip route show {match['route']} dev {match['link']}").strip()
    own = ground.api(f"/networks/{name}")["IPAM"]["Config"][0]["Subnet"]
    overlap = ipaddress.ip_network(subnet).overlaps(ipaddress.ip_network(match["route"]))
    return bool(there) and own == subnet and overlap, there


@reads("netlink", r"on-link routes")
def _free_pools(ground: Ground, cited: Evidence, _: Match) -> Result:
    rows = ground.api("/networks")
    taken = [config["Subnet"] for row in rows for config in row["IPAM"]["Config"] or []]
    taken += [line.split()[0] for line in ground.host("ip -4 route").splitlines() if "/" in line.split()[0]]
    used = [ipaddress.ip_network(net) for net in taken if ":" not in net]
    pools = [ipaddress.ip_network(f"172.{second}.0.0/16") for second in range(17, 32)]
    pools += [ipaddress.ip_network(f"192.168.{third}.0/20") for third in range(0, 256, 16)]
    free = [pool for pool in pools if not any(pool.overlaps(net) for net in used)]
    return len(free) == numbers(cited.observed)[0], f"{len(free)} free"


# Sockets, processes, cgroups -----------------------------------------------------------------------------------------


@reads("process", r"listeners in (?P<name>.+)")
def _listeners(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = ground.within(match["name"], "ss -ltunH")
    if cited.observed == "none on port 53":
        return not re.search(r":53\s", read), read
    return f" {cited.observed} " in read, read


@reads("process", r"listening TCP ports in (?P<name>.+)")
def _ports(ground: Ground, cited: Evidence, match: Match) -> Result:
    rows = [line.split()[3] for line in ground.within(match["name"], "ss -ltnH").splitlines()]
    ports = {row.rpartition(":")[2] for row in rows if not row.startswith(("127.", "[::1]"))}
    return words(cited.observed) == ports, str(ports)


@reads("process", r"owner of port (?P<port>\d+)")
def _owner(ground: Ground, cited: Evidence, match: Match) -> Result:
    pid = numbers(cited.observed)[0]
    read = ground.host(f"ss -ltnpH 'sport = :{match['port']}'")
    return f"pid={pid}," in read, read


@reads("process", r"effective capabilities")
def _capabilities(ground: Ground, cited: Evidence, _: Match) -> Result:
    """Of the process where it runs, else of the settings."""
    document = ground.subject
    if pid := document["State"]["Pid"]:
        mask = re.search(r"CapEff:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
        names = _run("capsh", f"--decode={mask[1] if mask else 0}").partition("=")[2]
        read = {name.strip().removeprefix("cap_").upper() for name in names.split(",")}
        if " of " in cited.observed:
            return len(read) == numbers(cited.observed)[0], f"{len(read)}"
        return words(cited.observed) == read, str(read)
    config = document["HostConfig"]
    add, drop = ({name.removeprefix("CAP_") for name in config[key] or []} for key in ("CapAdd", "CapDrop"))
    read = (set() if "ALL" in drop else DEFAULT_CAPABILITIES - drop) | add
    return words(cited.observed) == read, str(read)


@reads("process", r"Seccomp")
def _seccomp(ground: Ground, cited: Evidence, _: Match) -> Result:
    document = ground.subject
    options = document["HostConfig"]["SecurityOpt"] or []
    if cited.observed.isdigit():
        mode = re.search(r"Seccomp:\s+(\d)", Path(f"/proc/{document['State']['Pid']}/status").read_text())
        return bool(mode) and mode[1] == cited.observed, str(mode and mode[0])
    return not any("seccomp=unconfined" in item for item in options), str(options)


@reads("process", r"user of the container")
def _user(ground: Ground, cited: Evidence, _: Match) -> Result:
    document = ground.subject
    uid, gid = numbers(cited.observed)
    if pid := document["State"]["Pid"]:
        status = Path(f"/proc/{pid}/status").read_text()
        return f"Uid:\t{uid}\t" in status and f"Gid:\t{gid}\t" in status, status[:200]
    user = document["Config"]["User"]
    return user in (f"{uid}:{gid}", str(uid)), user


@reads("process", r"standard input of the caller")
def _terminal(ground: Ground, cited: Evidence, _: Match) -> Result:
    """The bench runs what users run with /dev/null for input."""
    read = subprocess.run(["sh", "-c", "test -t 0"], stdin=subprocess.DEVNULL, check=False).returncode
    return read == 1 and cited.observed == "not a terminal", str(read)


@reads("process api", r"capabilities")
def _one_capability(ground: Ground, cited: Evidence, _: Match) -> Result:
    names = ["CapEff", str(ground.subject["State"]["Pid"])]
    mask = re.search(r"CapEff:\s+(\w+)", Path(f"/proc/{names[1]}/status").read_text())
    read = _run("capsh", f"--decode={mask[1] if mask else 0}")
    return f"cap_{cited.observed.lower()}" in read, read


@reads("process", r"/proc/(?P<pid>\d+)/ns/net")
def _shared(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = os.readlink(match[0])
    return cited.observed in read and read == os.readlink(f"/proc/{ground.lab.holder}/ns/net"), read


@reads("process", r"uid and groups of the caller")
def _caller(ground: Ground, cited: Evidence, _: Match) -> Result:
    """Such a user really is refused by that socket."""
    uid = str(numbers(cited.observed)[0])
    drop = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"]
    said = _run(*drop, "curl", "-sS", "--max-time", "3", "--unix-socket", str(ground.lab.socket), "http://d/_ping")
    return said != "OK", said


@reads("process", r"fds of pid (?P<pid>\d+)")
def _fds(ground: Ground, cited: Evidence, match: Match) -> Result:
    count = len(os.listdir(f"/proc/{match['pid']}/fd"))
    soft = re.search(r"Max open files\s+(\d+)", Path(f"/proc/{match['pid']}/limits").read_text())
    read = f"{count} of {soft[1] if soft else '?'}"
    return read == cited.observed, read


@reads("process", r"/proc/(?P<pid>\d+)/limits Max open files")
def _limit(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = _run("prlimit", "--pid", match["pid"], "--nofile", "--noheadings", "-o", "SOFT").strip()
    return read == cited.observed, read


@reads("process", r"children of pid (?P<pid>\d+) in state Z")
def _zombies(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = _run("ps", "--ppid", match["pid"], "-o", "stat=").count("Z")
    return read >= int(cited.observed) > 0, str(read)


@reads("process", r"(?:environment|command line) of the engine")
def _engine(ground: Ground, cited: Evidence, match: Match) -> Result:
    assert ground.lab.engine is not None
    name = "environ" if match[0].startswith("env") else "cmdline"
    read = Path(f"/proc/{ground.lab.engine.pid}/{name}").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    if cited.observed == "no proxy":
        return not re.search(r"https?_proxy=", read, re.IGNORECASE), "no such variable"
    return cited.observed in read, read[:200]


@reads("process", r"(?:other engines here|engines)")
def _engines(ground: Ground, cited: Evidence, _: Match) -> Result:
    read = _run("ps", "-eo", "args", "-ww")
    return all(part.strip() in read for part in cited.observed.split(";")), read[-200:]


def _cgroup_files(pid: int, name: str) -> list[str]:
    """The file of that name in every hierarchy that the process is in."""
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        controllers, path = line.split(":", 2)[1:]
        names = ["unified", controllers, *controllers.split(",")]
        for top in ("/sys/fs/cgroup", *(f"/sys/fs/cgroup/{one}" for one in names)):
            place = Path(f"{top}{path}/{name}")
            if place.is_file():
                found.append(place.read_text())
    return found


@reads("file", r"cgroup file systems of the host")
def _layout(ground: Ground, cited: Evidence, _: Match) -> Result:
    kinds = set(_run("findmnt", "-nlo", "FSTYPE", "-t", "cgroup,cgroup2").split())
    read = {frozenset(("cgroup", "cgroup2")): "hybrid", frozenset(("cgroup",)): "v1", frozenset(("cgroup2",)): "v2"}
    return read.get(frozenset(kinds)) == cited.observed, str(kinds)


@reads("file", r"memory cgroup oom_kill")
def _oom(ground: Ground, cited: Evidence, _: Match) -> Result:
    pid = ground.subject["State"]["Pid"]
    texts = _cgroup_files(pid, "memory.events") + _cgroup_files(pid, "memory.oom_control")
    return any(f"oom_kill {cited.observed}" in text for text in texts), str(texts)


@reads("file", r"pids cgroup")
def _pids(ground: Ground, cited: Evidence, _: Match) -> Result:
    pid = ground.subject["State"]["Pid"]
    now, most = (_cgroup_files(pid, name)[0].strip() for name in ("pids.current", "pids.max"))
    refused = numbers(_cgroup_files(pid, "pids.events")[0])[0]
    current, limit, before = numbers(cited.observed)
    return (int(now), int(most)) == (current, limit) and refused >= before, f"{now} of {most}, {refused} refused"


@reads("file", r"cpu\.stat nr_throttled / nr_periods")
def _throttled(ground: Ground, cited: Evidence, _: Match) -> Result:
    texts = _cgroup_files(ground.subject["State"]["Pid"], "cpu.stat")
    text = next(item for item in texts if "nr_throttled" in item)  # on a hybrid host the v2 tree has one without
    table = dict(line.split() for line in text.splitlines())
    throttled, periods = numbers(cited.observed)
    return int(table["nr_throttled"]) >= throttled > 0 and int(table["nr_periods"]) >= periods, text


# Files ---------------------------------------------------------------------------------------------------------------


def _archive(ground: Ground, name: str, path: str) -> tuple[tarfile.TarInfo | None, bytes]:
    """Member and content of a path in a container, by a tar of the archive endpoint; links followed by hand."""
    for _ in range(8):
        raw = ground.curl(f"http://d/containers/{name}/archive?path={path}")
        try:
            with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
                member = tar.getmembers()[0]
                if member.issym():
                    path = os.path.normpath(os.path.join(os.path.dirname(path), member.linkname))
                    continue
                file = tar.extractfile(member) if member.isfile() else None
                return member, file.read() if file else b""
        except tarfile.TarError:
            return None, raw
    return None, b"too many links"


@reads("file", r"/etc/resolv\.conf of (?P<name>.+)")
def _resolver(ground: Ground, cited: Evidence, match: Match) -> Result:
    text = _archive(ground, match["name"], "/etc/resolv.conf")[1].decode()
    servers = re.findall(r"^nameserver (\S+)", text, re.MULTILINE)
    if cited.observed == "no nameserver line":
        return not servers, text
    wanted = words(cited.observed.removeprefix("nameserver "))
    return bool(wanted) and wanted <= set(servers), text


@reads("file", r"/etc/resolv\.conf")
def _host_resolver(ground: Ground, cited: Evidence, _: Match) -> Result:
    text = ground.host("cat /etc/resolv.conf")
    if cited.observed.startswith(("absent", "dangling")):
        return "No such file" in text, text
    wanted = set(re.findall(r"\d+\.\d+\.\d+\.\d+", cited.observed))
    servers = set(re.findall(r"^nameserver (\S+)", text, re.MULTILINE))
    return wanted == servers if "only" not in cited.observed and "nameserver" not in cited.observed else wanted <= servers, text


@reads("file", r"statvfs (?P<path>.+)")
def _space(ground: Ground, cited: Evidence, match: Match) -> Result:
    """df agrees; free space moves a little by itself."""
    kind = "iavail,itotal" if "inodes" in cited.observed else "avail,size"
    free, total = numbers(ground.host(f"df --output={kind} -B1 {match['path']} | tail -1"))
    unit = 1 if "inodes" in cited.observed else 1 << 20
    said = numbers(cited.observed)
    return abs(free // unit - said[0]) <= 2 and total // unit == said[1], f"{free} of {total}"


@reads("file", r"mount options of (?P<path>.+)")
def _options(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = ground.host(f"findmnt -no OPTIONS -T {match['path']}").strip()
    return "noexec" in read if "noexec" in cited.observed.split(",") else "ro" in read.split(","), read


@reads("file", r"size of the context|biggest")
def _context(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = _run("du", "-sm", "--apparent-size", str(ground.lab.vars["build"])).split()[0]
    return match[0] == "biggest" or abs(int(read) - numbers(cited.observed)[0]) <= 2, read


@reads("file", r"/lib/modules/\S+")
def _modules(ground: Ground, cited: Evidence, match: Match) -> Result:
    there = Path(match[0]).is_dir() or not Path("/proc/modules").exists()
    return there == (cited.observed == "present"), str(there)


@reads("file", r"/etc/docker/certs\.d")
def _certs(ground: Ground, cited: Evidence, _: Match) -> Result:
    read = ground.host("cd /etc/docker/certs.d && find . -type f").replace("./", "").split()
    return words(cited.observed) <= set(read), str(read)


@reads("file", r"/proc/sys/fs/binfmt_misc")
def _binfmt(ground: Ground, cited: Evidence, _: Match) -> Result:
    read = ground.host("ls /proc/sys/fs/binfmt_misc 2>/dev/null").split()
    return not set(read) - {"register", "status"}, str(read)


@reads("file", r"Dockerfile line (?P<line>\d+)")
def _dockerfile(ground: Ground, cited: Evidence, match: Match) -> Result:
    """That line begins the instruction: its first words are there."""
    lines = (Path(str(ground.lab.vars["build"])) / "Dockerfile").read_text().splitlines()
    read = "\n".join(lines[int(match["line"]) - 1 :])
    cited_words = cited.observed.removesuffix(" alone").split()
    flat = " ".join(read.replace("\\\n", " ").split())
    return " ".join(cited_words) in flat.splitlines()[0], read[:120]


@reads("file", r"\.dockerignore")
def _ignored(ground: Ground, cited: Evidence, _: Match) -> Result:
    text = (Path(str(ground.lab.vars["build"])) / ".dockerignore").read_text()
    return cited.observed in text.splitlines(), text


@reads("file", r"(?P<what>#! program|PT_INTERP) of (?P<path>.+)")
def _program(ground: Ground, cited: Evidence, match: Match) -> Result:
    data = _archive(ground, _subject_id(ground), match["path"])[1]
    if match["what"] == "#! program":
        return data.startswith(b"#!") and cited.observed.encode() in data.split(b"\n")[0], repr(data[:60])
    return cited.observed.encode() + b"\0" in data, repr(data[:60])


@reads("file", r"(?P<path>/\S+) (?P<what>line 1|first bytes|e_machine)")
def _bytes(ground: Ground, cited: Evidence, match: Match) -> Result:
    data = _archive(ground, _subject_id(ground), match["path"])[1]
    if match["what"] == "e_machine":
        number = struct.unpack_from("<H", data, 18)[0]
        names = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
        return names.get(number) == cited.observed, str(number)
    if cited.observed == "empty":
        return data == b"", repr(data[:20])
    shown = ast.literal_eval(cited.observed)
    raw = shown if isinstance(shown, bytes) else str(shown).encode()
    return data.startswith(raw), repr(data[:60])


@reads("file", r"(?P<path>\S+) in the image")
def _in_image(ground: Ground, cited: Evidence, match: Match) -> Result:
    """In a container made from the image alone: neither the mounts nor the changes of the one in trouble."""
    body = json.dumps({"Image": ground.subject["Image"], "Cmd": ["true"]})
    made = ground.curl("-X", "POST", "-H", "Content-Type: application/json", "-d", body, "http://d/containers/create")
    key = json.loads(made)["Id"]
    try:
        if cited.observed == "absent":
            path = ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]
            places = [match["path"]] if "/" in match["path"] else [f"{part}/{match['path']}" for part in path]
            found = [place for place in places if _archive(ground, key, place)[0] is not None]
            return not found, str(found)
        raw = ground.curl(f"http://d/containers/{key}/archive?path={match['path']}/")
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            names = {member.name.strip("/").split("/", 1)[-1].split("/")[0] for member in tar.getmembers()[1:]}
        return len(names) == numbers(cited.observed)[0], str(names)
    finally:
        ground.curl("-X", "DELETE", f"http://d/containers/{key}?v=1")


@reads("file", r"\.{0,2}[\w-][\w./-]*|\.\./\S+")
def _in_context(ground: Ground, cited: Evidence, match: Match) -> Result:
    """A path of the build directory."""
    where = Path(str(ground.lab.vars["build"]))
    if cited.observed.startswith("outside"):
        place = os.path.abspath(where / match[0])
        return not place.startswith(f"{where}/"), place
    return not (where / match[0]).exists() and cited.expected in (*os.listdir(where), "a file of that name"), str(os.listdir(where))


def _subject_id(ground: Ground) -> str:
    return str(ground.subject["Id"])


@reads("file", r"/\S+")
def _path(ground: Ground, cited: Evidence, match: Match) -> Result:
    """A path of the host, or of the container that the finding is about, by what was seen there."""
    path, seen = match[0], cited.observed
    if seen.startswith("uid "):
        read = ground.host(f"stat -c 'uid %u gid %g mode %04a' {path}").strip()
        return read == seen, read
    if seen.endswith(" bytes"):
        read = ground.host(f"stat -c %s {path}").strip()
        return read == seen.split()[0], read
    if seen == "empty":
        read = ground.host(f"ls -A {path}")
        return read == "", read
    if seen in ("nothing there", "a socket lies there, nobody listens"):
        read = ground.host(f"test -S {path} && echo socket; ss -lxH src {path}")
        return read.split() == ([] if seen.startswith("nothing") else ["socket"]), read
    if seen == "absent on the host":
        return ground.host(f"test -e {path} || echo absent").strip() == "absent", path
    if seen in ("ENOENT", "absent"):
        if ground.found and ground.found.object.kind == "container":
            member, read = _archive(ground, _subject_id(ground), path)
            return member is None and (b"o such" in read or b"ould not find" in read), read.decode("utf-8", "replace")
        return ground.host(f"test -e {path} || echo absent").strip() == "absent", path
    if seen.startswith("mode ") or (seen == "dir" and cited.expected.startswith("a regular file")):
        member, _ = _archive(ground, _subject_id(ground), path)
        read = "gone" if member is None else "dir" if member.isdir() else f"mode {member.mode & 0o7777:04o}"
        return read == seen, read
    if seen in ("dir", "file"):
        read = ground.host(f"stat -c %F {path}").strip()
        return read.startswith({"dir": "directory", "file": "regular"}[seen]), read
    return _configuration(ground, cited, path)


def _configuration(ground: Ground, cited: Evidence, path: str) -> Result:
    """daemon.json: where it fails to parse, or keys that are in it."""
    text = ground.host(f"cat {path}")
    try:
        keys = set(json.loads(text))
    except ValueError:
        said = _run("python3", "-c", f"import json; json.loads({text!r})")
        return cited.observed in said, said[-120:]
    return bool(words(cited.observed)) and words(cited.observed) <= keys, str(keys)
