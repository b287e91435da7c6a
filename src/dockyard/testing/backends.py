"""Servers that the registry stores in, for tests: a private PostgreSQL, an S3 API (moto's), Google's and Azure's object
storage (`dockyard.testing.buckets`), all on loopback ports."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dockyard.testing.buckets import AzureHandler, GoogleHandler, Objects, object_service
from dockyard.testing.registries import free_port

_START = 60.0
BUCKET = "registry-under-test"
_ACCOUNT = "dockyardtests"


def _postgres_programs() -> Path:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """URL of an empty database. The server runs as `postgres`: it refuses to run as root."""
    programs, port = _postgres_programs(), free_port()
    root = Path(tempfile.mkdtemp(prefix="dockyard-pg-"))
    shutil.chown(root, "postgres")
    root.chmod(0o700)

    def run(*words: str) -> None:
        subprocess.run(["runuser", "-u", "postgres", "--", *words], check=True, capture_output=True, timeout=_START, cwd="/")

    run(str(programs / "initdb"), "-D", f"{root}/data", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    with (Path(f"{root}/data") / "postgresql.conf").open("a") as settings:
        settings.write(f"port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{root}'\nfsync=off\n"
                       "max_connections=60\nshared_buffers=32MB\n")  # fmt: skip
    try:
        run(str(programs / "pg_ctl"), "-D", f"{root}/data", "-l", f"{root}/log", "-w", "-t", str(int(_START)), "start")
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run(str(programs / "pg_ctl"), "-D", f"{root}/data", "-m", "immediate", "stop")
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def fresh_schema(url: str, name: str) -> Iterator[str]:
    """URL of a new database on the same server."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    made = f"{url.rpartition('/')[0]}/{name}"
    yield made
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextlib.contextmanager
def s3(bucket: str = BUCKET) -> Iterator[str]:
    """URL of an empty bucket; the environment says where its server is, as it would for a real one."""
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    told = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
    }  # fmt: skip
    try:
        with _environment(told):
            make_bucket(told["AWS_ENDPOINT_URL"], bucket)
            yield f"s3://{bucket}/blobs-of-tests"
    finally:
        server.stop()


@contextlib.contextmanager
def google() -> Iterator[tuple[str, Objects]]:
    """URL of an empty bucket of Google's, and what it holds."""
    with object_service(GoogleHandler) as (base, objects):
        key = {"gcs_base_url": base, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        with _environment({"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key), "GOOGLE_ALLOW_HTTP": "true"}):
            yield f"gs://{BUCKET}/blobs-of-tests", objects


@contextlib.contextmanager
def azure() -> Iterator[tuple[str, Objects]]:
    """URL of an empty container of Azure's, and what it holds."""
    with object_service(AzureHandler) as (base, objects):
        told = {"AZURE_STORAGE_ENDPOINT": f"{base}/{_ACCOUNT}", "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": "a2V5", "AZURE_ALLOW_HTTP": "true"}  # fmt: skip
        with _environment(told):
            yield f"az://{BUCKET}/blobs-of-tests", objects


@contextlib.contextmanager
def _environment(told: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def make_bucket(endpoint: str, bucket: str) -> None:
    import urllib3

    end = time.monotonic() + _START
    while True:
        try:
            answer = urllib3.request("PUT", f"{endpoint}/{bucket}", retries=False, timeout=10.0)
            assert answer.status == 200, answer.data
            return
        except urllib3.exceptions.HTTPError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)  # a real server is starting; bounded by _START
