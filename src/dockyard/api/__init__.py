"""API: Docker's Engine API over HTTP, in front of an engine.

Nouns: *route* (one row of the table in ``routes``), *call* (a request that met its route: version, parameters, engine),
*handler* (from a call to an answer), *shaping* (what an older API version must see differently, as a table).

Invariants: every operation stands in one table, which router, coverage page and version gates read. Documents come
from the engine in the newest form; nothing is added for an older version but by the table. Errors become statuses
in one place. Nothing here decides about containers, and nothing here blocks: a client that leaves, or never reads,
costs a bounded buffer and no more.
"""
