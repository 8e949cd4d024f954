"""Operations and bytes of small programs are those of their definition."""

import functools

import jax
import jax.numpy as jnp
import pytest

from train.costs import hlo
from train.costs.work import place_of, work

KERNEL = 'custom_call_target="tpu_custom_call"'


def work_of(function, *shapes, unknown_trips=1):
  given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  text = jax.jit(function).lower(*given).compile().as_text()
  return work(hlo.parse(text), unknown_trips)


@pytest.mark.parametrize(
  ("equation", "shapes", "flops"),
  [
    ("ij,jk->ik", [(16, 32), (32, 8)], 2 * 16 * 32 * 8),
    ("bij,bjk->bik", [(3, 16, 32), (3, 32, 8)], 3 * 2 * 16 * 32 * 8),
    ("btd,dhk->bthk", [(2, 5, 32), (32, 4, 8)], 2 * 2 * 5 * 32 * 32),
  ],
)
def test_products_count_twice_their_multiplications(equation, shapes, flops):
  found = work_of(functools.partial(jnp.einsum, equation), *shapes)
  assert found.flops == flops
  assert found.kernels == ()


@pytest.mark.parametrize("unknown_trips", [1, 4])
def test_a_loop_counts_with_its_trips(unknown_trips):
  def function(x):
    x = jax.lax.scan(lambda c, _: (c @ c, None), x, None, 6)[0]
    return jax.lax.while_loop(lambda c: jnp.sum(c) < 1e9, lambda c: c @ c, x)

  found = work_of(function, (16, 16), unknown_trips=unknown_trips)
  assert found.flops == (6 + unknown_trips) * 2 * 16**3


@pytest.mark.parametrize(
  ("padding", "strides", "dilation", "pairs"),
  [
    # Pairs of an output and a place of the window that meet an input: 8 of
    # them all along, less at the ends.
    ("VALID", 1, 1, 6 * 3),
    ("SAME", 1, 1, 8 * 3 - 2),
    ("VALID", 2, 1, 3 * 3),
    ("SAME", 1, 2, 8 * 3 - 4),
  ],
)
def test_a_convolution_counts_no_padding(padding, strides, dilation, pairs):
  text = """
ENTRY %main (a: f32[2,8,4], b: f32[3,4,5]) -> f32[2,8,5] {
  %a = f32[2,8,4]{2,1,0} parameter(0)
  %b = f32[3,4,5]{2,1,0} parameter(1)
  ROOT %c = f32[2,{out},5]{2,1,0} convolution(%a, %b), {window}
}
"""
  span = (3 - 1) * dilation
  pad = span // 2 if padding == "SAME" else 0
  out = (8 + 2 * pad - span - 1) // strides + 1
  window = (
    f"window={{size=3 stride={strides} pad={pad}_{pad} rhs_dilate={dilation}}}"
    ", dim_labels=b0f_0io->b0f"
  )
  text = text.replace("{out}", str(out)).replace("{window}", window)
  assert work(hlo.parse(text)).flops == 2 * 2 * pairs * 4 * 5


def test_a_kernel_that_nobody_knows_is_named():
  text = """
ENTRY %main (a: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  ROOT %fancy.3 = f32[2]{0} custom-call(%a), KERNEL
}
""".replace("KERNEL", KERNEL)
  found = work(hlo.parse(text))
  assert found.kernels == ("fancy",)
  assert found.flops == 0


