"""The interpreter of compiled kernels: its instructions, the errors that it must raise, and the orders that it draws at random."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from oracle.ptx.access_log import Accesses
from oracle.ptx.interpreter import run
from oracle.ptx.launch import Launch
from oracle.ptx.memory import Memory, MemoryFaultError
from oracle.ptx.parser import parse
from oracle.ptx.register_types import UnknownInstructionError
from oracle.ptx.threads import DivergenceError

COUNT = 64  # Threads of the probes: two warps.
PROBE = """
.visible .entry probe(
	.param .u64 .ptr .global .align 1 probe_param_0,
	.param .u64 .ptr .global .align 1 probe_param_1
)
.reqntid 64
{{
	.reg .pred 	%p<9>;
	.reg .b16 	%rs<9>;
	.reg .b32 	%r<19>;
	.reg .b64 	%rd<19>;
	ld.param.b64 	%rd1, [probe_param_0];
	ld.param.b64 	%rd2, [probe_param_1];
	mov.u32 	%r1, %tid.x;
	mov.u32 	%r2, %ctaid.x;
	mad.lo.s32 	%r3, %r2, 64, %r1;
	mul.wide.s32 	%rd3, %r3, 8;
	add.s64 	%rd4, %rd1, %rd3;       // where this thread reads
	add.s64 	%rd5, %rd2, %rd3;       // and writes
{body}
	ret;
}}
"""


def launched(body: str, source: Tensor, target: Tensor, programs: int = 1, shared: int = 0, seed: int = 0) -> Accesses:
    """Run a few instructions with a thread for each element of 8 bytes."""
    kernel = parse(PROBE.format(body=body))
    memory = Memory.of([source, target])
    return run(Launch(kernel, programs, COUNT, shared, [source.data_ptr(), target.data_ptr()], memory, seed, range(programs)))


def _f(value: float) -> float:
    return float(np.float32(value))


def _signed(value: int, bits: int = 32) -> int:
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def _towards_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


I32 = [(7, 3), (-7, 3), (7, -3), (-(2**31), 5), (2**31 - 1, 2), (12, 40), (-1, 31)]
F32 = [(1.5, 2.25), (-0.1, 3.0), (1e30, 1e30), (math.inf, 1.0), (math.nan, 1.0), (1.0, math.nan), (-2.5, -2.5), (1e-40, 1.0)]
I64 = [(2**40 + 3, 7), (-(2**62), 3), (-5, 2**33)]
# Instructions on two sources, their numbers as the struct module writes them, and what the manual says comes out.
TWO: dict[str, tuple[str, str, Sequence[tuple[Any, Any]], Callable[[Any, Any], Any]]] = {
    "add.s32": ("i", "i", I32, lambda a, b: _signed(a + b)),
    "sub.s32": ("i", "i", I32, lambda a, b: _signed(a - b)),
    "mul.lo.s32": ("i", "i", I32, lambda a, b: _signed(a * b)),
    "mul.hi.s32": ("i", "i", I32, lambda a, b: (a * b) >> 32),
    "mul.wide.s32": ("i", "q", I32, lambda a, b: a * b),
    "mul.hi.u64": ("Q", "Q", [(2**63 + 9, 2**60 + 1), (2**64 - 1, 2**64 - 1), (3, 5)], lambda a, b: (a * b) >> 64),
    "mul.lo.s64": ("q", "q", I64, lambda a, b: _signed(a * b, 64)),
    "div.s32": ("i", "i", I32, _towards_zero),
    "rem.s32": ("i", "i", I32, lambda a, b: a - _towards_zero(a, b) * b),
    "div.u32": ("I", "I", [(7, 2), (2**32 - 1, 3), (5, 0)], lambda a, b: a // b if b else 2**32 - 1),
    "max.s32": ("i", "i", I32, max),
    "min.u32": ("I", "I", [(7, 2), (2**32 - 1, 3)], min),
    "max.s64": ("q", "q", I64, max),
    "shl.b32": ("I", "I", [(3, 4), (3, 31), (3, 32), (3, 77)], lambda a, b: a << b & 0xFFFFFFFF),
    "shr.u32": ("I", "I", [(2**31, 4), (5, 1), (5, 32)], lambda a, b: a >> b),
    "shr.s32": ("i", "i", [(-8, 1), (-8, 40), (8, 2)], lambda a, b: a >> b),
    "and.b32": ("I", "I", [(12, 10)], lambda a, b: a & b),
    "xor.b64": ("Q", "Q", [(2**63 + 12, 10)], lambda a, b: a ^ b),
    "add.rn.f32": ("f", "f", F32, lambda a, b: _f(_f(a) + _f(b))),
    "mul.rn.f32": ("f", "f", F32, lambda a, b: _f(_f(a) * _f(b)) if not abs(a * b) > 1e39 else math.inf),
    "div.rn.f32": ("f", "f", F32, lambda a, b: _f(_f(a) / _f(b))),
    "max.f32": ("f", "f", F32, lambda a, b: b if math.isnan(a) else a if math.isnan(b) else max(_f(a), _f(b))),
    "max.NaN.f32": ("f", "f", F32, lambda a, b: math.nan if math.isnan(a) or math.isnan(b) else max(_f(a), _f(b))),
    "min.NaN.f32": ("f", "f", F32, lambda a, b: math.nan if math.isnan(a) or math.isnan(b) else min(_f(a), _f(b))),
    "add.rn.f64": ("d", "d", [(0.1, 0.2)], lambda a, b: a + b),
}
ONE: dict[str, tuple[str, str, Sequence[Any], Callable[[Any], Any]]] = {
    "neg.s32": ("i", "i", [5, -(2**31)], lambda a: _signed(-a)),
    "neg.f32": ("f", "f", [1.5, -math.inf], lambda a: -a),
    "abs.f32": ("f", "f", [-1.5, 2.5], abs),
    "not.b32": ("I", "I", [0, 5], lambda a: a ^ 0xFFFFFFFF),
    "sqrt.rn.f32": ("f", "f", [2.0, 0.0, 7.1], lambda a: _f(math.sqrt(_f(a)))),
    "cvt.rzi.s32.f32": (
        "f",
        "i",
        [2.9, -2.9, 3e9, -3e9, math.nan],
        lambda a: 0 if math.isnan(a) else int(max(min(a, 2**31 - 1), -(2**31))),
    ),
    "cvt.rzi.s64.f32": ("f", "q", [2.9, -2.9, 1e30], lambda a: int(max(min(a, 2**63 - 1), -(2**63)))),
    "cvt.rmi.f32.f32": ("f", "f", [2.9, -2.1], math.floor),
    "cvt.rpi.f32.f32": ("f", "f", [2.1, -2.9], math.ceil),
    "cvt.rn.f32.s32": ("i", "f", [16777217, -5], _f),
    "cvt.s32.s8": ("i", "i", [0x17F, 0x1FF, -128], lambda a: (a + 128) % 256 - 128),
    "cvt.s64.s32": ("i", "q", [-5, 7], int),
    "cvt.u64.u32": ("I", "Q", [2**32 - 5], int),
    "cvt.u32.u64": ("Q", "I", [2**40 + 5], lambda a: a % 2**32),
    "cvt.f64.f32": ("f", "d", [0.1], _f),
    "cvt.rn.f32.f64": ("d", "f", [0.1], _f),
}
SIZES = {"i": 32, "I": 32, "f": 32, "q": 64, "Q": 64, "d": 64}


def _register(kind: str, number: int) -> str:
    return f"%{'r' if SIZES[kind] == 32 else 'rd'}{number}"


def _answers(instruction: str, takes: str, gives: str, operands: Sequence[Sequence[Any]]) -> list[Any]:
    """Returns the results of an instruction for each tuple of operands, each in a program of its own."""
    results = []
    for values in operands:
        source, target = torch.zeros(2 * COUNT, dtype=torch.int64), torch.zeros(2 * COUNT, dtype=torch.int64)
        names = [_register(takes, 7 + k) for k in range(len(values))]
        loads = "".join(f"ld.global.b{SIZES[takes]} {name}, [%rd1 + {8 * k}];\n" for k, name in enumerate(names))
        for k, value in enumerate(values):
            source[k] = int.from_bytes(struct.pack(f"<{takes}", value).ljust(8, b"\0"), "little", signed=True)
        out = _register(gives, 12)
        launched(f"{loads}{instruction} {out}, {', '.join(names)};\nst.global.b{SIZES[gives]} [%rd5 + 0], {out};\n", source, target)
        results.append(struct.unpack_from(f"<{gives}", target.numpy().tobytes(), 8 * (COUNT - 1))[0])
    return results


@pytest.mark.parametrize("instruction", TWO)
def test_instructions_on_two_numbers(instruction: str) -> None:
    takes, gives, operands, expected = TWO[instruction]
    assert _answers(instruction, takes, gives, operands) == pytest.approx([expected(*each) for each in operands], rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("instruction", ONE)
def test_instructions_on_one_number(instruction: str) -> None:
    takes, gives, operands, expected = ONE[instruction]
    found = _answers(instruction, takes, gives, [(each,) for each in operands])
    assert found == pytest.approx([expected(each) for each in operands], rel=0, abs=0)


COMPARISONS = ["lt", "le", "gt", "ge", "eq", "ne", "ltu", "leu", "gtu", "geu", "equ", "neu", "num", "nan"]


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_comparisons_and_what_they_say_of_nan(comparison: str) -> None:
    plain = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal}
    for a, b in F32:
        nan = math.isnan(a) or math.isnan(b)
        if comparison in ("num", "nan"):
            expected = nan == (comparison == "nan")
        else:
            expected = comparison.endswith("u") if nan else bool(plain[comparison[:2]](np.float32(a), np.float32(b)))
        source, target = torch.zeros(COUNT, dtype=torch.int64), torch.zeros(COUNT, dtype=torch.int64)
        source[:2] = torch.tensor([a, b], dtype=torch.float32).view(torch.int32)
        body = f"""ld.global.b32 %r7, [%rd1 + 0]; ld.global.b32 %r8, [%rd1 + 8];
            setp.{comparison}.f32 %p1, %r7, %r8; selp.b32 %r9, 1, 0, %p1; st.global.b32 [%rd5 + 0], %r9;"""
        launched(body, source, target)
        assert bool(target[0]) == expected, (a, b)


@pytest.mark.parametrize(
    ("instruction", "exact"), [("ex2.approx.f32", np.exp2), ("lg2.approx.f32", np.log2), ("rcp.approx.f32", np.reciprocal)]
)
def test_what_the_hardware_approximates_is_off_but_no_further_than_it_may(instruction: str, exact: Callable[[Any], Any]) -> None:
    values = torch.linspace(1.5, 9.5, COUNT)
    source, target = torch.zeros(COUNT, 2), torch.zeros(COUNT, 2)
    source[:, 0] = values
    launched(f"ld.global.b32 %r7, [%rd4 + 0]; {instruction} %r8, %r7; st.global.b32 [%rd5 + 0], %r8;", source, target)
    truth = exact(values.double().numpy())
    off = np.abs(target[:, 0].double().numpy() / truth - 1)
    assert off.max() <= 2.0**-22 + 2.0**-24
    assert off.max() > 2.0**-23, "an exact answer would hide code that needs one"


HALF = [(1.5, 2.25), (2.25, 1.5), (-2.5, 1.0), (-2.5, -2.5), (-0.0, 0.0), (-1.5, -1.25), (math.inf, 1.0), (math.nan, 1.0), (1.0, math.nan)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("comparison", COMPARISONS)
def test_comparisons_in_half_precision_are_those_of_float32(comparison: str, dtype: torch.dtype) -> None:
    name = {torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    pairs = torch.tensor(HALF)
    source, target = torch.zeros(COUNT, 4, dtype=dtype), torch.zeros(COUNT, 2, dtype=torch.int32)
    source[: len(HALF), :2] = pairs.to(dtype)
    wide, wide_target = torch.zeros(COUNT, 2), torch.zeros(COUNT, 2, dtype=torch.int32)
    wide[: len(HALF)] = pairs
    answer = "%p1, {}; selp.b32 %r9, 1, 0, %p1; st.global.b32 [%rd5 + 0], %r9;"
    body = f"ld.global.v2.b16 {{%rs1, %rs2}}, [%rd4 + 0]; setp.{comparison}.{name} " + answer.format("%rs1, %rs2")
    launched(body, source, target)
    launched(f"ld.global.v2.b32 {{%r7, %r8}}, [%rd4 + 0]; setp.{comparison}.f32 " + answer.format("%r7, %r8"), wide, wide_target)
    assert target.unique().tolist() == [0, 1], "each comparison is true of some pairs only"
    assert torch.equal(target, wide_target)


def test_half_precision_goes_two_to_a_register() -> None:
    values = torch.tensor([1.0009765625, -3.3, 65504.0, 1e-6] * (COUNT // 4))
    for dtype, name in ((torch.float16, "f16"), (torch.bfloat16, "bf16")):
        source, target = torch.zeros(COUNT, 2), torch.zeros(COUNT, 4, dtype=dtype)
        source[:, 0], source[:, 1] = values, -values
        body = f"""ld.global.v2.b32 {{%r7, %r8}}, [%rd4 + 0]; cvt.rn.{name}x2.f32 %r9, %r8, %r7; mov.b32 {{%rs1, %rs2}}, %r9;
            cvt.f32.{name} %r10, %rs2; cvt.rn.{name}.f32 %rs3, %r10; abs.{name} %rs4, %rs1;
            st.global.b32 [%rd5 + 0], %r9; st.global.b16 [%rd5 + 4], %rs3; st.global.b16 [%rd5 + 6], %rs4;"""
        launched(body, source, target)
        assert torch.equal(target, torch.stack([values, -values, -values, values.abs()], dim=1).to(dtype))


def test_half_precision_becomes_other_types_of_numbers() -> None:
    values = torch.tensor([1.0078125, -3.3, 60000.0, 0.4] * (COUNT // 4))
    for dtype, name in ((torch.float16, "f16"), (torch.bfloat16, "bf16")):
        source, target = torch.zeros(COUNT, 4, dtype=dtype), torch.zeros(2 * COUNT, dtype=torch.float64)
        source[:, 0] = values.to(dtype)
        body = f"""ld.global.b16 %rs1, [%rd4 + 0]; cvt.f64.{name} %rd7, %rs1; cvt.rzi.s32.{name} %r7, %rs1; cvt.rn.f64.s32 %rd8, %r7;
            st.global.b64 [%rd5 + 0], %rd7; st.global.b64 [%rd5 + 512], %rd8;"""
        launched(body, source, target)
        exact = values.to(dtype).double()
        assert torch.equal(target, torch.cat([exact, exact.trunc()]))


def test_bytes_are_permuted_and_fields_extracted() -> None:
    source, target = torch.zeros(COUNT, dtype=torch.int64), torch.zeros(COUNT, dtype=torch.int64)
    body = """mov.b32 %r7, 0x83828180; mov.b32 %r8, 0x07060504; prmt.b32 %r9, %r7, %r8, 0xB741U; bfe.s32 %r10, %r7, 4, 8;
        mov.b64 %rd7, {%r9, %r10}; st.global.b64 [%rd5 + 0], %rd7;"""
    launched(body, source, target)
    assert int(target[3]) & 0xFFFFFFFF == 0xFF070481
    assert int(target[3]) >> 32 == 0x18


def test_threads_that_part_meet_again() -> None:
    # Thread t adds t + (t - 1) + …: as many turns as its number; then warps exchange, which they can only together.
    body = """mov.b32 %r7, 0; mov.u32 %r8, %r1;
    $again:
        setp.eq.b32 %p1, %r8, 0;
        @%p1 bra $done;
        add.s32 %r7, %r7, %r8; add.s32 %r8, %r8, -1;
        bra.uni $again;
    $done:
        shfl.sync.bfly.b32 %r9, %r7, 1, 31, -1;
        redux.sync.max.s32 %r10, %r7, %r11;
        mov.b64 %rd7, {%r9, %r10}; st.global.b64 [%rd5 + 0], %rd7;"""
    source, target = torch.zeros(3 * COUNT, dtype=torch.int64), torch.zeros(3 * COUNT, dtype=torch.int64)
    launched(body, source, target, programs=3)
    for thread in (0, 1, 37, 63, 64 + 5, 128 + 33):
        partner, last = (thread % COUNT) ^ 1, thread % COUNT // 32 * 32 + 31
        assert int(target[thread]) == partner * (partner + 1) // 2 | last * (last + 1) // 2 << 32


def test_threads_receive_from_the_thread_that_they_name() -> None:
    # Thread t asks its warp's thread 3 t + 1, of which the five lowest bits count.
    body = """mad.lo.s32 %r7, %r1, 3, 1; add.s32 %r8, %r1, 100;
        shfl.sync.idx.b32 %r9, %r8, %r7, 31, -1;
        cvt.u64.u32 %rd7, %r9; st.global.b64 [%rd5 + 0], %rd7;"""
    source, target = torch.zeros(COUNT, dtype=torch.int64), torch.zeros(COUNT, dtype=torch.int64)
    launched(body, source, target)
    assert target.tolist() == [100 + thread // 32 * 32 + (3 * thread + 1) % 32 for thread in range(COUNT)]


def test_matrices_are_stored_and_loaded_by_the_rows_that_threads_name() -> None:
    # Each warp has 512 bytes; thread t names the row of 16 bytes at 16 t.
    body = """and.b32 %r7, %r1, 31; shl.b32 %r8, %r7, 4; and.b32 %r9, %r1, 32; shl.b32 %r10, %r9, 4; add.s32 %r11, %r8, %r10;
        stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r11], {%r1, %r1, %r7, %r7};
        bar.sync 0;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r12, %r13, %r14, %r15}, [%r11];
        ld.shared.b32 %r16, [%r11 + 4];
        mov.b64 %rd7, {%r12, %r16}; st.global.b64 [%rd5 + 0], %rd7;"""
    source, target = torch.zeros(COUNT, dtype=torch.int64), torch.zeros(COUNT, dtype=torch.int64)
    launched(body, source, target, shared=1024)
    for thread in (0, 1, 9, 40):
        # The row's second pair of elements is of thread 4 row + 1, where the row counts within its matrix.
        lane, warp = thread % 32, thread // 32
        second = lane % 8 * 4 + 1 + (32 * warp if lane < 16 else 0)
        assert int(target[thread]) == thread | second << 32


def test_a_matrix_is_transposed_on_its_way() -> None:
    # A thread's two elements are its number and that plus 100; after one transposition, row i of a matrix is what column i was.
    body = """and.b32 %r7, %r1, 31; shl.b32 %r8, %r7, 4; and.b32 %r9, %r1, 32; shl.b32 %r10, %r9, 4; add.s32 %r11, %r8, %r10;
        add.s32 %r12, %r1, 100; shl.b32 %r13, %r12, 16; or.b32 %r14, %r13, %r1;
        stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%r11], {%r14, %r14, %r14, %r14};
        bar.sync 0;
        ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r15, %r16, %r17, %r18}, [%r11];
        ld.shared.b32 %r16, [%r11 + 0];
        mov.b64 %rd7, {%r15, %r16}; st.global.b64 [%rd5 + 0], %rd7;"""
    source, target = torch.zeros(COUNT, dtype=torch.int64), torch.zeros(COUNT, dtype=torch.int64)
    launched(body, source, target, shared=1024)
    for thread in (0, 1, 9, 40):
        lane, warp = thread % 32, thread // 32 * 32
        assert int(target[thread]) & 0xFFFFFFFF == thread | (thread + 100) << 16, "there and back again"
        # Row i begins with the elements of column i's first two rows: of the threads i // 2 and 4 + i // 2, the lower or upper half.
        row = lane % 8
        first, second = (row // 2 + 4 * k + warp + 100 * (row % 2) for k in (0, 1))
        assert int(target[thread]) >> 32 == first | second << 16


def test_every_access_is_kept_in_bounds() -> None:
    source, target = torch.zeros(COUNT, dtype=torch.int64), torch.zeros(COUNT - 1, dtype=torch.int64)
    with pytest.raises(MemoryFaultError, match=r"^probe: thread 63 accesses 8 bytes at 0x[0-9a-f]+, outside .*; at: st\.global\.b64"):
        launched("st.global.b64 [%rd5 + 0], %rd5;", source, target)
    with pytest.raises(MemoryFaultError, match="outside everything"):
        launched("ld.global.b32 %r7, [%rd4 + -600];".replace("+ -", "+ -"), source, target)
    launched("setp.lt.s32 %p1, %r1, 63; @%p1 st.global.b64 [%rd5 + 0], %rd5;", source, target)


def test_an_access_has_to_be_aligned_to_all_of_it() -> None:
    source, target = torch.zeros(2 * COUNT, dtype=torch.int64), torch.zeros(COUNT, dtype=torch.int64)
    with pytest.raises(MemoryFaultError, match=r"thread 0 accesses 8 bytes .* not a multiple"):
        launched("ld.global.v2.b32 {%r7, %r8}, [%rd4 + 4];", source, target)
    launched("ld.global.b32 %r7, [%rd4 + 4];", source, target)


WRITE = "st.global.b32 [%rd2 + 0], %r3;"
RACES: dict[str, tuple[str, int, str | None]] = {
    "two programs write": (f"setp.eq.b32 %p1, %r1, 0; @%p1 {WRITE}", 2, "two programs race"),
    "one program writes": (f"setp.eq.b32 %p1, %r3, 0; @%p1 {WRITE}", 2, None),
    "threads write": (f"setp.lt.s32 %p1, %r1, 2; @%p1 {WRITE}", 1, "two threads of a program race"),
    "a thread reads what another writes": (f"setp.eq.b32 %p1, %r1, 0; @%p1 {WRITE} ld.global.b32 %r7, [%rd2 + 0];", 1, "two threads"),
    "a barrier lies between": (f"setp.eq.b32 %p1, %r1, 0; @%p1 {WRITE} bar.sync 0; ld.global.b32 %r7, [%rd2 + 0];", 1, None),
    "a barrier is not for other programs": (
        f"setp.eq.b32 %p1, %r3, 0; @%p1 {WRITE} bar.sync 0; ld.global.b32 %r7, [%rd2 + 0];",
        2,
        "two programs",
    ),
    "all are atomic": ("red.global.gpu.relaxed.max.s32 [%rd2 + 0], %r3;", 3, None),
    "a read beside atomics": ("red.global.gpu.relaxed.max.s32 [%rd2 + 0], %r3; ld.global.b32 %r7, [%rd2 + 0];", 1, "two threads"),
    "all read": ("ld.global.b32 %r7, [%rd2 + 0];", 3, None),
    "halves of a word": ("mul.wide.s32 %rd7, %r3, 2; add.s64 %rd8, %rd2, %rd7; st.global.b16 [%rd8 + 0], %rs1;", 3, None),
}


@pytest.mark.parametrize("name", RACES)
def test_races_are_found_and_nothing_else(name: str) -> None:
    body, programs, expected = RACES[name]
    source, target = (torch.zeros(programs * COUNT, dtype=torch.int64) for _ in range(2))
    found = launched(body, source, target, programs).races()
    assert bool(found) == (expected is not None), found
    if expected:
        assert expected in found[0]


def test_a_barrier_wants_the_whole_program_and_an_exchange_the_whole_warp() -> None:
    source, target = (torch.zeros(COUNT, dtype=torch.int64) for _ in range(2))
    parted = "setp.lt.s32 %p1, %r1, {}; @%p1 bra $skip; {} $skip: add.s32 %r7, %r1, 1;"
    with pytest.raises(DivergenceError, match=r"some threads of a program did not reach: bar\.sync 0"):
        launched(parted.format(32, "bar.sync 0;").replace("$skip:", "\n$skip:;"), source, target)
    with pytest.raises(DivergenceError, match=r"some threads of a warp did not reach: shfl"):
        launched(parted.format(5, "shfl.sync.bfly.b32 %r9, %r1, 1, 31, -1;").replace("$skip:", "\n$skip:;"), source, target)


def test_atomics_arrive_in_an_order_by_chance() -> None:
    body = "cvt.s64.s32 %rd7, %r3; atom.global.gpu.relaxed.max.s64 %rd8, [%rd2 + 0], %rd7; st.global.b64 [%rd4 + 0], %rd8;"
    orders = set()
    for seed in range(4):
        source, target = torch.zeros(COUNT, dtype=torch.int64), torch.full((COUNT,), -1)
        launched(body, source, target, seed=seed)
        assert int(target[0]) == COUNT - 1
        orders.add(tuple(source.tolist()))
    assert len(orders) == 4


UNKNOWN = (
    "tex.2d.v4.f32.f32 %r7, %r8;",
    "red.global.add.f32 [%rd2 + 0], %r7;",
    "ld.global.acquire.b32 %r7, [%rd2 + 0];",
    "add.rn.sat.f32 %r7, %r8, %r9;",
    "add.rz.f32 %r7, %r8, %r9;",
    "add.f32 %r7, %r8, %r9;",
    "div.approx.f32 %r7, %r8, %r9;",
    "mul.hi.s64 %rd7, %rd1, %rd2;",
    "shfl.sync.up.b32 %r9, %r1, 1, 31, -1;",
    "@%p1 ret;",
)


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_the_machine_does_not_know_it_refuses(text: str) -> None:
    source, target = (torch.zeros(COUNT, dtype=torch.int64) for _ in range(2))
    with pytest.raises(UnknownInstructionError, match=r"this instruction is not implemented: @?"):
        launched(text, source, target)
