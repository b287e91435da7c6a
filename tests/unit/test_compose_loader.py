"""The Compose loader: interpolation, merge, extends, include, profiles, old files, and errors that name the place."""

from __future__ import annotations

from typing import Any

import pytest

from dockyard.compose.canonical import duration, ports, size
from dockyard.compose.interpolate import Malformed, Required, parse_env, substitute
from dockyard.compose.loader import Request, load
from dockyard.compose.project import Project, levels
from dockyard.errors import DockyardError, InvalidParameter, NotFound


class Files:
    def __init__(self, files: dict[str, str]) -> None:
        self.files = {f"/app/{name}": text for name, text in files.items()}

    def read(self, path: str) -> str:
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", path) from None

    def exists(self, path: str) -> bool:
        return path in self.files


def project(files: dict[str, str] | str, *order: str, env: dict[str, str] | None = None, **more: Any) -> Project:
    named = {"compose.yaml": files} if isinstance(files, str) else files
    paths = [f"/app/{name}" for name in order or ["compose.yaml"]]
    return load(Request(paths, "/app", env or {}, **more), Files(named))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A/${A}", "1/1"), ("$$A", "$A"), ("${B:-x}", "x"), ("${E:-x}", "x"), ("${E-x}", ""), ("${A:+y}", "y"), ("${B+y}", ""),
        ("${B:-${A}}", "1"), ("${B:-a}b}", "ab}"), ("a$", "a$"), ("$(x) $1", "$(x) $1"), ("${", None), ("${1}", None),
    ],
)  # fmt: skip
def test_substitution(text: str, expected: str | None) -> None:
    variables = {"A": "1", "E": ""}
    if expected is None:
        with pytest.raises(Malformed):
            substitute(text, variables)
    else:
        assert substitute(text, variables) == expected


def test_required_variables_tell_file_line_and_message() -> None:
    with pytest.raises(Required):
        substitute("${X?gone}", {})
    text = "services:\n  a:\n    image: busybox\n    hostname: ${HOST:?set HOST}\n"
    with pytest.raises(InvalidParameter, match=r"/app/compose.yaml:4: services.a.hostname: .*HOST.*set HOST"):
        project(text)


def test_env_files() -> None:
    text = 'A=1 # c\nexport B=\'x $A\'\nC="l1\\nl2 $A"\n# no\nD\nE="two\nlines"\n'
    assert parse_env(text, {"D": "d"}) == {"A": "1", "B": "x $A", "C": "l1\nl2 1", "D": "d", "E": "two\nlines"}
    with pytest.raises(ValueError, match="line 1"):
        parse_env("A='x", {})


def test_raw_env_files_and_bound_devices() -> None:
    files = {
        "compose.yaml": "services: {a: {image: x, env_file: [{path: e, format: raw}]}}\n"
        "volumes: {v: {driver_opts: {type: none, o: bind, device: ./d}}}\n",
        "e": "# no\nA='$x'\nB=1 # yes\n",
    }
    made = project(files)
    assert made.services["a"]["environment"] == {"A": "'$x'", "B": "1 # yes"}
    assert made.volumes["v"]["driver_opts"]["device"] == "/app/d"


def test_short_forms_become_long_ones() -> None:
    made = project(
        """
services:
  web:
    image: busybox
    command: echo "two words"
    ports: ["8080:80", "127.0.0.1:53:53/udp", "9000-9001:90-91"]
    volumes: [./src:/src:ro, data:/data, /anon]
    environment: [A=1, HOME]
    depends_on: [db]
    ulimits: {nofile: 10}
  db: {image: busybox}
volumes: {data: }
""",
        env={"HOME": "/root"},
    )
    web = made.services["web"]
    assert web["command"] == ["echo", "two words"]
    assert [(port["target"], port.get("published")) for port in web["ports"]] == [
        (80, "8080"),
        (53, "53"),
        (90, "9000"),
        (91, "9001"),
    ]
    assert [(mount["type"], mount.get("source")) for mount in web["volumes"]] == [
        ("bind", "/app/src"),
        ("volume", "data"),
        ("volume", None),
    ]
    assert web["environment"] == {"A": "1", "HOME": "/root"}
    assert web["depends_on"]["db"]["condition"] == "service_started"
    assert made.networks == {"default": {"name": "app_default"}}
    assert made.volumes["data"]["name"] == "app_data"
    assert levels(made.services) == [["db"], ["web"]]


def test_later_files_win_append_and_reset() -> None:
    base = "services: {a: {image: x, command: one, ports: ['80:80'], environment: {A: '1'}, cap_add: [NET_ADMIN], user: me}}"
    over = "services: {a: {command: two, ports: ['80:80', '81:81'], environment: {B: '2'}, cap_add: !reset [], user: !reset null}}"
    made = project({"a.yaml": base, "b.yaml": over}, "a.yaml", "b.yaml").services["a"]
    assert made["command"] == ["two"]
    assert [port["published"] for port in made["ports"]] == ["80", "81"]
    assert made["environment"] == {"A": "1", "B": "2"}
    assert "cap_add" not in made
    assert "user" not in made
    override = "services: {a: {ports: !override ['90:90']}}"
    made = project({"a.yaml": base, "b.yaml": override}, "a.yaml", "b.yaml").services["a"]
    assert [port["published"] for port in made["ports"]] == ["90"]


