"""The packages of a tree, and attestations in an archive."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dockyard.build.doors.buildkit.attests import explicit, told
from dockyard.build.sbom import Package, find_packages, npm, spdx
from dockyard.errors import NotImplementedYet
from dockyard.oci.archive import ArchiveContent, SavedImage, plan_load, save_documents
from dockyard.oci.attestations import Attestation

FILES = {
    "etc/os-release": 'NAME="Debian"\nID=debian\n',
    "var/lib/dpkg/status": "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nArchitecture: amd64\n\n"
    "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: half\nStatus: install ok half-configured\n"
    "Version: 1\nDescription: x\n Package: inside\n",
    "var/lib/dpkg/status.d/base": "Package: distroless\nVersion: 9\n",
    "usr/lib/python3/x-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: My_Dist.Name\nVersion: 1.5\n\nName: body\n",
    "app/node_modules/@scope/lib/package.json": '{"name": "@scope/lib", "version": "3.1.0"}',
    "app/node_modules/lib/test/package.json": '{"name": "no-package", "version": "1"}',
    "app/package.json": '{"name": "app", "version": "1"}',
    "app/node_modules/broken/package.json": "{",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "loop").symlink_to("/")
    return tmp_path


def test_packages_are_found_where_their_managers_keep_them(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        packages, distribution = find_packages(fd)
    finally:
        os.close(fd)
    assert packages == [
        Package("deb", "a", "1:2-3", "amd64"), Package("deb", "distroless", "9"), Package("npm", "@scope/lib", "3.1.0"),
        Package("pypi", "my-dist-name", "1.5"),
    ]  # fmt: skip
    document = json.loads(spdx("image", packages, distribution, "2026-01-01T00:00:00Z"))
    urls = [row["externalRefs"][0]["referenceLocator"] for row in document["packages"]]
    assert urls == [
        "pkg:deb/debian/a@1%3A2-3?arch=amd64", "pkg:deb/debian/distroless@9", "pkg:npm/%40scope/lib@3.1.0",
        "pkg:pypi/my-dist-name@1.5",
    ]  # fmt: skip
    identifiers = {row["SPDXID"] for row in document["packages"]}
    assert identifiers == {row["relatedSpdxElement"] for row in document["relationships"]}


@pytest.mark.parametrize("text", ["", "[]", "3", '{"name": 1, "version": "1"}', '{"name": "x"}'])
def test_what_is_no_package_counts_as_not_there(text: str) -> None:
    assert not list(npm(text))


def test_attestations_come_back_with_the_image_they_are_about() -> None:
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    image = SavedImage(
        config, (), (("docker.io/library/a:1", "a:1"),), 0, (Attestation("https://example/type", b'{"x": 1}'),)
    )
    documents = {name: data for name, (data, _) in save_documents([image]).items()}
    only_layout = {name: data for name, data in documents.items() if name not in ("manifest.json", "repositories")}
    (planned,) = plan_load(ArchiveContent(only_layout, frozenset()))
    assert planned.config == config
    assert planned.names == ("docker.io/library/a:1",)
    statement = next(json.loads(raw) for kind, raw in planned.documents if kind == "application/vnd.in-toto+json")
    assert statement["predicate"] == {"x": 1}
    assert statement["subject"][0]["name"] == "pkg:docker/a@1"
    assert f"blobs/sha256/{statement['subject'][0]['digest']['sha256']}" in documents


def test_only_what_was_asked_for_by_name_is_carried() -> None:
    assert explicit({"attest:provenance": "mode=min,inline-only=true", "attest:sbom": "disabled=true"}) == set()
    assert explicit({"attest:provenance": "mode=max", "attest:sbom": "generator=docker/buildkit-syft-scanner:stable-1"}) == {
        "provenance", "sbom",
    }  # fmt: skip
    for bad in ({"attest:sbom": "generator=x/y"}, {"attest:other": ""}):
        with pytest.raises(NotImplementedYet):
            told(bad)
