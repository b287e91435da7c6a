"""Registries and images: a registry outside of the host goes wrong in one way; the symptom is a pull that fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.faults.case import Case, Step
from bench.faults.lab import OUTSIDE, Lab, enter
from dockyard.doctor.collect import collect
from dockyard.doctor.collect.registry import read_registry
from dockyard.doctor.examine import examine
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Report
from dockyard.errors import DockyardError

PORT = 5443
HOST = f"{OUTSIDE}:{PORT}"
IMAGE = "shop/app:1.0"
DAY = "-days 30"


def _openssl(where: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=where, check=True, capture_output=True, timeout=20)


def _certificate(where: Path, name: str, issuer: str, san: str, *days: str, ca: bool = False) -> None:
    """``name``.crt and .key, signed by ``issuer``."""
    (where / f"{name}.ext").write_text(
        (f"subjectAltName={san}\n" if san else "") + (f"basicConstraints=critical,CA:{'TRUE' if ca else 'FALSE'}\n")
    )
    _openssl(where, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    _openssl(where, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key", "-CAcreateserial",
             "-out", f"{name}.crt", "-extfile", f"{name}.ext", *(days or ("-days", "30")))  # fmt: skip


def _authority(lab: Lab) -> Path:
    where = lab.root / "pki"
    if not where.exists():
        where.mkdir()
        _openssl(where, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "30",
                 "-subj", "/CN=Site CA")  # fmt: skip
        _certificate(where, "good", "ca", f"IP:{OUTSIDE}")
        _certificate(where, "named", "ca", "DNS:registry.example.org")
        _certificate(where, "bare", "ca", "")
        _certificate(where, "old", "ca", f"IP:{OUTSIDE}", "-not_before", "20200101000000Z", "-not_after", "20210101000000Z") \
            if _dates() else None
        _certificate(where, "middle", "ca", "", ca=True)
        _certificate(where, "leaf", "middle", f"IP:{OUTSIDE}")
        (where / "chain.crt").write_text((where / "leaf.crt").read_text() + (where / "middle.crt").read_text())
    return where


def _dates() -> bool:
    """Can this openssl set the dates of a certificate?"""
    done = subprocess.run(["openssl", "x509", "-help"], capture_output=True, text=True, check=False, timeout=10)
    return "not_before" in done.stderr + done.stdout


def serve(certificate: str = "good", key: str = "", **settings: Any) -> Step:
    """Start the registry outside, in place of the one that runs there."""

    def step(lab: Lab) -> None:
        _end(lab)
        where = _authority(lab)
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
        trust("ca.crt")(lab) if "trusted" not in lab.vars else None

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
            shutil.copy(_authority(lab) / "ca.crt", top / directory / file)
        lab.vars["trusted"] = file

    return step


def wanted(image: str) -> Step:
    def step(lab: Lab) -> None:
        lab.vars["image"] = image

    return step


def pulls(lab: Lab) -> bool:
    name, _, tag = lab.vars["image"].rpartition(":")
    try:
        lab.client.request("DELETE", f"/images/{lab.vars['image']}", {"force": True})
    except DockyardError:
        pass
    try:
        answer = list(lab.client.objects("POST", "/images/create", {"fromImage": name, "tag": tag}, timeout=15))
    except DockyardError:
        return False
    return not any("error" in row for row in answer)


def about_image(lab: Lab) -> Report:
    facts = collect(lab.client, {}, seconds=10)
    from msgspec.structs import replace

    facts = replace(facts, registries=[read_registry(lab.vars["image"], facts, image=True)])
    return examine(facts, all_rules())


def case(rule: str, inject: Step, undo: Step, label: str = "", name: str = HOST) -> Case:
    return Case(rule, name, serve(), pulls, inject, undo, name=label or rule, diagnose=about_image)


def outside(script: str) -> Step:
    def step(lab: Lab) -> None:
        enter(lab.outside, "sh", "-c", script)

    return step


_CHALLENGE = f'Bearer realm="https://{HOST}/token",service="site"'
_NOWHERE = 'Bearer realm="https://203.0.113.77:5443/token",service="site"'
_FULL = f"{HOST}/{IMAGE}"
CASES = [
    case("REG-01", trust(""), trust("ca.crt")),
    case("REG-02", serve(""), serve()),
    case("REG-03", serve("named"), serve(), "REG-03/other-name"),
    case("REG-03", serve("bare"), serve(), "REG-03/common-name-only"),
    case("REG-04", serve("leaf"), serve("chain", "leaf")),
    case("REG-05", trust("ca.cert"), trust("ca.crt"), "REG-05/extension"),
    case("REG-05", trust("ca.crt", OUTSIDE), trust("ca.crt"), "REG-05/directory"),
    case("REG-06", _end, serve(), "REG-06/nobody"),
    case("REG-06", outside(f"iptables -I INPUT -p tcp --dport {PORT} -j DROP"),
         outside(f"iptables -D INPUT -p tcp --dport {PORT} -j DROP"), "REG-06/filtered"),
    case("REG-09", serve(challenge=_CHALLENGE, token={"aud": "another"}), serve(challenge=_CHALLENGE)),
    case("REG-10", serve(challenge=_CHALLENGE, token={"shift": 7200}), serve(challenge=_CHALLENGE)),
    case("REG-12", serve(challenge=_NOWHERE), serve(challenge=_CHALLENGE)),
    case("IMG-01", serve(platforms=["linux/arm64"]), serve(), name=_FULL),
    case("IMG-02", wanted(f"{HOST}/shop/app:1.1"), wanted(_FULL), name=f"{HOST}/shop/app:1.1"),
    case("IMG-03", wanted(f"{HOST}/shop/ap:1.0"), wanted(_FULL), name=f"{HOST}/shop/ap:1.0"),
    case("IMG-05", serve(status=429, headers={"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}), serve(),
         name=_FULL),
    *([case("TIM-02", serve("old"), serve())] if _dates() else []),
]  # fmt: skip
