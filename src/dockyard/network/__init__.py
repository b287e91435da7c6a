"""The network room (to be opened)."""