def test_extends_within_and_across_files() -> None:
    files = {
        "compose.yaml": "services:\n  a: {extends: {file: sub/base.yaml, service: b}, environment: {X: '2'}}\n",
        "sub/base.yaml": "services:\n  b: {extends: c, environment: {X: '1', Y: '1'}}\n  c: {image: busybox, volumes: [./d:/d]}\n",
    }
    made = project(files).services["a"]
    assert made["image"] == "busybox"
    assert made["environment"] == {"X": "2", "Y": "1"}
    assert made["volumes"][0]["source"] == "/app/sub/d"
    with pytest.raises(InvalidParameter, match="circular reference with extends"):
        project("services: {a: {extends: b}, b: {extends: a}}")


def test_include_brings_its_own_env_and_clashes_are_told() -> None:
    files = {
        "compose.yaml": "include: [db/compose.yaml]\nservices: {web: {image: busybox, depends_on: [db]}}\n",
        "db/compose.yaml": "services: {db: {image: 'postgres:${V}', volumes: [./data:/data]}}\n",
        "db/.env": "V=15\n",
    }
    made = project(files)
    assert made.services["db"]["image"] == "postgres:15"
    assert made.services["db"]["volumes"][0]["source"] == "/app/db/data"
    files["compose.yaml"] += "  db: {image: other}\n"
    files["compose.yaml"] = "include: [db/compose.yaml]\nservices: {db: {image: other}}\n"
    with pytest.raises(DockyardError, match="service db conflicts with an imported resource"):
        project(files)


def test_profiles_choose() -> None:
    text = "services: {a: {image: x}, b: {image: x, profiles: [debug]}}"
    assert set(project(text).services) == {"a"}
    assert set(project(text, profiles=["debug"]).services) == {"a", "b"}
    assert set(project(text, env={"COMPOSE_PROFILES": "debug"}).services) == {"a", "b"}


def test_old_files_live_on_the_default_bridge_with_links() -> None:
    made = project("web:\n  build: .\n  links: [db]\n  ports: ['80']\n  log_driver: none\ndb:\n  image: postgres\n")
    assert made.legacy
    assert made.separator == "_"
    assert made.services["web"]["network_mode"] == "bridge"
    assert made.services["web"]["build"]["context"] == "/app"
    assert made.services["web"]["logging"]["driver"] == "none"
    assert levels(made.services) == [["db"], ["web"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services:\n  a:\n    imge: x\n", r"compose.yaml:3: services.a: unknown key 'imge'; did you mean 'image'\?"),
        ("services:\n  a:\n    image: [x]\n", r"compose.yaml:3: services.a.image: must be a string, not a list"),
        ("services: {a: {image: x, depends_on: [bb]}, bbb: {image: x}}", r'refers to undefined service bb; did you mean .bbb'),
        ("services: {a: {image: x, networks: [nt]}}", "undefined network nt"),
        ("services: {a: {image: x, volumes: ['v:/v']}}", "undefined volume v"),
        ("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}", "dependency cycle detected: a -> b -> a"),
        ("services: {a: {image: x}, a: {image: y}}", "already defined at line 1"),
        ("services: {a: {}}", "neither an image nor a build context"),
        ("services: {a: {image: x, ports: ['eighty']}}", "invalid port 'eighty'"),
        ("services:\n  a: {image: x\n", r"compose.yaml:3:\d+"),
        ("- a\n", "top-level object must be a mapping"),
        ("services: {a: {image: x, network_mode: host, networks: [default]}}", "mutually exclusive"),
        ("services: {a: {image: x, cpus: 1, deploy: {resources: {limits: {cpus: '2'}}}}}", "distinct values on 'cpus'"),
        ("services: {a: {image: x, scale: 1, deploy: {replicas: 2}}}", "distinct values on 'scale' and 'deploy.replicas'"),
        ("services: {a: {image: x, scale: -1}}", "services.a.scale: must be greater than or equal to 0"),
        ("services: {a: {image: x, tmpfs: /d, volumes: ['/d']}}", r"volumes\[0\]: target /d already mounted as tmpfs\[0\]"),
        ("services: {a: {image: x, healthcheck: {test: [true]}}}", "must start either by"),
        ("services: {a: {image: x, develop: {watch: [{path: ., action: sync}]}}}", "target is required"),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_the_nearest_word(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        project(text)


def test_missing_files_and_bombs_end_in_clear_errors() -> None:
    with pytest.raises(NotFound, match=r"cannot read /app/compose.yaml"):
        project({})
    bomb = "x-a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"x-{chr(98 + level)}: &{chr(98 + level)} [{','.join(['*' + chr(97 + level)] * 10)}]\n" for level in range(8)
    )
    with pytest.raises(InvalidParameter, match="too large or expands to too much"):
        project(bomb + "services: {a: {image: x}}\n")


def test_unset_variables_are_warned_of() -> None:
    made = project("services: {a: {image: 'x:$TAG'}}")
    assert made.warnings == ('The "TAG" variable is not set. Defaulting to a blank string.',)


def test_units() -> None:
    assert (size("1.5g"), size("512k"), size(7)) == (3 << 29, 512 << 10, 7)
    assert (duration("1m30s"), duration("500ms"), duration("2")) == (90, 0.5, 2)
    with pytest.raises(ValueError, match="invalid duration"):
        duration("soon")
    assert ports({"target": "80"}, ValueError)[0]["target"] == 80
