"""Registries and images: a registry outside of the host goes wrong in one way; the symptom is a pull that fails."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from bench.faults.case import Case, Step
from bench.faults.cases_refused import explained
from bench.faults.lab import IMAGE as LAB_IMAGE
from bench.faults.lab import OUTSIDE, Lab, enter
from dockyard.doctor.collect import collect
from dockyard.doctor.collect.registry import read_registry
from dockyard.doctor.examine import examine
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Report
from dockyard.errors import DockyardError

PORT = 5443
HOST = f"{OUTSIDE}:{PORT}"
NAME = "registry.example.org"
IMAGE = "shop/app:1.0"


class Pki:
    """Certificates below one site's authority, as files: NAME.crt, NAME.key."""

    def __init__(self, where: Path) -> None:
        self.where = where
        where.mkdir()
        self._made: dict[str, tuple[x509.Certificate, ec.EllipticCurvePrivateKey]] = {}

    def issue(self, name: str, issuer: str = "ca", *, san: str = "", ca: bool = False, days: tuple[int, int] = (-1, 30)) -> None:
        """``san``: an address or a DNS name. ``days``: beginning and end of validity, from today."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = self._made[issuer][1] if issuer != name else key
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._made[issuer][0].subject if issuer != name else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if san:
            kind = x509.IPAddress(ip_address(san)) if san[0].isdigit() else x509.DNSName(san)
            builder = builder.add_extension(x509.SubjectAlternativeName([kind]), critical=False)
        self._made[name] = (builder.sign(signer, hashes.SHA256()), key)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.where / f"{name}.key").write_bytes(private)
        (self.where / f"{name}.crt").write_bytes(self._made[name][0].public_bytes(Encoding.PEM))


def authority(lab: Lab) -> Path:
    where = lab.root / "pki"
    if not where.exists():
        pki = Pki(where)
        pki.issue("ca", ca=True)
        pki.issue("good", san=OUTSIDE)
        pki.issue("named", san=NAME)
        pki.issue("bare")
        pki.issue("old", san=OUTSIDE, days=(-60, -30))
        pki.issue("early", san=OUTSIDE, days=(30, 60))
        pki.issue("middle", ca=True)
        pki.issue("leaf", "middle", san=OUTSIDE)
        (where / "chain.crt").write_text((where / "leaf.crt").read_text() + (where / "middle.crt").read_text())
    return where


def serve(certificate: str = "good", key: str = "", **settings: Any) -> Step:
    """Start the registry outside, in place of the one that runs there."""

    def step(lab: Lab) -> None:
        _end(lab)
        where = authority(lab)
        document = {"listen": [OUTSIDE, PORT], **settings}
        if certificate:
            document |= {"certificate": str(where / f"{certificate}.crt"), "key": str(where / f"{key or certificate}.key")}
        (lab.root / "registry.json").write_text(json.dumps(document))
        script = str(Path(__file__).with_name("stub_registry.py"))
        child = subprocess.Popen(["nsenter", "-t", str(lab.outside), "-n", sys.executable, script, str(lab.root / "registry.json")],
                                 stdout=subprocess.PIPE)  # fmt: skip
        assert child.stdout is not None
        child.stdout.readline()
        lab.vars["child"] = child
        lab.vars.setdefault("image", f"{HOST}/{IMAGE}")
        if "trusted" not in lab.vars:
            trust("ca.crt")(lab)

    return step


def _end(lab: Lab) -> None:
    child = lab.vars.pop("child", None)
    if child is not None:
        child.kill()
        child.wait(5)
        child.stdout.close()


def trust(file: str, directory: str = HOST) -> Step:
    """The authority's certificate under this name in certs.d; "" for none."""

    def step(lab: Lab) -> None:
        top = lab.root / "etc-docker" / "certs.d"
        shutil.rmtree(top, ignore_errors=True)
        if file:
            (top / directory).mkdir(parents=True)
            shutil.copy(authority(lab) / "ca.crt", top / directory / file)
        lab.vars["trusted"] = file

    return step


def wanted(image: str) -> Step:
    def step(lab: Lab) -> None:
        lab.vars["image"] = image

    return step


def pulls(lab: Lab) -> bool:
    name, _, tag = lab.vars["image"].rpartition(":")
    with contextlib.suppress(DockyardError):
        lab.client.request("DELETE", f"/images/{lab.vars['image']}", {"force": True})
    try:
        answer = list(lab.client.objects("POST", "/images/create", {"fromImage": name, "tag": tag}, timeout=15))
    except DockyardError as error:
        lab.vars["error"] = str(error)
        return False
    lab.vars["error"] = " ".join(str(row["error"]) for row in answer if "error" in row)
    return not lab.vars["error"]


