"""Small structs that are passed around, and the legend of dimension letters.

B batch, S source length, T target length (or any query length), D model width,
E embedding width, H heads, G key/value heads, K head width, F feed-forward
width, V vocabulary rows, L layers, N beams.
"""

import enum
from typing import Any, TypeAlias

from flax import struct
from jaxtyping import Array, Bool, Float, Int

# A nested dict of arrays; the paths in it are an interface.
Params: TypeAlias = dict[str, Any]


class RowLayout(enum.Enum):
  """What is known of all rows' segments before any row is seen."""

  # Nothing: padding may stand anywhere.
  ANY = "any"
  # Texts follow one another as segments 1, 2...; padding ends the row.
  PACKED = "packed"
  # A row is one text, segment 1, and padding after it.
  SINGLE = "single"


@struct.dataclass
class AttentionMask:
  """The keys that each query may attend to: those that all given parts allow.

  A query attends to a key iff their segments are equal; padding is segment 0.
  Positions default to the index in the row; they matter when `causal` or
  `window` is set. `dense` serves beams and users' own 3-D and 4-D masks.
  `window` is (positions back, positions ahead) a query sees, None: no limit.
  `row_layout` is what is promised of the segments; kernels may rely on it.
  """

  query_segments: Int[Array, "B T"] | None = None
  key_segments: Int[Array, "B S"] | None = None
  query_positions: Int[Array, "B T"] | None = None
  key_positions: Int[Array, "B S"] | None = None
  dense: Bool[Array, "B #H T S"] | None = None
  causal: bool = struct.field(pytree_node=False, default=False)
  window: tuple[int | None, int | None] = struct.field(
    pytree_node=False, default=(None, None)
  )
  row_layout: RowLayout = struct.field(pytree_node=False, default=RowLayout.ANY)


@struct.dataclass
class KeyBlocks:
  """Keys as a CPU multiplies a few queries with them fastest.

  A product there goes along the rows of its second operand: keys are
  transposed, W of them in a row: rows are long and a block is small. Key s is
  `blocks[:, :, s // W, :, s % W]`; zeros follow the last one. Where one block
  holds them all there is no axis of blocks: XLA would take it away from the
  product, and then copy the cache at every step.

  Attributes:
    count: S, the number of keys.
  """

  blocks: Float[Array, "B G *Z K W"]
  count: int = struct.field(pytree_node=False)


# Both `B G S K`.
KeyValue: TypeAlias = tuple[Array | KeyBlocks, Array]


@struct.dataclass
class SelfCache:
  """Self-attention keys and values so far, a pair a layer.

  `B G TN K`, slot by slot and in each the N beams; or with
  `separate_beams` (see `DecodeView`) `B GN T K`, the beams of a group side by
  side. So a step writes one contiguous range, and reads without a reshape or a
  transpose. The layout of keys is the platform's, see `encdec.layers.kv_cache`.
  """

  layers: tuple[KeyValue, ...]


@struct.dataclass
class CrossCache:
  """Keys and values of the source, a pair of `B G S K` a layer.

  It has no beam axis: beams share it. The layout of keys is `SelfCache`'s.
  """

  layers: tuple[KeyValue, ...]
  segments: Int[Array, "B S"]


@struct.dataclass
class DecodeView:
  """The slot that one step of decoding writes, and those that it reads.

  `slot` is where the step writes, one scalar for all rows. `visible` marks,
  for each query, the slots of the cache that it attends to, its own included:
  slot by slot of all N beams, or with `separate_beams` of its own beam only.
  `key_positions` are the slots' own, for attention that goes by distance.
  """

  slot: Int[Array, ""]
  query_positions: Int[Array, "B Q"]
  key_positions: Int[Array, "B T"]
  visible: Bool[Array, "B Q TN"]
  separate_beams: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass
class StackOutput:
  """The outputs of a stack of layers.

  `hidden_states` are the embeddings and each layer's output, the last one
  after the final norm; `attentions` and `cross_attentions` one array a layer,
  `[B, H, T, S]`, after softmax. All three are None unless asked for.
  """

  states: Float[Array, "B T D"]
  hidden_states: tuple[Float[Array, "B T D"], ...] | None = None
  attentions: tuple[Float[Array, "B H T T"], ...] | None = None
  cross_attentions: tuple[Float[Array, "B H T S"], ...] | None = None


@struct.dataclass
class ModelOutput:
  """Logits of the decoder, float32, and what both stacks gave."""

  logits: Float[Array, "B T V"]
  encoder: StackOutput
  decoder: StackOutput
