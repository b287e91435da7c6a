"""What all tests share."""

from __future__ import annotations

import signal

# A shell's background job ignores SIGINT and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
