"""The web room (to be opened)."""
