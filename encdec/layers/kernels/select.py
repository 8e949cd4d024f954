"""The implementations of attention, and which of them serves a call.

An implementation says by `refuses(facts)` why it cannot serve a call, and by
`auto_skips(facts)` why it had better not. "auto" takes the first that does
neither. What is taken, and why others were not, is printed once.
"""

import functools

from absl import logging

from encdec.layers.kernels.cudnn import CudnnAttention
from encdec.layers.kernels.facts import AttentionFacts, Implementation
from encdec.layers.kernels.short import ShortAttention
from encdec.layers.kernels.splash import SplashAttention
from encdec.layers.kernels.xla import XlaAttention

# Those that "auto" prefers come first.
IMPLEMENTATIONS: dict[str, Implementation] = {
  "short": ShortAttention(),
  "splash": SplashAttention(),
  "cudnn": CudnnAttention(),
  "xla": XlaAttention(),
}


def select(name: str, facts: AttentionFacts) -> Implementation:
  """The implementation of that name, or for "auto" the first that serves.

  Raises:
    ValueError: an unknown name, or a named one that refuses, with its reason.
  """
  if name == "auto":
    for candidate, implementation in IMPLEMENTATIONS.items():
      reason = implementation.refuses(facts) or implementation.auto_skips(facts)
      if reason is None:
        _print_choice(candidate, _role(facts))
        return implementation
      _print_reason(candidate, reason)
    raise ValueError(f"no attention implementation serves {facts}")
  if name not in IMPLEMENTATIONS:
    known = ", ".join(["auto", *IMPLEMENTATIONS])
    raise ValueError(f"attention={name!r} is not one of {known}")
  reason = IMPLEMENTATIONS[name].refuses(facts)
  if reason is not None:
    raise ValueError(
      f"attention={name!r} cannot serve: {reason}; 'auto' takes one that can"
    )
  _print_choice(name, _role(facts))
  return IMPLEMENTATIONS[name]


def _role(facts: AttentionFacts) -> str | None:
  """The part that a call plays in a model, as its facts tell."""
  queries, keys = facts.query_shape[1], facts.key_shape[1]
  if queries == keys == 1:
    # A module's parameters are made with rows of one token.
    return None
  if queries == 1 or facts.dense:
    return "steps of decoding and masks that are written out"
  if facts.causal:
    return "causal attention"
  if queries == keys:
    return "as many queries as keys"
  return "queries and keys of other numbers"


@functools.cache
def _print_choice(name: str, role: str | None) -> None:
  if role is not None:
    logging.info("attention: %s serves %s", name, role)


@functools.cache
def _print_reason(name: str, reason: str) -> None:
  logging.info("attention: %s is not taken: %s", name, reason)
