"""`make compose-verify`: the images and the Compose file, run for real."""
