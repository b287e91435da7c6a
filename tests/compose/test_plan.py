"""Plans: from what the file says and what is there to operations, without an engine."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from dockyard.compose import labels
from dockyard.compose.build import Extra, query
from dockyard.compose.control import plan_down, plan_restart, plan_start, plan_stop
from dockyard.compose.identity import network_hash, service_hash, volume_hash
from dockyard.compose.images import plan_images, split
from dockyard.compose.loader import Request, load
from dockyard.compose.observe import Container, Image, State, read_container
from dockyard.compose.plan import Plan, UpOptions, in_order, plan_up
from dockyard.compose.project import Project
from dockyard.errors import InvalidParameter, NotFound, NotImplementedYet

API = (1, 51)
IMAGES = {"x": Image("sha256:1")}
SHOP = """
services:
  web: {image: x, depends_on: {db: {condition: service_healthy}}, networks: [front, back]}
  db: {image: x, volumes: [data:/data], networks: [back]}
networks: {front: , back: }
volumes: {data: }
"""


class One:
    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, path: str) -> str:
        return self._text

    def exists(self, path: str) -> bool:
        return False


def project(text: str, **more: Any) -> Project:
    return load(Request(["/app/compose.yaml"], "/app", {}, **more), One(text))


def row(made: Project, service: str, number: int = 1, **more: Any) -> dict[str, Any]:
    """A container in the listing as the project would have made it."""
    spec = made.services[service]
    name = more.pop("name", f"{made.name}-{service}-{number}")
    found = {
        labels.PROJECT: made.name, labels.SERVICE: service, labels.NUMBER: str(number), labels.ONEOFF: "False",
        labels.CONFIG_HASH: service_hash(spec), labels.IMAGE: "sha256:1",
    }  # fmt: skip
    volumes = [
        made.volumes[one["source"]]["name"] for one in spec.get("volumes") or [] if one.get("source") in made.volumes
    ]
    return {
        "Id": f"{service}{number}".ljust(64, "0"), "Names": [f"/{name}"], "State": more.pop("state", "running"),
        "Labels": found | more.pop("labels", {}), "Image": "x",
        "NetworkSettings": {"Networks": {
            made.networks[key]["name"]: {"NetworkID": f"id-{key}"} for key in spec.get("networks") or {}
        }},
        "Mounts": [{"Type": "volume", "Name": one, "Destination": "/data", "RW": True} for one in volumes], **more,
    }  # fmt: skip


def state(made: Project, *rows: dict[str, Any]) -> State:
    networks = {
        entry["name"]: {
            "Id": f"id-{key}",
            "Labels": {labels.PROJECT: made.name, labels.CONFIG_HASH: network_hash(entry)},
        }
        for key, entry in made.networks.items()
    }
    volumes = {
        entry["name"]: {"Labels": {labels.PROJECT: made.name, labels.CONFIG_HASH: volume_hash(entry)}}
        for entry in made.volumes.values()
    }
    return State(API, tuple(read_container(one) for one in rows), networks, volumes, IMAGES)


def told(plan: Plan) -> list[str]:
    return [one.key for one in in_order(plan.operations)]


def up(made: Project, seen: State, **options: Any) -> Plan:
    return plan_up(made, seen, UpOptions(**options))


def test_from_nothing_everything_in_order() -> None:
    made = project(SHOP)
    plan = up(made, State(API, images=IMAGES))
    assert told(plan) == [
        "create network app_back", "create volume app_data", "create network app_front", "create app-db-1",
        "create app-web-1", "start app-db-1", "wait db service_healthy", "start app-web-1",
    ]  # fmt: skip
    operations = {one.key: one for one in plan.operations}
    assert operations["start app-web-1"].needs == ("create app-web-1", "wait db service_healthy")
    assert "create app-db-1" not in operations["create app-web-1"].needs


def test_nothing_to_do_is_an_empty_plan() -> None:
    made = project(SHOP)
    plan = up(made, state(made, row(made, "web"), row(made, "db")))
    assert not plan
    assert [item.name for item in plan.unchanged] == ["app-db-1", "app-web-1"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": {labels.CONFIG_HASH: "other"}}, "configuration changed"),
        ({"labels": {labels.IMAGE: "sha256:0"}}, "image changed"),
        ({"NetworkSettings": {"Networks": {"app_back": {"NetworkID": "other"}}}}, "not connected to network app_back"),
        ({"Mounts": []}, "does not have volume app_data"),
    ],
)
def test_a_container_that_differs_is_made_anew_and_says_why(change: dict[str, Any], reason: str) -> None:
    made = project(SHOP)
    plan = up(made, state(made, row(made, "web"), row(made, "db", **change)))
    assert told(plan) == ["create app-db-1", "stop app-db-1", "remove app-db-1", "rename app-db-1", "start app-db-1"]
    first = plan.operations[0]
    assert first.reason == reason
    assert first.name == f"{row(made, 'db')['Id'][:12]}_app-db-1"
    assert first.replaced is not None


def test_policies() -> None:
    made = project(SHOP)
    seen = state(made, row(made, "web"), row(made, "db", labels={labels.CONFIG_HASH: "other"}))
    assert not up(made, seen, recreate="never")
    assert sum(one.verb == "rename" for one in up(made, seen, recreate="force").operations) == 2
    chosen = up(made, seen, recreate="force", recreate_dependencies="never", selected=frozenset(["web"]))
    assert [one.key for one in chosen.operations if one.verb == "rename"] == ["rename app-web-1"]


def test_stopped_ones_are_started() -> None:
    made = project(SHOP)
    plan = up(made, state(made, row(made, "web"), row(made, "db", state="exited")))
    assert told(plan) == ["start app-db-1"]
    assert plan.operations[0].target == row(made, "db")["Id"]


def test_scale_up_takes_the_next_number_and_down_the_highest() -> None:
    made = project("services: {web: {image: x, scale: 3}}")
    plan = up(made, state(made, row(made, "web", 1), row(made, "web", 4)))
    assert told(plan) == ["create app-web-5", "start app-web-5"]
    fewer = dataclasses.replace(made, services={"web": {**made.services["web"], "scale": 1}})
    plan = up(fewer, state(made, row(made, "web", 1), row(made, "web", 2, state="exited")))
    assert told(plan) == ["remove app-web-2"]
    with pytest.raises(InvalidParameter, match="cannot be scaled to 2"):
        up(project("services: {web: {image: x, container_name: www, scale: 2}}"), State(API, images=IMAGES))


def test_dependents_restart_when_their_dependency_is_made_anew() -> None:
    text = "services: {web: {image: x, depends_on: {db: {condition: service_started, restart: true}}}, db: {image: x}}"
    made = project(text)
    plan = up(made, state(made, row(made, "web"), row(made, "db", labels={labels.CONFIG_HASH: "old"})))
    order = told(plan)
    assert (
        order.index("stop app-web-1")
        < order.index("stop app-db-1")
        < order.index("start app-db-1")
        < order.index("start app-web-1")
    )


def test_sharing_a_namespace_follows_the_new_container() -> None:
    made = project("services: {a: {image: x}, b: {image: x, network_mode: 'service:a'}}")
    seen = state(made, row(made, "a", labels={labels.CONFIG_HASH: "old"}), row(made, "b"))
    plan = up(made, seen)
    create = next(one for one in plan.operations if one.key == "create app-b-1")
    assert create.reason == "shares the network namespace of a, which is made anew"
    assert "rename app-a-1" in create.needs


def test_a_changed_network_is_made_anew_with_its_containers() -> None:
    made = project(SHOP)
    seen = state(made, row(made, "web"), row(made, "db"))
    seen.networks["app_back"]["Labels"][labels.CONFIG_HASH] = "old"  # type: ignore[index]
    order = told(up(made, seen))
    assert order.index("disconnect app-db-1 app_back") < order.index("remove network app_back")
    assert (
        order.index("remove network app_back") < order.index("create network app_back") < order.index("create app-db-1")
    )
    assert order.index("create app-web-1") < order.index("rename app-web-1")


def test_a_changed_volume_is_kept_unless_the_user_agreed() -> None:
    made = project(SHOP)
    seen = state(made, row(made, "web"), row(made, "db"))
    seen.volumes["app_data"]["Labels"][labels.CONFIG_HASH] = "old"  # type: ignore[index]
    plan = up(made, seen)
    assert not plan
    assert "kept as it is" in plan.warnings[0]
    order = told(up(made, seen, renewed=frozenset(["data"])))
    assert (
        order.index("remove app-db-1") < order.index("remove volume app_data") < order.index("create volume app_data")
    )
    assert "rename app-db-1" not in order


def test_orphans_and_what_is_external() -> None:
    made = project("services: {a: {image: x}}")
    stray = row(made, "a", name="app-old-1", labels={labels.SERVICE: "old"})
    stray["Id"] = "f" * 64
    plan = up(made, state(made, row(made, "a"), stray))
    assert not plan
    assert "orphan containers (app-old-1)" in plan.warnings[0]
    assert told(up(made, state(made, row(made, "a"), stray), remove_orphans=True)) == [
        "stop app-old-1",
        "remove app-old-1",
    ]
    assert not up(made, state(made, row(made, "a"), stray), ignore_orphans=True).warnings
    outside = project("services: {a: {image: x, networks: [n]}}\nnetworks: {n: {external: true, name: far}}")
    with pytest.raises(NotFound, match="network far declared as external, but could not be found"):
        up(outside, State(API, images=IMAGES))


def test_waiting_for_all_takes_completion_where_others_wait_for_it() -> None:
    text = (
        "services: {init: {image: x}, web: {image: x, depends_on: {init: {condition: service_completed_successfully}}}}"
    )
    plan = up(project(text), State(API, images=IMAGES), wait=True)
    assert [one.key for one in plan.operations if one.verb == "wait"] == [
        "wait init service_completed_successfully", "wait web running_or_healthy",
    ]  # fmt: skip


def test_down_goes_backwards_and_takes_what_is_asked_for() -> None:
    made = project(SHOP)
    seen = state(made, row(made, "web"), row(made, "db"))
    order = told(plan_down(made, seen))
    assert order == ["stop app-web-1", "remove app-web-1", "stop app-db-1", "remove app-db-1", "remove network app_front",
                     "remove network app_back"]  # fmt: skip
    assert told(plan_down(made, seen, volumes=True, images="all"))[-2:] == ["remove volume app_data", "remove image x"]
    assert told(plan_down(made, seen, ["web"])) == ["stop app-web-1", "remove app-web-1"]


def test_stop_start_restart_follow_dependencies() -> None:
    made = project(SHOP)
    running = state(made, row(made, "web"), row(made, "db"))
    assert told(plan_stop(made, running)) == ["stop app-web-1", "stop app-db-1"]
    stopped = state(made, row(made, "web", state="exited"), row(made, "db", state="exited"))
    assert told(plan_start(made, stopped)) == ["start app-db-1", "start app-web-1"]
    assert told(plan_restart(made, running)) == ["restart app-db-1", "restart app-web-1"]


def test_images_are_pulled_or_built_by_policy() -> None:
    now = datetime(2026, 1, 10, tzinfo=UTC)
    text = "services: {a: {image: x}, b: {image: y}, c: {build: ., image: z}, d: {image: x, pull_policy: %s}}"
    made = project(text % "always")
    keys = [one.key for one in plan_images(made, IMAGES, now)]
    assert keys == ["pull y", "build c", "pull x"]
    old = {"x": Image("1", tagged="2026-01-01T00:00:00Z"), "y": Image("2"), "z": Image("3")}
    assert [one.reason for one in plan_images(project(text % "weekly"), old, now)] == [
        "pulled 2026-01-01, pull_policy: weekly"
    ]
    assert plan_images(project(text % "every_30d"), old, now) == []
    with pytest.raises(NotFound, match=r'No such image: y \(service "b"\)'):
        plan_images(project(text % "never"), IMAGES, now, pull="never")
    assert (split("a/b"), split("h:5000/a"), split("a:1"), split("a@sha256:2")) == (
        ("a/b", "latest"), ("h:5000/a", "latest"), ("a", "1"), ("a", "sha256:2"),
    )  # fmt: skip


def test_containers_are_read_from_the_listing() -> None:
    made = project("services: {a: {image: x}}")
    found = row(made, "a")
    found["Names"] = ["/other/link", "/app-a-1"]
    item = read_container(found)
    assert isinstance(item, Container)
    assert (item.name, item.service, item.number, item.running) == ("app-a-1", "a", 1, True)


HOOKED = """
services:
  web: {image: x, scale: 2, depends_on: [db], pre_start: [{command: [migrate]}, {command: [seed], image: y}]}
  db: {image: x}
