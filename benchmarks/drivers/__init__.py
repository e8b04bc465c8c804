"""What is measured with the project's own environment: the store, and code without any library."""
