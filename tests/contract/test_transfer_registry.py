"""The transfer room against Debian's docker-registry: plain, with each kind of authentication, and through faults."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

from dockyard.errors import DataLoss, DockyardError, Exhausted, NotFound, System, Unauthorized, Unavailable
from dockyard.oci import ImageRef, parse_reference
from dockyard.testing.front import Fault, Front, front
from dockyard.testing.registries import PASSWORD, USER, TokenServer, debian_registry, make_certificate, token_server
from dockyard.transfer import ANONYMOUS, Auth, Proxies, Settings, Transfer
from dockyard.transfer.cancel import Cancel
from dockyard.transfer.fake import FakeStore
from dockyard.transfer.model import Context
from dockyard.transfer.repository import Repository
from dockyard.transfer.session import Session, TokenCache
from dockyard.transfer.settings import Endpoint
from dockyard.transfer.transport import Transport

ALICE = Auth(username=USER, password=PASSWORD)
TARS = [os.urandom(100_000) * 20, b"second layer " * 1000]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with debian_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def proxy(registry: str) -> Iterator[Front]:
    with front(registry) as it:
        yield it


class Machine:
    """A machine with an image store of its own."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.store = FakeStore(root)
        self.transfer = Transfer(Settings(**settings), self.store)

    async def pull(self, ref: str | ImageRef, **more: Any) -> list[dict[str, Any]]:
        return [item async for item in await self.transfer.pull(ref, **more)]

    async def push(self, ref: str | ImageRef, **more: Any) -> list[dict[str, Any]]:
        return [item async for item in await self.transfer.push(ref, **more)]

    def make(self, name: str, tars: list[bytes] = TARS) -> ImageRef:
        ref = parse_reference(name)
        self.store.make_image(ref, tars)
        return ref


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        made: list[Machine] = []

        def new(**settings: Any) -> Machine:
            machine = Machine(tmp_path / str(len(made)), **settings)
            made.append(machine)
            stack.callback(machine.transfer.close)
            return machine

        yield new
        for machine in made:
            assert (machine.store.ingests, machine.store.leases) == (0, 0)


def statuses(items: list[dict[str, Any]], id: str | None = None) -> list[str]:
    return [item["status"] for item in items if "status" in item and (id is None or item.get("id") == id)]


async def test_push_and_pull_say_what_the_cli_draws(registry: str, machines: Any) -> None:
    one, two = machines(), machines()
    ref = one.make(f"{registry}/team/app:1")
    pushed = await one.push(ref)
    assert pushed[0] == {"status": f"The push refers to repository [{registry}/team/app]"}
    assert statuses(pushed).count("Preparing") == statuses(pushed).count("Pushed") == 2
    aux = [item["aux"] for item in pushed if "aux" in item]
    assert len(aux) == 1
    assert pushed[-2]["status"] == f"1: digest: {aux[0]['Digest']} size: {aux[0]['Size']}"

    pulled = await two.pull(ref)
    assert pulled[0] == {"status": "Pulling from team/app", "id": "1"}
    layer = next(item["id"] for item in pulled if item["status"] == "Pulling fs layer")
    states = [s for s in statuses(pulled, layer) if s != "Downloading"]
    assert states == ["Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"]
    assert statuses(pulled)[-2:] == [f"Digest: {aux[0]['Digest']}", f"Status: Downloaded newer image for {ref}"]
    assert two.store.image_id(ref) == one.store.image_id(ref)
    assert two.store.image_id(parse_reference(f"{registry}/team/app@{aux[0]['Digest']}")) is not None

    again = await two.pull(ref)
    assert statuses(again).count("Already exists") == 2
    assert statuses(again)[-1] == f"Status: Image is up to date for {ref}"
    assert statuses(await one.push(ref)).count("Layer already exists") == 2


async def test_layers_are_mounted_from_a_neighbour_and_digests_are_kept(registry: str, machines: Any) -> None:
    one, two = machines(push_compression="zstd"), machines()
    ref = one.make(f"{registry}/team/zstd:1")
    digest = (await one.push(ref))[-1]["aux"]["Digest"]
    await two.pull(ref)  # its default is gzip: the original manifest must win all the same
    other = parse_reference(f"{registry}/elsewhere/zstd:2")
    two.store.tag(ref, other)
    pushed = await two.push(other)
    assert statuses(pushed).count("Mounted from team/zstd") == 2
    assert pushed[-1]["aux"]["Digest"] == digest


async def test_a_blob_is_found_in_the_target_without_any_record(registry: str, machines: Any) -> None:
    one = machines()
    ref = one.make(f"{registry}/again/app:1")
    await one.push(ref)
    two = machines()
    await two.pull(ref)
    fresh = Transfer(Settings(), two.store)
    assert statuses([i async for i in await fresh.push(ref)]).count("Layer already exists") == 2
    fresh.close()


