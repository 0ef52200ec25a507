"""`python -m deploy.local`, with a Redis that lets a test read all keys as the user `searcher`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from deploy.local import redis
from deploy.local.__main__ import main

_access_list = redis._access_list


def _with_searcher(passwords: Mapping[str, str]) -> str:
    return _access_list(passwords) + "user searcher on nopass ~* resetchannels -@all +@read +scan\n"


if __name__ == "__main__":
    redis._access_list = _with_searcher
    sys.exit(main())
