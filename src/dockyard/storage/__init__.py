"""The storage room (to be opened)."""
