"""Settings and a small tree, shared by the tests of optimizers."""

from train.optim.settings import OptimConfig

BASE = OptimConfig(
  name="adamw",
  lr=0.5,
  schedule="constant",
  warmup_steps=0,
  b1=0.9,
  b2=0.98,
  eps=1e-6,
  weight_decay=0.0,
  clip_norm=0.0,
)


def tree_of(make):
  return {
    "encoder": {
      "embeddings": {"tokens": {"embedding": make((6, 2))}},
      "layers": {
        "self_attention": {
          "query": {"kernel": make((2, 3, 2, 2)), "bias": make((2, 2, 2))}
        },
        "mlp_norm": {"scale": make((2, 3)), "bias": make((2, 3))},
      },
      "pooler": {"kernel": make((3, 3)), "bias": make((3,))},
    },
    "enc_to_dec_proj": {"kernel": make((3, 4)), "bias": make((4,))},
  }
