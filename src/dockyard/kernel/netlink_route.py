"""rtnetlink: links, addresses, routes and neighbours, as messages for a batch and as dumps (rtnetlink(7)).

``add_*`` and ``remove_*`` build messages and touch nothing; ``links``, ``addresses``, ``routes`` ask the kernel.
A link is named by its name in messages that create it and by its index elsewhere; indexes live in one namespace.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address

from dockyard.kernel.netlink import CREATE, DUMP, EXCL, REPLACE, Attribute, Message, NetlinkSocket, attributes
from dockyard.kernel.netlink import pack_attributes as pack

__all__ = [
    "Interface", "Link", "Network", "Route", "add_address", "add_bridge", "add_macvlan", "add_route", "add_veth",
    "addresses", "change_link", "index_of", "link", "links", "remove_address", "remove_link", "routes", "set_bridge_port",
]  # fmt: skip

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _GETROUTE = 24, 26

# linux/if_link.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_NET_NS_FD, IFLA_AF_SPEC = 28, 26
_ONE_QUEUE: tuple[tuple[int, int], ...] = ((31, 1), (32, 1))
"""IFLA_NUM_TX_QUEUES and _RX_: left to itself the kernel gives a veth a queue, an object and files in sysfs per CPU that
it could have (0.15 ms of 0.6 with two CPUs). They serve XDP only: a veth sends without a lock and without a queue."""
_ADDR_GEN_MODE = 8
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER = 1
_BR_NF_CALL_IPTABLES, _BR_NF_CALL_IP6TABLES = 36, 37
_BRPORT_MODE, _BRPORT_ISOLATED = 4, 33
_MACVLAN_MODE = 1
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IFF_UP = 1
_IFA_F_NODAD = 0x02
_TABLE_MAIN, _PROTO_BOOT, _UNICAST = 254, 3, 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    kind: str
    """rtnl kind: bridge, veth, macvlan; "" for hardware."""
    mtu: int
    mac: str
    up: bool
    master: int


@dataclass(frozen=True, slots=True)
class Route:
    destination: Network | None
    """None for a default route."""
    gateway: Address | None
    oif: int
    scope_link: bool
    metric: int


def _link_body(index: int, attrs: Sequence[Attribute], up: bool | None = None) -> bytes:
    flags = 0 if up is None else int(up)
    return struct.pack("=BxHiII", 0, 0, index, flags, 0 if up is None else _IFF_UP) + pack(attrs)


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", "").replace("-", ""))


def _new_link(name: str, kind: str, data: Sequence[Attribute], attrs: Sequence[Attribute], up: bool = False) -> Message:
    info: list[Attribute] = [(_INFO_KIND, kind)]
    if data:
        info.append((_INFO_DATA, data))
    body = _link_body(0, [(IFLA_IFNAME, name), *attrs, (IFLA_LINKINFO, info)], True if up else None)
    return Message(_NEWLINK, CREATE | EXCL, body, f"create {kind} {name}")


def add_bridge(name: str, *, mac: str, mtu: int, filtered: bool) -> Message:
    """``filtered``: frames between ports pass the ip and ip6 hooks whatever the namespace's br_netfilter sysctl says.
    The MAC is fixed, or the bridge would take its lowest port's and change it as containers come and go."""
    data: list[Attribute] = [(k, bytes([filtered])) for k in (_BR_NF_CALL_IPTABLES, _BR_NF_CALL_IP6TABLES)]
    return _new_link(name, "bridge", data, [(IFLA_ADDRESS, mac_bytes(mac)), (IFLA_MTU, mtu)], up=True)


def add_veth(name: str, *, mtu: int, bridge: int, netns: int, peer: str, mac: str) -> Message:
    """A pair in one message: ``name`` here, a port of ``bridge`` and up; ``peer`` in the namespace of the file
    descriptor ``netns``, with its MAC. The peer comes up by a message in its own namespace."""
    inner = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + pack(
        [(IFLA_IFNAME, peer), (IFLA_ADDRESS, mac_bytes(mac)), (IFLA_MTU, mtu), (IFLA_NET_NS_FD, netns), *_ONE_QUEUE]
    )
    attrs: list[Attribute] = [(IFLA_MTU, mtu), (IFLA_MASTER, bridge), *_ONE_QUEUE]
    return _new_link(name, "veth", [(_VETH_PEER | 0x8000, inner)], attrs, up=True)


