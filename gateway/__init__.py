"""HTTP in, gRPC out: no database, and no rules of its own."""
