"""``python -m agno_sql`` is the command ``agno-sql``."""

from __future__ import annotations

from agno_sql.cli.main import main

if __name__ == "__main__":
    main()
