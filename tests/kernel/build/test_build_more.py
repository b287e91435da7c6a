"""What other builders do not offer: squash, reproducible images, a failed step kept, an image as its own cache."""

from __future__ import annotations

import re

import pytest

from .conftest import BuildClient

pytestmark = pytest.mark.root


def test_squash(builder: BuildClient) -> None:
    text = (
        "FROM busybox\nRUN echo gone > /gone && mkdir /d && echo 1 > /d/a\nRUN rm /gone /bin/vi && echo 2 > /d/a\n"
        "RUN rm -r /home && mkdir /home && echo new > /home/x\nENV A=b\n"
    )
    plain = builder.inspect(builder.build(text, t="plain").image)
    squashed = builder.inspect(builder.build(text, t="squashed", squash="1").image)
    assert len(plain["RootFS"]["Layers"]) == 4
    assert len(squashed["RootFS"]["Layers"]) == 2
    assert squashed["RootFS"]["Layers"][0] == plain["RootFS"]["Layers"][0]
    assert squashed["Config"]["Env"] == plain["Config"]["Env"]
    check = "RUN test ! -e /gone && test ! -e /bin/vi && test $(cat /d/a) = 2 && test $(ls -A /home) = x\n"
    assert builder.build(f"FROM squashed\n{check}").image
    rows = builder.client.request("GET", "/images/squashed/history")
    assert [row["Size"] > 0 for row in rows].count(True) == 2
    assert builder.build(text, t="squashed", squash="1").image == squashed["Id"]


def test_the_same_sources_are_the_same_image(builder: BuildClient) -> None:
    """SOURCE_DATE_EPOCH: built twice without any cache, to the same digest."""
    text = (
        "ARG SOURCE_DATE_EPOCH\nFROM busybox AS one\nRUN date > /dev/null; echo x > /x; mkdir -p /d/e; ln -s x /d/l\n"
        "FROM busybox\nWORKDIR /w\nCOPY --from=one /x /d /c/\nCOPY a b/\nRUN rm /bin/vi; touch /y\nCMD x\n"
    )
    query = {"buildargs": {"SOURCE_DATE_EPOCH": "1700000000"}, "nocache": "1"}
    images = {builder.build(text, {"a": "a"}, **query).image for _ in range(2)}
    assert len(images) == 1
    found = builder.inspect(images.pop())
    assert found["Created"] == "2023-11-14T22:13:20Z"
    other = {"buildargs": {"SOURCE_DATE_EPOCH": "1600000000"}, "nocache": "1"}
    assert builder.inspect(builder.build(text, {"a": "a"}, **other).image)["Created"] == "2020-09-13T12:26:40Z"


def test_a_failed_step_is_kept_when_asked(builder: BuildClient) -> None:
    text = "FROM busybox\nENV V=1\nWORKDIR /w\nRUN echo evidence > left; exit 4\n"
    built = builder.build(text, rm="0")
    assert "returned a non-zero code: 4" in built.error
    kept = re.search(r"Kept as ([0-9a-f]{12}): docker run -it --rm \1 sh", built.text)
    assert kept
    image = builder.inspect(kept[1])
    assert image["Config"]["WorkingDir"] == "/w"
    assert builder.build(f"FROM {kept[1]}\nRUN test $(cat left) = evidence && test $V = 1\n").image
    builder.client.request("DELETE", f"/images/{kept[1]}", {"force": True})
    assert "Kept" not in builder.build(text).text


def test_a_kept_step_holds_no_secret_place(builder: BuildClient) -> None:
    text = "FROM busybox\nRUN --mount=type=tmpfs,target=/t echo hidden > /t/x; exit 1\n"
    kept = re.search(r"Kept as ([0-9a-f]{12})", builder.build(text, rm="0").text)
    assert kept
    assert builder.build(f"FROM {kept[1]}\nRUN test ! -e /t\n").image


def test_an_image_carries_its_cache_to_others(builder: BuildClient) -> None:
    text = "FROM busybox AS one\nRUN echo x > /x\nFROM busybox\nRUN echo carried > /y\nCOPY --from=one /x /z\nENV A=1\nRUN cat /y /z\n"
    first = builder.build(text, t="carrier", buildargs={"BUILDKIT_INLINE_CACHE": "1"}).image
    builder.client.request("POST", "/build/prune", {"all": "1"})
    assert builder.build(text, nocache="0").cached == 0, "nobody named the image: it is no cache"
    builder.client.request("POST", "/build/prune", {"all": "1"})
    again = builder.build(text, cachefrom=["carrier"], buildargs={"BUILDKIT_INLINE_CACHE": "1"})
    assert again.cached == 4, again.text
    assert again.image == first
    assert builder.client.request("GET", "/system/df", {"type": "build-cache"})["BuildCache"][0]["Description"] == "RUN echo x > /x"
