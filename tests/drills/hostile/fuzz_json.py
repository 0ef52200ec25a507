"""Mutates bodies by what code they reach, all the way from HTTP to the read models.

`python -m tests.drills.hostile.fuzz_json -runs=100000` runs it until something is raised that no
caller expects, or an event has got lost on the way. The arguments are libFuzzer's.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gateway", "services", "common"]):
    from tests.drills.hostile.way_of_a_body import take

if __name__ == "__main__":
    atheris.Setup(sys.argv, take)
    atheris.Fuzz()
