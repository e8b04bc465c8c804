"""Processes that die, freeze and lose their database, and a verdict on what is stored then."""
