"""What the cache finds and what it must not find, and how it is pruned."""

from __future__ import annotations

import threading

import pytest

from dockyard.errors import DockyardError

from .conftest import BuildClient

pytestmark = pytest.mark.root


def test_the_same_build_is_the_same_image(builder: BuildClient) -> None:
    text, files = "FROM busybox\nENV A=1\nRUN echo x > /x\nCOPY a /a\nWORKDIR /w\nCMD x\n", {"a": "a"}
    first = builder.build(text, files)
    again = builder.build(text, files)
    assert again.image == first.image
    assert (first.cached, again.cached) == (0, 5)
    assert "Running in" not in again.text


def test_a_changed_file_reruns_only_from_there(builder: BuildClient) -> None:
    text = "FROM busybox\nRUN echo before\nCOPY a /a\nRUN cat /a\n"
    builder.build(text, {"a": "1"})
    changed = builder.build(text, {"a": "2"})
    assert changed.cached == 1
    assert builder.build(text, {"a": "1"}).cached == 3


def test_times_and_names_outside_do_not_count(builder: BuildClient) -> None:
    text = "FROM busybox\nCOPY d /d\n"
    builder.build(text, {"d/a": "same", "other": "1"})
    assert builder.build(text, {"d/a": "same", "other": "2"}).cached == 1


def test_arg_counts_for_later_runs_only(builder: BuildClient) -> None:
    text = "FROM busybox\nRUN echo first\nARG V\nRUN echo second\n"
    builder.build(text, buildargs={"V": "1"})
    assert builder.build(text, buildargs={"V": "2"}).cached == 1
    proxied = "FROM busybox\nRUN echo proxied\n"
    builder.build(proxied, buildargs={"HTTP_PROXY": "http://a:b@one"})
    assert builder.build(proxied, buildargs={"HTTP_PROXY": "http://c:d@two"}).cached == 1


def test_a_stage_that_came_to_the_same_files_does_not_rerun_its_readers(builder: BuildClient) -> None:
    text = "FROM busybox AS one\nCOPY a /src/a\nRUN echo built > /out\nFROM busybox\nCOPY --from=one /out /out\nRUN cat /out\n"
    builder.build(text, {"a": "1"})
    again = builder.build(text, {"a": "2"})
    assert again.cached == 2, again.text


def test_copy_link_does_not_look_below(builder: BuildClient) -> None:
    text = "FROM busybox\nRUN echo {} > /v\nCOPY --link a /a\n"
    builder.build(text.format("one"), {"a": "linked"})
    assert builder.build(text.format("two"), {"a": "linked"}).cached == 1


def test_the_same_line_twice_runs_twice(builder: BuildClient) -> None:
    line = "RUN --mount=type=cache,id=twice,target=/c echo x >> /c/n\n"
    built = builder.build(f"FROM busybox\n{line}{line}RUN --mount=type=cache,id=twice,target=/c test $(wc -l < /c/n) = 2\n")
    assert built.text.count("Running in") == 3


def test_no_cache(builder: BuildClient) -> None:
    text = "FROM busybox\nRUN echo again\n"
    builder.build(text)
    assert builder.build(text, nocache="1").cached == 0


def test_a_failed_step_is_not_remembered(builder: BuildClient) -> None:
    text = "FROM busybox\nRUN --mount=type=cache,id=flip,target=/c test -e /c/go || {{ touch /c/go; exit {}; }}\n"
    assert "returned a non-zero code: 3" in builder.build(text.format(3)).error
    assert builder.build(text.format(3)).image


def test_a_pulled_image_does_not_poison(builder: BuildClient) -> None:
    """CVE-2024-24557: an image whose history claims the next step was done is no cache."""
    made = builder.client.request("POST", "/containers/create", {}, {"Image": "busybox:latest", "Cmd": ["true"]})["Id"]
    changes = {"container": made, "repo": "poison", "comment": "", "changes": "CMD evil"}
    builder.client.request("POST", "/commit", changes, {"Cmd": ["/bin/sh", "-c", "echo poisoned"]})
    builder.client.request("DELETE", f"/containers/{made}")
    assert builder.build("FROM busybox\nRUN echo poisoned\n").cached == 0


