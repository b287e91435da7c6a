"""What is installed in an image, as an SPDX 2.3 document: Debian packages, Python distributions, npm packages.

Read from the files that the package managers keep; nothing in the image is run. What is read is bounded, and a file that
cannot be understood counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from urllib.parse import quote

from dockyard.oci import tar

from .tree import ROOT, Entry, RootTree

__all__ = ["PREDICATE_TYPE", "Package", "find_packages", "spdx"]

PREDICATE_TYPE = "https://spdx.dev/Document"
MAX_FILE = 64 << 20
"""dpkg's status of a full desktop has 5 MiB."""
MAX_PACKAGES = 100_000
_DPKG = re.compile(r"^var/lib/dpkg/(?:status|status\.d/[^/]+)$")
_PYTHON = re.compile(r"\.(?:dist-info/METADATA|egg-info/PKG-INFO)$")
_NPM = re.compile(r"(?:^|/)node_modules/(?:@[^/]+/)?[^/]+/package\.json$")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """``kind`` is its type as package URLs have it."""

    kind: str
    name: str
    version: str
    architecture: str = ""

    def url(self, distribution: str) -> str:
        name = quote(self.name, safe="/")
        if self.kind != "deb":
            return f"pkg:{self.kind}/{name}@{quote(self.version, safe='')}"
        arch = f"?arch={self.architecture}" if self.architecture else ""
        return f"pkg:deb/{distribution or 'debian'}/{name}@{quote(self.version, safe='')}{arch}"


def find_packages(root: int) -> tuple[list[Package], str]:
    """(sorted packages, the distribution's ID) of a root file system given by descriptor. Blocking."""
    tree = RootTree(root)
    found: set[Package] = set()
    for entry in tree.walk(ROOT):
        if entry.kind == tar.REG and len(found) < MAX_PACKAGES:
            found.update(_packages_in(tree, entry))
    return sorted(found), _distribution(tree)


def _packages_in(tree: RootTree, entry: Entry) -> Iterator[Package]:
    path = entry.path
    if entry.size > MAX_FILE:
        return
    if _DPKG.match(path):
        yield from debian(_text(tree, entry))
    elif _PYTHON.search(path):
        yield from python(_text(tree, entry))
    elif path.endswith("/package.json") and _NPM.search(path):
        yield from npm(_text(tree, entry))


def _text(tree: RootTree, entry: Entry) -> str:
    return b"".join(tree.read(entry)).decode("utf-8", "replace")


def debian(text: str) -> Iterator[Package]:
    """Paragraphs of dpkg's status that say "installed"; those of distroless images have no status line."""
    for paragraph in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith((" ", "\t"))
        )
        if "Package" in fields and "Version" in fields and fields.get("Status", "installed").endswith("installed"):
            if fields.get("Status", "").startswith("deinstall"):
                continue
            yield Package("deb", fields["Package"], fields["Version"], fields.get("Architecture", ""))


def python(text: str) -> Iterator[Package]:
    head = HeaderParser().parsestr(text.partition("\n\n")[0])
    if head["Name"] and head["Version"]:
        yield Package("pypi", re.sub(r"[-_.]+", "-", str(head["Name"])).lower(), str(head["Version"]))


def npm(text: str) -> Iterator[Package]:
    try:
        document = json.loads(text)
        name, version = document["name"], document["version"]
    except (ValueError, KeyError, TypeError):
        return
    if isinstance(name, str) and isinstance(version, str):
        yield Package("npm", name, version)


def _distribution(tree: RootTree) -> str:
    entry = tree.lookup("etc/os-release")
    if entry is None or entry.kind != tar.REG or entry.size > MAX_FILE:
        return ""
    found = re.search(r"^ID=\"?([a-z0-9._-]+)", _text(tree, entry), re.MULTILINE)
    return found[1] if found else ""


def spdx(name: str, packages: Iterable[Package], distribution: str, created: str) -> bytes:
    """``created`` as RFC 3339 with seconds. Same packages, same document."""
    rows = [
        {
            "name": package.name, "SPDXID": _identifier(package), "versionInfo": package.version,
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": package.url(distribution),
            }],
        }
        for package in packages
    ]  # fmt: skip
    listed = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": name,
        "documentNamespace": f"urn:dockyard:sbom:{listed}",
        "creationInfo": {"creators": ["Tool: dockyard"], "created": created}, "packages": rows,
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": row["SPDXID"]}
            for row in rows
        ],
    }  # fmt: skip
    return json.dumps(document, indent=1).encode()


def _identifier(package: Package) -> str:
    text = posixpath.join(package.kind, package.name, package.version, package.architecture)
    clean = re.sub(r"[^a-zA-Z0-9.-]+", "-", f"{package.kind}-{package.name}")
    return f"SPDXRef-Package-{clean}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
