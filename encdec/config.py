"""The shape of a model: one frozen dataclass a side, and one for the pair."""

import dataclasses
import enum
import math

from encdec.adapters import LoraConfig


class Role(enum.StrEnum):
  ENCODER = "encoder"
  DECODER = "decoder"


class NormPosition(enum.StrEnum):
  PRE = "pre"
  POST = "post"


class PositionKind(enum.StrEnum):
  """The way in which a position becomes a vector.

  LEARNED is a table in the tree. The others are computed, and the tree holds
  nothing of them: SINUSOIDAL has the frequencies 10000^(-2 i / D), FAIRSEQ
  10000^(-i / (D / 2 - 1)) and zeros in the row of the padding id.
  """

  LEARNED = "learned"
  SINUSOIDAL = "sinusoidal"
  FAIRSEQ = "fairseq"


class HeadKind(enum.StrEnum):
  """The layers between the last state and the logits.

  LINEAR is one product with the (tied) vocabulary matrix; TRANSFORM puts a
  dense layer, an activation and a norm before it, as BERT does.
  """

  NONE = "none"
  LINEAR = "linear"
  TRANSFORM = "transform"


class Share(enum.StrEnum):
  """The parameters that the sides share.

  EMBEDDINGS are the tokens' and with them a tied head; ALL is every array of
  the encoder that the decoder has too, which leaves the decoder its
  cross-attention and head (Rothe et al. 2020, "BERTShare").
  """

  NONE = "none"
  EMBEDDINGS = "embeddings"
  ALL = "all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig:
  """One side of the model, as its architecture declares it.

  What only some architectures have is off by default.

  Attributes:
    name: the architecture's file in `encdec/archs`.
    num_layers: how many a token goes through.
    stored_layers: how many have parameters of their own: all, or 1, which
      each of them shares (ALBERT).
    embedding_width: of the tables, their norm and a tied head's input.
    embedding_projection: a dense layer leads from it to `width`; without it
      the two are equal.
    max_positions: the longest row that can be embedded, in tokens.
    position_kind: see `PositionKind`.
    position_offset: the table's row of position 0; the table has
      `max_positions + position_offset` rows.
    positions_from_ids: positions are counted over the ids that are not
      `pad_token_id` (RoBERTa), see `unplaced_token`.
    type_vocab_size: rows of the token type table; 0 is no table.
    embedding_scale: factor on the token table's rows.
    given_embedding_scale: factor on embeddings that are passed in place of
      ids, which some architectures take as scaled already.
    residual_dropout: the rate after attention.
    mlp_dropout: the rate after the feed-forward layer.
    activation_dropout: the rate within it.
    pooler: the checkpoint holds a pooler, which is stored and exported but
      which no output of the pair depends on.
    residual_init_scale: factor on the initial kernels that write into the
      residual stream (GPT-2: 1 / sqrt(2 L)).
    scale_by_layer: attention logits are divided by the layer's number, from 1.
    pad_token_id: for rules about ids, never for masks.
  """

  name: str
  role: Role
  vocab_size: int
  width: int
  num_layers: int
  stored_layers: int
  num_heads: int
  num_kv_heads: int
  head_width: int
  mlp_width: int
  embedding_width: int
  embedding_projection: bool = False
  max_positions: int
  position_kind: PositionKind
  position_offset: int = 0
  positions_from_ids: bool = False
  type_vocab_size: int = 0
  norm_position: NormPosition
  norm_epsilon: float
  activation: str
  embedding_scale: float = 1.0
  given_embedding_scale: float = 1.0
  embedding_norm: bool
  final_norm: bool
  pooler: bool = False
  head: HeadKind
  head_activation: str
  head_bias: bool = False
  tied_head: bool
  embedding_dropout: float
  residual_dropout: float
  mlp_dropout: float
  attention_dropout: float
  activation_dropout: float = 0.0
  init_std: float
  residual_init_scale: float = 1.0
  attention_scale: float
  scale_by_layer: bool = False
  pad_token_id: int | None

  def __post_init__(self):
    for field in (
      "vocab_size", "width", "num_layers", "num_heads", "num_kv_heads",
      "head_width", "mlp_width", "embedding_width", "max_positions",
    ):  # fmt: skip
      self._check_size(field, 1)
    self._check_size("type_vocab_size", 0)
    self._check_size("position_offset", 0)
    if not 0.0 <= self.norm_epsilon < 1.0:
      raise ValueError(
        f"{self.name} {self.role}: norm_epsilon={self.norm_epsilon!r} must lie "
        "in [0, 1); correct the model's config"
      )
    if not 0.0 <= self.init_std < math.inf:
      raise ValueError(
        f"{self.name} {self.role}: init_std={self.init_std!r} must be a number "
        "from 0; correct the model's config"
      )
    if self.stored_layers not in (1, self.num_layers):
      raise ValueError(
        f"{self.name} {self.role}: stored_layers={self.stored_layers} must be "
        f"1 or num_layers={self.num_layers}"
      )
    if not self.embedding_projection and self.embedding_width != self.width:
      raise ValueError(
        f"{self.name} {self.role}: embedding_width={self.embedding_width} must "
        f"be width={self.width} where no projection joins them"
      )
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f"{self.name} {self.role}: num_heads={self.num_heads} is no multiple "
        f"of num_kv_heads={self.num_kv_heads}"
      )
    for field in (
      "embedding_dropout", "residual_dropout", "mlp_dropout",
      "attention_dropout", "activation_dropout",
    ):  # fmt: skip
      rate = getattr(self, field)
      if not 0.0 <= rate < 1.0:
        raise ValueError(
          f"{self.name} {self.role}: {field}={rate!r} must lie in [0, 1)"
        )

  @property
  def unplaced_token(self) -> int | None:
    """The id that takes no position, wherever it stands; None: each takes one.

    It is of the side's own config, also where a run pads with another one.
    """
    return self.pad_token_id if self.positions_from_ids else None

  def _check_size(self, field: str, least: int) -> None:
    # Each layer is walked through where tensors are named.
    most = _MOST_LAYERS if field == "num_layers" else _MOST
    value = getattr(self, field)
    if not isinstance(value, int) or not least <= value <= most:
      raise ValueError(
        f"{self.name} {self.role}: {field}={value!r} must be a whole number "
        f"from {least} to {most}; correct the model's config"
      )


