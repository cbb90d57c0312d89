"""`python -m services.pancake`: serves the application."""

from services.common.serve import main

main("services.pancake.app:app", port=8001)
