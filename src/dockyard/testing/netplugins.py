"""Network plugins as test programs: a NetworkDriver that makes veth pairs on a bridge of its own, and an IpamDriver that
counts. They speak the plugin protocol over a unix socket and write down what they are asked."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from dockyard.kernel import netlink_route as rt
from dockyard.kernel import netns
from dockyard.kernel.netlink import NetlinkSocket

Json = dict[str, Any]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class Plugin:
    """Answers in threads of its own. ``wrong`` maps a method to an answer that replaces the right one."""

    kinds: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.calls: list[tuple[str, Json]] = []
        self.wrong: dict[str, Json] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                status, answer = plugin.answer(self.path.strip("/"), request)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return None

            def address_string(self) -> str:
                return "unix"

        self._server = _Server(str(path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def methods(self) -> list[str]:
        return [name.partition(".")[2] for name, _ in self.calls]

    def asked(self, method: str) -> Json:
        return next(request for name, request in reversed(self.calls) if name.endswith("." + method))

    def answer(self, method: str, request: Json) -> tuple[int, Json]:
        if method == "Plugin.Activate":
            return 200, {"Implements": list(self.kinds)}
        self.calls.append((method, request))
        if method in self.wrong:
            return 200, self.wrong[method]
        handler = getattr(self, method.partition(".")[2], None)
        return (404, {}) if handler is None else (200, handler(request) or {})


class Driver(Plugin):
    """In the network namespace of the thread that makes it. No ProgramExternalConnectivity: that one is optional."""

    kinds = ("NetworkDriver",)

    def __init__(self, path: Path, host: int, *, gateway: bool = True) -> None:
        self._host = host
        self._gateway = gateway
        self._pools: dict[str, str] = {}
        super().__init__(path)

    def GetCapabilities(self, request: Json) -> Json:
        return {"Scope": "local", "ConnectivityScope": "local"}

    def CreateNetwork(self, request: Json) -> None:
        bridge = "p" + request["NetworkID"][:8]
        self._pools[request["NetworkID"]] = request["IPv4Data"][0]["Gateway"]
        with netns.entered(self._host), NetlinkSocket() as netlink:
            netlink.batch([rt.add_bridge(bridge, mac="02:00:00:00:01:01", mtu=1400, filtered=False)])

    def DeleteNetwork(self, request: Json) -> None:
        with netns.entered(self._host), NetlinkSocket() as netlink:
            netlink.batch([rt.remove_link(name="p" + request["NetworkID"][:8])])

    def CreateEndpoint(self, request: Json) -> Json:
        given = request["Interface"]
        return {
            "Interface": {} if given["MacAddress"] else {"MacAddress": "02:aa:00:00:00:" + request["EndpointID"][:2]}
        }

    def Join(self, request: Json) -> Json:
        name = request["EndpointID"][:7]
        with netns.entered(self._host), NetlinkSocket() as netlink:
            bridge = rt.link(netlink, "p" + request["NetworkID"][:8])
            assert bridge
            mac = "02:aa:00:00:00:" + request["EndpointID"][:2]
            netlink.batch([
                rt.add_veth("h" + name, mtu=1400, bridge=bridge.index, netns=self._host, peer="c" + name, mac=mac)
            ])  # fmt: skip
        answer: Json = {"InterfaceName": {"SrcName": "c" + name, "DstPrefix": "plug"}}
        if self._gateway:
            answer["Gateway"] = self._pools[request["NetworkID"]].partition("/")[0]
            answer["StaticRoutes"] = [{"Destination": "192.0.2.0/24", "RouteType": 1}]
        return answer

    def Leave(self, request: Json) -> None:
        with netns.entered(self._host), NetlinkSocket() as netlink:
            netlink.batch([rt.remove_link(name="h" + request["EndpointID"][:7])])

    def DeleteEndpoint(self, request: Json) -> None:
        return None


class Addresses(Plugin):
    """10.99.N.0/24 for the Nth network; addresses count up from 50."""

    kinds = ("IpamDriver",)

    def __init__(self, path: Path) -> None:
        self.pools = 0
        self.given: set[str] = set()
        super().__init__(path)

    def GetCapabilities(self, request: Json) -> Json:
        return {"RequiresMACAddress": False, "RequiresRequestReplay": True}

    def GetDefaultAddressSpaces(self, request: Json) -> Json:
        return {"LocalDefaultAddressSpace": "near", "GlobalDefaultAddressSpace": "far"}

    def RequestPool(self, request: Json) -> Json:
        self.pools += 1
        pool = request["Pool"] or f"10.99.{self.pools}.0/24"
        return {"PoolID": f"near/{pool}", "Pool": pool, "Data": {}}

    def ReleasePool(self, request: Json) -> None:
        return None

    def RequestAddress(self, request: Json) -> Json:
        pool = ip_network(request["PoolID"].partition("/")[2])
        gateway = (request["Options"] or {}).get("RequestAddressType") == "com.docker.network.gateway"
        if request["Address"]:
            address = request["Address"]
        elif gateway:
            address = str(pool[1])
        else:
            address = next(str(pool[number]) for number in range(50, 250) if str(pool[number]) not in self.given)
        if address in self.given:
            return {"Error": f"{address} is taken"}
        self.given.add(address)
        return {"Address": f"{address}/{pool.prefixlen}", "Data": {}}

    def ReleaseAddress(self, request: Json) -> None:
        self.given.discard(request["Address"])
