"""Readers of what a registry answers: openssl and curl, from the engine's network namespace, with the engine's trust."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from bench.faults.evidence import Ground, numbers, reads, words
from bench.faults.lab import OUTSIDE
from dockyard.doctor.finding import Evidence

Result = tuple[bool, str]
Match = re.Match[str]
ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"


def _host(ground: Ground) -> str:
    assert ground.found is not None
    return ground.found.object.name.split("/")[0]


def _reference(ground: Ground) -> tuple[str, str]:
    assert ground.found is not None
    repository, _, tag = ground.found.object.name.partition("/")[2].rpartition(":")
    return repository, tag


def _scheme(ground: Ground) -> str:
    plain = ground.host(f"curl -s --max-time 4 -o /dev/null -w '%{{http_code}}' http://{_host(ground)}/v2/")
    return "http" if plain in ("200", "401") else "https"


def _openssl(ground: Ground, *options: str) -> str:
    """s_client's words about the handshake, with the engine's directory of authorities as its only trust."""
    host = _host(ground)
    trust = f"cat /etc/docker/certs.d/{host}/*.crt /etc/ssl/certs/ca-certificates.crt 2>/dev/null > /run/trust.pem"
    name = host.split(":")[0]
    check = "-verify_ip" if re.fullmatch(r"[\d.]+", name) else "-verify_hostname"
    ask = f"openssl s_client -connect {host} -servername {name} {check} {name} -CAfile /run/trust.pem {' '.join(options)}"
    return ground.host(f"{trust}; timeout 5 {ask} </dev/null 2>&1; rm -f /run/trust.pem")


def _certificates(ground: Ground) -> list[str]:
    """Each certificate sent, as openssl x509 prints it."""
    text = _openssl(ground, "-showcerts")
    found = []
    for pem in re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL):
        found.append(ground.host(f"echo '{pem}' | openssl x509 -noout -subject -issuer -dates -ext subjectAltName 2>/dev/null"))
    return found


def _date(text: str, name: str) -> str:
    match = re.search(rf"{name}=(.*) GMT", text)
    assert match is not None
    return datetime.strptime(match[1], "%b %d %H:%M:%S %Y").replace(tzinfo=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _get(ground: Ground, path: str, *headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of a request to the registry, or to an absolute URL."""
    url = path if path.startswith("http") else f"{_scheme(ground)}://{_host(ground)}{path}"
    more = " ".join(f"-H '{item}'" for item in headers)
    text = ground.host(f"curl -sk --max-time 4 -i {more} '{url}'").replace("\r", "")
    head, _, body = text.partition("\n\n")
    lines = head.splitlines()
    fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]) if lines else 0, fields, body


