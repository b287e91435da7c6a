"""The registry room (to be opened)."""
