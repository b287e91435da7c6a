"""Images: lists, names, removal, and their ways in and out."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from dockyard.cli.flags import Options, Refusal
from dockyard.cli.listing import history_row, image_rows
from dockyard.cli.output import FORMAT, Column, shortened, show, size
from dockyard.cli.shell import Shell, filters
from dockyard.client import quote_image
from dockyard.errors import NotFound

Json = dict[str, Any]
FLAGS = {
    "images": """
-a, --all                  Show intermediate images too
    --digests              Show digests
-f, --filter KEY=VALUE...  Only those that match (dangling, reference, ...)
    --no-trunc             Cut nothing
-q, --quiet                IDs only
"""
    + FORMAT,
    "pull": """
-a, --all-tags             Pull all tags of the repository
    --disable-content-trust  Skip image verification
    --platform OS/ARCH     Platform of the image
-q, --quiet                No progress, the name only
""",
    "push": """
-a, --all-tags             Push all tags of the repository
    --disable-content-trust  Skip signing
    --platform OS/ARCH     Push this platform only
-q, --quiet                No progress, the name only
""",
    "search": """
-f, --filter KEY=VALUE...  Only those that match (stars=3, is-official=true)
    --limit N              Most results
    --no-trunc             Cut nothing
"""
    + FORMAT,
    "commit": """
-a, --author NAME          Author
-c, --change INSTRUCTION...  Dockerfile instruction to apply
-m, --message TEXT         Message
-p, --pause                Pause the container meanwhile (default true)
""",
    "history": """
-H, --human                Sizes and dates for people (default true)
    --no-trunc             Cut nothing
    --platform OS/ARCH     Platform of the image
-q, --quiet                IDs only
"""
    + FORMAT,
    "import_": """
-c, --change INSTRUCTION...  Dockerfile instruction to apply
-m, --message TEXT         Message
    --platform OS/ARCH     Platform of the image
""",
    "load": """
-i, --input FILE           Read this file instead of stdin
    --platform OS/ARCH     Load this platform only
-q, --quiet                No progress
""",
    "save": """
-o, --output FILE          Write to this file instead of stdout
    --platform OS/ARCH     Save this platform only
""",
    "rmi": """
-f, --force                Remove even if containers use it
    --no-prune             Keep untagged parents
    --platform OS/ARCH...  Remove this platform only
""",
    "prune": """
-a, --all                  Remove all unused images, not just nameless ones
    --filter KEY=VALUE...  Only those that match (until=24h, label=...)
-f, --force                Do not ask
""",
}
EXAMPLES = {
    "images": "dockyard images --filter dangling=true\ndockyard images --format '{{.Repository}}:{{.Tag}}'",
    "pull": "dockyard pull debian:bookworm-slim\ndockyard pull localhost:5000/app@sha256:...",
    "push": "dockyard push localhost:5000/app:1",
    "save": "dockyard save app:1 | gzip > app.tar.gz",
    "load": "dockyard load -i app.tar.gz",
    "import_": "dockyard import rootfs.tar app:1\ncurl ... | dockyard import - app:1",
    "commit": "dockyard commit -c 'CMD [\"nginx\"]' web app:1",
}
_COLUMNS = (
    Column("REPOSITORY", "Repository", soft=True), Column("TAG", "Tag", soft=True), Column("IMAGE ID", "ID"),
    Column("CREATED", "CreatedSince"), Column("SIZE", "Size"),
)  # fmt: skip
_HISTORY = (
    Column("IMAGE", "ID"), Column("CREATED", "CreatedSince"), Column("CREATED BY", "CreatedBy", soft=True),
    Column("SIZE", "Size"), Column("COMMENT", "Comment", soft=True),
)  # fmt: skip
_SEARCH = (
    Column("NAME", "Name", soft=True), Column("DESCRIPTION", "Description", soft=True), Column("STARS", "StarCount"),
    Column("OFFICIAL", "IsOfficial"),
)  # fmt: skip
LOAD_SILENCE = 600.0
"""Seconds without a word: a large layer is unpacked in one go."""


def images(shell: Shell, options: Options) -> int:
    wanted = filters(options) or {}
    if options.words:
        wanted.setdefault("reference", {})[options.words[0]] = True
    digests = options.on("digests") or "{{.Digest}}" in options.text("format")
    rows = shell.client.request("GET", "/images/json", {"all": options.on("all") or None, "filters": wanted or None})
    shown = [row for image in rows for row in image_rows(image, whole=options.on("no-trunc"), digests=digests)]
    columns: tuple[Column, ...] = _COLUMNS
    if options.on("digests"):
        columns = (*_COLUMNS[:2], Column("DIGEST", "Digest", soft=True), *_COLUMNS[2:])
    return show(shell, options, shown, columns, default=shell.config("imagesFormat"))


def pull(shell: Shell, options: Options) -> int:
    from dockyard.cli import transfer

    name = options.words[0]
    every = options.on("all-tags")
    if every and ":" in name.rpartition("/")[2]:
        raise Refusal("tag can't be used with --all-tags/-a")
    if not every and not options.on("quiet") and not _has_tag(name):
        shell.say("Using default tag: latest")
    shell.say(transfer.pull(shell, name, platform=options.text("platform"), quiet=options.on("quiet"), every_tag=every))
    return 0


def _has_tag(name: str) -> bool:
    from dockyard.oci import parse_reference

    ref = parse_reference(name)
    return bool(ref.tag or ref.digest)


def push(shell: Shell, options: Options) -> int:
    from dockyard.cli import transfer

    name, quiet, every = options.words[0], options.on("quiet"), options.on("all-tags")
    if every and ":" in name.rpartition("/")[2]:
        raise Refusal("tag can't be used with --all-tags/-a")
    if not every and not quiet and not _has_tag(name):
        shell.say("Using default tag: latest")
    full = transfer.push(shell, name, platform=_platform(options.text("platform")), quiet=quiet, every_tag=every)
    if quiet:
        shell.say(full)
    return 0


def _platform(word: str) -> Json | None:
    """``linux/arm64/v8`` as the API's document."""
    if not word:
        return None
    names = ("os", "architecture", "variant")
    return dict(zip(names, word.split("/"), strict=False))


