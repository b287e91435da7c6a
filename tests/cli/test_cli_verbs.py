"""Every everyday verb on the simulated engine: what it prints, where, and its exit code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dockyard.client import Client

Cli = Callable[..., object]
DOCKER = shutil.which("docker")
ID = re.compile(r"[0-9a-f]{64}\n")


@pytest.fixture
def web(cli, client: Client):
    """A running container of its own name."""
    name = f"web{time.monotonic_ns()}"
    assert cli("run", "-d", "--name", name, "--label", "k=v", "-p", "8080:80", "busybox", "sleep", "3600").code == 0
    yield name
    client.request("DELETE", f"/containers/{name}", {"force": True, "v": True}) if _is_there(client, name) else None


def _is_there(client: Client, name: str) -> bool:
    return any(f"/{name}" in row["Names"] for row in client.request("GET", "/containers/json", {"all": True}))


def test_run_gives_output_and_exit_code(cli) -> None:
    assert cli("run", "--rm", "busybox", "echo", "hi").out == "hi\n"
    assert cli("run", "--rm", "busybox", "sh", "-c", "exit 7").code == 7


def test_run_tells_missing_programs_by_127(cli) -> None:
    ran = cli("run", "--rm", "busybox", "doesnotexist")
    assert ran.code == 127
    assert "executable file not found" in ran.err
    assert ran.out == ""


def test_run_pulls_what_is_missing_and_says_so(cli, client: Client) -> None:
    ran = cli("run", "--rm", "fresh/image:1", "true")
    assert ran.code == 0
    assert ran.err.startswith("Unable to find image 'fresh/image:1' locally\n")
    assert "Downloaded newer image" in ran.err
    assert cli("run", "--rm", "--pull", "never", "other/image:1", "true").code == 125
    quiet = cli("run", "--rm", "-q", "quiet/image:1", "true")
    assert (quiet.code, quiet.err) == (0, "")


def test_run_detached_prints_the_id_alone(cli, web: str) -> None:
    ran = cli("run", "-d", "--rm", "busybox", "sleep", "3600")
    assert ID.fullmatch(ran.out)
    assert cli("rm", "-f", ran.out.strip()).code == 0


def test_run_refuses_a_name_in_use_with_125(cli, web: str) -> None:
    ran = cli("run", "--name", web, "busybox", "true")
    assert ran.code == 125
    assert "is already in use by container" in ran.err
    assert "try: dockyard rm" in ran.err


def test_input_reaches_the_container_and_its_end_too(own) -> None:
    assert own("run", "--rm", "-i", "busybox", "cat", typed=b"one\ntwo\n").out == "one\ntwo\n"


def test_cidfile_holds_the_id_and_is_not_overwritten(cli, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    ran = cli("create", "--cidfile", str(file), "busybox")
    assert file.read_text() == ran.out.strip()
    again = cli("create", "--cidfile", str(file), "busybox")
    assert again.code == 125
    assert "container ID file found" in again.err
    cli("rm", ran.out.strip())
    assert cli("create", "--name", "!!", "--cidfile", str(tmp_path / "other"), "busybox").code == 1
    assert not (tmp_path / "other").exists()


def test_exec_gives_output_and_exit_code(cli, own, web: str) -> None:
    assert cli("exec", web, "echo", "hi").out == "hi\n"
    assert cli("exec", web, "sh", "-c", "exit 3").code == 3
    assert own("exec", "-i", web, "cat", typed=b"typed").out == "typed"
    assert cli("exec", "-d", web, "true").code == 0
    assert cli("exec", "nobody", "true").code == 1


def test_life_and_death(cli, client: Client, web: str) -> None:
    for words in (["pause", web], ["unpause", web], ["restart", "-t", "0", web], ["stop", "-t", "0", web], ["start", web],
                  ["kill", "-s", "KILL", web]):  # fmt: skip
        ran = cli(*words)
        assert (ran.code, ran.out) == (0, f"{web}\n"), words
    waited = cli("wait", web)
    assert (waited.code, waited.out) == (0, "137\n")
    assert cli("rename", web, f"{web}b").code == 0
    assert cli("rename", f"{web}b", web).code == 0
    assert cli("rm", web).out == f"{web}\n"
    assert not _is_there(client, web)


def test_several_names_go_on_after_a_refusal(cli, web: str) -> None:
    ran = cli("stop", "-t", "0", "nobody", web)
    assert (ran.code, ran.out) == (1, f"{web}\n")
    assert "No such container: nobody" in ran.err


def test_starting_what_runs_is_no_error(cli, web: str) -> None:
    assert cli("start", web).out == f"{web}\n"
    ran = cli("start", "nobody")
    assert ran.code == 1
    assert "failed to start containers: nobody" in ran.err


def test_start_attached_gives_output_and_exit_code(cli, client: Client) -> None:
    made = cli("create", "busybox", "sh", "-c", "echo there; exit 4").out.strip()
    ran = cli("start", "-a", made)
    assert (ran.out, ran.code) == ("there\n", 4)
    cli("rm", made)


def test_ps_columns_quiet_filters_and_forms(cli, web: str) -> None:
    lines = cli("ps").out.splitlines()
    assert lines[0].split("  ")[0] == "CONTAINER ID"
    row = next(line for line in lines if web in line)
    assert '"sleep 3600"' in row
    assert "Up " in row
    identifier = cli("ps", "-q", "--no-trunc", "--filter", f"name={web}").out
    assert ID.fullmatch(identifier)
    assert cli("ps", "--filter", "name=nobody", "-q").out == ""
    assert cli("ps", "--filter", f"name={web}", "--format", '{{.Names}} {{.Label "k"}}').out == f"{web} v\n"
    table = cli("ps", "--filter", f"name={web}", "--format", "table {{.Names}}\t{{.State}}").out
    assert table.split() == ["NAMES", "STATE", web, "running"]
    assert json.loads(cli("ps", "--filter", f"name={web}", "--format", "json").out)["Names"] == web
    assert [row["Names"] for row in json.loads(cli("ps", "--filter", f"name={web}", "--json").out)] == [web]


def test_a_field_that_is_not_there_is_told(cli, web: str) -> None:
    ran = cli("ps", "--format", "{{.Nothing}}")
    assert ran.code == 1
    assert "Nothing" in ran.err
    assert "--format '{{json .}}'" in ran.err


def test_ps_takes_its_form_from_the_configuration(cli, environ: dict[str, str], web: str) -> None:
    folder = Path(environ["DOCKER_CONFIG"])
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"psFormat": "[{{.Names}}]"}))
    assert f"[{web}]" in cli("ps").out
    assert "CONTAINER ID" in cli("ps", "--format", "table").out


def test_logs(cli, client: Client) -> None:
    made = cli("run", "-d", "busybox", "sh", "-c", "echo one; echo two").out.strip()
    cli("wait", made)
    assert cli("logs", made).out == "one\ntwo\n"
    assert cli("logs", "nobody").code == 1
    cli("rm", made)


def test_inspect_finds_objects_of_any_kind(cli, web: str) -> None:
    cli("volume", "create", "inspected")
    ran = cli("inspect", web, "busybox", "inspected", "bridge")
    assert ran.code == 0
    kinds = [next(key for key in ("State", "RepoTags", "Mountpoint", "IPAM") if key in found) for found in json.loads(ran.out)]
    assert kinds == ["State", "RepoTags", "Mountpoint", "IPAM"]
    assert cli("inspect", "-f", "{{.State.Status}}", web).out == "running\n"
    assert cli("inspect", "-f", "{{.ID}} {{.Id}}", web).out.split()[0] == json.loads(ran.out)[0]["Id"]
    missing = cli("inspect", web, "nobody")
    assert missing.code == 1
    assert len(json.loads(missing.out)) == 1
    assert "No such object: nobody" in missing.err
    assert cli("inspect", "-f", "{{.Nothing}}", web).code == 1
    assert cli("inspect", "--type", "volume", web).code == 1
    cli("volume", "rm", "inspected")


def test_stats_top_diff_port(cli, web: str) -> None:
    lines = cli("stats", "--no-stream", web).out.splitlines()
    assert lines[0].startswith("CONTAINER ID   NAME")
    assert web in lines[1]
    assert cli("top", web).out.splitlines()[0].split()[:2] == ["UID", "PID"]
    assert cli("diff", web).code == 0
    ran = cli("port", web, "81")
    assert ran.code == 1
    assert "no public port '81'" in ran.err


def test_update_says_what_it_takes(cli, web: str) -> None:
    assert cli("update", "-m", "256m", "--cpus", "1.5", web).out == f"{web}\n"
    assert json.loads(cli("inspect", web).out)[0]["HostConfig"]["NanoCpus"] == 1_500_000_000
    assert cli("update", web).code == 1


def test_images_tags_history_and_removal(cli) -> None:
    cli("pull", "-q", "some/app:1")
    assert cli("images", "some/app").out.splitlines()[1].split()[:2] == ["some/app", "1"]
    assert ID.fullmatch(cli("images", "-q", "--no-trunc", "some/app").out.removeprefix("sha256:"))
    assert cli("history", "some/app:1").out.startswith("IMAGE ")
    assert cli("tag", "some/app:1", "some/app:2").code == 0
    assert "some/app:2" in cli("images", "--format", "{{.Repository}}:{{.Tag}}").out
    assert "Untagged: some/app" in cli("rmi", "some/app:2").out
    assert cli("rmi", "some/app:2").code == 1
    assert cli("rmi", "-f", "some/app:2").code == 0


def test_pull_tells_as_docker_does(cli) -> None:
    ran = cli("pull", "another")
    assert ran.out.splitlines()[0] == "Using default tag: latest"
    assert ran.out.splitlines()[-1] == "docker.io/library/another:latest"
    assert cli("pull", "-q", "another:3").out == "docker.io/library/another:3\n"
    assert cli("pull", "doesnotexist").code == 1
    assert cli("pull", "-a", "x:1").code == 1
    assert cli("pull", "UPPER").code == 1


def test_commit_prints_the_new_image(cli, web: str) -> None:
    ran = cli("commit", "-m", "words", "-c", "ENV A=b", "-c", "CMD x", web, "made:1")
    assert ID.fullmatch(ran.out.removeprefix("sha256:"))


def test_volumes(cli) -> None:
    assert cli("volume", "create", "--label", "a=b", "-o", "type=tmpfs", "vol1").out == "vol1\n"
    assert json.loads(cli("volume", "inspect", "vol1").out)[0]["Options"] == {"type": "tmpfs"}
    assert cli("volume", "ls", "-q").out.split().count("vol1") == 1
    assert cli("volume", "rm", "vol1").out == "vol1\n"
    assert cli("volume", "rm", "vol1").code == 1
    assert cli("volume", "rm", "-f", "vol1").code == 0


def test_networks(cli) -> None:
    words = ["--subnet", "10.9.0.0/24", "--gateway", "10.9.0.1", "--aux-address", "x=10.9.0.9", "--ip-range", "10.9.0.128/25"]
    assert ID.fullmatch(cli("network", "create", *words, "net1").out)
    (config,) = json.loads(cli("network", "inspect", "net1").out)[0]["IPAM"]["Config"]
    wanted = {"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25", "Gateway": "10.9.0.1", "AuxiliaryAddresses": {"x": "10.9.0.9"}}
    assert config == wanted
    assert "net1" in cli("network", "ls").out
    assert cli("network", "rm", "net1", "nobody").out == "net1\n"
    assert cli("network", "create", "--gateway", "10.9.0.1", "x").code == 1
    assert cli("network", "create", "--subnet", "10.9.0.0/24", "--gateway", "10.8.0.1", "x").code == 1


def test_prunes_ask_and_say(cli, own) -> None:
    made = cli("create", "busybox").out.strip()
    refused = own("container", "prune", typed=b"n\n")
    assert "WARNING! This will remove all stopped containers." in refused.out
    assert made not in refused.out
    assert made in cli("container", "prune", "-f").out
    for words in (["image", "prune", "-f"], ["volume", "prune", "-f"], ["network", "prune", "-f"]):
        assert cli(*words).code == 0, words
    assert cli("system", "prune", "-f").out.endswith("Total reclaimed space: 0B\n")


def test_the_engine_as_a_whole(cli) -> None:
    assert "Server: Dockyard" in cli("version").out
    assert cli("version", "-f", "{{.Server.ApiVersion}}").out == "1.51\n"
    assert json.loads(cli("info", "--format", "json").out)["Driver"] == "overlay2"
    assert " Storage Driver: overlay2\n" in cli("info").out
    assert cli("system", "df").out.splitlines()[1].startswith("Images")
    assert "Containers space usage:" in cli("system", "df", "-v").out


def test_events_of_the_past(cli, web: str) -> None:
    lines = cli("events", "--since", "1h", "--until", "0s", "--filter", f"container={web}", "--filter", "event=start").out
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z container start [0-9a-f]{64} \(.*\)\n", lines)
    assert json.loads(cli("events", "--since", "1h", "--until", "0s", "--json").out.splitlines()[0])["Type"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["pss"], 1, "Did you mean: dockyard ps"),
        (["swarm", "init"], 1, "'swarm' is not implemented by Dockyard yet"),
        (["volume", "lss"], 1, "Did you mean: dockyard volume ls"),
        (["ps", "--al"], 125, "did you mean --all?"),
        (["ps", "-Z"], 125, "unknown shorthand flag: 'Z' in -Z"),
        (["ps", "--filter", "x"], 125, "bad format of filter"),
        (["ps", "-n", "x"], 125, "a number is expected"),
        (["ps", "x"], 1, "accepts no arguments"),
        (["rm"], 1, "requires at least 1 argument"),
        (["rename", "a"], 1, "requires exactly 2 arguments"),
        (["tag", "a", "b", "c"], 1, "requires exactly 2 arguments"),
        (["pull"], 1, "requires exactly 1 argument"),
        (["run"], 1, "requires at least 1 argument"),
        (["run", "--nothing"], 125, "unknown flag: --nothing"),
        (["run", "-m"], 125, "flag needs an argument: -m"),
        (["run", "--rm=what", "x"], 125, "true or false is expected"),
        (["run", "-p", "x:y", "busybox"], 125, "invalid containerPort: y"),
        (["run", "UPPER"], 125, "must be lowercase"),
        (["run", "-d", "-a", "stdout", "busybox"], 125, "cannot specify both --attach and --detach"),
        (["run", "--detach-keys", "nothing", "busybox"], 125, "invalid detach keys"),
        (["run", "--pull", "often", "busybox"], 125, "invalid pull option: 'often'"),
        (["start", "-a", "x", "y"], 1, "cannot start and attach multiple containers"),
        (["cp", "a", "b"], 1, "must specify at least one container source"),
        (["load", "-i", "/nowhere/x"], 1, "no such file or directory"),
        (["login", "host:1"], 1, "interactive login from a non TTY device"),
        (["completion", "tcsh"], 1, "there is no completion for tcsh"),
    ],
)
def test_mistakes_are_told_with_the_way_on(own_or_cli, words: list[str], code: int, told: str) -> None:
    ran = own_or_cli(*words)
    assert ran.code == code
    assert told in ran.err
    assert ran.out == ""


@pytest.fixture
def own_or_cli(cli):
    return cli


def test_no_engine_is_told_with_the_doctor(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/x.sock")
    ran = cli("ps")
    assert ran.code == 1
    assert "Cannot connect to the Docker daemon" in ran.err
    assert "dockyard doctor" in ran.err
    assert cli("version").code == 1
    assert "Client: Dockyard" in cli("version").out


def test_proxies_of_the_configuration_reach_new_containers(cli, environ: dict[str, str]) -> None:
    folder = Path(environ["DOCKER_CONFIG"])
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "n"}}}))
    made = cli("create", "-e", "NO_PROXY=mine", "busybox").out.strip()
    env = json.loads(cli("inspect", made).out)[0]["Config"]["Env"]
    assert {"HTTP_PROXY=http://p:1", "http_proxy=http://p:1", "no_proxy=n", "NO_PROXY=mine"} <= set(env)
    assert "NO_PROXY=n" not in env
    cli("rm", made)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [("dockyard vol", "volume"), ("dockyard volume cre", "create"), ("dockyard run --network br", "bridge"),
     ("dockyard pull busybox:la", "latest")],
)  # fmt: skip
def test_bash_completes(line: str, wanted: str, environ: dict[str, str], cli, tmp_path: Path) -> None:
    cli("pull", "-q", "busybox")
    program = tmp_path / "bin/dockyard"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dockyard.cli "$@"\n')
    program.chmod(0o755)
    script = f"""source <(dockyard completion bash)
        COMP_LINE='{line}' COMP_POINT={len(line)}; read -r -a COMP_WORDS <<< "$COMP_LINE"; COMP_CWORD=$((${{#COMP_WORDS[@]}}-1))
        _dockyard; printf '%s\n' "${{COMPREPLY[@]}}" """
    environ = environ | {"PATH": f"{program.parent}:{environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert wanted in done.stdout.split(), done.stderr


def test_tls_flags_choose_the_files(tmp_path: Path) -> None:
    from dockyard.cli import flags, main

    (tmp_path / "ca.pem").touch()
    top = flags.parse(flags.declared(main.GLOBAL), ["--tlsverify", "--tlscert", "x.pem", "ps"], interspersed=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        assert main._tls(top) == (str(tmp_path / "ca.pem"), "x.pem", "", True)
    assert main._tls(flags.parse(flags.declared(main.GLOBAL), ["ps"], interspersed=False)) is None


def test_contexts_are_kept_as_docker_keeps_them(cli, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("ps")
    dry = environ["DOCKER_HOST"]
    monkeypatch.delenv("DOCKER_HOST")
    (tmp_path / "ca").write_text("pem")
    assert cli("context", "create", "dry", "--description", "a dry run", "--docker", f"host={dry}").out == "dry\n"
    assert cli("context", "create", "dry").code == 1
    assert cli("context", "create", "default").code == 1
    assert cli("context", "create", "far", "--docker", f"host=tcp://far:2376,ca={tmp_path}/ca").code == 0
    assert cli("context", "create", "wrong", "--docker", "what=x").code == 1
    assert cli("context", "create", "wrong", "--docker", "host=nowhere").code == 1
    assert cli("--context", "dry", "version", "-f", "{{.Server.ApiVersion}}").out == "1.51\n"
    assert cli("context", "use", "dry").code == 0
    assert cli("context", "show").out == "dry\n"
    assert cli("version", "-f", "{{.Client.Context}}").out == "context dry (currentContext)\n"
    rows = json.loads(cli("context", "ls", "--json").out)
    assert [(row["Name"], row["Current"]) for row in rows] == [("default", False), ("dry", True), ("far", False)]
    far = json.loads(cli("context", "inspect", "far").out)[0]
    assert far["TLSMaterial"] == {"docker": ["ca.pem"]}
    if DOCKER:
        listed = subprocess.run([DOCKER, "context", "ls", "-q"], env={**environ, "DOCKER_HOST": ""}, capture_output=True, text=True)
        assert listed.stdout.split() == ["default", "dry", "far"], "docker reads them too"
    assert cli("context", "rm", "dry").code == 1
    assert cli("context", "rm", "far", "nobody").out == "far\n"
    assert cli("context", "rm", "-f", "dry").code == 0
    assert cli("context", "show").out == "default\n"
    assert cli("context", "use", "nobody").code == 1


def test_help_has_usage_flags_and_examples(cli) -> None:
    ran = cli("run", "--help")
    assert ran.code == 0
    for part in ("Usage:  dockyard run [OPTIONS] IMAGE", "--publish PORTS...", "Examples:", "dockyard container run"):
        assert part in ran.out
    assert "Commands:" in cli("volume").out
    assert "Groups of commands:" in cli("--help").out
