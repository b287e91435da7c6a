"""A registry that cannot be used: name, proxy, plain HTTP, certificates, clocks, tokens, references, quotas."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from dockyard.doctor.facts import Registry
from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix, Object
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import View

LEEWAY = 60  # seconds of skew that the distribution's token check forgives
CLOCK_OFF = 300
TITLES = {
    "IMG-01": "the image does not exist for this platform",
    "IMG-02": "the tag does not exist",
    "IMG-03": "the repository does not exist, or is private",
    "IMG-04": "pushing to that repository is not allowed",
    "IMG-05": "the registry's quota of pulls is used up",
    "IMG-07": "the shell has a proxy, the engine has not",
    "IMG-11": "the registry's name does not resolve on the host",
    "REG-01": "the registry's certificate is signed by an authority that the engine does not trust",
    "REG-02": "the registry speaks plain HTTP",
    "REG-03": "the registry's certificate is for another name",
    "REG-04": "the registry does not send its intermediate certificate",
    "REG-05": "the authority's file lies where the engine does not look",
    "REG-06": "nothing answers at the registry's address",
    "REG-07": "a proxy before the registry refuses big uploads",
    "REG-09": "the token is for another audience",
    "REG-10": "the token is not valid at the registry's time",
    "REG-12": "the token server cannot be reached",
    "TIM-01": "a clock is wrong, so the certificate looks invalid",
    "TIM-02": "the registry's certificate has expired",
}


def registries(view: View) -> Iterator[Finding]:
    for registry in view.facts.registries:
        found = (
            _connection(view, registry) or _transport(view, registry) or _push(view, registry) or _token(registry)
            or _manifest(view, registry)
        )
        if found is not None:
            yield found


def _found(rule: str, registry: Registry, symptom: str, evidence: list[Evidence], fix: Fix, **more: object) -> Finding:
    where = Object("registry", registry.host)
    if registry.repository and rule.startswith("IMG"):
        where = Object("image", f"{registry.host}/{registry.repository}:{registry.reference}")
    verify = f"dockyard doctor registry {registry.host}"
    return finding(rule, TITLES[rule], where, symptom, evidence, fix=fix, verify=verify, **more)  # type: ignore[arg-type]


def _connection(view: View, registry: Registry) -> Finding | None:
    if registry.connect == "ok":
        return None
    seen = [Evidence("probe", f"connection to {registry.host} from the engine's network", registry.connect, "ok")]
    proxies = {name for name in view.facts.caller.environ if name.lower() in ("http_proxy", "https_proxy")}
    if proxies and registry.by_proxy == "ok":
        seen.append(Evidence("probe", "connection through the caller's proxy", "established", "not needed"))
        seen.append(Evidence("process", "environment of the engine", "no proxy", ", ".join(sorted(proxies))))
        fix = Fix(
            "give the engine the proxy: proxies in daemon.json (23.0 and later) or a systemd drop-in, then restart it"
        )
        return _found("IMG-07", registry, "pulls time out (Client.Timeout exceeded while awaiting headers)", seen, fix)
    if registry.connect.startswith("dns"):
        servers = [line for line in (view.facts.host.resolv_conf or "").splitlines() if line.startswith("nameserver")]
        seen.append(Evidence("file", "/etc/resolv.conf", ", ".join(servers) or "no nameserver", "one that answers"))
        return _found(
            "IMG-11", registry, f'"lookup {registry.host}: no such host"', seen, Fix("correct the host's resolver")
        )
    fix = Fix("start the registry, or open the way to it (address, port, firewall)")
    return _found("REG-06", registry, "pulls and logins fail to connect", seen, fix)


def _insecure(view: View, registry: Registry) -> bool:
    config = view.facts.engine.info.get("RegistryConfig") or {}
    listed = [str(item) for item in config.get("InsecureRegistryCIDRs") or []]
    names = [
        name for name, value in (config.get("IndexConfigs") or {}).items() if not (value or {}).get("Secure", True)
    ]
    import ipaddress

    def inside(address: str) -> bool:
        return any(ipaddress.ip_address(address) in ipaddress.ip_network(net) for net in listed)

    return registry.host in names or any(inside(address) for address in registry.addresses)


def _transport(view: View, registry: Registry) -> Finding | None:
    if registry.speaks == "http":
        if _insecure(view, registry):
            return None
        seen = [Evidence("probe", f"ClientHello to {registry.host}", "answered in plain HTTP", "a TLS handshake"),
                Evidence("api", "GET /info RegistryConfig", f"{registry.host} is not listed as insecure")]  # fmt: skip
        fix = Fix(
            "give the registry a certificate; insecure-registries only for a registry that never leaves this host"
        )
        return _found("REG-02", registry, '"http: server gave HTTP response to HTTPS client"', seen, fix)
    if registry.speaks != "tls" or registry.verify == "ok" or _insecure(view, registry):
        return None
    leaf = registry.chain[0] if registry.chain else None
    seen = [Evidence("probe", f"TLS handshake with {registry.host}", registry.verify, "ok")]
    if leaf is None:
        return None
    now, outside = registry.asked_at, registry.date
    if outside and abs(now - outside) > CLOCK_OFF and ("expired" in registry.verify or "not yet" in registry.verify):
        seen.append(Evidence("probe", "own clock against the registry's Date", f"{now - outside:+.0f} s", "0"))
        return _found(
            "TIM-01", registry, '"certificate has expired or is not yet valid"', seen, Fix("set the clock (NTP)")
        )
    if "not yet valid" in registry.verify:
        seen.append(Evidence("probe", "NotBefore", _day(leaf.not_before), f"before {_day(now)}"))
        fix = Fix("set the clock of the machine that issued it, and issue it again")
        return _found("TIM-01", registry, '"certificate has expired or is not yet valid"', seen, fix)
    if "expired" in registry.verify:
        old = next((item for item in registry.chain if item.not_after < now), leaf)
        seen.append(Evidence("probe", f"NotAfter of {old.subject}", _day(old.not_after), f"after {_day(now)}"))
        return _found("TIM-02", registry, '"x509: certificate has expired"', seen, Fix("renew that certificate"),
                      ruled_out={"TIM-01": "the registry's clock agrees with ours"} if outside else {})  # fmt: skip
    if "mismatch" in registry.verify or "not valid for" in registry.verify:
        names = ", ".join(leaf.names) or f"none (only {leaf.subject})"
        seen.append(Evidence("probe", "names in the certificate", names, registry.host.split(":")[0]))
        fix = Fix("use one of these names, or issue it again with this one as subjectAltName")
        return _found("REG-03", registry, '"x509: certificate is valid for another name"', seen, fix)
    return _authority(registry, seen)


def _day(seconds: float) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _authority(registry: Registry, seen: list[Evidence]) -> Finding:
    leaf = registry.chain[0]
    place = f"/etc/docker/certs.d/{registry.host}/ca.crt"
    symptom = '"x509: certificate signed by unknown authority"'
    stray = [name for name in registry.certs_d if _misplaced(name, registry.host)]
    if stray:
        seen.append(Evidence("file", "/etc/docker/certs.d", ", ".join(stray), f"{registry.host}/ca.crt"))
        return _found("REG-05", registry, symptom, seen, Fix(f"rename it to {place}"))
    right = [name for name in registry.certs_d if name.startswith(f"{registry.host}/") and name.endswith(".crt")]
    seen.append(Evidence("probe", "certificates sent", f"{len(registry.chain)}, issuer {registry.chain[-1].issuer}"))
    if right and len(registry.chain) == 1 and not leaf.self_signed:
        seen.append(Evidence("file", "/etc/docker/certs.d", ", ".join(right), "the issuer, or its root"))
        fix = Fix("let the registry send the whole chain: certificate, then intermediate, in one file")
        return _found("REG-04", registry, symptom, seen, fix, confidence=Confidence.LIKELY)
    seen.append(Evidence("file", place, "absent", "the authority's certificate"))
    return _found(
        "REG-01", registry, symptom, seen, Fix(f"put the authority's certificate in {place} (no restart needed)")
    )


def _misplaced(name: str, host: str) -> bool:
    directory, _, file = name.partition("/")
    if directory == host:
        return file.endswith((".pem", ".cer")) or file in ("ca.cert", "ca", "root.cert")
    return directory == host.split(":")[0] and ":" in host and file.endswith(".crt")


def _token(registry: Registry) -> Finding | None:
    if not registry.challenge.lower().startswith("bearer"):
        return None
    seen = [Evidence("probe", "WWW-Authenticate", registry.challenge)]
    if registry.realm_connect and registry.realm_connect != "ok" and not registry.realm_connect.startswith("HTTP 4"):
        seen.append(Evidence("probe", "GET of the realm from the engine's network", registry.realm_connect, "200"))
        fix = Fix(
            "make the realm's name and address reachable from this host, or correct it in the registry's settings"
        )
        return _found("REG-12", registry, "logins and pulls hang", seen, fix)
    token = registry.token
    service = registry.challenge.partition('service="')[2].partition('"')[0]
    audience = token.get("aud")
    if token and audience not in (service, [service]) and service not in (audience or []):
        seen.append(Evidence("probe", "token aud", str(audience), service))
        return _found("REG-09", registry, "401 again and again", seen, Fix("give service and audience the same name"))
    now = registry.date or registry.asked_at
    late, early = float(token.get("exp") or now + 1), float(token.get("nbf") or now)
    if token and (early > now + LEEWAY or late < now - LEEWAY):
        bad = ("nbf", early) if early > now + LEEWAY else ("exp", late)
        seen.append(
            Evidence("probe", f"token {bad[0]} against the registry's Date", f"{bad[1] - now:+.0f} s", "valid now")
        )
        return _found(
            "REG-10", registry, "401 again and again", seen, Fix("set the clocks of registry and token server")
        )
    return None


def _push(view: View, registry: Registry) -> Finding | None:
    """A push was refused (`Facts.said`): by a proxy's limit, or because the token that is given does not allow it."""
    said = view.facts.said
    if re.search(r"\b413\b|request entity too large", said, re.IGNORECASE):
        banner = registry.headers.get("server", "")
        seen = [Evidence("probe", "the engine's words about the push", "413", "201")]
        seen += [Evidence("probe", "Server header", banner)] if banner else []
        fix = Fix("raise the limit of the proxy before the registry (nginx: client_max_body_size 0)")
        return _found("REG-07", registry, "small layers are pushed, big ones are refused", seen, fix)
    allowed = [action for row in registry.token.get("access") or [] for action in row.get("actions") or []]
    if "push" in registry.actions and registry.token and "push" not in allowed:
        seen = [Evidence("probe", "WWW-Authenticate", registry.challenge),
                Evidence("probe", "actions in a token for pull,push", ", ".join(allowed) or "none", "push")]  # fmt: skip
        fix = Fix("tag it with a name that is yours (host/user/name), or log in as one who may push there")
        return _found("IMG-04", registry, '"denied: requested access to the resource is denied"', seen, fix)
    return None


