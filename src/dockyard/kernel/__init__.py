"""The kernel room (to be opened)."""
