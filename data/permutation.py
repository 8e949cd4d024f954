"""Permutations: a bijection of any size by a key, in constant memory."""

import numpy as np
from jaxtyping import Int64

_ROUNDS = 8
_MASK = (1 << 64) - 1


def feistel(
  index: Int64[np.ndarray, " N"], size: int, key: int
) -> Int64[np.ndarray, " N"]:
  """The images of `index` under a bijection of 0 ... size-1 chosen by `key`.

  A balanced Feistel network over the smallest even number of bits that holds
  `size`; images outside are permuted again until they fall inside (cycle
  walking, Black and Rogaway 2002). Only 64-bit integer arithmetic: the same
  on every machine and numpy version. Raises ValueError for an index outside.
  """
  if size < 1:
    raise ValueError(f"a permutation of {size} elements: there must be some")
  if index.size and not (0 <= index.min() and index.max() < size):
    raise ValueError(
      f"indices {index.min()} to {index.max()} of a permutation of {size}: "
      f"they must lie in 0 to {size - 1}"
    )
  half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
  keys = [_splitmix(key + r * 0x9E3779B97F4A7C15) for r in range(_ROUNDS)]
  image = _network(index.astype(np.uint64), half, keys)
  while (outside := image >= size).any():
    image[outside] = _network(image[outside], half, keys)
  return image.astype(np.int64)


def _network(x: np.ndarray, half: np.uint64, keys: list[int]) -> np.ndarray:
  low = (np.uint64(1) << half) - np.uint64(1)
  left, right = x >> half, x & low
  for key in keys:
    left, right = right, left ^ (_mix(right ^ np.uint64(key)) & low)
  return (left << half) | right


def _mix(x: np.ndarray) -> np.ndarray:
  # The finaliser of MurmurHash3: every input bit moves every output bit.
  x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
  x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
  return x ^ (x >> np.uint64(33))


def _splitmix(x: int) -> int:
  # Python integers: a scalar of numpy would warn when it overflows.
  x = (x + 0x9E3779B97F4A7C15) & _MASK
  x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
  x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
  return x ^ (x >> 31)


def epoch_key(seed: int, epoch: int) -> int:
  """The key of an epoch's permutation."""
  return _splitmix(_splitmix(seed & _MASK) ^ epoch)
