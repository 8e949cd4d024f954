"""What processes must have alike, and what one of them does for all."""

import numpy as np
import pytest

from train.errors import Refusal
from train.processes import agreement


def test_processes_that_were_told_different_things_are_refused(monkeypatch):
  agreement.check_same("--input=in.txt", "abc")
  gather = (agreement.multihost_utils, "process_allgather")
  monkeypatch.setattr(*gather, lambda mine: np.stack([mine, mine, mine[::-1]]))
  with pytest.raises(Refusal, match=r"--input=in\.txt of process 2 is not"):
    agreement.check_same("--input=in.txt", "abc")
  monkeypatch.setattr(*gather, lambda mine: np.stack([mine] * 3))
  agreement.check_same("--input=in.txt", "abd")
