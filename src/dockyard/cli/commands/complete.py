"""``completion``: scripts for shells, and ``__complete``, which they ask for candidates.

The scripts know nothing: every word comes from the catalogue, the declarations of flags, and the engine's names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from dockyard.cli import catalogue, flags
from dockyard.cli.flags import Flag, Options, Refusal
from dockyard.cli.shell import Shell
from dockyard.client import Client
from dockyard.errors import DockyardError

FLAGS = {"completion": ""}
EXAMPLES = {
    "completion": "dockyard completion bash > /etc/bash_completion.d/dockyard\n"
    "dockyard completion zsh > ~/.zfunc/_dockyard\n"
    "dockyard completion fish > ~/.config/fish/completions/dockyard.fish",
}
ASK_LIMIT = 2.0
"""Seconds that a key press may wait for the engine."""
_SCRIPTS = {
    "bash": """_dockyard() {
    local IFS=$'\\n'
    local words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    local line="${COMP_LINE:0:COMP_POINT}"
    if [[ "$line" == *" " ]]; then words=($line); IFS=$' \\t\\n' read -r -a words <<< "$line"; words=("${words[@]:1}" "");
    else IFS=$' \\t\\n' read -r -a words <<< "$line"; words=("${words[@]:1}"); fi
    local last="${words[-1]}"
    COMPREPLY=($(dockyard __complete "${words[@]}" 2>/dev/null))
    if [[ "$last" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
        local prefix="${last%"${last##*:}"}"
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
    if [[ ${#COMPREPLY[@]} -eq 0 ]]; then compopt -o default 2>/dev/null; fi
}
complete -F _dockyard dockyard
""",
    "zsh": """#compdef dockyard
_dockyard() {
    local -a found
    found=("${(@f)$(dockyard __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _dockyard dockyard
""",
    "fish": """function __dockyard_complete
    set -l words (commandline -opc) (commandline -ct)
    dockyard __complete $words[2..-1] 2>/dev/null
end
complete -c dockyard -f -a '(__dockyard_complete)'
complete -c dockyard -n 'test (count (__dockyard_complete)) -eq 0' -F
""",
}
_OF_FLAGS = {
    "network": "network", "volumes-from": "container", "link": "container", "restart": "=always no on-failure unless-stopped",
    "pull": "=always missing never", "cgroupns": "=host private", "type": "=container image network volume",
    "cap-add": "=ALL NET_ADMIN NET_RAW SYS_ADMIN SYS_PTRACE SYS_TIME", "cap-drop": "=ALL NET_RAW CHOWN SETUID SETGID",
}  # fmt: skip
_RUNNING = frozenset({"exec", "attach", "stop", "kill", "pause", "top", "stats", "port"})
Names = Callable[[str], list[str]]


def completion(shell: Shell, options: Options) -> int:
    script = _SCRIPTS.get(options.words[0])
    if script is None:
        raise Refusal(f"there is no completion for {options.words[0]} ({', '.join(_SCRIPTS)} there are)")
    sys.stdout.write(script)
    return 0


def answer(words: list[str]) -> int:
    """``dockyard __complete WORDS...``: the last is what is being typed. One candidate a line, never an error."""
    for word in candidates(words or [""], _names):
        print(word)
    return 0


def candidates(words: list[str], names: Names) -> list[str]:
    """What may stand in place of the last word. ``names`` gives the engine's (container, running, image, ...). Pure."""
    *before, last = words
    typed, rest = _command_words(before)
    if not typed or typed in catalogue.GROUPS:
        return _fitting(_commands(typed), last)
    command = catalogue.COMMANDS.get(catalogue.SAME.get(typed, typed))
    if command is None:
        return []
    known = _flags_of(command)
    if last.startswith("-"):
        return _fitting([f"--{flag.name}" for flag in known], last)
    wanted = _of_flag(rest[-1], known) if rest else None
    if wanted is not None:
        return _fitting(_expanded(wanted, names), last)
    if command.function in ("run", "create") and any(not word.startswith("-") for word in _free(rest, known)):
        return []
    return _fitting(_of_usage(command, len(_free(rest, known)), names), last)


def _command_words(before: list[str]) -> tuple[str, list[str]]:
    """(the command as typed, the words after it); global flags in front are passed over."""
    words = list(before)
    while words and words[0].startswith("-"):
        takes = words[0] in ("-H", "--host", "-c", "--context", "--config")
        words = words[2 if takes else 1 :]
    if len(words) > 1 and words[0] in catalogue.GROUPS:
        return " ".join(words[:2]), words[2:]
    return (words[0], words[1:]) if words else ("", [])


def _commands(group: str) -> list[str]:
    every = {*catalogue.COMMANDS, *catalogue.FORWARDED} | ({*catalogue.SAME} if group else set())
    if group:
        return sorted(name.removeprefix(group + " ") for name in every if name.startswith(group + " "))
    return sorted({name for name in every if " " not in name} | set(catalogue.GROUPS))


def _flags_of(command: catalogue.Command) -> list[Flag]:
    try:
        module = importlib.import_module(f"dockyard.cli.commands.{command.module}")
    except ModuleNotFoundError:
        return []
    return flags.declared(module.FLAGS.get(command.function, ""))


def _of_flag(word: str, known: list[Flag]) -> str | None:
    """What the value of the flag before is; None when no value is due there."""
    if not word.startswith("-") or "=" in word:
        return None
    for flag in known:
        if flag.value and word in (f"--{flag.name}", f"-{flag.short}"):
            return _OF_FLAGS.get(flag.name, "")
    return None


def _free(rest: list[str], known: list[Flag]) -> list[str]:
    """The positional words among ``rest``."""
    found, skip = [], False
    for word in rest:
        if skip:
            skip = False
        elif word.startswith("-") and word != "-":
            skip = _of_flag(word, known) is not None
        else:
            found.append(word)
    return found


def _of_usage(command: catalogue.Command, given: int, names: Names) -> list[str]:
    wanted = [word.strip("[]").removesuffix("...") for word in command.usage.split() if word != "[OPTIONS]"]
    if not wanted:
        return []
    word = wanted[min(given, len(wanted) - 1)]
    if given >= len(wanted) and "..." not in command.usage:
        return []
    if word.startswith("CONTAINER") or (word == "SRC" or word == "DEST"):
        kind = "running" if command.words in _RUNNING else "container"
        suffix = ":" if word in ("SRC", "DEST") else ""
        return [name + suffix for name in names(kind)]
    for start, kind in (("IMAGE", "image"), ("SOURCE_IMAGE", "image"), ("TARGET_IMAGE", "image"), ("REPOSITORY", "image"),
                        ("VOLUME", "volume"), ("NETWORK", "network")):  # fmt: skip
        if word.startswith(start):
            return names(kind)
    if word.startswith("NAME|ID"):
        return [name for kind in ("container", "image", "volume", "network") for name in names(kind)]
    if command.words in ("push", "pull"):
        return names("image")
    return list(_SCRIPTS) if command.words == "completion" else []


def _expanded(wanted: str, names: Names) -> list[str]:
    if wanted.startswith("="):
        return wanted[1:].split()
    return names(wanted) if wanted else []


def _fitting(words: list[str], last: str) -> list[str]:
    return [word for word in words if word.startswith(last)]


def _names(kind: str) -> list[str]:
    """The engine's names; none when it does not answer, for a key press is no place for errors."""
    try:
        with Client.from_env(timeout=ASK_LIMIT) as client:
            if kind in ("container", "running"):
                rows = client.request("GET", "/containers/json", {"all": kind == "container" or None})
                return sorted(row["Names"][0].removeprefix("/") for row in rows if row.get("Names"))
            if kind == "image":
                rows = client.request("GET", "/images/json")
                return sorted(name for row in rows for name in row.get("RepoTags") or () if name != "<none>:<none>")
            if kind == "volume":
                return sorted(row["Name"] for row in client.request("GET", "/volumes").get("Volumes") or ())
            return sorted(row["Name"] for row in client.request("GET", "/networks"))
    except DockyardError:
        return []
