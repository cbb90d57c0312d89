"""Publishing: one transaction into PostgreSQL, then verified swaps into ClickHouse."""
