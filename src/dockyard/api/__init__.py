"""The api room (to be opened)."""