def search(shell: Shell, options: Options) -> int:
    from dockyard.cli import auths

    term = options.words[0]
    domain = term.partition("/")[0] if "/" in term and any(mark in term.partition("/")[0] for mark in ".:") else ""
    found = shell.client.request(
        "GET", "/images/search",
        {"term": term, "limit": options.number("limit") or None, "filters": filters(options)},
        headers=auths.header(domain or "docker.io"),
    )  # fmt: skip
    rows = [
        {"Name": row["name"], "StarCount": str(row.get("star_count", 0)),
         "Description": _described(row.get("description") or "", whole=options.on("no-trunc")),
         "IsOfficial": "[OK]" if row.get("is_official") else ""}
        for row in sorted(found or (), key=lambda row: -int(row.get("star_count", 0)))
    ]  # fmt: skip
    return show(shell, options, rows, _SEARCH, key="Name")


def _described(text: str, *, whole: bool) -> str:
    line = " ".join(text.split())
    return line if whole else shortened(line, 45)


def commit(shell: Shell, options: Options) -> int:
    container = options.words[0]
    repository, tag = _repository_and_tag(options.words[1] if len(options.words) > 1 else "")
    query = {
        "container": container, "repo": repository, "tag": tag, "comment": options.text("message"),
        "author": options.text("author"), "pause": None if options.on("pause", default=True) else False,
        "changes": tuple(options.all("change")),
    }  # fmt: skip
    told = shell.client.request("POST", "/commit", query, {}, timeout=LOAD_SILENCE)
    shell.say(told["Id"])
    return 0


def _repository_and_tag(name: str) -> tuple[str, str]:
    if not name:
        return "", ""
    from dockyard.oci import parse_reference

    ref = parse_reference(name).with_default_tag()
    if ref.digest:
        raise Refusal(f"cannot use digest reference: {name}")
    return ref.name, ref.tag or ""


def history(shell: Shell, options: Options) -> int:
    whole, human = options.on("no-trunc"), options.on("human", default=True)
    platform = _platform(options.text("platform"))
    rows = shell.client.request("GET", f"/images/{quote_image(options.words[0])}/history", {"platform": platform})
    shown = [history_row(row, whole=whole, human=human) for row in rows]
    columns = _HISTORY if human else (_HISTORY[0], Column("CREATED AT", "CreatedAt"), *_HISTORY[2:])
    return show(shell, options, shown, columns)


def tag(shell: Shell, options: Options) -> int:
    source, target = options.words[:2]
    from dockyard.oci import parse_reference

    ref = parse_reference(target).with_default_tag()
    if ref.digest:
        raise Refusal("refusing to create a tag with a digest reference")
    shell.client.request("POST", f"/images/{quote_image(source)}/tag", {"repo": ref.name, "tag": ref.tag})
    return 0