_MOST = 2**31 - 1
_MOST_LAYERS = 10_000
# What shapes the table of tokens.
_EMBEDDED = ("vocab_size", "embedding_width")
# What sides that share all may yet differ in.
_OF_ONE_SIDE = (
  "role",
  "pooler",
  "head",
  "head_activation",
  "head_bias",
  "tied_head",
  "embedding_dropout",
  "residual_dropout",
  "mlp_dropout",
  "attention_dropout",
  "activation_dropout",
  "init_std",
  "residual_init_scale",
  "pad_token_id",
)


@dataclasses.dataclass(frozen=True)
class EncDecConfig:
  """Both sides, what they share, and the multiple vocabularies are padded to.

  Padding rows exist in the parameter tree alone: they are zero, their logits
  are masked, and weight files do not hold them. Nor do they hold adapters
  (`lora`), which stand in the stored tree.
  """

  encoder: StackConfig
  decoder: StackConfig
  share: Share = Share.NONE
  vocab_multiple: int = 1
  lora: LoraConfig | None = None

  def __post_init__(self):
    for stack, role in (
      (self.encoder, Role.ENCODER),
      (self.decoder, Role.DECODER),
    ):
      if stack.role != role:
        raise ValueError(
          f"the {role} was built with role={stack.role.value!r}; build it with "
          f"stack_config(hub, {role.value!r})"
        )
    if self.vocab_multiple < 1:
      raise ValueError(
        f"vocab_multiple={self.vocab_multiple} must be at least 1"
      )
    if differences := self.share_differences(self.share):
      raise ValueError(
        f"share={str(self.share)!r}: the sides differ in "
        f"{', '.join(differences)}; share between equal ones, or use 'none'"
      )

  def share_differences(self, share: Share) -> list[str]:
    """Fields that must be equal to share so, as "field (encoder, decoder)"."""
    fields = {
      Share.NONE: (),
      Share.EMBEDDINGS: _EMBEDDED,
      Share.ALL: [
        field.name
        for field in dataclasses.fields(StackConfig)
        if field.name not in _OF_ONE_SIDE
      ],
    }[share]
    pairs = {
      name: (getattr(self.encoder, name), getattr(self.decoder, name))
      for name in fields
    }
    return [
      f"{name} ({a!s}, {b!s})" for name, (a, b) in pairs.items() if a != b
    ]

  @property
  def needs_projection(self) -> bool:
    """Encoder states are projected when the widths differ."""
    return self.encoder.width != self.decoder.width

  @property
  def encoder_vocab_rows(self) -> int:
    return _round_up(self.encoder.vocab_size, self.vocab_multiple)

  @property
  def decoder_vocab_rows(self) -> int:
    return _round_up(self.decoder.vocab_size, self.vocab_multiple)


def _round_up(size: int, multiple: int) -> int:
  return -(-size // multiple) * multiple
