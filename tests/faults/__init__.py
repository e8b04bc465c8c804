"""What happens while the database fails: killed, cut off, silent, crowded or full."""
