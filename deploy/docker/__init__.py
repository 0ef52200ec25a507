"""The image, and a whole mesh on a single server with Docker Compose."""