def add_pair(name: str, *, peer: str) -> Message:
    """A veth pair with both ends in this namespace."""
    inner = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + pack([(IFLA_IFNAME, peer)])
    return _new_link(name, "veth", [(_VETH_PEER | 0x8000, inner)], [])


def add_macvlan(name: str, *, parent: int, mode: str, mtu: int, netns: int, mac: str) -> Message:
    attrs: list[Attribute] = [(IFLA_LINK, parent), (IFLA_NET_NS_FD, netns)]
    attrs += [(IFLA_MTU, mtu)] if mtu else []
    attrs += [(IFLA_ADDRESS, mac_bytes(mac))] if mac else []
    return _new_link(name, "macvlan", [(_MACVLAN_MODE, MACVLAN_MODES[mode])], attrs)


IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}


def add_ipvlan(name: str, *, parent: int, mode: str, flag: str, mtu: int, netns: int) -> Message:
    attrs: list[Attribute] = [(IFLA_LINK, parent), (IFLA_NET_NS_FD, netns)]
    attrs += [(IFLA_MTU, mtu)] if mtu else []
    ipvlan_mode, ipvlan_flags = 1, 2
    data: list[Attribute] = [
        (ipvlan_mode, struct.pack("=H", IPVLAN_MODES[mode])), (ipvlan_flags, struct.pack("=H", IPVLAN_FLAGS[flag])),
    ]  # fmt: skip
    return _new_link(name, "ipvlan", data, attrs)


def add_vlan(name: str, *, parent: int, tag: int) -> Message:
    vlan_id = 1
    return _new_link(name, "vlan", [(vlan_id, struct.pack("=H", tag))], [(IFLA_LINK, parent)], up=True)


def add_dummy(name: str) -> Message:
    return _new_link(name, "dummy", [], [], up=True)


def change_link(
    index: int,
    *,
    up: bool | None = None,
    mtu: int = 0,
    master: int | None = None,
    name: str = "",
    mac: str = "",
    netns: int = -1,
) -> Message:
    attrs: list[Attribute] = []
    attrs += [(IFLA_MTU, mtu)] if mtu else []
    attrs += [(IFLA_MASTER, master)] if master is not None else []
    attrs += [(IFLA_IFNAME, name)] if name else []
    attrs += [(IFLA_ADDRESS, mac_bytes(mac))] if mac else []
    attrs += [(IFLA_NET_NS_FD, netns)] if netns >= 0 else []
    return Message(_NEWLINK, 0, _link_body(index, attrs, up), f"change link {index}")


def link_up(name: str) -> Message:
    """By name: saves the look-up of the index right after the link was made in another namespace."""
    return Message(_NEWLINK, 0, _link_body(0, [(IFLA_IFNAME, name)], True), f"set link {name} up")


def set_bridge_port(name: str, *, hairpin: bool, isolated: bool = False) -> Message:
    """Hairpin: a frame may leave by the port it came from. With br_netfilter on, a container's packet to its own
    published port is sent back at the bridge, not routed, and is lost without this. Isolated ports reach the bridge
    and ports that are not isolated, never each other. A port needs no link-local address of its own."""
    flags: list[Attribute] = [(_BRPORT_MODE, bytes([hairpin])), (_BRPORT_ISOLATED, bytes([isolated]))]
    info: list[Attribute] = [(_INFO_SLAVE_KIND, "bridge"), (_INFO_SLAVE_DATA, flags)]
    no_address: list[Attribute] = [(socket.AF_INET6, [(_ADDR_GEN_MODE, b"\1")])]
    body = _link_body(0, [(IFLA_IFNAME, name), (IFLA_LINKINFO, info), (IFLA_AF_SPEC, no_address)])
    return Message(_NEWLINK, 0, body, f"set bridge port {name}")


def remove_link(*, index: int = 0, name: str = "") -> Message:
    attrs: list[Attribute] = [(IFLA_IFNAME, name)] if name else []
    what = f"remove link {name or index}"
    return Message(_DELLINK, 0, _link_body(index, attrs), what, frozenset({errno.ENODEV}))


def _address(kind: int, flags: int, index: int, address: Interface, what: str, ignore: int) -> Message:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.ip.packed
    attrs: list[Attribute] = [(1, packed), (2, packed)]
    if address.version == 4 and address.network.prefixlen < 31:
        attrs.append((4, address.network.broadcast_address.packed))
    head = struct.pack("=BBBBi", family, address.network.prefixlen, _IFA_F_NODAD, 0, index)
    return Message(kind, flags, head + pack(attrs), f"{what} address {address}", frozenset({ignore}))


