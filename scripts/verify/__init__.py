"""`make compose-verify` and `make k8s-verify`: the images, the Compose file and the charts, run for real."""
