"""The engine room (to be opened)."""
