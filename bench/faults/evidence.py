"""The independent checker: reads again what a finding cites, while the fault is there, and confirms or refutes it.

It shares nothing with the doctor but the form of a finding: no collector, no rule, no client. It asks with the tools that
a person would take (curl, ip, ss, nft, iptables-save, sysctl, stat, openssl) and compares with what was cited. A citation
for which there is no reader counts as unconfirmed, so that the share cannot grow by leaving things out.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from bench.faults.lab import Lab
from dockyard.doctor.finding import Evidence, Finding, Report

TIMEOUT = 20


class Reading(NamedTuple):
    """One citation read again. ``confirmed`` is None where nobody knows how to read it."""

    finding: str
    evidence: Evidence
    confirmed: bool | None
    read: str = ""

    def __str__(self) -> str:
        word = {True: "confirmed", False: "REFUTED", None: "no reader"}[self.confirmed]
        return f"{word}: {self.finding} {self.evidence.kind} {self.evidence.locator!r}: {self.evidence.observed!r}; read {self.read!r}"


class Ground:
    """The host as the checker sees it. One for each report, so that what does not change is asked once."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.found: Finding | None = None

    def host(self, script: str) -> str:
        """A shell line in the engine's namespaces: its output, with errors."""
        return _run("nsenter", "-t", str(self.lab.holder), "-n", "-m", "sh", "-c", script)

    def within(self, container: str, script: str) -> str:
        """A shell line in the network namespace of a container."""
        return _run("nsenter", "-t", str(self.document(container)["State"]["Pid"]), "-n", "sh", "-c", script)

    def curl(self, *options: str) -> bytes:
        command = ["curl", "-s", "--max-time", "10", "--unix-socket", str(self.lab.socket), *options]
        return subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).stdout

    def api(self, path: str) -> Any:
        return json.loads(self.curl(f"http://d{path}") or b"{}")

    def document(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.api(f"/containers/{name}/json")
        return answer

    @property
    def subject(self) -> dict[str, Any]:
        """The container that the finding is about."""
        assert self.found is not None
        return self.document(self.found.object.name or self.found.object.id)

    @cached_property
    def rules(self) -> str:
        """Every rule of both iptables back ends and of nft, one a line, counters included."""
        saves = "for t in iptables-nft-save iptables-legacy-save; do echo \"# $t\"; $t -c 2>/dev/null; done"
        return self.host(f"{saves}; echo '# nft'; nft list ruleset")

    def log(self, name: str) -> str:
        """Its output: the frames of the log (eight bytes with kind and length before each) put together."""
        raw, text = self.curl(f"http://d/containers/{name}/logs?stdout=1&stderr=1"), b""
        while len(raw) > 8 and raw[0] in (0, 1, 2) and raw[1:4] == bytes(3):
            size = int.from_bytes(raw[4:8], "big")
            text, raw = text + raw[8 : 8 + size], raw[8 + size :]
        return (text + raw).decode("utf-8", "replace")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


Read = Callable[[Ground, Evidence, "re.Match[str]"], "tuple[bool, str]"]
_READERS: list[tuple[str, re.Pattern[str], Read]] = []


def reads(kinds: str, pattern: str) -> Callable[[Read], Read]:
    """Registers a reader of citations of these kinds whose whole locator matches."""

    def register(reader: Read) -> Read:
        _READERS.extend((kind, re.compile(pattern), reader) for kind in kinds.split())
        return reader

    return register


def confirm(lab: Lab, report: Report) -> list[Reading]:
    """Read every citation of the report's findings again, folded ones too."""
    from bench.faults import evidence_host, evidence_registry  # noqa: F401 - they register their readers

    ground = Ground(lab)
    return [
        _again(ground, found, cited) for root in report.findings for found in (root, *root.folded) for cited in found.evidence
    ]


def _again(ground: Ground, found: Finding, cited: Evidence) -> Reading:
    ground.found = found
    name = f"{found.id} {found.object}"
    for kind, pattern, reader in _READERS:
        match = pattern.fullmatch(cited.locator) if kind == cited.kind else None
        if match is None:
            continue
        try:
            right, read = reader(ground, cited, match)
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, SyntaxError) as error:
            return Reading(name, cited, False, f"{type(error).__name__}: {error}")
        return Reading(name, cited, right, read[:300])
    return Reading(name, cited, None)


