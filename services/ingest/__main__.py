"""`python -m services.ingest`: serves the application."""

from services.common.serve import main

main("services.ingest.app:app", port=8000)
