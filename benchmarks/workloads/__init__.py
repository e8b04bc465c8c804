"""What the workers do, a file for each kind of work."""
