"""Task groups that the pipelines share."""
