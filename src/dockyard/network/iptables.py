"""The firewall where nftables is absent: chains of iptables, written whole by one ``iptables-restore`` per change.

The same decisions as in ``firewall`` in iptables' words. Chains of our own (DOCKYARD-*) are declared and so replaced
table by table; jumps to them are put in front of the built-in chains once; DOCKER-USER comes before ours and keeps its
rules::

    raw     PREROUTING  > DOCKYARD-RAW       packets for 127/8 from elsewhere
    nat     PREROUTING, OUTPUT (to local addresses) > DOCKYARD        POSTROUTING > DOCKYARD-POSTROUTING
    filter  FORWARD     > DOCKER-USER, DOCKYARD-FORWARD
"""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dockyard.network.coexist import USER_CHAIN
from dockyard.network.errors import KERNEL, NO_FIREWALL
from dockyard.network.model import LinkRule, Network, NetworkSettings, Published, Sandbox

COMMAND_TIMEOUT = 20.0
"""Seconds; iptables waits for the lock that all its callers share."""
_PROGRAM = {"ip": "iptables", "ip6": "ip6tables"}
_ICMP = {"ip": "icmp", "ip6": "ipv6-icmp"}
_LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1"}
_CHAINS = {
    "raw": ("DOCKYARD-RAW",), "nat": ("DOCKYARD", "DOCKYARD-POSTROUTING"), "filter": ("DOCKYARD-FORWARD",),
}  # fmt: skip
_TABLES = ("raw", "nat", "filter")


def _jumps(family: str) -> dict[str, list[tuple[str, str]]]:
    """(built-in chain, rest of the rule) by table, in the order in which they must stand."""
    own = "" if family == "ip" else "! -d ::1/128 "
    return {
        "raw": [("PREROUTING", "-j DOCKYARD-RAW")],
        "nat": [
            ("PREROUTING", "-m addrtype --dst-type LOCAL -j DOCKYARD"),
            ("OUTPUT", f"{own}-m addrtype --dst-type LOCAL -j DOCKYARD"), ("POSTROUTING", "-j DOCKYARD-POSTROUTING"),
        ],
        "filter": [("FORWARD", f"-j {USER_CHAIN}"), ("FORWARD", "-j DOCKYARD-FORWARD")],
    }  # fmt: skip


def rules(
    family: str, networks: Iterable[Network], sandboxes: Iterable[Sandbox], uplinks: Sequence[str], fwmark: str = ""
) -> dict[str, list[str]]:
    """Rules by table. Pure."""
    mine = [network for network in networks if network.subnet(family) is not None]
    ports = [item for sandbox in sandboxes for item in sandbox.published if (":" in item.address) == (family == "ip6")]
    links = [item for sandbox in sandboxes for item in sandbox.links if (":" in item.source) == (family == "ip6")]
    return {
        "raw": [f"-A DOCKYARD-RAW -d {_LOOPBACK[family]} ! -i lo -j DROP"],
        "nat": [*_translate(ports), *(row for network in mine for row in _masquerade_home(family, network)),
                *(f"-A DOCKYARD-POSTROUTING -o {network.bridge} -j RETURN" for network in mine),
                *(row for network in mine for row in _masquerade(family, network))],
        "filter": list(_forward(family, mine, ports, links, uplinks, fwmark)),
    }  # fmt: skip


def _translate(ports: Iterable[Published]) -> Iterator[str]:
    for item in ports:
        if item.direct or item.proxied:
            continue
        at = "" if item.host_ip in {"", "0.0.0.0", "::"} else f"-d {item.host_ip} "
        target = f"[{item.address}]" if ":" in item.address else item.address
        yield (
            f"-A DOCKYARD {at}-p {item.protocol} --dport {item.host_port} -j DNAT --to-destination {target}:{item.port}"
        )


def _masquerade_home(family: str, network: Network) -> Iterator[str]:
    subnet = network.subnet(family)
    assert subnet is not None
    chain = f"-A DOCKYARD-POSTROUTING -o {network.bridge}"
    yield f"{chain} -s {subnet.subnet} -m conntrack --ctstate DNAT -j MASQUERADE"
    yield f"{chain} -s {_LOOPBACK[family]} -j MASQUERADE"


