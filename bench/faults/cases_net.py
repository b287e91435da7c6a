"""Network cases: forwarding, filters, masquerade, links, neighbours, sizes, address plans."""

from __future__ import annotations

from bench.faults.case import Case
from bench.faults.lab import OUTSIDE, Lab, enter


def web(lab: Lab) -> None:
    """Two containers on a network of their own."""
    lab.network("shop", Options={"com.docker.network.bridge.name": "br-shop"})
    lab.serve("web", 80, NetworkMode="shop")
    lab.run("client", HostConfig={"NetworkMode": "shop"})


def out(lab: Lab) -> bool:
    return lab.fetches("client", OUTSIDE)


def shell(script: str) -> object:
    def step(lab: Lab) -> None:
        lab.sh(script)

    return step


def neighbours(lab: Lab) -> bool:
    address = lab.inspect("web")["NetworkSettings"]["Networks"]["shop"]["IPAddress"]
    return lab.connects("client", address, 80)


def veth(lab: Lab, name: str) -> str:
    """Host end of a container's link."""
    pid = lab.inspect(name)["State"]["Pid"]
    index = enter(pid, "ip", "-o", "link", "show", "eth0").split("@if")[1].split(":")[0]
    return lab.sh(f"ip -o link | awk -F': ' '$1 == {index} {{print $2}}'").split("@")[0].strip()


def _nomaster(lab: Lab) -> None:
    lab.sh(f"ip link set {veth(lab, 'client')} nomaster")


def _master(lab: Lab) -> None:
    lab.sh(f"ip link set {veth(lab, 'client')} master br-shop")


def _veth(state: str) -> object:
    def step(lab: Lab) -> None:
        lab.sh(f"ip link set {veth(lab, 'client')} {state}")

    return step


def _bad_neighbour(lab: Lab) -> None:
    address = lab.inspect("web")["NetworkSettings"]["Networks"]["shop"]["IPAddress"]
    _in_client(lab, f"ip neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud permanent")


def _good_neighbour(lab: Lab) -> None:
    address = lab.inspect("web")["NetworkSettings"]["Networks"]["shop"]["IPAddress"]
    _in_client(lab, f"ip neigh del {address} dev eth0 || true")


def _in_client(lab: Lab, script: str) -> None:
    enter(lab.inspect("client")["State"]["Pid"], "sh", "-c", script)


def _flush(lab: Lab) -> None:
    lab.vars["rules"] = lab.sh("iptables-save")
    lab.sh("nft flush ruleset; iptables -P FORWARD ACCEPT")


def _restore(lab: Lab) -> None:
    (lab.root / "rules").write_text(lab.vars["rules"])
    lab.sh(f"iptables-restore < {lab.root}/rules")


def _masquerade(action: str) -> object:
    def step(lab: Lab) -> None:
        subnet = lab.client.request("GET", "/networks/shop")["IPAM"]["Config"][0]["Subnet"]
        lab.sh(f"iptables -t nat {action} POSTROUTING -s {subnet} ! -o br-shop -j MASQUERADE")

    return step


def resolves(lab: Lab) -> bool:
    return lab.exec("client", "nslookup", "example.org", OUTSIDE)


def _rule(rule: str) -> dict[str, object]:
    """Inject and undo of one iptables rule."""
    return {"inject": shell(f"iptables -I {rule}"), "undo": shell(f"iptables -D {rule}")}


CASES = [
    Case(
        "NET-01",
        "net.ipv4.ip_forward",
        web,
        out,
        shell("sysctl -qw net.ipv4.ip_forward=0"),
        shell("sysctl -qw net.ipv4.ip_forward=1"),
    ),
    Case(
        "NET-01",
        "shop",
        web,
        out,
        shell("sysctl -qw net.ipv4.conf.br-shop.forwarding=0"),
        shell("sysctl -qw net.ipv4.conf.br-shop.forwarding=1"),
        name="NET-01/bridge",
    ),
    Case("NET-03", "shop", web, out, name="NET-03/rule", **_rule("FORWARD -i br-shop -j DROP")),
    Case("NET-03", "shop", web, out, name="NET-03/user", engines=("dockerd",), **_rule("DOCKER-USER -i br-shop -j DROP")),
    Case(
        "NET-03",
        "shop",
        web,
        out,
        shell("nft 'add table inet fw; add chain inet fw f { type filter hook forward priority 10; policy drop; }'"),
        shell("nft delete table inet fw"),
        name="NET-03/nft-policy",
    ),
    Case(
        "NET-03",
        "shop",
        web,
        out,
        name="NET-03/replies",
        **_rule("FORWARD -i up0 -o br-shop -m conntrack --ctstate ESTABLISHED -j DROP"),
    ),
    # Dockyard's engine puts its rules back at once, so these two faults do not last on it.
    Case("NET-04", "firewall rules", web, out, _flush, _restore, engines=("dockerd",)),
    Case("NET-05", "shop", web, out, _masquerade("-D"), _masquerade("-I"), engines=("dockerd",)),
    Case("NET-10", "client", web, out, _nomaster, _master, name="NET-10/nomaster"),
    Case("NET-10", "client", web, out, _veth("down"), _veth("up"), name="NET-10/veth-down"),
    Case(
        "NET-10",
        "shop",
        web,
        out,
        shell("ip link set br-shop down"),
        shell("ip link set br-shop up"),
        name="NET-10/bridge-down",
    ),
    Case("NET-12", "web", web, neighbours, _bad_neighbour, _good_neighbour),
    Case(
        "NET-14",
        "shop",
        web,
        neighbours,
        name="NET-14",
        inject=shell("iptables -I FORWARD -i br-shop -o br-shop -j DROP"),
        undo=shell("iptables -D FORWARD -i br-shop -o br-shop -j DROP"),
    ),
    Case("DNS-03", "shop", web, resolves, **_rule("FORWARD -i br-shop -p udp --dport 53 -j DROP")),
]
