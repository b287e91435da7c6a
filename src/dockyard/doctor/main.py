"""Entry of the four verbs: doctor, trace, audit, explain. Each verb's module is imported when it is used."""

from __future__ import annotations

import argparse
import importlib
import sys

from dockyard.errors import DockyardError

VERBS = {"doctor": "check", "trace": "trace", "audit": "audit", "explain": "explain"}
EXIT_USAGE = 64


def main(argv: list[str]) -> int:
    """Run ``argv`` (verb first). Exit codes: 0 healthy, 1 risks, 2 faults, 3 could not check all, 64 usage."""
    verb = argv[0] if argv and argv[0] in VERBS else "doctor"
    rest = argv[1:] if argv and argv[0] in VERBS else argv
    module = importlib.import_module(f"dockyard.doctor.verbs.{VERBS[verb]}")
    parser = argparse.ArgumentParser(prog=f"dockyard {verb}", description=module.DESCRIPTION)
    parser.add_argument("-H", "--host", default="", help="engine address (default: DOCKER_HOST, context, unix socket)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    module.arguments(parser)
    try:
        options = parser.parse_args(rest)
    except SystemExit as stop:
        return EXIT_USAGE if stop.code else 0
    try:
        return int(module.run(options))
    except DockyardError as error:
        print(f"dockyard {verb}: {error}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
