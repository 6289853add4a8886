"""The Dockerfile package: how an image is described, built, served, opened and pushed."""
