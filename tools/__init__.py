"""Programs to run by hand against a running stack."""