def _token(ground: Ground) -> tuple[str, dict[str, Any]]:
    """The token that the challenge's realm gives, and its claims."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', _get(ground, "/v2/")[1].get("www-authenticate", "")))
    if "realm" not in fields:
        return "", {}
    mark = "&" if "?" in fields["realm"] else "?"
    scope = f"&scope=repository:{_reference(ground)[0]}:pull" if _reference(ground)[0] else ""
    word = json.loads(_get(ground, f"{fields['realm']}{mark}service={fields['service']}{scope}")[2])["token"]
    part = word.split(".")[1]
    return word, json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def _asked(ground: Ground, path: str) -> tuple[int, dict[str, str], str]:
    headers = [f"Accept: {ACCEPT}"]
    with contextlib.suppress(ValueError, KeyError):
        word, _ = _token(ground)
        headers += [f"Authorization: Bearer {word}"] if word else []
    return _get(ground, path, *headers)


@reads("probe", r"connection to (?P<host>\S+) from the engine's network")
def _connection(ground: Ground, cited: Evidence, match: Match) -> Result:
    """curl fails in the same step: 6 is a name that does not resolve, 7 and 28 a connection that does not come about."""
    read = ground.host(f"curl -sk --connect-timeout 3 -o /dev/null https://{match['host']}/v2/; echo $?").strip()
    wanted = ("6", "28") if cited.observed.startswith("dns") else ("7", "28")
    return read in wanted, f"curl exit {read}"


@reads("probe", r"connection through the caller's proxy")
def _proxied(ground: Ground, cited: Evidence, _: Match) -> Result:
    read = ground.host(f"curl -sk --max-time 5 -x http://{OUTSIDE}:3128 -o /dev/null -w '%{{http_code}}' https://{_host(ground)}/v2/")
    return read == "200", read


@reads("probe", r"ClientHello to (?P<host>\S+)")
def _plain(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = ground.host(f"timeout 4 openssl s_client -connect {match['host']} </dev/null 2>&1 | grep -ciE 'wrong version|packet length'")
    return _scheme(ground) == "http" and int(read) > 0, read


@reads("probe", r"TLS handshake with (?P<host>\S+)")
def _handshake(ground: Ground, cited: Evidence, match: Match) -> Result:
    """openssl's own verdict; the name's mismatch is worded differently in the two."""
    said = _openssl(ground)
    verdict = (re.findall(r"verif\w* error:.*?:?(?:num=\d+:)?([\w ,()-]+)\n", said, re.IGNORECASE) or ["ok"])[-1].strip()
    same = cited.observed.lower() in said.lower()
    name = "mismatch" in cited.observed and "mismatch" in said
    return same or name, verdict


@reads("probe", r"certificates sent")
def _sent(ground: Ground, cited: Evidence, _: Match) -> Result:
    """As many as s_client shows; Python 3.11 shows the doctor the leaf, whose issuer is what counts."""
    found = _certificates(ground)
    issuer = re.search(r"issuer=(.*)", found[min(numbers(cited.observed)[0], len(found)) - 1])
    read = f"{len(found)}, issuer {issuer[1].replace(' = ', '=') if issuer else '?'}"
    return read == cited.observed, read


@reads("probe", r"NotBefore|NotAfter of (?P<subject>.+)")
def _dates(ground: Ground, cited: Evidence, match: Match) -> Result:
    name = "notBefore" if match[0] == "NotBefore" else "notAfter"
    read = [_date(text, name) for text in _certificates(ground)]
    return cited.observed in read, str(read)


@reads("probe", r"own clock against the registry's Date")
def _clock(ground: Ground, cited: Evidence, _: Match) -> Result:
    outside = parsedate_to_datetime(_get(ground, "/v2/")[1]["date"]).timestamp()
    read = datetime.now(UTC).timestamp() - outside
    return abs(read - float(cited.observed.split()[0])) < 30, f"{read:+.0f} s"


@reads("probe", r"names in the certificate")
def _names(ground: Ground, cited: Evidence, _: Match) -> Result:
    leaf = _certificates(ground)[0]
    read = set(re.findall(r"(?:DNS|IP Address):([^,\s]+)", leaf))
    return (cited.observed.startswith("none") and not read) or words(cited.observed) == read, str(read)


@reads("probe", r"WWW-Authenticate")
def _challenge(ground: Ground, cited: Evidence, _: Match) -> Result:
    read = _get(ground, "/v2/")[1].get("www-authenticate", "")
    return read == cited.observed, read


@reads("probe", r"GET of the realm from the engine's network")
def _realm(ground: Ground, cited: Evidence, _: Match) -> Result:
    realm = re.findall(r'realm="([^"]*)"', _get(ground, "/v2/")[1].get("www-authenticate", ""))[0]
    read = ground.host(f"curl -sk --max-time 4 -o /dev/null -w '%{{http_code}}' '{realm}'")
    return read != "200", read


@reads("probe", r"token aud")
def _audience(ground: Ground, cited: Evidence, _: Match) -> Result:
    read = str(_token(ground)[1]["aud"])
    return read == cited.observed, read


@reads("probe", r"token (?P<claim>nbf|exp) against the registry's Date")
def _validity(ground: Ground, cited: Evidence, match: Match) -> Result:
    outside = parsedate_to_datetime(_get(ground, "/v2/")[1]["date"]).timestamp()
    read = _token(ground)[1][match["claim"]] - outside
    return abs(read - float(cited.observed.split()[0])) < 30, f"{read:+.0f} s"


@reads("probe", r"access in the token")
def _access(ground: Ground, cited: Evidence, _: Match) -> Result:
    read = str(_token(ground)[1].get("access"))
    return read == cited.observed, read


@reads("probe", r"actions in a token for pull,push")
def _actions(ground: Ground, cited: Evidence, _: Match) -> Result:
    fields = dict(re.findall(r'(\w+)="([^"]*)"', _get(ground, "/v2/")[1]["www-authenticate"]))
    mark = "&" if "?" in fields["realm"] else "?"
    scope = f"repository:{_reference(ground)[0]}:pull,push"
    word = json.loads(_get(ground, f"{fields['realm']}{mark}service={fields['service']}&scope={scope}")[2])["token"]
    part = word.split(".")[1]
    read = {item for row in json.loads(base64.urlsafe_b64decode(part + "=="))["access"] for item in row["actions"]}
    return words(cited.observed) == read, str(read)


@reads("probe", r"the engine's words about the push")
def _push_again(ground: Ground, cited: Evidence, _: Match) -> Result:
    name, _, tag = ground.lab.vars["image"].rpartition(":")
    auth = base64.urlsafe_b64encode(b"{}").decode()
    read = ground.curl("-X", "POST", "-H", f"X-Registry-Auth: {auth}", f"http://d/images/{name}/push?tag={tag}").decode()
    return cited.observed in read, read[-200:]


@reads("probe", r"Server header")
def _server(ground: Ground, cited: Evidence, _: Match) -> Result:
    read = _get(ground, "/v2/")[1].get("server", "")
    return read == cited.observed, read


@reads("probe", r"status|ratelimit-remaining / retry-after|manifest")
def _manifest(ground: Ground, cited: Evidence, match: Match) -> Result:
    repository, tag = _reference(ground)
    status, headers, body = _asked(ground, f"/v2/{repository}/manifests/{tag}")
    if match[0].startswith("rate"):
        read = headers.get("ratelimit-remaining") or headers.get("retry-after", "")
        return read == cited.observed, read
    code = json.loads(body)["errors"][0]["code"] if match[0] == "manifest" else ""
    read = f"{status} {code}".strip()
    return read == cited.observed, read


@reads("probe", r"tags")
def _tags(ground: Ground, cited: Evidence, _: Match) -> Result:
    read = set(json.loads(_asked(ground, f"/v2/{_reference(ground)[0]}/tags/list")[2])["tags"])
    return words(cited.observed) <= read and cited.expected not in read, str(read)


@reads("probe", r"platforms of the index")
def _platforms(ground: Ground, cited: Evidence, _: Match) -> Result:
    repository, tag = _reference(ground)
    rows = json.loads(_asked(ground, f"/v2/{repository}/manifests/{tag}")[2])["manifests"]
    read = {f"{row['platform']['os']}/{row['platform']['architecture']}" for row in rows}
    return words(cited.observed) == read and cited.expected not in read, str(read)


@reads("probe", r"GET (?P<address>tcp://\S+)/_ping")
def _open(ground: Ground, cited: Evidence, match: Match) -> Result:
    read = ground.host(f"curl -s --max-time 3 {match['address'].replace('tcp://', 'http://')}/_ping")
    return read == "OK", read
