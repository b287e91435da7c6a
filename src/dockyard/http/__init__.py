"""The http room (to be opened)."""
