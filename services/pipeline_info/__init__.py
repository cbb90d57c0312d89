"""The pipeline-info service: knows every run of every pipeline."""
