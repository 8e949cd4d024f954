"""The learning rate of each update."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.optim.bases import BASE
from train.optim import schedules


def rates(schedule: str, warmup: int, steps: int, width: int = 64) -> list:
  config = dataclasses.replace(
    BASE,
    schedule=schedule,
    warmup_steps=warmup,
    decay_steps=4 * (schedule == "wsd"),
  )
  function = schedules.make_schedule(config, steps, width)
  return [float(function(jnp.asarray(n))) for n in range(steps)]


@pytest.mark.parametrize(
  "schedule", ["constant", "linear", "cosine", "rsqrt", "wsd"]
)
def test_warm_up_is_linear_and_its_first_update_is_not_zero(schedule):
  np.testing.assert_allclose(
    rates(schedule, 4, 10)[:4], [0.125, 0.25, 0.375, 0.5], rtol=1e-6
  )


def test_a_moved_end_of_the_schedule_is_told():
  """From the rate at the old end to that of the update that follows."""
  cosine = dataclasses.replace(BASE, schedule="cosine", warmup_steps=2)
  old, now = (schedules.make_schedule(cosine, steps, 64) for steps in (6, 12))
  told = schedules.describe_schedule_change(cosine, 6, 12, 6, 64)
  assert told is not None and "\n" not in told
  assert f"was {float(old(5)):.3g} at step 6" in told
  assert "would have been 0 next" in told
  assert f"now it is {float(now(6)):.3g}" in told
  assert "another --workdir" in told and "set train.steps=6" in told
  # In the warm-up nothing changes, nor where the end decides nothing.
  assert schedules.describe_schedule_change(cosine, 6, 12, 1, 64) is None
  assert schedules.describe_schedule_change(BASE, 6, 12, 6, 64) is None
  assert schedules.describe_schedule_change(cosine, 6, 6, 5, 64) is None


def test_what_follows_the_warm_up():
  half = 0.5
  np.testing.assert_allclose(rates("constant", 0, 3), [half] * 3)
  np.testing.assert_allclose(
    rates("linear", 2, 6)[2:], half * np.array([1, 0.75, 0.5, 0.25]), rtol=1e-6
  )
  np.testing.assert_allclose(
    rates("cosine", 2, 6)[2:],
    half * 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4)),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    rates("rsqrt", 4, 20)[4:],
    half * np.sqrt(4 / np.arange(5, 21)),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    rates("wsd", 2, 10)[2:],
    half * np.array([1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
    rtol=1e-6,
  )
  updates = np.arange(1, 21)
  np.testing.assert_allclose(
    rates("noam", 4, 20),
    half * 64**-0.5 * np.minimum(updates**-0.5, updates * 4**-1.5),
    rtol=1e-6,
  )


def test_a_warm_up_as_long_as_the_run_is_refused():
  config = dataclasses.replace(BASE, schedule="linear", warmup_steps=7)
  with pytest.raises(ValueError, match=r"optim.warmup_steps=7 .*train.steps=7"):
    schedules.make_schedule(config, 7, 64)
  # The others need no step after it.
  schedules.make_schedule(dataclasses.replace(config, schedule="rsqrt"), 7, 64)


def test_wsd_decays_within_the_run():
  config = dataclasses.replace(
    BASE, schedule="wsd", warmup_steps=3, decay_steps=5
  )
  schedules.make_schedule(config, 8, 64)
  with pytest.raises(
    ValueError, match=r"optim.decay_steps=5 .*warmup_steps=3 .*train.steps=7"
  ):
    schedules.make_schedule(config, 7, 64)


def test_wsd_goes_on_where_its_decay_has_not_begun():
  config = dataclasses.replace(
    BASE, schedule="wsd", warmup_steps=2, decay_steps=4
  )
  describe = schedules.describe_schedule_change
  # 10 steps decay from the update that follows 6: that one is still whole.
  assert describe(config, 10, 20, 6, 64) is None
  told = describe(config, 10, 20, 8, 64)
  assert told is not None and "\n" not in told
  assert "was 0.375 at step 8" in told and "would have been 0.25 next" in told
  assert "now it is 0.5" in told
  assert "began at step 6: a run whose newest checkpoint" in told
  # A run that becomes shorter may be in its decay already.
  told = describe(config, 20, 10, 8, 64)
  assert told is not None and "now it is 0.25" in told
  assert "another --workdir" in told


@pytest.mark.parametrize(
  ("lr", "warmup"), [(0.002, 20_000), (0.2, 10_000)], ids=["BERT", "decoder"]
)
def test_bertsums_rates_are_the_papers(lr, warmup):
  """Liu and Lapata 2019, section 4; of a width there is nothing."""
  config = dataclasses.replace(
    BASE, lr=lr, schedule="noam_unscaled", warmup_steps=warmup
  )
  function = schedules.make_schedule(config, 200_000, 768)
  for step in (1, 10_000, 20_000, 200_000):
    published = lr * min(step**-0.5, step * warmup**-1.5)
    assert float(function(step - 1)) == pytest.approx(published, rel=1e-6)
  # The control: noam is smaller by the width.
  noam = dataclasses.replace(config, schedule="noam")
  scaled = schedules.make_schedule(noam, 200_000, 768)
  assert float(scaled(0)) == pytest.approx(float(function(0)) * 768**-0.5)
