"""Dockunit: one project's tests in several containers, as ``Dockunit.json`` lists them.

Nouns: *matrix* (the file), *entry* (one container: prettyName, image, beforeScripts, testCommand), *tree* (the project's
files as one archive), *outcome* (of one entry), *prepared image* (an image after its beforeScripts, kept for next time),
*stub* (a server that stands in for a service), *pipeline* and *stage* (pipeline.yaml: from compile to deploy).

Invariants: fields, messages and exit codes are those of the tool that the file comes from (dockunit 0.5). The user's
files are copied into each container's own layer and never mounted, so no test can damage them. Containers run side by
side, and none is left, whatever happens. It talks to an engine through ``client`` only.
"""
