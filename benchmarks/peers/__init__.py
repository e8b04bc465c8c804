"""Other libraries, each used as its own documentation shows; imported in their environments only."""
