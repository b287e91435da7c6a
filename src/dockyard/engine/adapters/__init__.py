"""The real rooms, fitted to the engine's ports. Lookups happen here, decisions in the rooms' own plans."""
