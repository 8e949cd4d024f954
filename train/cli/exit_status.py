"""Exit statuses of main.py, which launchers go by: run again, or do not.

0: finished. 1: an error that would come again. 75: another process was lost.
130 and 143: stopped by SIGINT and SIGTERM; after these two, and after 75, the
same command goes on from what was saved.
"""

FAILED = 1
# EX_TEMPFAIL of sysexits.h: the same command may succeed later.
AGAIN = 75
INTERRUPTED = 130
TERMINATED = 143

_MEANINGS = {
  FAILED: "failed, and says why",
  AGAIN: "ended since another was lost",
  INTERRUPTED: "was stopped by SIGINT",
  TERMINATED: "was stopped by SIGTERM",
}


def meaning(status: int) -> str:
  """What a process did that ended so, for a sentence about it."""
  return _MEANINGS.get(status, f"ended with status {status}")
