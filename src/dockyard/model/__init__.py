"""The model room (to be opened)."""
