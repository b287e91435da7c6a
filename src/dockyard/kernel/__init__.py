"""The kernel room: thin functions over system calls, one fact of the kernel each.

Invariants, as absences: knows nothing of containers or images, keeps no state, starts no process, prints nothing. A
failure is an OSError with the kernel's errno and a sentence; the room that called gives it a code.
"""
