"""`python -m services.pipeline_info`: serves the application."""

from services.common.serve import main

main("services.pipeline_info.app:app", port=8002)
