"""The build room (to be opened)."""