"""


def test_pre_start_comes_once_before_the_first_replica_and_after_what_it_depends_on() -> None:
    made = project(HOOKED)
    plan = plan_up(made, State(API, images=IMAGES), UpOptions())
    found = {one.key: one for one in plan.operations}
    assert [key for key in found if key.startswith("pre_start")] == ["pre_start web"]
    assert set(found["pre_start web"].needs) == {"create app-web-1", "create app-web-2", "start app-db-1"}
    assert "pre_start web" in found["start app-web-1"].needs
    assert "pre_start web" in found["start app-web-2"].needs
    assert "pre_start web" not in found["start app-db-1"].needs


def test_pre_start_is_left_out_where_a_replica_runs_on() -> None:
    made = project(HOOKED)
    there = state(made, row(made, "web"), row(made, "web", 2, state="exited"), row(made, "db"))
    assert [one.verb for one in plan_up(made, there, UpOptions()).operations] == ["start"]
    verbs = [one.verb for one in plan_up(made, there, UpOptions(recreate="force")).operations]
    assert verbs.count("pre_start") == 1


def test_images_of_hooks_are_pulled_and_what_a_hook_left_goes_with_down() -> None:
    made = project(HOOKED)
    assert [one.key for one in plan_images(made, IMAGES, datetime.now(UTC))] == ["pull y"]
    kept = row(made, "web", 9, name="odd", state="exited", labels={labels.HOOK: "pre_start"})
    there = State(API, (read_container(kept),), images=IMAGES)
    assert [one.key for one in plan_down(made, there).operations] == ["remove odd"]
    assert [one.key for one in plan_up(made, there, UpOptions()).operations if "web-1" in one.key] == [
        "create app-web-1", "start app-web-1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models", "[llm]"), ("use_api_socket", "true"), ("credential_spec", "{file: x}"),
        ("pre_start", "[{command: [x], per_replica: true}]"),
    ],
)  # fmt: skip
def test_what_we_do_not_have_is_refused_and_not_passed_over(key: str, value: str) -> None:
    made = project(f"services: {{web: {{image: x, {key}: {value}}}}}")
    with pytest.raises(NotImplementedYet, match=f'service "web": {key}.* is not implemented yet'):
        plan_up(made, State(API, images=IMAGES), UpOptions())


def test_what_only_swarm_has_is_told() -> None:
    text = "services: {web: {image: x, deploy: {placement: {constraints: [a==b]}, endpoint_mode: dnsrr, mode: replicated}}}"
    plan = plan_up(project(text), State(API, images=IMAGES), UpOptions())
    assert plan.warnings == ('service "web": deploy.endpoint_mode, deploy.placement: for swarm only, without effect here',)


def test_an_image_is_pulled_again_after_its_own_time() -> None:
    made = project("services: {web: {image: x, pull_policy: refresh, pull_refresh_after: 2h}}")
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    for hour, pulled in (("09:00:00", True), ("11:00:00", False)):
        have = {"x": Image("sha256:1", tagged=f"2026-11-26T{hour}Z")}
        assert bool(plan_images(made, have, now)) == pulled


@pytest.mark.parametrize("terms", ["provenance: true", "sbom: true", "no_cache_filter: [a]", "platforms: [linux/a, linux/b]"])
def test_builds_that_need_more_than_the_plain_way_are_refused(terms: str) -> None:
    made = project(f"services: {{web: {{build: {{context: ., {terms}}}}}}}")
    with pytest.raises(NotImplementedYet, match="is not implemented yet"):
        query(made, "web", "i", "Dockerfile", Extra())


def test_a_builds_limits_and_proxy_are_sent() -> None:
    made = project("services: {web: {build: {context: ., ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}, provenance: false}}}")
    asked = query(made, "web", "i", "Dockerfile", Extra(proxy={"HTTP_PROXY": "p"}, args=("A=1",)))
    assert asked["ulimits"] == [{"Name": "nofile", "Soft": 5, "Hard": 5}, {"Name": "nproc", "Soft": 1, "Hard": 2}]
    assert asked["buildargs"] == {"HTTP_PROXY": "p", "A": "1"}
