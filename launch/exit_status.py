"""How main.py ends, and which of its ends ask for another start.

| status | what it means | run again |
|---|---|---|
| 0 | finished | no |
| 1 | an error that would come again | no |
| 75 | another host or process was lost | yes |
| 130 | stopped by SIGINT, saved | no |
| 143 | stopped by SIGTERM, saved | yes |
| 129 to 159 | ended by another signal: 137 by SIGKILL | yes |
| any other | the command could not be run, or its memory was full | no |

The same command goes on where the last one saved. Of the hosts' statuses one
that is not to be started again counts before those that it has caused; srun
tells the largest one alone.
"""

import dataclasses
import signal
from collections.abc import Iterable

FINISHED = 0
# EX_TEMPFAIL of sysexits.h.
LOST = 75
TERMINATED = 128 + signal.SIGTERM
# Of signals 1 to 31 a shell makes 129 to 159. Ctrl-C is meant.
AGAIN = (
  LOST,
  *(128 + number for number in range(1, 32) if number != signal.SIGINT),
)


def runs_again(status: int) -> bool:
  """Whether a run that ended so is to be started again."""
  return status in AGAIN


def of_all(statuses: Iterable[int]) -> int:
  """The one of several hosts' statuses that says why the run has ended."""
  cause = lambda status: status != FINISHED and not runs_again(status)
  return max(statuses, key=lambda status: (cause(status), status))


@dataclasses.dataclass(frozen=True)
class Ended:
  """How a job of a cluster ended.

  Attributes:
    status: main.py's last exit status; None: nobody has written it down.
    error: the last line that it printed; empty after 0.
    submitted: False: the cluster has not taken it; the error is the cluster's.
  """

  status: int | None
  error: str = ""
  submitted: bool = True
