"""Errors of Dockunit: their first words are the old tool's."""

from __future__ import annotations

from dockyard.errors import Code, InvalidParameter, NotFound, System

BAD_FILE = Code(
    "DY-UNIT-001", InvalidParameter, "Could not parse {path}: {cause}",
    hint='{{"containers": [{{"prettyName": "PHP 8", "image": "php:8", "testCommand": "phpunit"}}]}}',
)  # fmt: skip
NO_FILE = Code("DY-UNIT-002", NotFound, "No Dockunit.json in {path}", hint="give the project's directory")
NO_ENTRY = Code("DY-UNIT-003", NotFound, "There is no container {number}; Dockunit.json has {count}")
NO_SHELL = Code("DY-UNIT-004", System, "image {image} has no /bin/sh, so nothing can be run in it")
CANNOT_START = Code("DY-UNIT-005", System, "Could not start container {name}: {cause}")
NOT_PULLED = Code("DY-UNIT-006", System, "cannot pull {image}: {cause}", hint="dockyard doctor image {image}")
STUB_FAILED = Code("DY-UNIT-007", System, "Could not start stub {name}: {cause}")
NO_PIPELINE = Code(
    "DY-UNIT-008", NotFound, "No pipeline.yaml in {path}", hint="dockyard pipeline --example shows one; --file names another"
)
NO_STAGE = Code("DY-UNIT-009", NotFound, "There is no stage {name}; the pipeline has {known}")
NOTHING_KEPT = Code("DY-UNIT-010", NotFound, "stage {stage} left no {path} to keep")
BAD_PIPELINE = Code(
    "DY-UNIT-011", InvalidParameter, "Could not parse {path}: {cause}", hint="dockyard pipeline --example shows one"
)
