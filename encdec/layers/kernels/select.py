"""The implementations of attention, and which of them serves a call.

An implementation says by `refuses(facts)` why it cannot serve a call; "auto"
takes the first that does not refuse and prints once why the others did. Fused
kernels join `IMPLEMENTATIONS`, fastest first.
"""

import functools

from absl import logging

from encdec.layers.kernels.facts import AttentionFacts, Implementation
from encdec.layers.kernels.xla import XlaAttention

IMPLEMENTATIONS: dict[str, Implementation] = {"xla": XlaAttention()}


def select(name: str, facts: AttentionFacts) -> Implementation:
  """The implementation of that name, or for "auto" the first that serves.

  Raises:
    ValueError: an unknown name, or a named one that refuses, with its reason.
  """
  if name == "auto":
    for candidate, implementation in IMPLEMENTATIONS.items():
      reason = implementation.refuses(facts)
      if reason is None:
        return implementation
      _explain(candidate, reason)
    raise ValueError(f"no attention implementation serves {facts}")
  if name not in IMPLEMENTATIONS:
    known = ", ".join(["auto", *IMPLEMENTATIONS])
    raise ValueError(f"attention implementation {name!r} is not one of {known}")
  reason = IMPLEMENTATIONS[name].refuses(facts)
  if reason is not None:
    raise ValueError(f"attention implementation {name!r} refuses: {reason}")
  return IMPLEMENTATIONS[name]


@functools.cache
def _explain(name: str, reason: str) -> None:
  logging.info("attention: %s does not serve: %s", name, reason)
