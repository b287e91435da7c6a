"""The runtime room (to be opened)."""
