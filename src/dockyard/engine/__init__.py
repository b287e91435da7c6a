"""Engine: the only wiring room. It owns containers from create to removal and brings the rooms below together.

Nouns: *record* (what a container is, stored), *container* (the owner of one record), *operation* (a change that runs
to its end whoever asked), *kit* (what every part works with), *ports* (what is needed from the rooms below), *twins*
(their in-memory counterparts).

Invariants: records are stored before the effects they announce; only a ``Container`` replaces its record; an end of a
container comes from its exit watcher alone; a client's departure stops no operation; one container never waits for
another. Never parses HTTP, never renames a field for an old client, never runs a program itself.
"""
