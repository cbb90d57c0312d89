"""Task groups that the subjects share."""
