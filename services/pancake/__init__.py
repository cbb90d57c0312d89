"""The pancake application: takes pancakes by a page and an API, keeps them in PostgreSQL."""
