"""``login`` and ``logout``."""

from __future__ import annotations

import sys
from typing import Any

from dockyard.cli import auths
from dockyard.cli.flags import Options, Refusal
from dockyard.cli.shell import Shell

Json = dict[str, Any]
FLAGS = {
    "login": """
-p, --password TEXT    Password or token (better: --password-stdin)
    --password-stdin   Take the password from stdin
-u, --username NAME    Name of the user
""",
}
EXAMPLES = {"login": "dockyard login localhost:5000 -u me\necho $TOKEN | dockyard login -u me --password-stdin SERVER"}


def login(shell: Shell, options: Options) -> int:
    server = _server(options)
    user, password = options.text("username"), options.text("password")
    if options.on("password-stdin"):
        if password:
            raise Refusal("--password and --password-stdin are mutually exclusive")
        if not user:
            raise Refusal("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        shell.complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    kept = {} if user or password else auths.credentials(server)
    if kept:
        shell.say("Authenticating with existing credentials...")
        wish = kept
    else:
        wish = _asked(shell, server, user, password)
    told = shell.client.request("POST", "/auth", body=wish) or {}
    token = told.get("IdentityToken", "")
    file = auths.store(server, wish.get("username", ""), wish.get("password", ""), token or wish.get("identitytoken", ""))
    if file:
        shell.complain(f"WARNING! Your credentials are stored unencrypted in '{file}'.")
        shell.complain("A credential helper (credsStore in that file) keeps them in the keyring instead.")
    shell.say(told.get("Status") or "Login Succeeded")
    return 0


def _server(options: Options) -> str:
    word = options.words[0] if options.words else ""
    bare = word.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return auths.server_of(bare)


def _asked(shell: Shell, server: str, user: str, password: str) -> Json:
    """What is missing is asked for on a terminal; elsewhere it must be given."""
    if not (user and password) and not sys.stdin.isatty():
        raise Refusal("Cannot perform an interactive login from a non TTY device")
    if not user:
        sys.stdout.write("Username: ")
        sys.stdout.flush()
        user = sys.stdin.readline().strip()
    if user and not password:
        import getpass

        password = getpass.getpass("Password: ")
    if not user or not password:
        raise Refusal("username is empty" if not user else "password is empty")
    return {"username": user, "password": password, "serveraddress": server}


def logout(shell: Shell, options: Options) -> int:
    server = _server(options)
    shown = server if server != auths.HUB else f"{auths.HUB}"
    if auths.erase(server):
        shell.say(f"Removing login credentials for {shown}")
    else:
        shell.say(f"Not logged in to {shown}")
    return 0
