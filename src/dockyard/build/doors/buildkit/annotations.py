"""Annotations among an exporter's attributes, as buildx's --annotation writes them. Pure.

::

    annotation[-LEVEL][[PLATFORM]].KEY = value
    LEVEL: manifest (the default), manifest-descriptor, index

Source: moby/buildkit docs/annotations.md, exporter/containerimage/annotations.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dockyard.oci.archive import Annotations

__all__ = ["annotations_of", "is_annotation"]

_NAME = re.compile(r"annotation(?:-(manifest-descriptor|manifest|index))?(?:\[([^\]]*)\])?\.(.+)")


def is_annotation(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def annotations_of(attrs: Mapping[str, str], platform: str) -> Annotations:
    """Those of the image for one platform."""
    found: dict[str, dict[str, str]] = {"manifest": {}, "manifest-descriptor": {}, "index": {}}
    for name, value in attrs.items():
        match = _NAME.fullmatch(name)
        if match is not None and match[2] in (None, "", platform):
            found[match[1] or "manifest"][match[3]] = value
    return Annotations(found["manifest"], found["manifest-descriptor"], found["index"])
