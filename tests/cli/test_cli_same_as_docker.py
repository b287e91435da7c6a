"""The same words at the same engine: what docker's CLI prints and how it ends, ours does too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time

import pytest

from dockyard.client import Client

DOCKER = shutil.which("docker")
SAME_SINCE = 28
"""Major version whose formats these are; older ones print other columns."""
AGE = re.compile(r"(Less than a|About an?|\d+) (second|minute|hour)s?")
LINES = """
ps -a
ps -aq
ps --no-trunc
ps -s
ps -n 1
ps -l -q
ps --filter status=exited --format {{.Names}}|{{.Image}}|{{.Command}}|{{.Ports}}|{{.Labels}}|{{.Networks}}|{{.Size}}
ps --format "table {{.ID}}\\t{{.RunningFor}}\\t{{.Status}}"
images
images -q
images --digests
images --no-trunc
images busybox
images --format {{.Repository}}:{{.Tag}}|{{.ID}}|{{.Size}}|{{.CreatedAt}}
history busybox
history -q busybox
history -H=false busybox
volume ls
volume ls -q
volume ls --format {{.Name}}|{{.Driver}}|{{.Scope}}|{{.Mountpoint}}|{{.Labels}}
network ls
network ls --no-trunc
network ls --format {{.Name}}|{{.Driver}}|{{.Internal}}|{{.IPv6}}
inspect same-up
inspect nobody
inspect same-up nobody
inspect -f {{.State.Status}}|{{.Config.Image}}|{{json\x20.Config.Cmd}} same-up
inspect -f {{range\x20$k,$v:=.Config.Labels}}{{$k}}={{$v}};{{end}} same-up
inspect -f {{len\x20.Config.Env}}|{{index\x20.Config.Cmd\x200}}|{{join\x20.Config.Cmd\x20"+"}}|{{upper\x20.Name}} same-up
inspect -f {{if\x20.State.Running}}yes{{else}}no{{end}}|{{printf\x20"%s/%d"\x20.Name\x20.RestartCount}} same-up
inspect -f {{.Nothing}} same-up
image inspect busybox
volume inspect same-volume
network inspect bridge
volume inspect nobody
image inspect nobody
container inspect nobody
logs same-done
logs nobody
port same-up
diff same-up
wait same-done
stats --no-stream same-up
system df
info -f {{.Driver}}|{{.NCPU}}
version -f {{.Server.Version}}
exec same-up echo hi
exec same-up sh -c "exit 5"
exec nobody true
run --rm busybox sh -c "echo a; exit 3"
run --rm busybox doesnotexist
run
run --nothing
ps --nothing
ps --filter x
rm
rm same-up
rm nobody
rmi nobody
start nobody
stop nobody
kill nobody
rename nobody somebody
tag nobody some:body
pull doesnotexist
volume rm nobody
network rm nobody
network rm bridge
pull -q busybox
create --name same-up busybox
create -p x:y busybox
container ls -aq
container inspect same-up
image ls
"""


@pytest.fixture(scope="module")
def docker() -> str:
    if DOCKER is None:
        pytest.skip("no docker CLI here")
    version = subprocess.run([DOCKER, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.split()[2].split(".")[0]) < SAME_SINCE:
        pytest.skip(f"docker CLI {SAME_SINCE} is compared, here is {version}")
    return DOCKER


@pytest.fixture(scope="module")
def furnished(dry_host: str) -> None:
    with Client(dry_host) as client:
        for _ in client.objects("POST", "/images/create", {"fromImage": "busybox", "tag": "latest"}):
            pass
        if not any("/same-up" in row["Names"] for row in client.request("GET", "/containers/json")):
            client.request("POST", "/volumes/create", body={"Name": "same-volume", "Labels": {"a": "b"}})
            wish = {"Image": "busybox", "Cmd": ["sleep", "3600"], "Labels": {"one": "1", "two": "2"}}
            _start(client, "same-up", wish)
            _start(client, "same-done", {"Image": "busybox", "Cmd": ["sh", "-c", "echo said; exit 2"]})
            client.request("POST", "/containers/same-done/wait")


def _start(client: Client, name: str, wish: dict[str, object]) -> None:
    client.request("POST", "/containers/create", {"name": name}, wish)
    client.request("POST", f"/containers/{name}/start")


@pytest.mark.parametrize("line", [line for line in LINES.splitlines() if line])
@pytest.mark.usefixtures("furnished")
def test_prints_and_ends_alike(line: str, cli, environ: dict[str, str], docker: str) -> None:
    words = [word.replace("\x20", " ").replace("\\t", "\t") for word in _split(line)]
    for attempt in range(3):
        theirs = subprocess.run([docker, *words], env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        ours = cli(*words)
        if _bare(ours.out) == _bare(theirs.stdout):
            break
        time.sleep(attempt)  # an age ("5 seconds ago") moved on between the two
    assert ours.code == theirs.returncode
    assert _bare(ours.out) == _bare(theirs.stdout)


def _split(line: str) -> list[str]:
    """Words at plain spaces outside of templates and quotes."""
    return [word.strip('"') if word.startswith('"') else word for word in re.findall(r'(?:\{\{.*?\}\}|"[^"]*"|[^ "{]|\{)+', line)]


def _bare(text: str) -> object:
    """A document as such, for the order of its fields says nothing; else lines without the blanks at their ends, ages
    rounded away."""
    if text.startswith(("[", "{")):
        return json.loads(text)
    return [re.sub(r" {2,}", "  ", AGE.sub("AGE", line.rstrip())) for line in text.strip().splitlines()]
