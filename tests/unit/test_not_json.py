"""Bytes that only look like JSON, to every reader of foreign documents: its own refusal, never the interpreter's."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from dockyard.doctor import bundle
from dockyard.errors import DockyardError, InvalidParameter
from dockyard.oci import Digest
from dockyard.oci.documents import parse_config, parse_index, parse_manifest
from dockyard.transfer import answers, manifests, repository
from dockyard.transfer.model import RawManifest

TEXT = b'{"mediaType":"\xff","architecture":"\xff","tags":"\xff","errors":"\xff"}'
RUBBISH = [TEXT, b'{"\xb3":', b"[" * 100_000, b'{"manifests":' * 50_000, b"", b"\xff\xfe{\0}\0"]


@pytest.mark.parametrize("data", RUBBISH, ids=range(len(RUBBISH)))
@pytest.mark.parametrize("parse", [
    parse_config, parse_manifest, parse_index, repository.read_tags,
    lambda data: manifests.parse_manifest(RawManifest("", Digest(""), data), "a/b"),
    lambda data: manifests.parse_config(data, 1, "a/b"),
])  # fmt: skip
def test_documents(parse: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(DockyardError):
        parse(data)


@pytest.mark.parametrize("data", RUBBISH, ids=range(len(RUBBISH)))
def test_what_only_describes_falls_back(data: bytes) -> None:
    assert manifests.sniff_media_type(data, "application/x; a=b") == "application/x"
    assert answers.read_error(404, data)[0] == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("data", RUBBISH, ids=range(len(RUBBISH)))
def test_bundles(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(gzip.compress(data))
    with pytest.raises(InvalidParameter, match="cannot read bundle"):
        bundle.load(str(path))
