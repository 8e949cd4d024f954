"""The bar shows on a terminal only."""

import io

import pytest

from train.progress.progress_bar import ProgressBar


class _Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_bar_shows_on_a_terminal_only(monkeypatch, terminal, enabled):
  stderr = _Terminal() if terminal else io.StringIO()
  monkeypatch.setattr("sys.stderr", stderr)
  bar = ProgressBar(100, 40, enabled=enabled)
  bar.update(60, 1.25, 12345.6)
  bar.close()
  text = stderr.getvalue()
  if terminal and enabled:
    assert "60/100" in text and "loss 1.2500, 12,346 tokens/s" in text
  else:
    assert text == ""
