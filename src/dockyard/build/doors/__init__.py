"""Doors: ways into the builder. Each turns its protocol into a Request and a Source, and events into its own words."""
