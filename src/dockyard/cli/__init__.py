"""The cli room (to be opened)."""