def numbers(text: str) -> list[int]:
    return [int(item) for item in re.findall(r"\d+", text)]


def words(text: str) -> set[str]:
    """Members of a list as findings write them: "a, b", "none"."""
    return {item.strip() for item in text.split(",")} - {"", "none"}


# The engine's own words ----------------------------------------------------------------------------------------------


@reads("api", r"(?:GET /containers/(?P<name>\S+)/json )?State\.Error(?: of (?P<other>.+))?")
def _error(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    name = match["name"] or match["other"]
    said = str((ground.document(name) if name else ground.subject)["State"]["Error"])
    return bool(cited.observed) and cited.observed in said, said


@reads("api", r"State\.OOMKilled")
def _killed(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    read = str(ground.subject["State"]["OOMKilled"]).lower()
    return read == cited.observed, read


@reads("api", r"State\.ExitCode")
def _exit(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    """A container in a restart loop ends again and again, so it is looked at a few times."""
    reads = []
    for _ in range(8):
        state = ground.subject["State"]
        reads.append(str(state["ExitCode"]))
        if reads[-1] == cited.observed.split()[0]:
            return True, reads[-1]
        time.sleep(0.4)  # a loop between two of its runs
    return False, ", ".join(reads)


@reads("api", r"RestartCount")
def _restarts(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    read = int(ground.subject["RestartCount"])
    return read >= int(cited.observed) > 0, str(read)


@reads("api", r"State")
def _ran(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    state = ground.subject["State"]
    stamps = [_run("date", "+%s.%N", "-d", state[key]).strip() for key in ("StartedAt", "FinishedAt")]
    read = max(0.0, float(stamps[1]) - float(stamps[0]))  # the end is stamped by another clock read than the start
    return cited.observed == f"ran {read:.1f} s", f"{read:.3f}"


@reads("api", r"State of (?P<name>.+)")
def _status(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    state = ground.document(match["name"])["State"]
    read = f"{state['Status']}, exit {state['ExitCode']}"
    return read == cited.observed, read


@reads("api", r"State\.Health\.Log")
def _health(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    log = ground.subject["State"]["Health"]["Log"]
    read = [f"exit {row['ExitCode']}: {row['Output'].strip()[:200]}" for row in log] + [row["Output"][:200] for row in log]
    return cited.observed in read, read[-1]


@reads("api", r"Config\.Healthcheck\.Test")
def _check(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    read = " ".join(ground.subject["Config"]["Healthcheck"]["Test"][1:])
    return cited.observed.split() == read[:200].split() or cited.observed in read.replace('"', "").replace("'", ""), read


@reads("api", r"Cmd")
def _command(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    document = ground.subject
    read = " ".join([document["Path"], *document["Args"]])
    return read == cited.observed, read


@reads("api", r"Config\.(?P<key>User|OpenStdin)")
def _config(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    read = str(ground.subject["Config"][match["key"]])
    return read.lower() == cited.observed.lower(), read


@reads("api", r"HostConfig\.(?P<key>\w+)(?: nofile)?")
def _host_config(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    value = ground.subject["HostConfig"][match["key"]]
    if match["key"] == "Memory":
        return cited.observed == f"{value >> 20} MiB", str(value)
    if match["key"] == "LogConfig":
        return value["Type"] in cited.observed and "max-size" not in (value["Config"] or {}), str(value)
    if match["key"] == "Ulimits":
        return any(row["Name"] == "nofile" and str(row["Soft"]) == cited.observed for row in value), str(value)
    if match["key"] == "SecurityOpt" and cited.observed.endswith("..."):
        return any(item.startswith(cited.observed[:-3]) for item in value), str(value)
    if isinstance(value, list | dict):
        return words(cited.observed) == {str(item) for item in value}, str(value)
    return str(value).lower() == cited.observed.lower(), str(value)


@reads("api", r"GET /events")
def _events(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    """Two kills, the second with 9, as far apart as it says."""
    key = ground.subject["Id"]
    lines = ground.curl(f"http://d/events?since=0&until={time.time():.6f}").decode().splitlines()
    kills = [row for row in map(json.loads, lines) if row.get("Action") == "kill" and row["Actor"]["ID"] == key]
    first, last = kills[-2:]
    waited = (last["timeNano"] - first["timeNano"]) / 1e9
    read = f"kill {first['Actor']['Attributes']['signal']}, {waited:.1f} s later kill {last['Actor']['Attributes']['signal']}"
    return read == cited.observed, read


@reads("api", r"GET /info Runtimes")
def _runtimes(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    read = set(ground.api("/info")["Runtimes"])
    return words(cited.observed) == read, str(read)


@reads("api", r"GET /info RegistryConfig")
def _insecure(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    host = cited.observed.split()[0]
    config = ground.api("/info")["RegistryConfig"]
    listed = [name for name, value in config.get("IndexConfigs", {}).items() if not value["Secure"]]
    nets = set(config.get("InsecureRegistryCIDRs") or []) - {"127.0.0.0/8", "::1/128"}
    return host not in listed and not nets, f"{listed} {nets}"


@reads("api", r"GET /info (?P<key>\w+)")
def _info(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    read = str(ground.api("/info")[match["key"]])
    return read.lower() == cited.observed.lower(), read


@reads("api", r"GET /networks")
def _networks(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    rows = ground.api("/networks")
    subnets = [config["Subnet"] for row in rows for config in row["IPAM"]["Config"] or []]
    if cited.observed.startswith("no network called "):
        return not any(row["Name"] == cited.observed.split()[3] for row in rows), f"{len(rows)} networks"
    if cited.observed.startswith("no network "):
        return not any(row["Id"].startswith(cited.observed.split()[2]) for row in rows), f"{len(rows)} networks"
    if "default pools" in cited.observed:
        pools = [net for net in subnets if re.match(r"172\.(1[7-9]|2\d|3[01])\.0\.0/16|192\.168\.\d+\.0/20", net)]
        return len(pools) == numbers(cited.observed)[0], f"{len(pools)} pools"
    wanting = [row for row in rows if row["Driver"] == "bridge" and not row["Internal"]]
    return 0 < numbers(cited.observed)[0] <= len(wanting), f"{len(wanting)} bridge networks"


@reads("api", r"GET /networks/(?P<name>\S+) addresses")
def _nobody_has(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    read = str(ground.api(f"/networks/{match['name']}")["Containers"])
    return f"'{cited.observed.split()[-1]}/" not in read, read


@reads("api", r"GET /networks/(?P<name>.+)")
def _network(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    row = ground.api(f"/networks/{match['name']}")
    held = row["Containers"] or {}
    if cited.observed.startswith("endpoint of "):
        return any(key[:12] in cited.observed and value["Name"] in cited.observed for key, value in held.items()), str(held)
    read = f"{len(held)} endpoints in {row['IPAM']['Config'][0]['Subnet']}"
    return read == cited.observed, read


@reads("api", r"GET /containers/json(?:\?all=1)?")
def _no_container(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    rows = ground.api("/containers/json?all=1")
    what = cited.observed.split()[-1]
    if cited.observed.startswith("no container publishes"):
        return not any(str(port.get("PublicPort")) == what for row in rows for port in row["Ports"]), f"{len(rows)} containers"
    return not any(row["Id"].startswith(what) for row in rows), f"{len(rows)} containers"


@reads("api", r"GET /containers/(?P<name>\S+)/json")
def _endpoint(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    name, _, key = cited.observed.partition(" = ")
    read = ground.document(match["name"])["NetworkSettings"]["Networks"][name]["NetworkID"]
    return read.startswith(key), read


@reads("api", r"NetworkSettings\.Ports(?: of (?P<name>.+))?")
def _ports(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    document = ground.document(match["name"]) if match["name"] else ground.subject
    bound = [f"{b['HostIp']}:{b['HostPort']} to {key}" for key, rows in document["NetworkSettings"]["Ports"].items() for b in rows or []]
    if match["name"]:
        return any(f":{numbers(cited.observed)[0]} to" in row for row in bound), str(bound)
    return cited.observed in bound, str(bound)


@reads("api", r"networks of (?P<name>.+)")
def _networks_of(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    read = set(ground.document(match["name"])["NetworkSettings"]["Networks"])
    return words(cited.observed) == read, str(read)


@reads("api", r"label com\.docker\.compose\.depends_on")
def _depends(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    """At least one of those named asks for the service itself, the others for one of those named."""
    users, service = re.fullmatch(r"(.+) needs? (\S+)", cited.observed).groups()  # type: ignore[union-attr]
    names = [name.strip() for name in users.split(",")]
    labels = {name: ground.document(name)["Config"]["Labels"]["com.docker.compose.depends_on"] for name in names}
    chain = {service, *names}
    direct = any(f"{service}:" in label for label in labels.values())
    return direct and all(any(f"{part}:" in label for part in chain) for label in labels.values()), str(labels)


@reads("api", r"label (?P<label>\S+) of (?P<name>.+)")
def _label(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    read = str(ground.document(match["name"])["Config"]["Labels"].get(match["label"]))
    return read == cited.observed, read


@reads("api", r"labels of (?P<kind>network|volume) (?P<name>.+)")
def _labels(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    read = set(ground.api(f"/{match['kind']}s/{match['name']}")["Labels"] or {})
    return words(cited.observed) == read, str(read)


@reads("probe", r"compose's words about the file")
def _composed(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    """The same command once more says the same."""
    from bench.faults.cases_compose import compose

    read = compose(ground.lab, *ground.lab.vars["compose"])[1]
    return bool(cited.observed) and cited.observed in read, read


@reads("api", r"GET /volumes")
def _volumes(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    if cited.observed.startswith("no volume called "):
        names = [row["Name"] for row in ground.api("/volumes")["Volumes"] or []]
        return cited.observed.split()[3] not in names, str(names)
    rows = ground.api('/volumes?filters={"dangling":{"true":true}}'.replace('"', "%22").replace("{", "%7B").replace("}", "%7D"))
    loose = [row for row in rows["Volumes"] or [] if re.fullmatch("[0-9a-f]{64}", row["Name"])]
    return len(loose) == numbers(cited.observed)[0], f"{len(loose)} dangling"


@reads("api", r"GET /system/df(?: BuildCache)?")
def _usage(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    usage = ground.api("/system/df")
    cache = sum(row["Size"] for row in usage.get("BuildCache") or [] if not row.get("InUse"))
    read = {"images": usage["LayersSize"], "build cache": cache}
    shown = all(f"{name} {size >> 20} MiB" in cited.observed for name, size in read.items() if size >> 20)
    return (cited.observed == f"{cache} bytes") if cited.observed.endswith("bytes") else shown, str(read)


@reads("api", r"options of (?P<name>.*)")
def _options(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    read = ground.api(f"/volumes/{match['name']}")["Options"]
    return bool(read) and str(read) == cited.observed, str(read)


@reads("api", r"DOCKER_API_VERSION")
def _version(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    """A request with that version is refused, and the range is the one that was expected."""
    version = ground.api("/version")
    status = ground.curl("-o", "/dev/null", "-w", "%{http_code}", f"http://d/v{cited.observed}/info").decode()
    bounds = {f"{version['MinAPIVersion']} or later", f"{version['ApiVersion']} or earlier"}
    bounds.add(f"{version['MinAPIVersion']} to {version['ApiVersion']}")
    return status == "400" and cited.expected in bounds, f"{status}, {sorted(bounds)}"


@reads("api", r"(?P<host>(?:unix|tcp)://\S+) \(.*\)")
def _reach(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    """What curl gets at that socket: the failure that was cited, or an answer where none was."""
    assert ground.found is not None
    if ground.found.id == "INS-15":
        port = match["host"].rpartition(":")[2]
        plain = f"curl -s --max-time 3 http://127.0.0.1:{port}/_ping"
        said = ground.host(f"{plain}; timeout 3 openssl s_client -connect 127.0.0.1:{port} </dev/null")
        return "BEGIN CERTIFICATE" in said and not said.startswith("OK"), said
    if ground.found.id in ("INS-08", "INS-09"):
        return ground.curl("http://d/_ping") == b"OK", "answers"
    path = match["host"].removeprefix("unix://")
    drop = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"] if ground.found.id == "INS-02" else []
    said = _run(*drop, "curl", "-sS", "--max-time", "3", "--unix-socket", path, "http://d/_ping")
    return said != "OK" and bool(cited.observed), said


@reads("api", r"Image of (?P<name>.+)")
def _image(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    read = str(ground.document(match["name"])["Image"])
    return bool(cited.observed) and read.startswith(cited.observed), read


@reads("api", r"volumes of (?P<name>.+)")
def _volumes_of(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    read = [mount.get("Name") for mount in ground.document(match["name"])["Mounts"]]
    return cited.observed in read, str(read)


@reads("api", r"Mounts (?P<target>.+)")
def _mount(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    rows = [row for row in ground.subject["Mounts"] if row["Destination"] == match["target"]]
    read = f"{rows[0]['Source']} ({'rw' if rows[0]['RW'] else 'ro'})"
    return read == cited.observed, read


@reads("probe", r"the engine's answer to this request")
def _refused(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    """The same request, once more by curl, is refused in the same words."""
    method, path, body = ground.lab.vars["request"]
    read = ground.curl("-X", method, "-H", "Content-Type: application/json", "-d", json.dumps(body), f"http://d{path}")
    return bool(cited.observed) and cited.observed.encode() in read, read.decode("utf-8", "replace")


@reads("probe", r"the engine's answer to this name")
def _named(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    """No image can be given that name; the one that was proposed can."""
    codes = []
    for name in (cited.observed, cited.expected):
        repository, _, tag = name.rpartition(":")
        query = ["-G", "--data-urlencode", f"repo={repository}", "--data-urlencode", f"tag={tag}"]
        url = "http://d/images/lab:latest/tag"
        codes.append(ground.curl(*query, "-X", "POST", "-o", "/dev/null", "-w", "%{http_code}", url).decode())
    ground.curl("-X", "DELETE", f"http://d/images/{cited.expected}")
    return codes[0] in ("400", "500") and codes[1] == "201", str(codes)


@reads("probe", r"the build's answer")
def _built(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    """The same directory built again, sent by tar and curl."""
    where = ground.lab.vars["build"]
    send = f"curl -s --max-time 15 --unix-socket {ground.lab.socket} -X POST -H 'Content-Type: application/x-tar' --data-binary @-"
    command = f"tar -C {where} -c . | {send} 'http://d/build?t=again&nocache=1&rm=1'"
    rows = [json.loads(line) for line in _run("sh", "-c", command).splitlines() if line.startswith("{")]
    read = re.sub(r"\x1b\[\d+m", "", "".join(str(row.get("stream") or row.get("error") or "") for row in rows))
    return bool(cited.observed) and cited.observed in read, read[-200:]


@reads("log", r"(?:docker logs (?P<name>.+)|its log|log or State\.Error of (?P<other>.+))")
def _log(ground: Ground, cited: Evidence, match: re.Match[str]) -> tuple[bool, str]:
    document = ground.document(match["name"] or match["other"]) if match["name"] or match["other"] else ground.subject
    said = ground.log(document["Id"]) + ("\n" + document["State"]["Error"] if match["other"] else "")
    return bool(cited.observed) and cited.observed in said, said[-200:]


@reads("log", r"kernel log")
def _kernel(ground: Ground, cited: Evidence, _: re.Match[str]) -> tuple[bool, str]:
    """The text behind the last ";" of a kmsg record is what dmesg shows."""
    text = cited.observed.partition(";")[2] or cited.observed
    return bool(text) and text.strip() in _run("dmesg"), text
