"""The four services; they know one another only by their contracts."""
