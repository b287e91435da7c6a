"""The create request of ``run`` and ``create`` (docker/cli cli/command/container/opts.go)."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from dockyard.cli.flags import Options, UsageError
from dockyard.cli.request import mounts, ports
from dockyard.cli.request.networks import extra_hosts, networking
from dockyard.cli.request.resources import resources, restart_policy
from dockyard.cli.request.values import environment, labels, mapping, size, span, strict_mapping, text_of

Json = dict[str, Any]
_HEALTH_SPANS = {
    "health-interval": "Interval", "health-timeout": "Timeout", "health-start-period": "StartPeriod",
    "health-start-interval": "StartInterval",
}  # fmt: skip
_TEXTS = {
    "cgroup-parent": "CgroupParent", "cgroupns": "CgroupnsMode", "cidfile": "ContainerIDFile", "ipc": "IpcMode",
    "isolation": "Isolation", "pid": "PidMode", "runtime": "Runtime", "userns": "UsernsMode", "uts": "UTSMode",
    "volume-driver": "VolumeDriver",
}  # fmt: skip
_CONFIG_TEXTS = {
    "hostname": "Hostname", "domainname": "Domainname", "user": "User", "workdir": "WorkingDir",
    "stop-signal": "StopSignal",
}  # fmt: skip
_LISTS = {
    "dns": "Dns", "dns-option": "DnsOptions", "dns-search": "DnsSearch", "group-add": "GroupAdd", "link": "Links",
    "volumes-from": "VolumesFrom",
}  # fmt: skip
_SWITCHES = {
    "privileged": "Privileged", "publish-all": "PublishAllPorts", "read-only": "ReadonlyRootfs", "rm": "AutoRemove",
}  # fmt: skip


class Created(NamedTuple):
    """``query`` and ``body`` of POST /containers/create."""

    query: Json
    body: Json


def document(options: Options, *, detached: bool = False, environ: dict[str, str] | None = None) -> Created:
    """What to send. ``options.words`` are image, command and arguments. Raises UsageError."""
    ports_exposed, bindings = ports.published(options.all("publish"))
    ports_exposed |= ports.exposed(options.all("expose"))
    binds, anonymous = mounts.volumes(options.all("volume"))
    mode, endpoints = networking(options)
    host = _host(options) | _security(options.all("security-opt"))
    host |= {"NetworkMode": mode} | _given({"Binds": binds, "PortBindings": bindings})
    body = _config(options, detached, environ)
    body |= _given({"ExposedPorts": ports_exposed, "Volumes": anonymous})
    body |= {"HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}
    query = _given({"name": options.text("name"), "platform": options.text("platform")})
    return Created(query, body)


def _given(found: Json) -> Json:
    return {key: value for key, value in found.items() if value}


def _config(options: Options, detached: bool, environ: dict[str, str] | None) -> Json:
    image, *command = options.words
    body: Json = {"Image": image, "Tty": options.on("tty"), "OpenStdin": options.on("interactive")}
    body |= _attached(options, detached)
    body |= _given({key: options.text(flag) for flag, key in _CONFIG_TEXTS.items()})
    if command:
        body["Cmd"] = command
    if options.given("entrypoint"):
        body["Entrypoint"] = [options.text("entrypoint")]
    if options.given("stop-timeout"):
        body["StopTimeout"] = options.number("stop-timeout")
    return body | _given(
        {
            "Env": environment(options.all("env-file"), options.all("env"), environ),
            "Labels": labels(options.all("label-file"), options.all("label")),
            "Healthcheck": _health(options),
        }
    )


def _attached(options: Options, detached: bool) -> Json:
    wanted = [word.lower() for word in options.all("attach")]
    for word in wanted:
        if word not in ("stdin", "stdout", "stderr"):
            told = "valid streams are STDIN, STDOUT and STDERR"
            raise UsageError(f'invalid argument "{word}" for "-a, --attach" flag: {told}')
    if detached:
        if wanted:
            raise UsageError("conflicting options: cannot specify both --attach and --detach")
        return {}
    every = not wanted
    stdin = "stdin" in wanted or options.on("interactive")
    return {
        "AttachStdin": stdin, "AttachStdout": every or "stdout" in wanted, "AttachStderr": every or "stderr" in wanted,
        "StdinOnce": stdin and options.on("interactive"),
    }  # fmt: skip


def _health(options: Options) -> Json:
    command = options.text("health-cmd")
    spans = {key: span(options.text(flag), f"--{flag}") for flag, key in _HEALTH_SPANS.items() if options.given(flag)}
    retries = options.number("health-retries")
    if options.on("no-healthcheck"):
        if command or spans or retries:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if retries < 0:
        raise UsageError("--health-retries cannot be negative")
    return _given({"Test": ["CMD-SHELL", command] if command else None, "Retries": retries} | spans)


def _host(options: Options) -> Json:
    host = resources(options)
    host |= _given({key: options.text(flag) for flag, key in _TEXTS.items()})
    host |= _given({key: options.all(flag) for flag, key in _LISTS.items()})
    host |= {key: True for flag, key in _SWITCHES.items() if options.on(flag)}
    host["RestartPolicy"] = restart_policy(options.text("restart", "no"))
    if options.on("rm") and host["RestartPolicy"]["Name"] != "no":
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    if options.given("init"):
        host["Init"] = options.on("init")
    if options.given("oom-score-adj"):
        host["OomScoreAdj"] = options.number("oom-score-adj")
    if options.given("shm-size"):
        host["ShmSize"] = size(options.text("shm-size"), "--shm-size")
    return host | _given(
        {
            "CapAdd": _capabilities(options.all("cap-add")),
            "CapDrop": _capabilities(options.all("cap-drop")),
            "ExtraHosts": extra_hosts(options.all("add-host")),
            "LogConfig": _logging(options),
            "Mounts": mounts.mounts(options.all("mount")),
            "Tmpfs": mounts.tmpfs(options.all("tmpfs")),
            "Sysctls": strict_mapping(options.all("sysctl"), "--sysctl"),
            "StorageOpt": strict_mapping(options.all("storage-opt"), "--storage-opt"),
            "Annotations": strict_mapping(options.all("annotation"), "--annotation"),
        }
    )


def _capabilities(words: list[str]) -> list[str]:
    """``CAP_`` in front, capitals, sorted, once each; ALL swallows the rest."""
    found = {word.strip().upper() for word in words}
    if "ALL" in found:
        return ["ALL"]
    return sorted(word if word.startswith("CAP_") else f"CAP_{word}" for word in found)


def _logging(options: Options) -> Json:
    driver, given = options.text("log-driver"), mapping(options.all("log-opt"))
    if driver == "none" and given:
        raise UsageError("invalid logging opts for driver none")
    return _given({"Type": driver, "Config": given})


def _security(words: list[str]) -> Json:
    """Security options; a seccomp profile travels as its content; ``systempaths=unconfined`` unmasks."""
    kept: list[str] = []
    found: Json = {}
    for word in words:
        key, equals, value = word.partition("=") if "=" in word else word.partition(":")
        if not equals and key != "no-new-privileges":
            raise UsageError(f"invalid --security-opt: {word}")
        if key == "systempaths" and value == "unconfined":
            found = {"MaskedPaths": [], "ReadonlyPaths": []}
        elif key == "seccomp" and value not in ("unconfined", "builtin"):
            kept.append(f"seccomp={_profile(value)}")
        else:
            kept.append(word)
    return found | _given({"SecurityOpt": kept})


def _profile(path: str) -> str:
    try:
        return json.dumps(json.loads(text_of(path)), separators=(",", ":"))
    except ValueError as error:
        raise UsageError(f"compacting json for seccomp profile ({path}) failed: {error}") from None
