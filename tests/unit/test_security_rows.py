"""The known attacks of the two reports (engine.md section 4.2, build-image.md section 1.3), each with the tests that prove
our answer to it. A row whose test has gone, or a row without one, fails here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SECURITY, FAILURES, CACHE = "kernel/build/test_build_security.py", "kernel/build/test_build_failures.py", "kernel/build/test_build_cache.py"
LAYERS, SAFE, CONTEXT = "unit/test_oci_layers.py", "unit/test_kernel_safefs.py", "unit/test_build_context.py"

ROWS: dict[str, tuple[tuple[str, str], ...]] = {
    # engine.md 4.2
    "CVE-2018-15664: cp races a symlink": ((SAFE, "test_a_racing_swap_never_shows_the_outside"),),
    "CVE-2019-14271: libraries of the container after a chroot": (("unit/test_security_rows.py", "test_no_code_of_ours_enters_a_root"),),
    "CVE-2026-41567: helpers looked up in the image": ((CONTEXT, "test_no_helper_program_is_looked_up"),),
    "CVE-2026-42306: mount target swapped": (
        (SECURITY, "test_a_mount_source_is_resolved_in_its_stage"), (SAFE, "test_absolute_links_mean_the_root"),
    ),
    "CVE-2026-17106, CVE-2025-4517: links of a tar": (
        (LAYERS, "test_contained"), (LAYERS, "test_refused"), (FAILURES, "test_hostile_contexts_are_refused"),
        (FAILURES, "test_links_of_a_context_lead_nowhere"),
    ),
    "CVE-2024-21626: a leaked descriptor as working directory": ((SECURITY, "test_descriptors_of_the_daemon_do_not_reach_a_step"),),
    "CVE-2021-21284, CVE-2021-41091: the data root is nobody else's": ((SECURITY, "test_the_data_root_is_closed_to_others"),),
    "CVE-2021-21285: malformed digests": (("unit/test_oci_reference.py", "test_digest_must_be_whole"),),
    "CVE-2022-24769: inheritable capabilities": (("kernel/runtime/test_runtime_spec.py", '"CapInh:'),),
    "CVE-2024-24557: the cache poisoned by a pulled image": ((CACHE, "test_a_pulled_image_does_not_poison"),),
    "CVE-2024-23650: crashes on bad input": (
        ("unit/test_buildkit_door.py", "test_foreign_llb_and_frontends_are_refused_clearly"),
        ("unit/test_buildkit_door.py", "test_options_that_cannot_be_read_are_refused"),
    ),
    "CVE-2024-23651: a source inside a cache is swapped": ((SECURITY, "test_a_cache_subpath_stays_in_its_cache"),),
    "CVE-2024-23652: the cleaner of stubs": ((SECURITY, "test_stubs_are_never_removed_through_a_link"),),
    "CVE-2024-23653: more rights than were granted": (
        ("unit/test_build_solver.py", "test_entitlements"), (SECURITY, "test_rights_that_were_not_granted_are_refused"),
        (SECURITY, "test_a_step_has_no_more_rights_than_a_container"),
    ),
    "CVE-2026-33747: a frontend writes outside": (("unit/test_buildkit_door.py", "test_a_hostile_list_of_files_is_refused"),),
    "CVE-2026-33748: a link as the subdirectory of a repository": ((SECURITY, "test_git_contexts"),),
    "CVE-2024-41110, CVE-2026-34040: a body that the authorizer did not see": (
        ("contract/test_api_authz.py", "test_no_body_is_acted_on_unseen"),
    ),
    "CVE-2026-46680: a number as a name": (("unit/test_runtime_security.py", "test_users"),),
    "CVE-2020-15257: abstract sockets": ((SECURITY, "test_the_daemon_listens_on_paths_only"),),
    # build-image.md 1.3
    "CVE-2021-29136: names that lead out": ((LAYERS, "test_contained"), (FAILURES, "test_hostile_contexts_are_refused")),
    "GHSA-c72p-9xmj-rx3w: chmod through a link": ((SAFE, "test_write_replaces_and_never_writes_through"),),
    "GHSA-259w-8hf6-59c2: reads without a bound": ((SAFE, "test_read_has_a_limit_and_wants_a_file"),),
    "CVE-2025-58183, CVE-2026-32288: sparse maps": ((CONTEXT, "test_a_sparse_map_is_refused"),),
    "CVE-2024-9676: accounts read through a link": ((SECURITY, "test_accounts_are_not_read_outside"),),
    "CVE-2024-1753, CVE-2024-9407: mount options of a build": ((SECURITY, "test_a_mount_source_is_resolved_in_its_stage"),),
    "device nodes and whiteouts of a context": (
        (CONTEXT, "test_an_archive_keeps_links_owners_and_devices"), (FAILURES, "test_a_whiteout_in_a_context_deletes_nothing"),
    ),
    "decompression bombs": ((CONTEXT, "test_a_compressed_bomb_stops_at_the_limit"),),
    # what the builder's issue asks of bad input
    "contexts that never end": ((CONTEXT, "test_an_endless_context_is_refused"), (CONTEXT, "test_too_many_entries_are_refused")),
    "a Dockerfile of 100 MB": ((FAILURES, "test_a_huge_dockerfile_is_refused"),),
    "cycles": (
        (FAILURES, "test_bad_dockerfiles_have_a_status_and_a_line"), ("kernel/build/test_build_cases.py", "test_a_context_whose_links_loop"),
    ),
    "unknown instructions": ((FAILURES, "test_bad_dockerfiles_have_a_status_and_a_line"),),
    "passwords in an image": ((SECURITY, "test_a_proxy_password_is_in_no_image"),),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_its_test(row: str) -> None:
    assert ROWS[row]
    for file, name in ROWS[row]:
        text = (TESTS / file).read_text()
        wanted = rf"^(async )?def {name}\(" if name.startswith("test_") else re.escape(name)
        assert re.search(wanted, text, re.MULTILINE), f"{file} has no {name}"


def test_no_code_of_ours_enters_a_root() -> None:
    """After a chroot any import, codec or account lookup may load the container's files."""
    source = TESTS.parent / "src/dockyard"
    assert [str(file) for file in source.rglob("*.py") if re.search(r"\bos\.chroot\(|\blibc\.chroot\b", file.read_text())] == []
    rooms = [file for room in ("build", "runtime", "storage", "kernel", "engine", "oci") for file in (source / room).rglob("*.py")
             if file.name != "remap.py"]  # at the engine's start, before any container
    assert [str(file) for file in rooms if re.search(r"^\s*(import|from) (pwd|grp)\b", file.read_text(), re.MULTILINE)] == []
