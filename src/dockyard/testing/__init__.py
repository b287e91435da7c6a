"""The testing room (to be opened)."""
