"""The transfer room: images between this machine and registries, over the OCI distribution protocol.

Nouns: *Endpoint* (a server that may hold a repository: mirror or registry), *Session* (one account's conversation
with it: challenge, token, plain-HTTP probe), *Repository* (the protocol's requests), *Pull*, *Push* (operations),
*Feed* (their progress, as the docker CLI draws it), *ImageStore* (port: where images live), *Known* (where a layer's
blob has been seen).

Invariants, as absences: no blob is kept whole in memory, and none is read twice; no byte is stored whose digest, size
and diff id were not checked; credentials never go to a mirror nor to another host than their registry; nothing blocks
the event loop (all I/O is in bounded threads); a reader who sleeps never makes the progress grow; no bytes that have a
digest are re-encoded.
"""

from .manifests import host_platform, parse_platform
from .model import ANONYMOUS, Auth, LoginResult, Progress, SearchFilter, SearchRow, decode_auth
from .ports import BlobSource, ImageStore, LocalImage, PulledImage
from .service import Transfer, as_auth
from .settings import Proxies, Settings

__all__ = [
    "ANONYMOUS", "Auth", "BlobSource", "ImageStore", "LocalImage", "LoginResult", "Progress", "Proxies", "PulledImage",
    "SearchFilter", "SearchRow", "Settings", "Transfer", "as_auth", "decode_auth", "host_platform", "parse_platform",
]  # fmt: skip
