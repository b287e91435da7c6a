"""The Dockerfile language, pure: text to nodes, nodes to typed instructions, words, mounts and ignore patterns.

Absences: no I/O, no clock, no knowledge of images. What a word expands to is decided by ``build.plan``.
"""
