"""The doctor room (to be opened)."""
