"""What reading bytes as JSON can raise. msgspec leaves bad UTF-8 and nesting without end to the interpreter's own errors."""

import msgspec

NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
