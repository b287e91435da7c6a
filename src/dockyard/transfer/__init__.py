"""The transfer room (to be opened)."""