def add_address(index: int, address: Interface) -> Message:
    """Without duplicate address detection: IPAM is the only writer, and a tentative address cannot be bound yet."""
    return _address(_NEWADDR, CREATE | EXCL, index, address, "add", errno.EEXIST)


def remove_address(index: int, address: Interface) -> Message:
    return _address(_DELADDR, 0, index, address, "remove", errno.EADDRNOTAVAIL)


def add_route(destination: Network | None, *, oif: int, gateway: Address | None = None, version: int = 4) -> Message:
    """``destination`` None is the default route (of ``version``). An equal route is replaced."""
    version = destination.version if destination else gateway.version if gateway else version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    prefix = destination.prefixlen if destination else 0
    scope = _SCOPE_UNIVERSE if gateway or version == 6 else _SCOPE_LINK
    attrs: list[Attribute] = [(4, oif)]
    attrs += [(1, destination.network_address.packed)] if destination else []
    attrs += [(5, gateway.packed)] if gateway else []
    head = struct.pack("=BBBBBBBBI", family, prefix, 0, 0, _TABLE_MAIN, _PROTO_BOOT, scope, _UNICAST, 0)
    return Message(_NEWROUTE, CREATE | REPLACE, head + pack(attrs), f"add route {destination or 'default'}")


def remove_default_route(version: int) -> Message:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    delroute, nowhere = 25, 255
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _TABLE_MAIN, 0, nowhere, 0, 0)
    return Message(delroute, 0, head, "remove default route", frozenset({errno.ESRCH, errno.ENETUNREACH, errno.ENOENT}))


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
    found = attributes(body[16:])
    info = attributes(found.get(IFLA_LINKINFO, b""))
    number = struct.Struct("=I").unpack
    return Link(
        index=index,
        name=found.get(IFLA_IFNAME, b"\0")[:-1].decode(),
        kind=info.get(_INFO_KIND, b"").rstrip(b"\0").decode(),
        mtu=number(found[IFLA_MTU])[0] if IFLA_MTU in found else 0,
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        up=bool(flags & _IFF_UP),
        master=number(found[IFLA_MASTER])[0] if IFLA_MASTER in found else 0,
    )


def links(netlink: NetlinkSocket) -> list[Link]:
    answers = netlink.request(Message(_GETLINK, DUMP, _link_body(0, []), "list links"))
    return [_parse_link(body) for _, body in answers]


def index_of(name: str) -> int:
    """Of a link in this thread's namespace; 0 if there is none. A tenth of what ``link`` takes."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def link(netlink: NetlinkSocket, name: str) -> Link | None:
    body = _link_body(0, [(IFLA_IFNAME, name)])
    answers = netlink.request(Message(_GETLINK, 0, body, f"look up link {name}", frozenset({errno.ENODEV})))
    return _parse_link(answers[0][1]) if answers else None


def addresses(netlink: NetlinkSocket) -> list[tuple[int, Interface]]:
    """(link index, address/prefix) of both families."""
    found: list[tuple[int, Interface]] = []
    for _, body in netlink.request(Message(_GETADDR, DUMP, struct.pack("=BBBBi", 0, 0, 0, 0, 0), "list addresses")):
        family, prefix, _, _, index = struct.unpack_from("=BBBBi", body)
        attrs = attributes(body[8:])
        packed = attrs.get(2) or attrs.get(1)
        if packed and family in (socket.AF_INET, socket.AF_INET6):
            make = IPv4Interface if family == socket.AF_INET else IPv6Interface
            found.append((index, make((packed, prefix))))
    return found


def routes(netlink: NetlinkSocket, version: int = 4) -> list[Route]:
    """The main table."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
    found: list[Route] = []
    number = struct.Struct("=I").unpack
    for _, body in netlink.request(Message(_GETROUTE, DUMP, head, "list routes")):
        _, prefix, _, _, table, _, scope, kind = struct.unpack_from("=BBBBBBBB", body)
        attrs = attributes(body[12:])
        if table != _TABLE_MAIN or kind != _UNICAST:
            continue
        make = IPv4Network if version == 4 else IPv6Network
        gateway = ip_address(attrs[5]) if 5 in attrs else None
        oif = number(attrs[4])[0] if 4 in attrs else 0
        metric = number(attrs[6])[0] if 6 in attrs else 0
        destination = make((attrs[1], prefix)) if 1 in attrs else None
        found.append(Route(destination, gateway, oif, scope == _SCOPE_LINK, metric))
    return found
