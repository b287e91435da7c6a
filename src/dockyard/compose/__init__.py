"""Compose: whole applications from files, old ones and today's, on Dockyard or plain dockerd.

Nouns: *document* (YAML with places), *canonical service* (long forms only), *project* (what the files say), *observed
state* (what the engine has, found by labels), *operation* and *plan* (what must change, and why).

Invariants: the loader is a pure function of texts and an environment. It talks to an engine through ``client`` only and
never imports engine. Labels, names, aliases and the config hash are Docker Compose's, so that either tool can take over
the other's projects. Every error names file, line and the nearest valid word.
"""