async def test_uploads_in_bounded_requests(registry: str, proxy: Front, machines: Any) -> None:
    one, two = machines(push_chunk=30_000), machines()
    ref = one.make(f"{proxy.host}/chunked/app:1")
    await one.push(ref)
    spans = [h["content-range"] for m, _, h in proxy.seen if m == "PATCH"]
    assert len(spans) >= 4
    assert "0-29999" in spans
    assert "30000-59999" in spans
    await two.pull(ref)
    assert two.store.image_id(ref) == one.store.image_id(ref)


async def test_all_tags_both_ways(registry: str, machines: Any) -> None:
    one, two = machines(), machines()
    for tag in ("1", "2"):
        one.make(f"{registry}/many/app:{tag}", [tag.encode() * 600])
    pushed = await one.push(f"{registry}/many/app", all_tags=True)
    assert sum("aux" in item for item in pushed) == 2
    assert await two.transfer.tags(f"{registry}/many/app") == ["1", "2"]
    await two.pull(f"{registry}/many/app", all_tags=True)
    assert [ref.tag for ref in two.store.tags(f"{registry}/many/app")] == ["1", "2"]


async def test_distribution_names_digest_and_platform(registry: str, machines: Any) -> None:
    one = machines()
    ref = one.make(f"{registry}/dist/app:1")
    aux = (await one.push(ref))[-1]["aux"]
    document = await one.transfer.distribution(ref)
    assert document["Descriptor"]["digest"] == aux["Digest"]
    assert document["Descriptor"]["size"] == aux["Size"]
    assert document["Platforms"] == [{"architecture": "amd64", "os": "linux"}]


async def test_what_is_missing_is_said_as_docker_says_it(registry: str, machines: Any) -> None:
    one = machines()
    ref = one.make(f"{registry}/team/missing:1")
    await one.push(ref)
    for name in (f"{registry}/team/missing:2", f"{registry}/no/such:1"):
        with pytest.raises(NotFound) as caught:
            await one.pull(name)
        assert str(caught.value) == f"manifest for {name} not found: manifest unknown: manifest unknown"
    with pytest.raises(NotFound, match=r"does not match the specified platform \(linux/arm64\)"):
        await one.pull(ref, platform="linux/arm64")
    with pytest.raises(NotFound, match=r"An image does not exist locally with the tag: .*/never/made"):
        await one.push(f"{registry}/never/made:1")


async def test_nobody_listens(machines: Any) -> None:
    with pytest.raises(Unavailable, match=r'Get "https://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection'):
        await machines().pull("127.0.0.1:1/x:1")


# -- authentication --------------------------------------------------------------------------------------------------


async def test_basic_authentication(tmp_path: Path, machines: Any) -> None:
    with debian_registry(tmp_path / "registry", htpasswd=True) as host:
        one = machines()
        ref = one.make(f"{host}/team/app:1")
        await one.push(ref, auth=ALICE)
        with pytest.raises(System, match=r'^Get "http://.*/v2/team/app/manifests/1": no basic auth credentials$'):
            await machines().pull(ref)
        await machines().pull(ref, auth={"username": USER, "password": PASSWORD})
        assert (await one.transfer.login(Auth(USER, PASSWORD, serveraddress=host))).status == "Login Succeeded"
        with pytest.raises(Unauthorized, match=r"^login attempt to http://.*/v2/ failed with status: 401"):
            await one.transfer.login(Auth(USER, "wrong", serveraddress=host))


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    with token_server(tmp_path / "tokens") as server:
        yield server


async def test_token_authentication(tmp_path: Path, tokens: TokenServer, machines: Any) -> None:
    with debian_registry(tmp_path / "registry", token_server=tokens) as host:
        one, two = machines(), machines()
        ref = one.make(f"{host}/{USER}/app:1")
        await one.push(ref, auth=ALICE)
        await two.pull(ref)  # anonymous pull is granted
        assert any("scope=repository%3Aalice%2Fapp%3Apull%2Cpush" in request for request in tokens.requests)
        used = len(tokens.requests)
        await two.pull(ref)
        assert len(tokens.requests) == used, "a token that is still good must be used again"

        with pytest.raises(DockyardError, match=r"the token for alice/app lacks: push\) \(not logged in to"):
            await one.push(ref)
        foreign = one.make(f"{host}/bob/app:1")
        with pytest.raises(DockyardError, match="logged in as alice, and bob/ is not that") as caught:
            await one.push(foreign, auth=ALICE)
        assert caught.value.hint == f"docker tag {host}/bob/app:1 {host}/alice/app:1"


