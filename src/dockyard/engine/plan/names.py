"""Names: which are allowed, and the ones we give to containers that came without."""

from __future__ import annotations

import re
from random import Random

from dockyard.engine.errors import BAD_NAME, NO_SUCH_IMAGE
from dockyard.errors import DockyardError, InvalidParameter
from dockyard.oci import parse_reference
from dockyard.oci.errors import REFERENCE_IS_AN_ID

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")


def _words(text: str) -> list[str]:
    return text.split()


_MOODS = _words("""
able amber bold brave breezy bright brisk calm candid clear clever cosy crisp daring eager early easy fair fast fine
fleet fond frank free fresh gentle glad golden grand happy hardy hearty honest jolly keen kind light lively lucid
lucky mellow merry mighty modest neat nimble noble patient plucky polite prompt proud quick quiet ready robust sharp
silent smart snug solid spry stout sunny sure swift tidy trusty upbeat vivid warm wise witty zesty
""")
_NAVIGATORS = _words("""
amundsen anson aubert barents barrow bering bougainville boyle brunel cabot cabral cartier cavendish champlain
columbus cook cousteau dana davis dias drake earle elcano ericson fitzroy flinders franklin frobisher fuchs gama
gilbert gray grenville hakluyt hawkins hudson humboldt ibnmajid jansz kotzebue krusenstern laperouse lawson magellan
maury mercator munk nansen nelson nobile ocampo orellana palmer parry peary pinzon polo pytheas quiros raleigh
rasmussen ross saavedra scoresby scott shackleton slocum smith sverdrup tasman torres urdaneta vancouver vespucci
wallis weddell wilkes zarco zhenghe
""")


def check_name(name: str) -> str:
    """The name without its leading slash. Raises InvalidParameter with Docker's sentence."""
    if not _NAME.match(name):
        raise BAD_NAME(name=name)
    return name.removeprefix("/")


def no_such_image(ref: str) -> DockyardError:
    """What to raise for an image that is not here: a name that no image can have is said to be invalid (as in moby)."""
    try:
        parse_reference(ref)
    except InvalidParameter as invalid:
        if invalid.code != REFERENCE_IS_AN_ID.id:
            return invalid
    named = ":" in ref.rpartition("/")[2] or "@" in ref
    return NO_SUCH_IMAGE(ref=ref if named else f"{ref}:latest")


def suggest_name(random: Random, attempt: int) -> str:
    """``calm_magellan``; after a few clashes a digit is added, so that the search ends."""
    name = f"{random.choice(_MOODS)}_{random.choice(_NAVIGATORS)}"
    return name if attempt < 5 else f"{name}{random.randrange(10 ** (attempt - 3))}"
