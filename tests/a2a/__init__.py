"""A2A: the official client, and whoever is no client at all, over real HTTP."""
