"""From the flags of run, create, update and exec to the documents that the API takes. Pure but for reading the files that
flags name (``--env-file``, ``--label-file``, a seccomp profile) and the environment.

Nouns: *declaration* (the flags, as their help shows them), *values* (sizes, spans, key=value), *ports*, *mounts*,
*networks*, *resources*; `create.document` puts them together.

Invariants: what is sent equals what docker's own CLI sends for the same words (tests/cli/recorded.json), but for fields
at Go's zero values, which are left out. A word that cannot be read raises UsageError with docker's sentence.
"""