def about_image(lab: Lab) -> Report:
    facts = collect(lab.client, {}, seconds=10)
    facts = replace(facts, registries=[read_registry(lab.vars["image"], facts, image=True)])
    return examine(facts, all_rules())


def case(rule: str, inject: Step, undo: Step, label: str = "", name: str = HOST) -> Case:
    return Case(rule, name, serve(), pulls, inject, undo, name=label or rule, diagnose=about_image)


def outside(script: str) -> Step:
    def step(lab: Lab) -> None:
        enter(lab.outside, "sh", "-c", script)

    return step


def by_name(lab: Lab) -> None:
    """The same registry, called by a name that the site's resolver knows."""
    serve("named")(lab)
    trust("ca.crt", f"{NAME}:{PORT}")(lab)
    lab.vars["image"] = f"{NAME}:{PORT}/{IMAGE}"


def resolver(address: str) -> Step:
    """The host's resolver; the registry starts anew, so that no connection of before is left."""

    def step(lab: Lab) -> None:
        serve("named")(lab)
        (lab.root / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:1 attempts:1\n")
        if lab.kind == "dockerd":
            time.sleep(5.5)  # Go's resolver looks at the file every five seconds (net/dnsclient_unix.go)

    return step


def challenge(number: int, host: str = HOST) -> str:
    """Each case its own realm: a token of an earlier one must not be good here."""
    return f'Bearer realm="https://{host}/token?{number}",service="site"'


def pushes(lab: Lab) -> bool:
    """Is an image of the lab pushed?"""
    name = f"{HOST}/team/lab"
    lab.vars["image"] = f"{name}:1.0"
    lab.client.request("POST", f"/images/{LAB_IMAGE}/tag", {"repo": name, "tag": "1.0"})
    headers = {"X-Registry-Auth": base64.urlsafe_b64encode(b"{}").decode()}
    try:
        answer = list(lab.client.objects("POST", f"/images/{name}/push", {"tag": "1.0"}, headers=headers, timeout=20))
    except DockyardError as error:
        answer = [{"error": error.message}]
    said = " ".join(str(row["error"]) for row in answer if "error" in row)
    lab.vars["error"] = f"docker push {name}:1.0\n{said}"
    return not said


def push_case(rule: str, inject: Step, undo: Step, name: str = f"{HOST}/team/lab:1.0") -> Case:
    return Case(rule, name, undo, pushes, inject, undo, diagnose=explained)


_FULL = f"{HOST}/{IMAGE}"
_DROP = f"INPUT -p tcp --dport {PORT} -j DROP"
_SPENT = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
CASES = [
    case("REG-01", trust(""), trust("ca.crt")),
    case("REG-02", serve(""), serve()),
    case("REG-03", serve("named"), serve(), "REG-03/other-name"),
    case("REG-03", serve("bare"), serve(), "REG-03/common-name-only"),
    case("REG-04", serve("leaf"), serve("chain", "leaf")),
    case("REG-05", trust("ca.cert"), trust("ca.crt"), "REG-05/extension"),
    case("REG-05", trust("ca.crt", OUTSIDE), trust("ca.crt"), "REG-05/directory"),
    case("REG-06", _end, serve(), "REG-06/nobody"),
    case("REG-06", outside(f"iptables -I {_DROP}"), outside(f"iptables -D {_DROP}"), "REG-06/filtered"),
    case("REG-09", serve(challenge=challenge(9), token={"aud": "another"}), serve(challenge=challenge(9))),
    case("REG-10", serve(challenge=challenge(10), token={"shift": 7200}), serve(challenge=challenge(10))),
    case("REG-12", serve(challenge=challenge(12, "203.0.113.77:5443")), serve(challenge=challenge(12))),
    case("IMG-01", serve(platforms=["linux/arm64"]), serve(), name=_FULL),
    case("IMG-02", wanted(f"{HOST}/shop/app:1.1"), wanted(_FULL), name=f"{HOST}/shop/app:1.1"),
    case("IMG-03", wanted(f"{HOST}/shop/ap:1.0"), wanted(_FULL), name=f"{HOST}/shop/ap:1.0"),
    case("IMG-05", serve(status=429, headers=_SPENT), serve(), name=_FULL),
    Case("IMG-11", f"{NAME}:{PORT}/{IMAGE}", by_name, pulls, resolver("203.0.113.9"), resolver(OUTSIDE), diagnose=about_image),
    push_case("IMG-04", serve(challenge=challenge(4), push="denied"), serve(challenge=challenge(4))),
    push_case("REG-07", serve(limit=100_000), serve(), HOST),
    case("TIM-01", serve("early"), serve()),
    case("TIM-02", serve("old"), serve()),
]