def test_prune_and_usage(builder: BuildClient) -> None:
    images = builder.client.request("GET", "/system/df", {"type": "image"})["LayersSize"]
    builder.build("FROM busybox AS a\nRUN echo kept-by-nobody > /x\nFROM busybox\nCOPY --from=a /x /y\n", t="pruned")
    rows = builder.client.request("GET", "/system/df", {"type": "build-cache"})["BuildCache"]
    added = builder.client.request("GET", "/system/df", {"type": "image"})["LayersSize"] - images
    assert added == len("kept-by-nobody\n"), "what only the cache holds is not the images'"
    unshared = [row for row in rows if "kept-by-nobody" in row["Description"]]
    assert unshared
    assert not unshared[0]["Shared"]
    assert unshared[0]["Size"] == len("kept-by-nobody\n")
    assert any(row["Shared"] and "COPY" in row["Description"] for row in rows)
    done = builder.client.request("POST", "/build/prune", {"filters": '{"until":{"24h":true}}'})
    assert done["CachesDeleted"] is None
    done = builder.client.request("POST", "/build/prune")
    assert unshared[0]["ID"] in done["CachesDeleted"]
    assert done["SpaceReclaimed"] >= unshared[0]["Size"]
    builder.client.request("POST", "/build/prune", {"all": "1"})
    assert builder.client.request("GET", "/system/df", {"type": "build-cache"})["BuildCache"] == []
    assert builder.client.request("GET", "/images/pruned/json")["RootFS"]["Layers"]
    with pytest.raises(DockyardError, match="filter"):
        builder.client.request("POST", "/build/prune", {"filters": '{"nonsense":{"x":true}}'})


def test_a_pruned_layer_is_made_again(builder: BuildClient) -> None:
    text = "FROM busybox AS a\nRUN echo again-and-again > /x\nFROM busybox\nCOPY --from=a /x /y\nRUN cat /y\n"
    builder.build(text, t="remade")
    builder.client.request("DELETE", "/images/remade")
    builder.client.request("POST", "/build/prune", {"all": "1"})
    assert "again-and-again" in builder.build(text).text


def test_identical_steps_of_concurrent_builds_run_once(builder: BuildClient) -> None:
    builder.client.request("POST", "/volumes/create", {}, {"Name": "unused"})
    text = "FROM busybox\nRUN --mount=type=cache,id=shared-run,target=/c echo x >> /c/n; sleep 1\n"
    results = []

    def work() -> None:
        own = BuildClient(builder.engine)
        results.append(own.build(text))
        own.client.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({result.image for result in results}) == 1
    check = "FROM busybox\nRUN --mount=type=cache,id=shared-run,target=/c test $(wc -l < /c/n) = 1\n"
    assert builder.build(check, nocache="1").image


def test_stages_run_side_by_side(builder: BuildClient) -> None:
    """Each stage waits for the other's file in a cache that both have: one after the other would never end."""
    wait = "RUN --mount=type=cache,id=meet,target=/c touch /c/{0}; i=0; while [ ! -e /c/{1} ] && [ $i -lt 200 ]; do sleep 0.1; i=$((i+1)); done; test -e /c/{1} && touch /{0}\n"
    text = f"FROM busybox AS a\n{wait.format('a', 'b')}FROM busybox AS b\n{wait.format('b', 'a')}"
    text += "FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    built = builder.build(text)
    assert built.image
    lines = [line for line in built.text.splitlines() if line.startswith("Step ")]
    assert [line.split()[1] for line in lines] == [f"{n}/7" for n in range(1, 8)], "the transcript is in order"
