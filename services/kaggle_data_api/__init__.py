"""The Kaggle data API: which Kaggle datasets this platform holds, kept in PostgreSQL."""
