"""The command line, `shoptrail`."""