def _masquerade(family: str, network: Network) -> Iterator[str]:
    subnet = network.subnet(family)
    if subnet is None or not network.masquerade or network.gateway_mode(family) not in {"nat", "nat-unprotected"}:
        return
    source = network.option(f"com.docker.network.host_{'ipv4' if family == 'ip' else 'ipv6'}")
    target = f"SNAT --to-source {source}" if source else "MASQUERADE"
    yield f"-A DOCKYARD-POSTROUTING -s {subnet.subnet} ! -o {network.bridge} -j {target}"


def _forward(
    family: str, networks: Sequence[Network], ports: Sequence[Published], links: Iterable[LinkRule],
    uplinks: Sequence[str], fwmark: str,
) -> Iterator[str]:  # fmt: skip
    add = "-A DOCKYARD-FORWARD"
    for network in networks:
        if network.icc:
            yield f"{add} -i {network.bridge} -o {network.bridge} -j ACCEPT"
    for network in networks:
        if network.internal:
            yield f"{add} -i {network.bridge} -j DROP"
            yield f"{add} -o {network.bridge} -j DROP"
    for network in networks:
        yield f"{add} -o {network.bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield from _ways_in(family, networks, fwmark)
    for item in ports:
        if item.direct or item.trusted:
            match = f"-d {item.address} -p {item.protocol} --dport {item.port} -j ACCEPT"
            every = item.direct or "*" in item.trusted
            yield from [f"{add} {match}"] if every else [f"{add} -i {name} {match}" for name in item.trusted]
    for link in links:
        yield f"{add} -s {link.source} -d {link.target} -p {link.protocol} --dport {link.port} -j ACCEPT"
    for network in networks:
        yield f"{add} -o {network.bridge} -j DROP"
    for network in networks:
        yield f"{add} -i {network.bridge} -j ACCEPT"
    for one in uplinks:
        for other in uplinks:
            yield f"{add} -i {one} -o {other} -j DROP"


def _ways_in(family: str, networks: Iterable[Network], fwmark: str) -> Iterator[str]:
    for network in networks:
        into, mode = f"-A DOCKYARD-FORWARD -o {network.bridge}", network.gateway_mode(family)
        yield f"{into} -m conntrack --ctstate DNAT -j ACCEPT"
        if fwmark:
            yield f"{into} -m mark --mark {fwmark} -j ACCEPT"
        if mode == "routed":
            yield f"{into} -p {_ICMP[family]} -j ACCEPT"
        if mode == "nat-unprotected":
            yield f"{into} -j ACCEPT"


def document(family: str, saved: str, wanted: Mapping[str, Sequence[str]]) -> str:
    """Input of ``iptables-restore --noflush``, given what ``iptables-save`` printed. Pure."""
    present, text = _by_table(saved), ""
    for table in _TABLES:
        known = present.get(table, [])
        text += f"*{table}\n" + "".join(f":{chain} - [0:0]\n" for chain in _CHAINS[table])
        if table == "filter" and not any(line.startswith(f":{USER_CHAIN} ") for line in known):
            text += f":{USER_CHAIN} - [0:0]\n"
        missing = [row for row in _jumps(family)[table] if f"-A {row[0]} {row[1]}" not in known]
        text += "".join(f"-I {chain} {rest}\n" for chain, rest in reversed(missing))
        text += "".join(f"{rule}\n" for rule in wanted[table]) + "COMMIT\n"
    return text