@pytest.mark.parametrize(
  ("kernel", "results", "products"),
  [
    ("splash_mha_fwd_residuals.1", "f32[2,4,16,8]", 2),
    ("splash_mha_dq_no_residuals", "f32[2,4,16,8]", 3),
    ("splash_mha_dkv_no_residuals.2", "f32[2,4,32,8]", 4),
    ("splash_mha_dkv_no_residuals", "(f32[1,2,4,16,8], f32[2,4,32,8])", 5),
    ("short_fwd.2", "f32[2,16,32]", 2),
    ("jvp_short_bwd_", "(f32[2,16,32], f32[2,32,32], f32[2,32,32])", 5),
  ],
)
def test_fused_attention_counts_by_its_formula(kernel, results, products):
  queries, keys = "bf16[2,4,16,8]{3,2,1,0}", "bf16[2,4,32,8]{3,2,1,0}"
  if "short" in kernel:
    queries, keys = "bf16[2,16,32]{2,1,0}", "bf16[2,32,32]{2,1,0}"
  text = f"""
ENTRY %main (q: {queries}, k: {keys}) -> f32[2] {{
  %i = s8[1,1,1]{{2,1,0}} parameter(2)
  %q = {queries} parameter(0)
  %k = {keys} parameter(1)
  ROOT %{kernel} = {results} custom-call(%i, %q, %k, %k), {KERNEL}
}}
"""
  flops = products * 2 * 2 * 4 * 16 * 32 * 8
  assert work(hlo.parse(text)).flops == flops


def test_places_are_named_shortly():
  name = (
    "jit(step)/transpose(jvp(Module.encode))/encoder/encoder._scan/while/body/"
    "closed_call/checkpoint/EncoderBlock/EncoderBlock._mlp/mlp/up/dot_general"
  )
  assert place_of(name) == "mlp/up/dot_general (backward)"
  assert place_of("") == ""
  # A loop of no module: its own name is all that there is.
  assert place_of("jit(step)/transpose(jvp())/while") == ""


STARTED = """
%side (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %d = f32[8,8]{1,0} dot(%p, %p), lhs_contracting_dims={1}
}

ENTRY %main (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  BODY
}
"""


@pytest.mark.parametrize(
  ("body", "moved"),
  [
    # What GPUs run beside other work; 256 bytes each.
    ("%s = f32[8,8]{1,0} all-reduce-start(%a), to_apply=%add", 2 * 256),
    (
      "%s = (f32[8,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%a), "
      "dimensions={0}",
      256 + 512,
    ),
    (
      "%s = ((f32[8,8]{1,0}), f32[4,8]{1,0}) reduce-scatter-start(%a), "
      "dimensions={0}, to_apply=%add",
      256 + 128,
    ),
    ("%s = f32[8,8]{1,0} all-reduce(%a), to_apply=%add", 2 * 256),
  ],
)
def test_what_starts_beside_work_is_read_and_written_once(body, moved):
  text = STARTED.replace("BODY", body)
  assert work(hlo.parse(text)).bytes == moved


def test_a_call_beside_work_counts_once():
  for call in (
    "((f32[8,8]{1,0}), f32[8,8]{1,0}) async-start(%a), calls=%side",
    "((f32[8,8]{1,0}), f32[8,8]{1,0}) call-start(%a), to_apply=%side",
    "f32[8,8]{1,0} call(%a), to_apply=%side",
  ):
    found = work(hlo.parse(STARTED.replace("BODY", f"%s = {call}")))
    assert (found.flops, found.bytes) == (2 * 8**3, 3 * 256)


def test_products_of_cublas_count_as_others():
  gemm = """%s = (f32[8,8]{1,0}, s8[4194304]{0}) custom-call(%a, %a), \
custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],\
"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[]}}}"""
  found = work(hlo.parse(STARTED.replace("BODY", gemm)))
  assert (found.flops, found.kernels) == (2 * 8**3, ())
  # Without the room that it works in.
  assert found.bytes == 3 * 256


def test_fused_kernels_of_gpus_are_named():
  call = '%s = f32[8,8]{1,0} custom-call(%a), custom_call_target="TARGET"'
  for target, kernels in (
    ("__cudnn$fmhaSoftmax", ("__cudnn$fmhaSoftmax",)),
    ("Sharding", ()),
  ):
    text = STARTED.replace("BODY", call.replace("TARGET", target))
    assert work(hlo.parse(text)).kernels == kernels
