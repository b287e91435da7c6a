"""`dockyard registry ...`: serve, and administration on the data itself (for the first account, and for scripts).

    serve   --data DIR [--listen HOST:PORT] [--tls-cert F --tls-key F | --tls-self-made] [--auth none]
            [--database postgresql://...] [--bucket s3://bucket/prefix]
    user    add|password|delete|list ...        org  add ...      team add|member ...      grant ...
    gc      [--dry-run] [--untagged-days N]     settings ...
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import ipaddress
import json
import logging
import os
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

from dockyard.errors import DockyardError
from dockyard.registry import admin
from dockyard.registry.access import LEVELS, Level
from dockyard.registry.app import Pages, Places, Registry
from dockyard.registry.core import Actor, Config
from dockyard.registry.errors import VALUE_INVALID
from dockyard.registry.tls import self_made

DEFAULT_DATA = "/var/lib/dockyard/registry"
DEFAULT_LISTEN = "127.0.0.1:5000"
_EXAMPLES = """examples:
  dockyard registry user add alice --admin        # asks for a password
  dockyard registry serve                         # 127.0.0.1:5000
  dockyard registry serve --listen 0.0.0.0:443 --tls-self-made
  dockyard registry grant 'acme/*' read-write --team acme/builders
  dockyard registry user token alice --label ci --level read
  dockyard registry gc --dry-run
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="dockyard registry", description="store and share images", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    top.add_argument("--data", default=DEFAULT_DATA, help=f"directory of the data (default {DEFAULT_DATA})")
    top.add_argument("--database", default="", help="postgresql://... instead of the file in --data")
    top.add_argument("--bucket", default="", help="s3://bucket/prefix, gs://, az:// instead of files in --data")
    verbs = top.add_subparsers(dest="verb", required=True)
    serve = verbs.add_parser("serve", help="answer requests until SIGTERM")
    serve.add_argument("--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help=f"default {DEFAULT_LISTEN}")
    serve.add_argument("--auth", choices=("accounts", "none"), default="accounts")
    serve.add_argument("--public", action="store_true", help="repositories that a push creates are public")
    serve.add_argument("--realm", default="", help="URL of /token as clients see it (behind a proxy)")
    serve.add_argument("--no-delete", action="store_true", help="refuse deletion of manifests and blobs")
    serve.add_argument("--tls-cert", default="", metavar="FILE")
    serve.add_argument("--tls-key", default="", metavar="FILE")
    serve.add_argument("--tls-self-made", action="store_true", help="make a certificate in --data and use it")
    _account_verbs(verbs)
    gc = verbs.add_parser("gc", help="remove what nobody refers to, now")
    gc.add_argument("--dry-run", action="store_true")
    gc.add_argument("--untagged-days", type=float, help="also manifests without a tag that are older")
    settings = verbs.add_parser("setting", help="show or change a setting")
    settings.add_argument("name")
    settings.add_argument("value", nargs="?")
    _places_anywhere(top)
    return top


def _places_anywhere(parser: argparse.ArgumentParser) -> None:
    """--data, --database and --bucket behind the verb too, where people write them; unsaid there, what was said before
    it stays."""
    for action in parser._actions:
        for verb in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
            for option in ("--data", "--database", "--bucket"):
                verb.add_argument(option, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
            _places_anywhere(verb)


def _account_verbs(verbs: Any) -> None:
    user = verbs.add_parser("user", help="accounts of people").add_subparsers(dest="action", required=True)
    for action in ("add", "password"):
        one = user.add_parser(action)
        one.add_argument("name")
        one.add_argument("--password-stdin", action="store_true", help="read it from stdin instead of asking")
        if action == "add":
            one.add_argument("--admin", action="store_true")
    user.add_parser("list", help="all accounts").add_argument("--json", action="store_true", help="for programs")
    user.add_parser("delete").add_argument("name")
    token = user.add_parser("token", help="make a token that logs in instead of a password")
    token.add_argument("name")
    token.add_argument("--label", default="")
    token.add_argument("--level", choices=tuple(LEVELS), default="read-write")
    org = verbs.add_parser("org", help="organisations").add_subparsers(dest="action", required=True)
    org.add_parser("add").add_argument("name")
    member = org.add_parser("member")
    member.add_argument("org")
    member.add_argument("user")
    member.add_argument("--owner", action="store_true")
    team = verbs.add_parser("team", help="teams of an organisation").add_subparsers(dest="action", required=True)
    for action in ("add", "member"):
        one = team.add_parser(action)
        one.add_argument("org")
        one.add_argument("team")
        if action == "member":
            one.add_argument("user")
    repo = verbs.add_parser("repo", help="repositories").add_subparsers(dest="action", required=True)
    make = repo.add_parser("add")
    make.add_argument("name")
    make.add_argument("--public", action="store_true")
    repo.add_parser("delete").add_argument("name")
    repo.add_parser("list", help="all repositories").add_argument("--json", action="store_true", help="for programs")
    grant = verbs.add_parser("grant", help="let a team or user into a repository, or into NAMESPACE/*")
    grant.add_argument("object")
    grant.add_argument("level", choices=tuple(LEVELS))
    grant.add_argument("--team", default="", metavar="ORG/TEAM")
    grant.add_argument("--user", default="")


def main(argv: list[str] | None = None, pages: Pages | None = None) -> int:
    """Exit status. `pages` serves what is under / (the web room gives it)."""
    args = parser().parse_args(argv)
    try:
        if args.verb == "serve":
            _serve(args, pages)
        else:
            asyncio.run(_administer(args))
    except OSError as error:  # the address is taken, a file cannot be read
        print(f"dockyard registry: cannot {args.verb}: {error}", file=sys.stderr)
        return 1
    except DockyardError as error:
        print(f"dockyard registry: {error}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    return 0


def _serve(args: argparse.Namespace, pages: Pages | None) -> None:
    import uvloop

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(args, pages))


async def serve(args: argparse.Namespace, pages: Pages | None) -> None:
    host, port = _address(args.listen)
    config = Config(auth=args.auth, public=args.public, realm=args.realm, delete=not args.no_delete)
    places = Places(Path(args.data), args.database, args.bucket)
    registry = Registry.open(places, config, pages)
    tls = _tls(args, host, registry)
    await registry.start()
    bound = await registry.server.listen_tcp(host, port, tls)
    scheme = "http" if tls is None else "https"
    log = logging.getLogger("dockyard.registry")
    log.info("serving %s://%s:%d data=%s", scheme, host, bound, args.data)
    if config.auth == "accounts" and not await registry.core.db.read(admin.accounts):
        place = "" if args.data == DEFAULT_DATA else f" --data {args.data}"
        log.warning("nobody can log in yet: dockyard registry%s user add NAME --admin", place)
    if tls is None and not _loopback(host):
        log.warning("passwords travel in the clear: use --tls-cert or --tls-self-made")
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    await registry.close()


def _address(text: str) -> tuple[str, int]:
    """Raises VALUE_INVALID. A port alone is on loopback."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise VALUE_INVALID(what="--listen", reason=f"HOST:PORT is wanted, not {text[:100]}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(args: argparse.Namespace, host: str, registry: Registry) -> ssl.SSLContext | None:
    cert, key = args.tls_cert, args.tls_key
    if args.tls_self_made:
        cert, key = self_made(Path(args.data), host)
    try:
        return registry.tls.begin(cert, key) if cert else None
    except OSError as error:  # ssl.SSLError is one; neither names the file
        raise VALUE_INVALID(what="certificate", reason=f"{cert} with {key or cert}: {error.strerror or error}") from error


def _password(args: argparse.Namespace) -> str:
    if args.password_stdin:
        return sys.stdin.readline().rstrip("\n")
    try:
        return getpass.getpass(f"Password for {args.name}: ")
    except EOFError:
        raise VALUE_INVALID(what="password", reason="none was typed; --password-stdin reads it from a pipe") from None


async def _administer(args: argparse.Namespace) -> None:
    registry = Registry.open(Places(Path(args.data), args.database, args.bucket), Config())
    try:
        verb = args.verb if args.verb in {"gc", "grant", "setting"} else f"{args.verb} {args.action}"
        await _VERBS[verb](registry, args, Actor(f"root@{os.uname().nodename}"))
    finally:
        await registry.close()


async def _user_add(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    await registry.accounts.create(args.name, password=_password(args), admin=args.admin, actor=actor)


async def _user_password(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    await registry.accounts.change(args.name, actor, password=_password(args))


async def _user_list(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    rows = [
        {"name": it["name"], "kind": it["kind"], "admin": bool(it["admin"]), "source": it["source"],
         "state": "active" if it["active"] else "locked", "full_name": it["full_name"]}
        for it in await registry.core.db.read(admin.accounts)
    ]  # fmt: skip
    _print_rows(rows, args.json)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """A table within 80 columns; the last column takes what is left."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    shown = [[name.replace("_", " ").upper() for name in rows[0]]] if rows else []
    shown += [["yes" if value is True else "" if value is False or value is None else str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()[:80])


async def _repo_list(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    query = ("SELECT r.name, r.public, (SELECT COUNT(*) FROM tags t WHERE t.repository = r.id), r.pulls, r.description"
             " FROM repositories r ORDER BY r.name")  # fmt: skip
    found = await registry.core.db.read(lambda tx: tx.all(query))
    keys = ("name", "visibility", "tags", "pulls", "description")
    _print_rows([dict(zip(keys, (r[0], "public" if r[1] else "private", *r[2:]), strict=True)) for r in found], args.json)


async def _user_delete(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    await registry.accounts.delete(args.name, actor)


async def _user_token(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    print(await registry.accounts.create_secret(args.name, actor, label=args.label, level=LEVELS[args.level]))


async def _org_add(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    await registry.accounts.create(args.name, kind="org", actor=actor)


async def _org_member(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    await registry.accounts.set_member(args.org, args.user, actor, owner=args.owner)


async def _team_add(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    await registry.accounts.create_team(args.org, args.team, actor)


async def _team_member(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    await registry.accounts.set_team_member(args.org, args.team, args.user, actor)


async def _repo_add(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    await registry.admin.change(admin.create_repository, actor, args.name, args.public)


async def _repo_delete(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    await registry.admin.change(admin.delete_repository, actor, args.name)


async def _grant(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    level: Level = LEVELS[args.level]
    await registry.accounts.grant(args.object, level, actor, team=args.team, user=args.user)


async def _gc(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    progress = await registry.collector.begin(actor, dry_run=args.dry_run)
    untagged = None if args.untagged_days is None else args.untagged_days * 86400
    await registry.collector.collect(progress, untagged_seconds=untagged)
    print(progress.sentence())


async def _setting(registry: Registry, args: argparse.Namespace, actor: Actor) -> None:
    from dockyard.registry.settings import read_setting

    if args.value is not None:
        await registry.admin.change(admin.set_setting, actor, args.name, args.value)
    print(await registry.core.db.read(lambda tx: read_setting(tx, args.name)))


_VERBS = {
    "user add": _user_add, "user password": _user_password, "user list": _user_list, "user delete": _user_delete,
    "user token": _user_token, "org add": _org_add, "org member": _org_member, "team add": _team_add,
    "team member": _team_member, "repo add": _repo_add, "repo delete": _repo_delete, "repo list": _repo_list, "grant": _grant, "gc": _gc,
    "setting": _setting,
}  # fmt: skip
