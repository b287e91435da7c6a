"""Base images without any registry: Debian from the host's mirror, busybox from busybox-static, small stand-ins.

The layer tar is deterministic for its inputs and cached with its config under the cache directory, so that the second
call reads a file. What the image records of where it came from is ``deb.debian.org`` whatever mirror was used: the
host's own mirror is nobody's business.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from dockyard.oci import parse_reference
from dockyard.oci.documents import encode
from dockyard.oci.tar import DIR, END_OF_ARCHIVE, LINK, SYMLINK, TarHeader, encode_header, padding

from .debian import PATH_ENV, Recipe, architecture, debian_recipe
from .errors import CANNOT_BOOTSTRAP, UNKNOWN_BOOTSTRAP
from .model import Image, Progress, no_progress
from .store import Store

CACHE = Path("/var/cache/dockyard")
BUSYBOX = Path("/bin/busybox")
APPLETS_TIMEOUT = 10.0
EPOCH = "1970-01-01T00:00:00Z"
READ_PIECE = 1 << 20

DIRECTORIES = (
    "bin", "dev", "etc", "home", "lib", "proc", "sbin", "sys", "usr", "usr/bin", "usr/sbin", "var", "var/www",
    "var/spool", "var/spool/mail", "run", "mnt", "opt", "srv", "media",
)  # fmt: skip
PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = """root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
wheel:x:10:
audio:x:29:
www-data:x:33:
video:x:44:
users:x:100:
nogroup:x:65534:
"""
GREETING = """
Hello from Docker!
This message shows that your installation appears to be working correctly.

(It comes from an image that Dockyard made on this machine, without any registry.)

"""


async def bootstrap(store: Store, name: str, progress: Progress = no_progress, *, cache: Path = CACHE) -> Image:
    """Make the image ``name`` and tag it. Known: ``debian:SUITE[-slim]``, ``busybox[:TAG]``, ``alpine[:TAG]``,
    ``hello-world``. Raises NotFound for another, Unavailable where its source is missing."""
    ref = parse_reference(name).with_default_tag()
    progress(ref.familiar, "Preparing", 0, 0)
    make, recipe = _recipe(ref.familiar_name, ref.tag or "")
    layer = cache / f"{recipe.key}.tar"
    if not layer.exists():
        cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = layer.with_name(f"{layer.name}.{os.getpid()}")
        try:
            await asyncio.to_thread(make, partial)
            os.replace(partial, layer)
        finally:
            partial.unlink(missing_ok=True)
    progress(ref.familiar, "Loading", 0, layer.stat().st_size)
    with store.lease() as lease:
        stored, _ = await store.ingest_layer(_chunks(layer), lease)
        config = _config(recipe, stored.diff_id)
        image = store.register_image(config, tags=[ref])
    progress(ref.familiar, "Ready", 1, 1)
    return image


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        while piece := await asyncio.to_thread(file.read, READ_PIECE):
            yield piece


def _config(recipe: Recipe, diff_id: str) -> bytes:
    return encode({
        "architecture": architecture(), "os": "linux", "created": EPOCH, "config": recipe.config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": EPOCH, "created_by": recipe.created_by, "comment": "dockyard bootstrap"}],
    })  # fmt: skip


def _recipe(name: str, tag: str) -> tuple[Callable[[Path], object], Recipe]:
    if name == "debian":
        return debian_recipe(tag)
    if name in ("busybox", "alpine", "hello-world"):
        if not BUSYBOX.exists():
            raise CANNOT_BOOTSTRAP(name=f"{name}:{tag}", cause=f"{BUSYBOX} is missing (package busybox-static)")
        command = ["/hello"] if name == "hello-world" else ["/bin/sh"] if name == "alpine" else ["sh"]
        config: dict[str, object] = {"Env": [PATH_ENV], "Cmd": command}
        files = hello_tree() if name == "hello-world" else busybox_tree(name, tag)
        data = write_tree(files)
        key = f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
        return (lambda path: path.write_bytes(data)), Recipe(key, config, f"bootstrap {name}:{tag} from busybox-static")
    raise UNKNOWN_BOOTSTRAP(name=f"{name}:{tag}")


Files = dict[str, tuple[int, bytes | str | None]]  # path -> (mode, content | link target | None for a directory)


def busybox_tree(name: str, tag: str) -> Files:
    listing = subprocess.run(
        [str(BUSYBOX), "--list"], capture_output=True, check=True, text=True, timeout=APPLETS_TIMEOUT
    ).stdout.split()
    files: Files = dict.fromkeys(DIRECTORIES, (0o755, None))
    files.update({"root": (0o700, None), "tmp": (0o1777, None), "var/tmp": (0o1777, None)})
    files["bin/busybox"] = (0o755, BUSYBOX.read_bytes())
    for applet in sorted(listing):
        files.setdefault(f"bin/{applet}", (0o777, "hard:bin/busybox" if name == "busybox" else "/bin/busybox"))
    files["usr/bin/env"] = (0o777, "/bin/busybox")
    texts = {
        "passwd": PASSWD, "group": GROUP, "shadow": "root:*::0:::::\n", "shells": "/bin/sh\n", "hostname": "",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n", "profile": f"export {PATH_ENV}\n",
    }  # fmt: skip
    for leaf, text in texts.items():
        files[f"etc/{leaf}"] = (0o640 if leaf == "shadow" else 0o644, text.encode())
    if name == "alpine":
        files["var/opt"] = (0o755, None)
        files["etc/passwd"] = (0o644, (PASSWD + "postgres:x:70:70::/var/lib/postgresql:/bin/sh\n").encode())
        files["etc/group"] = (0o644, (GROUP + "postgres:x:70:\n").encode())
        files.update(_alpine_identity(tag))
    return files


def _alpine_identity(tag: str) -> Files:
    version = tag if tag and tag[0].isdigit() else "3.20"
    full = version if version.count(".") > 1 else version + ".0"
    release = (
        f'NAME="Alpine Linux"\nID=alpine\nVERSION_ID={full}\nPRETTY_NAME="Alpine Linux v{version}"\n'
        'VARIANT="busybox stand-in made by Dockyard"\n'
    )
    return {
        "etc/os-release": (0o644, release.encode()), "etc/alpine-release": (0o644, f"{full}\n".encode()),
        "etc/apk": (0o755, None),
    }  # fmt: skip


def hello_tree() -> Files:
    """A script, for busybox has no applet that greets."""
    script = "#!/bin/sh\nexec /bin/busybox cat /greeting\n"
    return {
        "bin": (0o755, None), "bin/busybox": (0o755, BUSYBOX.read_bytes()), "bin/sh": (0o777, "/bin/busybox"),
        "greeting": (0o644, GREETING.encode()), "hello": (0o755, script.encode()),
    }  # fmt: skip


def write_tree(files: Files) -> bytes:
    """A deterministic tar of it: sorted, times and owners zero; parents before children by the sort."""
    parts: list[bytes] = []
    deferred = []
    for path in sorted(files):
        mode, content = files[path]
        name = path.encode()
        if content is None:
            parts.append(encode_header(TarHeader(name + b"/", DIR, mode)))
        elif isinstance(content, bytes):
            parts += [encode_header(TarHeader(name, mode=mode, size=len(content))), content, padding(len(content))]
        elif content.startswith("hard:"):
            deferred.append(encode_header(TarHeader(name, LINK, mode, linkname=content[5:].encode())))
        else:
            parts.append(encode_header(TarHeader(name, SYMLINK, mode, linkname=content.encode())))
    return b"".join([*parts, *deferred, END_OF_ARCHIVE])
