"""The flags of ``run``, ``create`` and ``update``, as help shows them."""

from __future__ import annotations

RESOURCES = """
    --blkio-weight N             Block IO weight, 10 to 1000, 0 to disable
    --cpu-period N               CPU CFS period in microseconds
    --cpu-quota N                CPU CFS quota in microseconds
    --cpu-rt-period N            CPU real-time period in microseconds
    --cpu-rt-runtime N           CPU real-time runtime in microseconds
-c, --cpu-shares N               CPU shares (relative weight)
    --cpus NUMBER                Number of CPUs, such as 1.5
    --cpuset-cpus LIST           CPUs to run on (0-3, 0,1)
    --cpuset-mems LIST           Memory nodes to use (0-3, 0,1)
-m, --memory BYTES               Memory limit
    --memory-reservation BYTES   Memory soft limit
    --memory-swap BYTES          Memory plus swap, -1 for unlimited swap
    --pids-limit N               Most processes, -1 for unlimited
"""

CREATE = (
    """
    --add-host HOST:IP...        Extra line of /etc/hosts
    --annotation KEY=VALUE...    Annotation passed to the OCI runtime
-a, --attach STREAM...           Attach to stdin, stdout or stderr
    --blkio-weight-device D:N...  Block IO weight of a device
    --cap-add NAME...            Add a Linux capability
    --cap-drop NAME...           Drop a Linux capability
    --cgroup-parent PATH         Parent cgroup
    --cgroupns MODE              Cgroup namespace: host or private
    --cidfile FILE               Write the container ID to a file
    --device PATH...             Add a host device (HOST[:CONTAINER[:rwm]])
    --device-cgroup-rule RULE...  Add a rule to the list of allowed devices
    --device-read-bps D:N...     Limit bytes a second read from a device
    --device-read-iops D:N...    Limit reads a second from a device
    --device-write-bps D:N...    Limit bytes a second written to a device
    --device-write-iops D:N...   Limit writes a second to a device
    --disable-content-trust      Skip image verification
    --dns IP...                  DNS server
    --dns-option OPTION...       DNS option
    --dns-search DOMAIN...       DNS search domain
    --domainname NAME            NIS domain name
    --entrypoint COMMAND         Replace the entrypoint of the image
-e, --env KEY=VALUE...           Environment variable (KEY: as it is here)
    --env-file FILE...           Environment variables from a file
    --expose PORT...             Expose a port or a range of ports
    --gpus GPUS                  GPUs ("all" for each)
    --group-add GROUP...         Add a group
    --health-cmd COMMAND         Command that checks health
    --health-interval SPAN       Time between checks (ms, s, m, h)
    --health-retries N           Failures in a row that mean unhealthy
    --health-start-interval SPAN  Time between checks while starting
    --health-start-period SPAN   Time to start before failures count
    --health-timeout SPAN        Longest time of one check
-h, --hostname NAME              Host name
    --init                       Run an init that forwards signals and reaps
-i, --interactive                Keep stdin open even if not attached
    --ip ADDRESS                 IPv4 address
    --ip6 ADDRESS                IPv6 address
    --ipc MODE                   IPC namespace: host, private, container:NAME
    --isolation TECHNOLOGY       Isolation technology
    --kernel-memory BYTES        Ignored, as by docker
-l, --label KEY=VALUE...         Label
    --label-file FILE...         Labels from a file
    --link NAME[:ALIAS]...       Link to another container
    --link-local-ip ADDRESS...   Link-local address
    --log-driver NAME            Logging driver
    --log-opt KEY=VALUE...       Option of the logging driver
    --mac-address MAC            MAC address
    --memory-swappiness N        Swappiness, 0 to 100
    --mount SPEC...              Mount (type=bind|volume|tmpfs|image,...)
    --name NAME                  Name of the container
    --network NETWORK...         Network (or name=...,alias=...,ip=...)
    --network-alias NAME...      Further name on the network
    --no-healthcheck             Disable the health check of the image
    --oom-kill-disable           Disable the OOM killer
    --oom-score-adj N            OOM preference, -1000 to 1000
    --pid MODE                   PID namespace: host, container:NAME
    --platform OS/ARCH           Platform of the image
    --privileged                 All privileges that the host can give
-p, --publish PORTS...           Publish ports ([IP:][HOST:]CONTAINER[/PROTO])
-P, --publish-all                Publish all exposed ports to random ones
    --pull WHEN                  Pull first: always, missing, never
-q, --quiet                      No output of the pull
    --read-only                  Root file system read-only
    --restart POLICY             no, always, unless-stopped, on-failure[:N]
    --rm                         Remove the container when it ends
    --runtime NAME               OCI runtime
    --security-opt OPTION...     Security option
    --shm-size BYTES             Size of /dev/shm
    --stop-signal SIGNAL         Signal that stops the container
    --stop-timeout N             Seconds to wait before killing at stop
    --storage-opt KEY=VALUE...   Storage option
    --sysctl KEY=VALUE...        Kernel parameter
    --tmpfs PATH[:OPTIONS]...    Mount a tmpfs
-t, --tty                        Give a pseudo-terminal
    --ulimit NAME=SOFT:HARD...   Limit of the processes
-u, --user USER[:GROUP]          User or UID, group or GID
    --userns MODE                User namespace
    --uts MODE                   UTS namespace: host
-v, --volume SPEC...             Volume or bind mount ([SRC:]DEST[:OPTIONS])
    --volume-driver NAME         Volume driver
    --volumes-from NAME...       Mounts of another container
-w, --workdir PATH               Working directory
"""
    + RESOURCES
)

RUN_ONLY = """
-d, --detach                     Run in the background, print the ID
    --detach-keys KEYS           Keys that detach (ctrl-p,ctrl-q)
    --sig-proxy                  Pass signals to the process (default true)
"""

def ordered(*parts: str) -> str:
    """Lines of declarations, sorted by the long name, as docker's help has them."""
    lines = [line for part in parts for line in part.splitlines() if line.strip()]
    return "\n".join(sorted(lines, key=lambda line: line.partition("--")[2].split()[0]))
