"""Circuits, outliers, retry budget and slow start: judged from counters, then on a real HAProxy with servers that fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.cli.compose.session import balancer_of
from dockyard.compose import traffic
from dockyard.compose.balancer import Balancer
from dockyard.compose.circuit import NOBODY, Count, Judge
from dockyard.compose.layout import BUCKETS, Balanced, Layout
from dockyard.compose.observe import read_container
from dockyard.errors import Conflict
from dockyard.testing.balanced import Rig, Server, free_port


def judge(**terms: Any) -> Judge:
    return Judge(Layout("shop", {"*:80": [Balanced("web", "*:80", 80, **terms)]}))


def totals(*slots: tuple[int, int], retries: int = 0) -> dict[tuple[str, str], Count]:
    """(requests, failed) of each slot, and of the backend as their sum."""
    found = {("b_web", f"s{number}"): Count(*one) for number, one in enumerate(slots, 1)}
    whole = Count(sum(one[0] for one in slots), sum(one[1] for one in slots), retries)
    return {**found, ("b_web", "BACKEND"): whole}


def test_a_circuit_opens_tries_and_closes() -> None:
    one, slots = judge(eject=0.0), [("b_web", 1)]
    assert one.look(0.0, totals((0, 0)), slots).told == []
    assert one.look(1.0, totals((19, 19)), slots).states == {}, "less than the volume says nothing"
    opened = one.look(2.0, totals((40, 20)), slots)
    assert opened.states == {"b_web": "open", "b_web/opened": "1"}
    assert opened.told == ["web: circuit open (50 % of 40 requests failed)"]
    assert one.look(6.9, totals((40, 20)), slots).states == {}
    assert one.look(7.0, totals((40, 20)), slots).states == {"b_web": "half-open"}
    assert one.look(7.5, totals((41, 21)), slots).states == {"b_web": "open", "b_web/opened": "2"}
    assert one.look(17.4, totals((41, 21)), slots).states == {}, "the second pause is twice as long"
    assert one.look(17.5, totals((41, 21)), slots).states == {"b_web": "half-open"}
    assert one.look(18.0, totals((43, 21)), slots).states == {}
    assert one.look(18.5, totals((44, 21)), slots).told == ["web: circuit closed"]
    assert one.look(19.0, totals((44, 21)), slots).states == {}, "what was before does not open it again"


def test_old_failures_leave_the_window() -> None:
    one, slots = judge(window=2.0, eject=0.0), [("b_web", 1)]
    one.look(0.0, totals((0, 0)), slots)
    one.look(1.0, totals((15, 15)), slots)
    one.look(4.0, totals((30, 15)), slots)
    assert one.look(5.0, totals((60, 20)), slots).states == {}


def test_an_outlier_is_out_longer_each_time_and_never_the_majority() -> None:
    one, slots = judge(), [("b_web", 1), ("b_web", 2), ("b_web", 3)]
    one.look(0.0, totals((0, 0), (0, 0), (0, 0)), slots)
    first = one.look(1.0, totals((20, 0), (20, 20), (20, 0)), slots)
    assert (first.out, first.states["b_web/out"]) == ([("b_web", 2)], "2")
    assert one.look(2.0, totals((40, 40), (20, 20), (40, 0)), slots).out == [], "two of three would be the majority"
    assert one.look(10.9, totals((60, 60), (20, 20), (60, 0)), slots).back == []
    assert one.look(11.0, totals((60, 60), (20, 20), (60, 0)), slots).back == [("b_web", 2)]
    one.look(12.0, totals((60, 60), (20, 20), (60, 0)), slots)
    again = one.look(13.0, totals((80, 60), (40, 40), (80, 0)), slots)
    assert "out for 20 s" in again.told[-1]
    one.forget("b_web", 2)
    assert one.look(14.0, totals((80, 60), (40, 40), (80, 0)), slots).states["b_web/out"] == NOBODY


def test_where_all_fail_none_is_an_outlier() -> None:
    one, slots = judge(), [("b_web", 1), ("b_web", 2)]
    one.look(0.0, totals((0, 0), (0, 0)), slots)
    verdict = one.look(1.0, totals((20, 18), (20, 20)), slots)
    assert verdict.out == []
    assert verdict.states["b_web"] == "open"


def test_the_retry_budget() -> None:
    one, slots = judge(window=2.0), [("b_web", 1)]
    one.look(0.0, totals((0, 0)), slots)
    assert one.look(1.0, totals((40, 0), retries=9), slots).states == {}, "a few are always free"
    assert one.look(1.5, totals((50, 0), retries=11), slots).states == {"b_web/retries": "spent"}
    one.look(3.0, totals((90, 0), retries=11), slots)
    assert one.look(5.0, totals((150, 0), retries=11), slots).states == {}
    none = judge(budget=100)
    none.look(0.0, totals((0, 0)), slots)
    assert none.look(1.0, totals((50, 0), retries=500), slots).states == {}, "100 is no budget"


def test_percentiles_of_a_histogram() -> None:
    count = [0] * len(BUCKETS)
    histogram = [*count[:4], *(50 for _ in BUCKETS[4:8]), *(100 for _ in BUCKETS[8:]), 100]
    assert traffic.percentile(histogram, 0.5) == pytest.approx(0.0075)
    assert traffic.percentile(histogram, 0.75) == pytest.approx(0.0375)
    assert traffic.percentile([*count, 5], 0.5) == BUCKETS[-1]
    assert traffic.percentile([*count, 0], 0.5) is None
    before = traffic.Flow(count=Count(10, 0), histogram=tuple([0] * 17))
    after = traffic.Flow(count=Count(30, 5), refused=5, histogram=tuple(histogram))
    assert traffic.rates(before, after, 5.0).requests == 5.0
    assert traffic.rates(before, after, 5.0).errors == 40.0
    assert traffic.rates(after, before, 5.0).requests == 2.0, "a new balancer counts from its start"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def build(count: int, **terms: Any) -> Rig:
        made.append(Rig(tmp_path / "haproxy.sock", [Server() for _ in range(count)], free_port(), **terms))
        return made[-1]

    yield build
    for one in made:
        one.close()


def test_a_circuit_under_load(rig: Callable[..., Rig]) -> None:
    one = rig(2, pause=1.0, errors=10000, retries=0)
    assert one.ask(20) == {200: 20}
    for server in one.servers:
        server.code = 500
    one.until(lambda: one.flow().circuit == "open")
    before = sum(server.served["GET"] for server in one.servers)
    told = one.ask(30)
    after = sum(server.served["GET"] for server in one.servers)
    assert set(told) <= {503, 500}
    assert after - before <= told[500] + 1, "a refused request reaches no server"
    assert one.flow().refused > 0
    one.until(lambda: one.flow().opened >= 2)
    for server in one.servers:
        server.code = 200
    one.until(lambda: one.flow().circuit == "closed", load=1)
    assert one.ask(20) == {200: 20}
    assert any("circuit half open" in line for line in one.told)
    assert one.flow().histogram[-1] > 0


def test_an_outlier_under_load(rig: Callable[..., Rig]) -> None:
    one = rig(3, eject=2.0, errors=10000, retries=0, breaker=50)
    one.servers[1].code = 500
    one.until(lambda: any("web-2: out" in line for line in one.told))
    assert one.ask(60) == {200: 60}, "nobody meets the ill one any more"
    assert [each.state for each in one.flow().instances if each.number == 2] == ["OUT"]
    one.servers[1].code = 200
    one.until(lambda: any("web-2: back" in line for line in one.told))
    served = one.servers[1].served["GET"]
    one.until(lambda: one.servers[1].served["GET"] > served)


def test_retries_end_with_their_budget_and_a_post_is_never_done_twice(rig: Callable[..., Rig]) -> None:
    one = rig(2, errors=10000, breaker=0, eject=0.0, retries=1, window=60.0)
    one.servers[0].code = 0
    assert one.ask(8) == {200: 8}, "a retry makes it good"
    answers = one.ask(10, "POST")
    assert answers[502] == one.servers[0].served["POST"] > 0, "POST has its one try"
    one.until(lambda: one.flow().retries == "spent")
    assert one.ask(20)[502] >= 5, "no retries any more"


def test_slow_start_under_load(rig: Callable[..., Rig]) -> None:
    one = rig(2, slowstart=3.0)
    one.control.ask("set server b_web/s2 state maint")

    def throttled(name: str) -> bool:
        return any(row["svname"] == name and row["throttle"] not in ("", "100") for row in one.control.rows())

    one.until(lambda: not throttled("s1"))
    one.control.ask("set server b_web/s2 state ready", "set server b_web/s2 health up")
    before = [server.served["GET"] for server in one.servers]
    assert throttled("s2")
    one.ask(40)
    old, new = (server.served["GET"] - count for server, count in zip(one.servers, before, strict=True))
    assert 0 < new < old / 2, (old, new)


def test_what_is_drained_ends_its_requests_first(rig: Callable[..., Rig]) -> None:
    one = rig(2)
    for server in one.servers:
        server.delay = 0.7
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(one.ask())) for _ in range(4)]
    for thread in threads:
        thread.start()
    one.until(lambda: sum(server.served["GET"] for server in one.servers) >= 4, load=0)
    one.control.drain("b_web", 1)
    assert next(each for each in one.flow().instances if each.number == 1).sessions == 0
    one.servers[0].code = 500  # as if it were gone
    one.servers[1].delay = 0.0
    assert one.ask(10) == {200: 10}
    for thread in threads:
        thread.join()
    assert answers == [{200: 1}] * 4


def test_one_balancer_a_project(rig: Callable[..., Rig]) -> None:
    one = rig(1)
    with pytest.raises(Conflict, match="runs already"):
        Balancer(one.layout, one.control, print).start()
    assert one.ask(3) == {200: 3}


def test_the_judge_takes_no_instance_that_leaves_back(rig: Callable[..., Rig]) -> None:
    one = rig(1)
    gone = read_container({"Id": "x", "Names": ["/x"], "State": "exited", "Labels": {}})
    one.balancer.fill([gone])
    assert one.told[-1] == "web-1 gone"
    assert one.flow().instances == ()


def test_projects_of_one_name_on_two_engines_have_a_balancer_each() -> None:
    one, two = balancer_of("shop", "unix:///a.sock"), balancer_of("shop", "unix:///b.sock")
    assert one != two
    assert len(str(balancer_of("x" * 200, "unix:///a.sock"))) < 100, "a socket's path has 107 bytes at most"
