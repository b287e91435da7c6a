"""The client room (to be opened)."""
