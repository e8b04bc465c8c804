"""All SQL: tables, engine, append, prune, reads, retention, migration."""
