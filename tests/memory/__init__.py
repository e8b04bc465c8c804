"""What every memory and the SQL memory promise."""
