"""Turns coalescing off in the gateway and in Ingest, to measure what it is worth.

Python imports a module of this name from its path by itself, before anything else.
"""

import sys

if sys.orig_argv[-1:] == ["gateway"]:
    import gateway.coalescer

    gateway.coalescer._MAX_EVENTS_PER_CALL = 1
    gateway.coalescer._MAX_CALLS_IN_FLIGHT = 1000
    gateway.coalescer._EVENTS_FOR_SECOND_CALL = 1

if sys.orig_argv[-1:] == ["services.ingest"]:
    import services.ingest.log_writer

    services.ingest.log_writer._EVENTS_A_TRANSACTION = 1
