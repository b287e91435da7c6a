"""The oci room: documents, references, digests, tar and layer rules of images.

Nouns: *Digest* (content address), *ImageRef* (normalised name), *Descriptor*, *Manifest*, *Index*, *ImageConfig*
(documents; what is digested keeps its raw bytes beside the parsed view), *TarHeader* (one archive member), *whiteout*
(a layer's word for "deleted below").

Invariants, as absences: never does I/O, never knows Dockyard's own state, never trusts a size, a digest or a path that
came from outside without having checked it, never re-encodes a document that has a digest.
"""

from .digest import Digest, algorithm_of, chain_ids, hex_of, is_digest, parse_digest, sha256_of
from .documents import ImageConfig, Manifest, parse_config, parse_manifest
from .reference import DEFAULT_DOMAIN, DEFAULT_TAG, ImageRef, parse_reference, parse_tag

__all__ = [
    "DEFAULT_DOMAIN", "DEFAULT_TAG", "Digest", "ImageConfig", "ImageRef", "Manifest", "algorithm_of", "chain_ids",
    "hex_of", "is_digest", "parse_config", "parse_digest", "parse_manifest", "parse_reference", "parse_tag",
    "sha256_of",
]  # fmt: skip
