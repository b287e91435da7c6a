"""``dockyard build`` as a client of BuildKit's door, for what POST /build has no room for: secrets, agents, outputs, named
contexts, caches in directories, several platforms, attestations.

::

    flags ─ wish ─► Wish ─ run ─► Control.Solve, Status ─ rows ─► the view
                            └──► session: files, secrets, agents, credentials, stores ◄── the engine asks

Nothing here is imported by a build that does without.
"""
