"""Commands, one module a subject; each function is ``(shell, options) -> exit code or None``."""
