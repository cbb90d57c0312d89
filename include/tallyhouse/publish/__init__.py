"""Publishing: one transaction into PostgreSQL, then every target brought to what it shows."""
