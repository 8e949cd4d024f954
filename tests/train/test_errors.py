"""What readers of files raise ends a command; a bug does not look like it."""

import pytest

from train.errors import Refusal, refusing


def test_errors_of_readers_become_refusals():
  with pytest.raises(Refusal, match="no such"):
    with refusing():
      raise FileNotFoundError("no such file")
  with pytest.raises(TypeError):
    with refusing():
      raise TypeError("a bug stays a bug")