def _manifest(view: View, registry: Registry) -> Finding | None:
    if registry.status == 429 or registry.manifest_status == 429:
        left = registry.headers.get("ratelimit-remaining") or registry.headers.get("retry-after", "")
        seen = [Evidence("probe", "status", "429", "200"), Evidence("probe", "ratelimit-remaining / retry-after", left)]
        return _found("IMG-05", registry, '"toomanyrequests"', seen, Fix("log in, or use a mirror (registry-mirrors)"))
    if registry.manifest_status == 404 and registry.tags:
        near = difflib.get_close_matches(registry.reference, registry.tags, 3, 0.4)
        seen = [Evidence("probe", "manifest", f"404 {registry.manifest_code}", "200"),
                Evidence("probe", "tags", ", ".join(registry.tags[:20]), registry.reference)]  # fmt: skip
        text = f"use a tag that exists: {', '.join(near)}" if near else "use a tag that exists"
        return _found("IMG-02", registry, '"manifest unknown"', seen, Fix(text))
    if registry.manifest_status in (401, 403, 404):
        seen = [Evidence("probe", "manifest", f"{registry.manifest_status} {registry.manifest_code}", "200")]
        access = registry.token.get("access")
        seen += [Evidence("probe", "access in the token", str(access), "pull")] if registry.token else []
        return _found("IMG-03", registry, '"repository does not exist or may require docker login"', seen,
                      Fix("correct the name, or log in: the registry hides which"))  # fmt: skip
    wanted = _platform(view)
    if registry.platforms and wanted and wanted not in registry.platforms:
        seen = [Evidence("probe", "platforms of the index", ", ".join(registry.platforms), wanted)]
        return _found("IMG-01", registry, f'"no matching manifest for {wanted}"', seen,
                      Fix("build it for this platform, or --platform with a binfmt handler"))  # fmt: skip
    return None


