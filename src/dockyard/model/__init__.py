"""Model: the nouns that several rooms share. No I/O, no decisions.

- ``idmap``: ids of a user namespace and of the host.
- ``ids``: identifiers as types of their own, and how they are made and recognised.
- ``wire``: documents in Docker's JSON form: base struct, Docker's capitals, Go's way of reading JSON.
- ``container``: ContainerConfig, HostConfig and what hangs below them (Engine API 1.51 definitions of those names).
- ``network``: EndpointSettings, IPAM, NetworkingConfig.

Invariants: every noun is frozen; change makes a new value. A field's wire name is Docker's own. Zero values follow Go:
an absent string is ``""``, an absent list or map is ``None`` where Docker tells null from empty.
"""

from dockyard.model.container import (
    ContainerConfig,
    DeviceMapping,
    DeviceRequest,
    HealthConfig,
    HostConfig,
    LogConfig,
    Mount,
    PortBinding,
    RestartPolicy,
    Ulimit,
)
from dockyard.model.idmap import IdMaps, IdRange
from dockyard.model.ids import ContainerId, EndpointId, ExecId, ImageId, NetworkId, is_id_prefix, new_id
from dockyard.model.network import IPAM, EndpointIPAMConfig, EndpointSettings, IPAMConfig, NetworkingConfig
from dockyard.model.wire import Document, decode, encode

__all__ = [
    "IPAM", "ContainerConfig", "ContainerId", "DeviceMapping", "DeviceRequest", "Document", "EndpointIPAMConfig",
    "EndpointId", "EndpointSettings", "ExecId", "HealthConfig", "HostConfig", "IPAMConfig", "IdMaps", "IdRange", "ImageId",
    "LogConfig", "Mount", "NetworkId", "NetworkingConfig", "PortBinding", "RestartPolicy", "Ulimit", "decode", "encode",
    "is_id_prefix", "new_id",
]  # fmt: skip
