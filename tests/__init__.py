"""Tests of agno_sql."""
