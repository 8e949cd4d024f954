"""The section `optim` of a configuration, and which values it may have."""

import dataclasses
import math

from train.optim.groups import Group, parse

# Each with the settings that it reads, besides the learning rate.
OPTIMIZERS: dict[str, tuple[str, ...]] = {
  "adamw": ("b1", "b2", "eps", "weight_decay"),
  "adam": ("b1", "b2", "eps"),
  "adafactor": ("weight_decay",),
  "lion": ("b1", "b2", "weight_decay"),
  "muon": ("b1", "b2", "eps", "weight_decay", "momentum"),
  "lamb": ("b1", "b2", "eps", "weight_decay"),
  "sgd": ("weight_decay", "momentum"),
}
SCHEDULES = (
  "constant",
  "linear",
  "cosine",
  "wsd",
  "rsqrt",
  "noam",
  "noam_unscaled",
)
_AT_LEAST_0 = ("lr", "warmup_steps", "decay_steps", "weight_decay", "clip_norm")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """The section `optim` of a configuration.

  Attributes:
    lr: learning rate after warm-up; noam multiplies it by width^-0.5.
    warmup_steps: updates until the rate is whole; the first is not zero.
    decay_steps: the last updates of "wsd", in which the rate falls to zero.
    momentum: of sgd and muon; -1.0: 0.9 and 0.95.
    clip_norm: largest global norm of the gradient; 0.0 does not clip.
    groups: settings by path, see `groups.parse`.
    ema_decay: of the averages of parameters; 0.0: there are none.
  """

  name: str
  lr: float
  schedule: str
  warmup_steps: int
  b1: float
  b2: float
  eps: float
  weight_decay: float
  clip_norm: float
  decay_steps: int = 0
  momentum: float = -1.0
  groups: tuple[str, ...] = ()
  ema_decay: float = 0.0

  def __post_init__(self):
    for key, value, known in (
      ("name", self.name, OPTIMIZERS),
      ("schedule", self.schedule, SCHEDULES),
    ):
      if value not in known:
        raise ValueError(
          f"optim.{key}={value!r} is unknown; it is one of {', '.join(known)}"
        )
    for key in _AT_LEAST_0:
      value = getattr(self, key)
      if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"optim.{key}={value!r} must be finite and at least 0")
    for key in ("b1", "b2", "ema_decay"):
      value = getattr(self, key)
      if not 0 <= value < 1:
        raise ValueError(f"optim.{key}={value!r} must lie in [0, 1)")
    if not (self.eps > 0 and math.isfinite(self.eps)):
      raise ValueError(f"optim.eps={self.eps!r} must be positive")
    if self.momentum != -1.0 and not 0 <= self.momentum < 1:
      raise ValueError(
        f"optim.momentum={self.momentum!r} must lie in [0, 1), or be -1.0 for "
        "the optimizer's usual one"
      )
    if self.weight_decay and "weight_decay" not in OPTIMIZERS[self.name]:
      raise ValueError(
        f"optim.weight_decay={self.weight_decay!r}: optim.name={self.name!r} "
        "has none; set it to 0.0, or optim.name to 'adamw'"
      )
    of_groups = [g.settings.get("schedule") for g in parse(self.groups)]
    if self.decay_steps and "wsd" not in (self.schedule, *of_groups):
      raise ValueError(
        f"optim.decay_steps={self.decay_steps}: optim.schedule="
        f"{self.schedule!r} has none; set it to 0, or optim.schedule to 'wsd'"
      )
    if self.momentum != -1.0 and "momentum" not in OPTIMIZERS[self.name]:
      raise ValueError(
        f"optim.momentum={self.momentum!r}: optim.name={self.name!r} has none; "
        "set it to -1.0, or optim.name to 'sgd' or 'muon'"
      )
    if self.schedule == "wsd" and not self.decay_steps:
      raise ValueError(
        "optim.decay_steps=0: optim.schedule='wsd' falls to zero in its last "
        "updates; set how many, such as a tenth of train.steps"
      )
    self.by_pattern()

  def by_pattern(self) -> dict[str, "OptimConfig"]:
    """The settings of each group that is trained, and of all else as ""."""
    trained = [group for group in parse(self.groups) if not group.frozen]
    return {"": self} | {g.pattern: self._of_group(g) for g in trained}

  def _of_group(self, group: Group) -> "OptimConfig":
    changes = dict(group.settings)
    rate = changes.pop("lr", self.lr) * changes.pop("lr_scale", 1.0)
    where = f"optim.groups: {group.pattern!r}"
    if changes.get("schedule", self.schedule) != "wsd":
      changes["decay_steps"] = 0
    unread = {"b1", "b2", "eps", "weight_decay"} - set(OPTIMIZERS[self.name])
    for key in sorted(unread & set(changes)):
      raise ValueError(f"{where}: optim.name={self.name!r} has no {key}")
    try:
      return dataclasses.replace(self, groups=(), lr=rate, **changes)
    except ValueError as error:
      raise ValueError(f"{where}: {error}") from error
