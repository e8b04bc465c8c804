"""Memories: where the messages of a conversation are kept, and what of them a model is shown."""
