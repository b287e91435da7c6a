"""The route table: every operation of Engine API 1.51, and those that moby serves without listing them. Of our own there
is /build/mount: a builder's cache mount as a tar.

``since`` is the API version that brought the operation. ``filters`` are the names that its ``filters`` query may have;
another one is a 400, as in moby. A row without a handler answers 501 and says so.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

NEWEST = (1, 51)
OLDEST = (1, 24)


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    handler: str
    """``module.function`` below ``api.handlers``; "" is not implemented."""
    since: tuple[int, int] = OLDEST
    filters: frozenset[str] = frozenset()
    group: str = ""


def _row(line: str, group: str) -> Route:
    method, path, handler, *rest = line.split()
    since, filters = OLDEST, frozenset[str]()
    for item in rest:
        if item.startswith("since="):
            major, _, minor = item.removeprefix("since=").partition(".")
            since = (int(major), int(minor))
        elif item.startswith("filters="):
            filters = frozenset(item.removeprefix("filters=").split(","))
    return Route(method, path, "" if handler == "-" else handler, since, filters, group)


_TABLE = {
    "system": """
        GET    /_ping                          system.ping
        HEAD   /_ping                          system.ping
        GET    /version                        system.version
        GET    /info                           system.info
        GET    /system/df                      system.disk_usage   since=1.25
        GET    /events                         system.events  \
            filters=config,container,daemon,event,image,label,network,node,plugin,scope,secret,service,type,volume
        POST   /auth                           system.auth
    """,
    "container": """
        GET    /containers/json                containers.list  \
            filters=ancestor,before,expose,exited,health,id,isolation,is-task,label,name,network,publish,since,status,volume
        POST   /containers/create              containers.create
        POST   /containers/prune               containers.prune    since=1.25 filters=label,label!,until
        GET    /containers/{id}/json           containers.inspect
        GET    /containers/{id}/top            containers.top
        GET    /containers/{id}/logs           containers.logs
        GET    /containers/{id}/changes        containers.changes
        GET    /containers/{id}/export         containers.export
        GET    /containers/{id}/stats          containers.stats
        POST   /containers/{id}/resize         containers.resize
        POST   /containers/{id}/start          containers.start
        POST   /containers/{id}/stop           containers.stop
        POST   /containers/{id}/restart        containers.restart
        POST   /containers/{id}/kill           containers.kill
        POST   /containers/{id}/update         containers.update
        POST   /containers/{id}/rename         containers.rename
        POST   /containers/{id}/pause          containers.pause
        POST   /containers/{id}/unpause        containers.unpause
        POST   /containers/{id}/attach         streams.attach
        GET    /containers/{id}/attach/ws      streams.attach_websocket
        POST   /containers/{id}/wait           containers.wait
        HEAD   /containers/{id}/archive        containers.archive_stat
        GET    /containers/{id}/archive        containers.archive_get
        PUT    /containers/{id}/archive        containers.archive_put
        GET    /containers/{id}/checkpoints    containers.checkpoint
        POST   /containers/{id}/checkpoints    containers.checkpoint
        DELETE /containers/{id}/checkpoints/{checkpoint} containers.checkpoint
        DELETE /containers/{id}                containers.remove
    """,
    "exec": """
        POST   /containers/{id}/exec           execs.create
        POST   /exec/{id}/start                streams.exec_start
        POST   /exec/{id}/resize               execs.resize
        GET    /exec/{id}/json                 execs.inspect
    """,
    "image": """
        GET    /images/json                    images.list \
            filters=before,dangling,label,reference,since,until
        POST   /images/create                  images.create
        GET    /images/search                  images.search       filters=is-automated,is-official,stars
        POST   /images/prune                   images.prune        since=1.25 filters=dangling,label,label!,until
        GET    /images/get                     images.save_many
        POST   /images/load                    images.load
        GET    /images/{name}/json             images.inspect
        GET    /images/{name}/history          images.history
        GET    /images/{name}/get              images.save
        POST   /images/{name}/push             images.push
        POST   /images/{name}/tag              images.tag
        DELETE /images/{name}                  images.remove
        POST   /commit                         images.commit
        GET    /distribution/{name}/json       images.distribution since=1.30
        POST   /build                          images.build
        POST   /build/prune                    images.build_prune  since=1.31 \
            filters=description,id,inuse,parent,private,shared,type,until,unused-for
        POST   /build/cancel                   images.build_cancel since=1.31
        GET    /build/mount                    images.build_mount
        PUT    /build/mount                    images.build_mount_fill
        POST   /session                        streams.session     since=1.31
        POST   /grpc                           streams.grpc        since=1.31
    """,
    "volume": """
        GET    /volumes                        volumes.list        filters=dangling,driver,label,name
        POST   /volumes/create                 volumes.create
        POST   /volumes/prune                  volumes.prune       since=1.25 filters=all,label,label!
        GET    /volumes/{name}                 volumes.inspect
        PUT    /volumes/{name}                 volumes.update      since=1.42
        DELETE /volumes/{name}                 volumes.remove
    """,
    "network": """
        GET    /networks                       networks.list       filters=dangling,driver,id,label,name,scope,type
        GET    /networks/                      networks.list       filters=dangling,driver,id,label,name,scope,type
        POST   /networks/create                networks.create
        POST   /networks/prune                 networks.prune      since=1.25 filters=label,label!,until
        GET    /networks/{id}                  networks.inspect
        DELETE /networks/{id}                  networks.remove
        POST   /networks/{id}/connect          networks.connect
        POST   /networks/{id}/disconnect       networks.disconnect
    """,
    "plugin": """
        GET    /plugins                        system.no_plugins   since=1.25
        GET    /plugins/privileges             -                   since=1.25
        POST   /plugins/pull                   -                   since=1.25
        POST   /plugins/create                 -                   since=1.25
        GET    /plugins/{name}/json            system.no_plugin    since=1.25
        DELETE /plugins/{name}                 -                   since=1.25
        POST   /plugins/{name}/enable          -                   since=1.25
        POST   /plugins/{name}/disable         -                   since=1.25
        POST   /plugins/{name}/upgrade         -                   since=1.26
        POST   /plugins/{name}/push            -                   since=1.25
        POST   /plugins/{name}/set             -                   since=1.25
    """,
    "swarm": """
        GET    /swarm                          system.no_swarm
        POST   /swarm/init                     -
        POST   /swarm/join                     -
        POST   /swarm/leave                    system.no_swarm
        POST   /swarm/update                   -
        GET    /swarm/unlockkey                system.no_swarm
        POST   /swarm/unlock                   system.no_swarm
        GET    /nodes                          system.no_swarm
        GET    /nodes/{id}                     system.no_swarm
        DELETE /nodes/{id}                     system.no_swarm
        POST   /nodes/{id}/update              system.no_swarm
        GET    /services                       system.no_swarm
        POST   /services/create                system.no_swarm
        GET    /services/{id}                  system.no_swarm
        DELETE /services/{id}                  system.no_swarm
        POST   /services/{id}/update           system.no_swarm
        GET    /services/{id}/logs             system.no_swarm
        GET    /tasks                          system.no_swarm
        GET    /tasks/{id}                     system.no_swarm
        GET    /tasks/{id}/logs                system.no_swarm     since=1.29
        GET    /secrets                        system.no_swarm     since=1.25
        POST   /secrets/create                 system.no_swarm     since=1.25
        GET    /secrets/{id}                   system.no_swarm     since=1.25
        DELETE /secrets/{id}                   system.no_swarm     since=1.25
        POST   /secrets/{id}/update            system.no_swarm     since=1.26
        GET    /configs                        system.no_swarm     since=1.30
        POST   /configs/create                 system.no_swarm     since=1.30
        GET    /configs/{id}                   system.no_swarm     since=1.30
        DELETE /configs/{id}                   system.no_swarm     since=1.30
        POST   /configs/{id}/update            system.no_swarm     since=1.30
    """,
}

ROUTES: tuple[Route, ...] = tuple(
    _row(line, group)
    for group, text in _TABLE.items()
    for line in re.sub(r"\\\n\s*", "", text).splitlines()
    if line.strip()
)


def _pattern(path: str) -> re.Pattern[str]:
    """``{name}`` may hold slashes (image references do), and so may a container's ``{id}`` (``/web``, the link
    ``web/db``); other parameters may not."""
    wide = {"name", "id"} if path.startswith("/containers/") else {"name"}
    escaped = re.sub(
        r"\\\{(\w+)\\\}", lambda match: f"(?P<{match[1]}>{'.+' if match[1] in wide else '[^/]+'})", re.escape(path)
    )
    return re.compile(escaped + r"\Z")


_COMPILED = [(route, _pattern(route.path)) for route in ROUTES]
CACHE = 4096
"""Recent (method, path) pairs whose route is remembered."""


@functools.lru_cache(CACHE)
def find(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The route of a decoded path without its version prefix, and its parameters."""
    for route, pattern in _COMPILED:
        if route.method == method and (match := pattern.match(path)):
            return route, match.groupdict()
    return None


_PREFIX = re.compile(r"/v(\d{1,4})\.(\d{1,4})(/.*)?\Z")


def split_version(path: str) -> tuple[tuple[int, int] | None, str]:
    """(version asked for or None, rest of the path)."""
    match = _PREFIX.match(path)
    return ((int(match[1]), int(match[2])), match[3] or "/") if match else (None, path)