def _platform(view: View) -> str:
    names = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
    machine = str(view.facts.engine.info.get("Architecture", "")) or view.facts.host.machine
    return f"linux/{names.get(machine, machine)}" if machine else ""


_X509 = (r"x509: ", r"certificate")
_MESSAGES = {
    "IMG-01": (r"no matching manifest for",),
    "IMG-02": (r"manifest unknown", r"manifest for .* not found"),
    "IMG-03": (r"repository does not exist", r"pull access denied", r"requested access to the resource is denied"),
    "IMG-04": (r"requested access to the resource is denied", r"(?m)^denied\b"),
    "IMG-05": (r"toomanyrequests", r"rate limit"),
    "IMG-07": (r"Client\.Timeout exceeded while awaiting headers", r"request canceled while waiting for connection"),
    "IMG-11": (r"lookup .*: no such host", r"server misbehaving"),
    "REG-01": (r"certificate signed by unknown authority",),
    "REG-02": (r"server gave HTTP response to HTTPS client",),
    "REG-03": (r"certificate is valid for .*, not", r"legacy Common Name", r"doesn.t contain any IP SANs"),
    "REG-04": (r"certificate signed by unknown authority",),
    "REG-05": (r"certificate signed by unknown authority", r"CA certificates must use the extension \.crt"),
    "REG-06": (r"connection refused", r"i/o timeout"),
    "REG-07": (r"413 Request Entity Too Large", r"request entity too large", r"status code 413", r"\b413\b"),
    "REG-09": (r"unauthorized", r"token intended for another audience"),
    "REG-10": (r"unauthorized", r"token not to be used (before|after)"),
    "REG-12": (r"unauthorized", r"timeout exceeded while awaiting headers"),
    "TIM-01": (r"certificate has expired or is not yet valid",),
    "TIM-02": (r"certificate has expired or is not yet valid",),
}
_EXPLAIN = "The registry is asked from the engine's network with the engine's trust; the step that fails is named."
RULES = tuple(
    Rule(
        key,
        title,
        _EXPLAIN,
        registries if key == "REG-01" else None,
        lookalikes=tuple(other for other in TITLES if other != key and set(_MESSAGES[other]) & set(_MESSAGES[key])),
        messages=_MESSAGES[key],
        decides=f"dockyard doctor {'image REFERENCE' if key.startswith('IMG') else 'registry HOST'}",
    )
    for key, title in TITLES.items()
)
