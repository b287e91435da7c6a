"""The builder: one solver behind every door.

Two doors lead in, ``POST /build`` (``doors/classic``) and BuildKit's gRPC (``doors/buildkit``); both make a *Request*
and a *Source* (the context: a tar, or a client's directory that is synced on demand), hand them to ``service.Builder``
and draw the *progress* events that come back.

Inside: ``dockerfile/`` parses, ``plan`` makes the *Graph* (pure), ``keys`` names every step by what went into it,
``solver`` walks the graph (stages in parallel, identical running steps shared), ``records`` remembers results made
here. Nothing of this room knows storage, runtime or network: ``ports`` says what it needs, ``engine`` gives it.

Invariants: a record is written only for a step that ran here to its end; a failed or killed build leaves no root, no
process, no network endpoint; nothing is ever written through a path that an image or a context controls.
"""
