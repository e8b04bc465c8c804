"""What every ``Memory`` promises, a topic in each module; ``MemorySuite`` puts them together."""
