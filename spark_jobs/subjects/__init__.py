"""What each subject's transform builds, and in which order."""
