"""`python -m services.kaggle_data_api`: serves the application."""

from services.common.serve import main

main("services.kaggle_data_api.app:app", port=3000)
