"""Commands of compose against the dry-run engine, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dockyard.client import Client

Compose = Callable[..., str]
SHOP = """
services:
  web: {image: "alpine:latest", command: sleep 100, depends_on: [db], ports: ["8080:80"]}
  db: {image: "alpine:latest", command: sleep 100, volumes: [data:/data, /anon]}
volumes: {data: }
"""


def names(client: Client) -> list[str]:
    return sorted(row["Names"][0] for row in client.request("GET", "/containers/json", {"all": True}))


def test_up_ps_stop_start_down(compose: Compose, client: Client) -> None:
    told = compose("up", "-d", file=SHOP)
    assert " Network shop_default  Created" in told
    assert told.index("Container shop-db-1  Started") < told.index("Container shop-web-1  Started")
    assert names(client) == ["/shop-db-1", "/shop-web-1"]
    rows = compose("ps", "--format", "json").splitlines()
    assert [json.loads(row)["Service"] for row in rows] == ["db", "web"]
    assert compose("ps", "-q", "web").strip() == json.loads(rows[1])["ID"]
    assert compose("port", "web", "80").strip() == "0.0.0.0:8080"
    assert "shop" in compose("ls")
    compose("stop")
    assert compose("ps", "-q") == ""
    assert "exited" in compose("ps", "-a", "--format", "json")
    compose("start", "db")
    assert compose("ps", "--services").split() == ["db"]
    told = compose("down", "-v")
    assert "Volume shop_data  Removed" in told
    assert names(client) == []
    assert [row["Name"] for row in client.request("GET", "/volumes")["Volumes"]] == []


def test_a_second_up_does_nothing_and_a_change_makes_anew(compose: Compose, client: Client) -> None:
    compose("up", "-d", file=SHOP)
    before = compose("ps", "-q")
    assert "Recreate" not in compose("up", "-d")
    assert compose("ps", "-q") == before
    changed = SHOP.replace("command: sleep 100, ports", "command: sleep 200, ports").replace(
        "sleep 100, depends", "sleep 200, depends"
    )
    told = compose("--dry-run", "up", "-d", file=changed)
    assert "create container shop-web-1 as" in told
    assert "(configuration changed)" in told
    assert "shop-db-1" not in told
    assert compose("ps", "-q") == before, "a dry run changes nothing"
    told = compose("up", "-d")
    assert "Container shop-web-1  Recreated" in told
    assert names(client) == ["/shop-db-1", "/shop-web-1"]
    assert compose("ps", "-q", "db").strip() in before


def test_anonymous_volumes_survive_a_recreation(compose: Compose, client: Client) -> None:
    compose("up", "-d", file=SHOP)

    def anonymous() -> set[str]:
        row = client.request("GET", "/containers/shop-db-1/json")
        return {mount["Name"] for mount in row["Mounts"] if mount["Destination"] == "/anon"}

    before = anonymous()
    compose("up", "-d", "--force-recreate")
    assert anonymous() == before
    compose("up", "-d", "--force-recreate", "-V")
    assert anonymous() != before


def test_scale_and_orphans(compose: Compose, client: Client) -> None:
    compose(
        "up",
        "-d",
        file="services: {a: {image: 'alpine:latest', command: sleep 1}, b: {image: 'alpine:latest', command: sleep 1}}",
    )
    compose("scale", "a=3")
    assert names(client) == ["/shop-a-1", "/shop-a-2", "/shop-a-3", "/shop-b-1"]
    compose("up", "-d", "--scale", "a=1")
    assert names(client) == ["/shop-a-1", "/shop-b-1"]
    told = compose("up", "-d", file="services: {a: {image: 'alpine:latest', command: sleep 1}}")
    assert "Found orphan containers (shop-b-1)" in told
    compose("up", "-d", "--remove-orphans")
    assert names(client) == ["/shop-a-1"]


def test_a_selected_service_brings_its_dependencies_only(compose: Compose, client: Client) -> None:
    compose("up", "-d", "db", file=SHOP)
    assert names(client) == ["/shop-db-1"]
    compose("stop")
    compose("up", "-d", "--no-deps", "web")
    assert compose("ps", "--services").split() == ["web"]
    assert "orphan" not in compose("up", "-d", "web")
    assert compose("ps", "--services").split() == ["db", "web"]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("up", "-d", "wbe"), 1, "did you mean 'web'"),
        (("upp",), 1, "Did you mean: dockyard compose up"),
        (("up", "--froce-recreate"), 125, "did you mean --force-recreate"),
        (("up", "-d", "--force-recreate", "--no-recreate"), 125, "incompatible"),
        (("exec", "web", "true"), 1, 'service "web" is not running'),
        (("up", "--scale", "web"), 125, "SERVICE=NUM is expected"),
        (("-f", "gone.yaml", "up"), 1, "cannot read"),
    ],
)
def test_errors_say_what_to_type(compose: Compose, words: tuple[str, ...], status: int, told: str) -> None:
    compose("config", "-q", file=SHOP)
    assert told in compose(*words, status=status)


def test_no_file_at_all(compose: Compose) -> None:
    assert "no configuration file provided" in compose("up", status=1)
    compose("-p", "nothing", "down")


def test_config_renders_what_loads_again_to_the_same(compose: Compose) -> None:
    compose("config", "-q", file=SHOP)
    first = compose("config")
    hashes = compose("config", "--hash", "*")
    assert compose("config", file=first) == first
    assert compose("config", "--hash", "*") == hashes
    assert compose("config", "--services").split() == ["db", "web"]
    assert compose("config", "--images").split() == ["alpine:latest"]
    assert json.loads(compose("config", "--format", "json"))["services"]["web"]["ports"][0]["published"] == "8080"


def test_convert_a_docker_run_line(compose: Compose) -> None:
    told = compose("convert", "docker", "run", "-d", "--name", "web", "-p", "80:80", "-e", "A=1", "-v", "data:/d",
                   "--health-cmd", "true", "--network", "front", "nginx:1", "nginx", "-g", "daemon off;")  # fmt: skip
    assert json.loads(compose("config", "--format", "json", file=told))["services"]["web"]["command"] == [
        "nginx",
        "-g",
        "daemon off;",
    ]
    assert "unknown flag: --nope" in compose("convert", "docker", "run", "--nope", "x", status=125)
