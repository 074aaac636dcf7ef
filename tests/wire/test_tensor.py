"""Tensors: shape, type and bytes agree, or it is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import codec
from wire.errors import Malformed
from wire.job import Output, Trace
from wire.limits import TENSOR_BYTES_MAX, TENSORS_MAX
from wire.tensor import Tensor, from_numpy

DTYPES = ["u1", "i4", "i8", "f4", "f8"]


@settings(max_examples=60)
@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=4), st.integers(0, 2**32 - 1))
def test_an_array_comes_back(dtype: str, shape: list[int], seed: int) -> None:
    raw = np.random.Generator(np.random.Philox(seed)).bytes(int(np.prod(shape, initial=1)) * int(dtype[1]))
    array = np.frombuffer(raw, dtype="<" + dtype).reshape(shape)
    tensor = codec.decode(Tensor, codec.encode(from_numpy(array)))
    assert (tensor.dtype, tensor.shape, tensor.data) == (dtype, shape, raw)
    assert tensor.numpy().tobytes() == raw
    assert tensor.numpy().shape == tuple(shape)


def test_byte_order_and_strides_do_not_show() -> None:
    plain = np.arange(6, dtype="<i4").reshape(2, 3)
    assert from_numpy(plain.astype(">i4")) == from_numpy(plain)
    assert from_numpy(np.asfortranarray(plain)) == from_numpy(plain)
    assert from_numpy(plain[:, ::-1]).numpy().tolist() == [[2, 1, 0], [5, 4, 3]]


def test_a_view_is_read_only() -> None:
    view = from_numpy(np.zeros(3, dtype="f4")).numpy()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


@pytest.mark.parametrize("dtype", ["bool", "f2", "c8", "O", "U3", "u2"])
def test_other_types_cannot_be_sent(dtype: str) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        from_numpy(np.zeros(2, dtype=dtype))


BAD = {
    "too few bytes": Tensor("f4", [2], bytes(7)),
    "too many bytes": Tensor("f4", [2], bytes(9)),
    "negative side": Tensor("u1", [-1, -4], bytes(4)),
    "sides that overflow": Tensor("u1", [2**40, 2**40], b""),
    "too many sides": Tensor("u1", [1] * 9, bytes(1)),
    "too large": Tensor("u1", [TENSOR_BYTES_MAX + 1], bytes(TENSOR_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("tensor", BAD.values(), ids=BAD)
def test_a_tensor_that_disagrees_with_itself_is_refused(tensor: Tensor) -> None:
    with pytest.raises(Malformed):
        tensor.check()
    with pytest.raises(Malformed):
        tensor.numpy()
    for holder in (Output({"x": tensor}), Trace({"x": tensor})):
        with pytest.raises(Malformed):
            holder.check()


def test_a_scalar_has_one_item() -> None:
    assert from_numpy(np.array(3.0, dtype="f8")).numpy().shape == ()


def test_tensors_are_counted() -> None:
    one = Tensor("u1", [0], b"")
    Output({str(n): one for n in range(TENSORS_MAX)}).check()
    with pytest.raises(Malformed, match="at most"):
        Output({str(n): one for n in range(TENSORS_MAX + 1)}).check()


def test_an_unknown_type_does_not_decode() -> None:
    with pytest.raises(Malformed, match="Invalid enum value 'f2'"):
        codec.decode(Tensor, codec.encode(["f2", [1], b"\x00\x00"]))