async def test_login_gives_an_identity_token_that_works(tmp_path: Path, tokens: TokenServer, machines: Any) -> None:
    with debian_registry(tmp_path / "registry", token_server=tokens) as host:
        one = machines()
        result = await one.transfer.login(Auth(USER, PASSWORD, serveraddress=host))
        assert result.identity_token == tokens.refresh
        ref = one.make(f"{host}/{USER}/app:1")
        await one.push(ref, auth=Auth(username=USER, identitytoken=result.identity_token))
        assert "POST refresh_token" in tokens.requests
        with pytest.raises(Unauthorized, match="unauthorized: incorrect username or password"):
            await one.transfer.login(Auth(USER, "wrong", serveraddress=host))


# -- TLS and proxies -------------------------------------------------------------------------------------------------


def repository(endpoint: Endpoint, settings: Settings) -> Repository:
    session = Session(
        Transport(settings), TokenCache(), endpoint, ANONYMOUS, Context("pull", "x:1", "x", "x"), Cancel()
    )
    return Repository(session, "x")


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_certificates(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls", "127.0.0.1")
    with debian_registry(tmp_path / "registry", tls=certificate) as host:
        strict = Endpoint(host, f"https://{host}")
        with pytest.raises(DockyardError, match="x509: certificate signed by unknown authority") as caught:
            repository(strict, Settings(certs_dirs=())).has_blob(parse_reference("x@sha256:" + "0" * 64).digest or "")
        assert f"/etc/docker/certs.d/{host}/ca.crt" in caught.value.hint
        folder = tmp_path / "certs.d" / host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificate.cert.read_bytes())
        with pytest.raises(NotFound):
            repository(strict, Settings(certs_dirs=(tmp_path / "certs.d",))).manifest("latest")
        with pytest.raises(NotFound):
            repository(Endpoint(host, f"https://{host}", insecure=True), Settings()).manifest("latest")


def test_plain_http_where_tls_is_expected(registry: str) -> None:
    with pytest.raises(DockyardError) as caught:
        repository(Endpoint(registry, f"https://{registry}"), Settings()).manifest("1")
    text = f'Get "https://{registry}/v2/x/manifests/1": http: server gave HTTP response to HTTPS client'
    assert str(caught.value) == text
    assert "insecure-registries" in caught.value.hint


async def test_a_proxy_carries_plain_http(registry: str, proxy: Front, machines: Any) -> None:
    source = machines()
    ref = source.make(f"{registry}/proxied/app:1")
    await source.push(ref)
    proxies = Proxies(http=f"http://user:pw@{proxy.host}", https=f"http://{proxy.host}")
    far = machines(proxies=proxies, insecure_registries=("registry.invalid:5000",))
    await far.pull("registry.invalid:5000/proxied/app:1")
    assert all(target.startswith("http://registry.invalid:5000/") for m, target, _ in proxy.seen)
    assert proxy.seen[-1][2]["proxy-authorization"].startswith("Basic ")


# -- mirrors and faults ----------------------------------------------------------------------------------------------


async def test_a_mirror_serves_and_the_registry_steps_in(registry: str, proxy: Front, machines: Any) -> None:
    hub = {"default_registry": registry}
    one = machines(**hub)
    ref = one.make("app:1")
    await one.push(ref)
    through = machines(**hub, mirrors={"docker.io": (f"http://{proxy.host}",)})
    await through.pull(ref, auth=ALICE)
    assert proxy.requests("/blobs/")
    assert not any("authorization" in headers for headers in proxy.requests("")), "credentials are not for mirrors"
    proxy.seen.clear()

    for fault in (
        Fault("/manifests/", status=404),
        Fault("/blobs/", corrupt=True, times=3),
        Fault("/blobs/", status=500, times=9),
    ):
        proxy.faults[:] = [fault]
        machine = machines(**hub, mirrors={"docker.io": ("http://127.0.0.1:1", f"http://{proxy.host}")})
        await machine.pull(ref)
        assert machine.store.image_id(ref) == one.store.image_id(ref)


async def test_a_cut_download_goes_on_where_it_stopped(registry: str, proxy: Front, machines: Any) -> None:
    one = machines()
    ref = one.make(f"{registry}/cut/app:1", [os.urandom(300_000)])
    await one.push(ref)
    through = parse_reference(f"{proxy.host}/cut/app:1")
    proxy.faults += [Fault("/blobs/", skip=1, cut_after=100_000), Fault("/blobs/", cut_after=50_000)]
    two = machines()
    await two.pull(through)
    assert two.store.image_id(through) == one.store.image_id(ref)
    ranges = [h.get("range") for h in proxy.requests("/blobs/")]
    assert ranges[-2:] == ["bytes=100000-", "bytes=150000-"]


