"""The peer's training step, compiled for a TPU that is not here.

Run by benchmarks/aot.py with the Python of another environment, in which
transformers 4.57 still has `FlaxEncoderDecoderModel`; prints one line.
"""

import os
import sys
import time

os.environ |= {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "JAX_PLATFORMS": "cpu",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_LOG_DIR": "disabled",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
}

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from transformers import (  # pyright: ignore[reportAttributeAccessIssue]
  BertConfig,
  EncoderDecoderConfig,
  FlaxEncoderDecoderModel,
)

SOURCE, TARGET = 512, 128


def main(topology: str, pairs: int) -> None:
  devices = topologies.get_topology_desc(
    platform="tpu", topology_name=topology
  ).devices
  mesh = Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))
  whole = NamedSharding(mesh, PartitionSpec())
  by_rows = NamedSharding(mesh, PartitionSpec("data"))
  config = EncoderDecoderConfig.from_encoder_decoder_configs(
    BertConfig(), BertConfig(is_decoder=True, add_cross_attention=True)
  )
  model = FlaxEncoderDecoderModel(config, dtype=jnp.bfloat16, _do_init=False)
  tx = optax.adamw(5e-5)

  def init():
    params = model.init_weights(jax.random.key(0), ((1, 1), (1, 1)))
    return params, tx.init(params)

  def step(state, batch, key):
    params, opt_state = state

    def loss_of(params):
      targets = batch["targets"]
      inputs = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
      logits = model(
        input_ids=batch["tokens"],
        attention_mask=batch["mask"],
        decoder_input_ids=inputs,
        decoder_attention_mask=batch["target_mask"],
        params=params,
        dropout_rng=key,
        train=True,
      ).logits
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
      weights = batch["target_mask"]
      return jnp.sum(losses * weights) / jnp.sum(weights)

    loss, grads = jax.value_and_grad(loss_of)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss

  def place(tree, sharding):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )

  rows = pairs * len(devices)
  ids = jax.ShapeDtypeStruct((rows, SOURCE), jnp.int32)
  targets = jax.ShapeDtypeStruct((rows, TARGET), jnp.int32)
  batch = {
    "tokens": ids,
    "mask": ids,
    "targets": targets,
    "target_mask": targets,
  }
  state = place(jax.eval_shape(init), whole)
  key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
  jitted = jax.jit(step, donate_argnums=0)
  with jax.set_mesh(mesh):
    traced = jitted.trace(state, place(batch, by_rows), place(key, whole))
    lowered = traced.lower(lowering_platforms=("tpu",))
    begun = time.monotonic()
    compiled = lowered.compile()
  seconds = time.monotonic() - begun
  costs, memory = compiled.cost_analysis(), compiled.memory_analysis()
  print(
    f"the peer, compiled here: {memory.temp_size_in_bytes / 1e9:.2f} GB "
    f"temporary, {costs['flops'] / 1e12:.2f} TFLOP, "
    f"{costs['bytes accessed'] / 1e9:.1f} GB accessed, {seconds:.0f} s to "
    "compile"
  )


if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]))
