"""Words of --cache-to and --cache-from: ``type=registry,ref=x,mode=max``, or a bare reference. Pure.

Source: moby/buildkit README, "Export cache"; buildx docs/reference/buildx_build.md.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import BAD_OPTION

__all__ = ["CacheSpec", "cache_text", "parse_cache"]

_KNOWN = {
    "registry": frozenset({
        "ref", "mode", "oci-mediatypes", "image-manifest", "compression", "compression-level", "force-compression",
        "ignore-error", "registry.insecure",
    }),
    "local": frozenset({
        "src", "dest", "digest", "tag", "mode", "oci-mediatypes", "image-manifest", "compression", "compression-level",
        "force-compression", "ignore-error",
    }),
    "inline": frozenset({"mode"}),
}  # fmt: skip
_TRUE = frozenset({"1", "t", "true", "T", "TRUE", "True"})


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """``kind`` is "" for a bare reference, which stands in ``attrs["ref"]``."""

    kind: str
    attrs: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """What people know it by."""
        return self.attrs.get("ref") or self.attrs.get("dest") or self.attrs.get("src") or self.kind

    def flag(self, name: str, default: bool = False) -> bool:
        return self.attrs[name] in _TRUE if name in self.attrs else default

    def check(self) -> None:
        """Raises InvalidParameter for what is no cache that can be written or read."""
        if self.kind and self.kind not in _KNOWN:
            raise BAD_OPTION(text=f"cache type={self.kind[:100]} is not known here: registry, local and inline are")
        unknown = sorted(self.attrs.keys() - _KNOWN.get(self.kind, frozenset({"ref"})))
        if unknown:
            raise BAD_OPTION(text=f"cache type={self.kind}: unknown option {unknown[0][:100]!r}")
        if self.attrs.get("mode", "min") not in ("min", "max"):
            raise BAD_OPTION(text=f"cache type={self.kind}: mode is min or max, not {self.attrs['mode'][:100]!r}")
        if self.kind == "registry" and not self.attrs.get("ref"):
            raise BAD_OPTION(text="cache type=registry needs ref=REPOSITORY:TAG")


def parse_cache(text: str) -> CacheSpec:
    """Raises InvalidParameter."""
    if "=" not in text:
        return CacheSpec("", {"ref": text})
    attrs: dict[str, str] = {}
    for item in next(csv.reader([text]), []):
        name, equals, value = item.partition("=")
        if not equals:
            raise BAD_OPTION(text=f"invalid cache option {item[:100]!r}: NAME=VALUE is expected")
        attrs[name.strip().lower()] = value
    return CacheSpec(attrs.pop("type", "registry"), attrs)


def cache_text(kind: str, attrs: Mapping[str, str]) -> str:
    """Inverse of ``parse_cache``."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([f"type={kind}", *(f"{key}={value}" for key, value in sorted(attrs.items()))])
    return out.getvalue()
