"""Query: answers what happened in a store, from read models that follow Ingest's log."""