def intact(family: str, saved: str, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether the jumps stand and our chains have as many rules as they should: a program that restores a whole table
    takes all of them. (iptables prints rules in another form than it takes them, so they are counted.) Pure."""
    present = _by_table(saved)
    for table in _TABLES:
        known = present.get(table, [])
        ours = sum(line.startswith(tuple(f"-A {chain} " for chain in _CHAINS[table])) for line in known)
        if ours != len(wanted[table]) or any(f"-A {chain} {rest}" not in known for chain, rest in _jumps(family)[table]):
            return False
    return True


def farewell(family: str, saved: str) -> str:
    """Takes our chains and the jumps to them away; DOCKER-USER goes only if it is empty. Pure."""
    present, text = _by_table(saved), ""
    for table in _TABLES:
        known = present.get(table, [])
        used = any(line.startswith(f"-A {USER_CHAIN} ") for line in known)
        mine = [chain for chain in _CHAINS[table] if any(line.startswith(f":{chain} ") for line in known)]
        if table == "filter" and not used and any(line.startswith(f":{USER_CHAIN} ") for line in known):
            mine.append(USER_CHAIN)
        jumps = [row for row in _jumps(family)[table] if f"-A {row[0]} {row[1]}" in known]
        text += f"*{table}\n" + "".join(
            f"-D {chain} {rest}\n" for chain, rest in jumps if rest.rpartition(" ")[2] in mine
        )
        text += "".join(f"-F {chain}\n" for chain in mine) + "".join(f"-X {chain}\n" for chain in mine) + "COMMIT\n"
    return text


def _by_table(saved: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif table:
            found.setdefault(table, []).append(line.strip())
    return found


class IptablesFirewall:
    def __init__(self, settings: NetworkSettings) -> None:
        if settings.respect_host_firewall:
            raise NO_FIREWALL(cause="respect-host-firewall needs nftables")
        self._settings = settings
        self._networks: dict[str, Network] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._uplinks: Sequence[str] = ()
        self._children: deque[int] = deque(maxlen=64)
        """Processes of ours, so that what they did is not taken for another's."""

    def add_network(self, network: Network) -> None:
        self._networks[network.id] = network
        self._write()

    def remove_network(self, network: Network) -> None:
        self._networks.pop(network.id, None)
        self._write()

    def open(self, sandbox: Sandbox) -> None:
        if sandbox.published or sandbox.links:
            self._sandboxes[sandbox.container] = sandbox
            self._write()

    def shut(self, container: str, published: Sequence[Published], links: Sequence[LinkRule]) -> None:
        known = self._sandboxes.pop(container, None)
        if known is None:
            return
        kept = tuple(item for item in known.published if item not in published)
        if kept:
            self._sandboxes[container] = Sandbox(container, known.netns, kept, known.exposed, known.links)
        self._write()

    def restore(self, networks: Sequence[Network], sandboxes: Sequence[Sandbox], uplinks: Sequence[str]) -> bool:
        self._networks = {network.id: network for network in networks}
        self._sandboxes = {sandbox.container: sandbox for sandbox in sandboxes}
        self._uplinks = uplinks
        return self._write(only_if_broken=True)

    def remove(self, networks: Sequence[Network]) -> None:
        for family in self._settings.families:
            self._restore(family, farewell(family, self._saved(family)))

    def watched(self) -> Mapping[str, bool]:
        return dict.fromkeys(_TABLES, False)

    def admitting(self) -> int:
        return 0

    def close(self) -> None:
        return None

    def made(self, thread: int) -> bool:
        return thread in self._children

    def _write(self, *, only_if_broken: bool = False) -> bool:
        changed = False
        for family in self._settings.families:
            mark, saved = self._settings.bridge_accept_fwmark, self._saved(family)
            wanted = rules(family, self._networks.values(), self._sandboxes.values(), self._uplinks, mark)
            if not (only_if_broken and intact(family, saved, wanted)):
                self._restore(family, document(family, saved, wanted))
                changed = True
        return changed

    def _saved(self, family: str) -> str:
        return self._run(f"{_PROGRAM[family]}-save")

    def _restore(self, family: str, text: str) -> None:
        self._run(f"{_PROGRAM[family]}-restore", "--noflush", "--wait", text=text)

    def _run(self, *words: str, text: str = "") -> str:
        """Raises System with iptables' own sentence."""
        try:
            pipe = subprocess.PIPE
            with subprocess.Popen(words, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as child:
                self._children.append(child.pid)
                try:
                    output, told = child.communicate(text, COMMAND_TIMEOUT)
                except BaseException:
                    child.kill()
                    raise
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KERNEL(what="change the firewall", cause=str(error)) from None
        if child.returncode != 0:
            raise KERNEL(what="change the firewall", cause=(told.strip().splitlines() or ["?"])[0])
        return output
