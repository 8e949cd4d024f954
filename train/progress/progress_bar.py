"""The bar of a run that is watched on a terminal."""

import sys

import tqdm


class ProgressBar:
  """Steps, loss, useful tokens a second and time left, on a terminal only."""

  def __init__(self, total_steps: int, start_step: int, enabled: bool):
    self._bar = tqdm.tqdm(
      total=total_steps,
      initial=start_step,
      disable=not (enabled and sys.stderr.isatty()),
      unit="step",
      dynamic_ncols=True,
    )

  def update(self, step: int, loss: float, tokens_per_second: float) -> None:
    self._bar.set_postfix_str(
      f"loss {loss:.4f}, {tokens_per_second:,.0f} tokens/s", refresh=False
    )
    self._bar.update(step - self._bar.n)

  def close(self) -> None:
    self._bar.close()
