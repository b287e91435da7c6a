"""The lib room (to be opened)."""