def rmi(shell: Shell, options: Options) -> int:
    force = options.on("force")
    platforms = [_platform(word) for word in options.all("platform")] or None
    query = {"force": force or None, "noprune": options.on("no-prune") or None, "platforms": platforms}

    def one(name: str) -> str | None:
        try:
            rows = shell.client.request("DELETE", f"/images/{quote_image(name)}", query, timeout=LOAD_SILENCE)
        except NotFound as missing:
            if force:
                shell.complain(str(missing))
                return None
            raise
        return "\n".join(f"{key}: {value}" for row in rows for key, value in row.items()) or None

    return shell.each(options.words, one)


def prune(shell: Shell, options: Options) -> int:
    wanted = filters(options) or {}
    every = options.on("all")
    wanted["dangling"] = {"false" if every else "true": True}
    warning = (
        "This will remove all images without at least one container associated to them."
        if every
        else "This will remove all dangling images."
    )
    if not shell.confirm(warning, options):
        return 0
    told = shell.client.request("POST", "/images/prune", {"filters": wanted}, timeout=LOAD_SILENCE)
    say_pruned_images(shell, told)
    shell.say(f"Total reclaimed space: {size(told.get('SpaceReclaimed', 0))}")
    return 0


def say_pruned_images(shell: Shell, told: Json) -> None:
    if told.get("ImagesDeleted"):
        shell.say("Deleted Images:")
        for row in told["ImagesDeleted"]:
            shell.say("\n".join(f"{key.lower()}: {value}" for key, value in row.items()))
        shell.say()


def load(shell: Shell, options: Options) -> int:
    from dockyard.cli.progress import Progress

    file = options.text("input")
    if not file and sys.stdin.isatty():
        raise Refusal("requested load from stdin, but stdin is empty")
    quiet = options.on("quiet") or not shell.on_terminal
    platform = _platform(options.text("platform"))
    query = {"quiet": quiet, "platform": [platform] if platform else None}
    with _opened(file) as archive:
        Progress().show(
            shell.client.objects(
                "POST", "/images/load", query, pieces(archive), headers={"Content-Type": "application/x-tar"},
                timeout=LOAD_SILENCE,
            )
        )  # fmt: skip
    return 0


def save(shell: Shell, options: Options) -> int:
    platform = _platform(options.text("platform"))
    query = {"names": tuple(options.words), "platform": [platform] if platform else None}
    return write_archive(shell, "/images/get", options.text("output"), query)


def write_archive(shell: Shell, path: str, file: str, query: Json | None = None) -> int:
    """The answer's body into ``file`` (in one step, so that a broken end leaves nothing) or stdout."""
    if not file and shell.on_terminal:
        raise Refusal("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    with shell.client.open("GET", path, query, timeout=LOAD_SILENCE) as answer:
        if not file:
            for piece in answer.chunks():
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return 0
        _write_file(file, answer.chunks())
    return 0


def _write_file(file: str, chunks: Iterable[bytes]) -> None:
    if os.path.exists(file) and not os.path.isfile(file):
        with open(file, "wb") as out:
            out.writelines(chunks)
        return
    import tempfile

    folder, name = os.path.split(os.path.abspath(file))
    if not os.path.isdir(folder):
        raise Refusal(f'invalid output path: directory "{folder}" does not exist')
    handle, part = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.writelines(chunks)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o666 & ~mask)
        os.replace(part, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def import_(shell: Shell, options: Options) -> int:
    from dockyard.cli.progress import Progress

    source = options.words[0]
    name = options.words[1] if len(options.words) > 1 else ""
    _repository_and_tag(name)
    remote = source.startswith(("http://", "https://"))
    query = {
        "fromSrc": source if remote else "-", "repo": name or None,
        "message": options.text("message") or None, "platform": options.text("platform").lower() or None,
        "changes": tuple(options.all("change")),
    }  # fmt: skip
    with contextlib.nullcontext(None) if remote else _opened("" if source == "-" else source) as archive:
        body = pieces(archive) if archive is not None else None
        Progress().show(shell.client.objects("POST", "/images/create", query, body, timeout=LOAD_SILENCE))
    return 0


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if not file:
        yield sys.stdin.buffer
        return
    try:
        opened = open(file, "rb")  # noqa: SIM115 - closed below; the refusal has docker's words
    except OSError as error:
        raise Refusal(f"open {file}: {(error.strerror or str(error)).lower()}") from None
    with opened:
        yield opened


def pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        yield piece


