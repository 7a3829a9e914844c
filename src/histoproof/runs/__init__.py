"""Run folders: what one holds (`folder`), and which there are (`listing`).

The command `runs` is the function `runs`; so the package of that name offers it beside the folder's own names.
"""

from .folder import GENESIS, Run, Trail, chained, create, free_name, is_locked, locked, open_run, trail_end
from .listing import runs

__all__ = [
    "GENESIS",
    "Run",
    "Trail",
    "chained",
    "create",
    "free_name",
    "is_locked",
    "locked",
    "open_run",
    "runs",
    "trail_end",
]
