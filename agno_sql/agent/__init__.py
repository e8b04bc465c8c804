"""The agent: runs, tools, hooks."""