async def test_a_download_goes_on_after_the_daemon_was_killed(
    registry: str, proxy: Front, machines: Any, tmp_path: Path
) -> None:
    one = machines()
    ref = one.make(f"{registry}/again/app:1", [os.urandom(9_000_000)])
    await one.push(ref)
    through = parse_reference(f"{proxy.host}/again/app:1")
    for damage in (False, True):
        two = machines(max_download_attempts=1)
        root = tmp_path / f"state-{damage}"
        root.mkdir()
        proxy.faults[:] = [Fault("/blobs/", skip=1, cut_after=5_000_000)]
        two.transfer = Transfer(Settings(max_download_attempts=1), two.store, root)
        with pytest.raises(Unavailable):
            await two.pull(through)
        (kept,) = (root / "partial").iterdir()
        assert 4_000_000 < kept.stat().st_size <= 5_000_000
        size = kept.stat().st_size
        if damage:
            kept.write_bytes(bytes(size))
        two.transfer.close()
        before = len(proxy.requests("/blobs/"))
        two.transfer = Transfer(Settings(), two.store, root)  # a new daemon over the same root
        try:
            await two.pull(through)
        finally:
            two.transfer.close()
        assert two.store.image_id(through) == one.store.image_id(ref)
        ranges = [headers.get("range") for headers in proxy.requests("/blobs/")[before:]]
        assert ranges == [None, f"bytes={size}-", *([None] if damage else [])]
        assert list((root / "partial").iterdir()) == []


async def test_a_registry_without_ranges_is_skipped_forward(registry: str, proxy: Front, machines: Any) -> None:
    one = machines()
    ref = one.make(f"{registry}/norange/app:1", [os.urandom(300_000)])
    await one.push(ref)
    proxy.faults += [Fault("/blobs/", skip=1, cut_after=100_000), Fault("/blobs/", ignore_range=True)]
    await machines().pull(f"{proxy.host}/norange/app:1")
    assert [fault.times for fault in proxy.faults] == [0, 0]


async def test_wrong_bytes_from_the_registry_itself_are_data_loss(registry: str, proxy: Front, machines: Any) -> None:
    one, two = machines(), machines()
    ref = one.make(f"{proxy.host}/wrong/app:1", [b"x" * 5000])
    await one.push(ref)
    proxy.faults.append(Fault("/blobs/", corrupt=True, times=99))
    with pytest.raises(DataLoss, match="filesystem layer verification failed for digest sha256:"):
        await two.pull(ref)
    assert two.store.image_id(ref) is None


async def test_limits_and_short_outages(registry: str, proxy: Front, machines: Any) -> None:
    one = machines()
    ref = one.make(f"{proxy.host}/limits/app:1")
    await one.push(ref)
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'
    limits = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
    proxy.faults[:] = [Fault("/manifests/", status=429, headers=limits, body=body)]
    with pytest.raises(Exhausted, match=r"pull rate limit. \(limit 100;w=21600, remaining 0;w=21600\)"):
        await machines().pull(ref)
    proxy.faults[:] = [Fault("/manifests/", status=503, times=2)]
    await machines().pull(ref)


async def test_a_reader_who_leaves_cancels_the_pull(registry: str, proxy: Front, machines: Any) -> None:
    one, two = machines(), machines()
    ref = one.make(f"{registry}/leave/app:1", [os.urandom(8_000_000)])
    await one.push(ref)
    async with aclosing(await two.transfer.pull(ref)) as stream:
        await anext(stream)
    assert two.store.ingests == 0


# -- others' tools ---------------------------------------------------------------------------------------------------


async def run(*command: str) -> None:
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)


async def test_skopeo_reads_what_we_push_and_we_pull_what_it_writes(
    registry: str, machines: Any, tmp_path: Path
) -> None:
    one, two = machines(), machines()
    tar = tmp_path / "layer.tar"
    (tmp_path / "file").write_text("hello")
    await run("tar", "-cf", str(tar), "-C", str(tmp_path), "file")
    ref = one.make(f"{registry}/tools/app:1", [tar.read_bytes()])
    await one.push(ref)
    layout, skopeo = f"oci:{tmp_path}/layout:1", ("skopeo", "--insecure-policy", "copy")
    await run(*skopeo, "--src-tls-verify=false", f"docker://{ref}", layout)
    back = parse_reference(f"{registry}/tools/oci:1")
    await run(*skopeo, "--dest-tls-verify=false", layout, f"docker://{back}")
    pulled = await two.pull(back)
    assert statuses(pulled)[-1] == f"Status: Downloaded newer image for {back}"
    assert (await two.transfer.distribution(back))["Descriptor"]["mediaType"].startswith("application/vnd.oci")
