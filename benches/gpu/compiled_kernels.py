"""``python -m benches.gpu.compiled_kernels``: compiles every Triton kernel for GPU architectures, without a GPU.

The loss is called as on a GPU, but each launch compiles its kernel and runs nothing. The table therefore shows the kernels that would be
launched, with the specialisations of these launches. Registers, shared memory and spills are read from the machine code.

Exit codes: 0 compiled without a spill, 1 a kernel spills.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benches.measure.environment import commit, now
from oracle.ptx.compile import check_constants, compiling_for
from oracle.tools.atomic_files import write_frame
from twinloss import Assignment, LossSpec, OrientedSpec, PoseSpec, Pyramid, SegmentationSpec
from twinloss.backends.call import Call

CAPABILITIES = (80, 90)
ESSENTIAL = 7
WARP, REGISTERS, MOST_WARPS, MOST_BLOCKS = 32, 65536, 64, 32  # Limits of one multiprocessor, on both architectures.
REGISTER_STEP = 256  # Granularity in which a warp is allocated registers.


@dataclass(frozen=True)
class Variant:
    """A call of the loss whose kernels are compiled, described by the properties that affect the code.

    Attributes:
        name: name in tables.
        dtype: dtype of the logits.
        spec: the definition.
        image_size: height and width in pixels.
        rows: number of ground-truth rows.
        conflicts: rule for anchors that several boxes pick.
        gaps: whether the logits are slices of one tensor, with gaps between images.
        given: whether the assignment is given.
        images: number of images.
        mask_ratio: pixels of the image a pixel of the true masks, 4 of the prototypes.
    """

    name: str
    dtype: torch.dtype
    spec: LossSpec
    image_size: tuple[int, int] = (640, 640)
    rows: int = 464
    conflicts: Any = "overlap"
    gaps: bool = False
    given: bool = False
    images: int = field(default=2, kw_only=True)
    mask_ratio: int = field(default=4, kw_only=True)

    def call(self) -> None:
        """Compute loss and gradients of logits without values."""
        from twinloss.backends.triton.loss import evaluate

        height, width = self.image_size
        pyramid = Pyramid(tuple((-(-height // s), -(-width // s)) for s in self.spec.strides), self.spec.strides)
        channels = (4 * self.spec.reg_max, self.spec.num_classes)
        with torch.device("meta"):  # allocates nothing, so that any size fits
            if self.gaps:
                parts = torch.zeros(self.images, sum(channels), pyramid.num_anchors, dtype=self.dtype).split(channels, dim=1)
            else:
                parts = tuple(torch.zeros(self.images, count, pyramid.num_anchors, dtype=self.dtype) for count in channels)
            boxes, scores = (part.requires_grad_() for part in parts)
            boxes_of_rows = torch.zeros(self.rows, 5 if isinstance(self.spec, OrientedSpec) else 4)
            batch = {"batch_idx": torch.zeros(self.rows), "cls": torch.zeros(self.rows, 1), "bboxes": boxes_of_rows}
            extras = self._extras(pyramid.num_anchors)
            index = torch.zeros(5, dtype=torch.int64)
            given = Assignment(index, index, index, torch.ones(5)) if self.given else None
            incoming = torch.ones(len(self.spec.terms))
        flow = (lambda latents: latents.sum(1)) if getattr(self.spec, "flow", False) else None
        call = Call(boxes, scores, batch, self.spec, pyramid, self.conflicts, extras=extras, flow=flow)
        loss = evaluate(call, given).loss
        loss.backward(incoming)

    def _extras(self, anchors: int) -> dict[str, Tensor]:
        """Returns the task's further predictions and targets, with semantic logits where it has masks."""

        def logits(*shape: int) -> Tensor:
            return torch.zeros(self.images, *shape, dtype=self.dtype, requires_grad=True)

        if isinstance(self.spec, OrientedSpec):
            return {"angle": logits(1, anchors)}
        if isinstance(self.spec, PoseSpec):
            points, numbers = self.spec.keypoint_shape
            keypoints = torch.zeros(self.rows, points, 3)
            return {"kpts": logits(points * numbers, anchors), "kpts_sigma": logits(2 * points, anchors), "keypoints": keypoints}
        if not isinstance(self.spec, SegmentationSpec):
            return {}
        height, width = self.image_size
        grid = height // self.mask_ratio, width // self.mask_ratio
        found = {
            "mask_coefficient": logits(32, anchors),
            "proto": logits(32, height // 4, width // 4),
            "semantic": logits(self.spec.num_classes, height // 8, width // 8),
            "sem_masks": torch.zeros(self.images, *grid),
            "masks": torch.zeros(self.images if self.spec.overlap_mask else self.rows, *grid, dtype=torch.uint8),
        }
        return found | ({"place": torch.zeros(self.rows, dtype=torch.int64)} if self.spec.overlap_mask else {})


def variants() -> list[Variant]:
    """Returns calls whose kernels differ: dtypes, bins, rules, layouts, and shapes that rule out vector loads.

    The first :data:`ESSENTIAL` of them launch every kernel between them.
    """
    half, single, brain = torch.float16, torch.float32, torch.bfloat16
    return [
        Variant("coco", half, LossSpec(num_classes=80)),
        Variant("crowded", single, LossSpec(num_classes=60), rows=4967),
        Variant("end to end", brain, LossSpec(num_classes=80, reg_max=1, topk=7, topk2=1), gaps=True),
        Variant("odd", half, LossSpec(num_classes=3, reg_max=5, topk2=3, class_weights=(1.0, 2.0, 3.0)), (72, 56), conflicts="pickers"),
        Variant("oriented", half, OrientedSpec(num_classes=15)),
        Variant("masks", half, SegmentationSpec(num_classes=80, mask_aware=True)),
        Variant("pose", half, PoseSpec(num_classes=1, generation=2, flow=True)),
        Variant("coco", single, LossSpec(num_classes=80)),
        Variant("coco", brain, LossSpec(num_classes=80)),
        Variant("crowded", half, LossSpec(num_classes=60), rows=4967),
        Variant("wide", single, LossSpec(num_classes=1, reg_max=32, strides=(8, 16, 32, 64), alpha=1.0, beta=2.5), rows=1),
        Variant("given", half, LossSpec(num_classes=80), given=True),
        Variant("beyond 32 bits", half, LossSpec(num_classes=80), images=4096),
        Variant("masks", single, SegmentationSpec(num_classes=80)),
        Variant("masks", brain, SegmentationSpec(num_classes=80, reg_max=1, topk=7, topk2=1, mask_aware=True)),
        Variant("larger instance masks", half, SegmentationSpec(num_classes=3, mask_aware=True, overlap_mask=False), mask_ratio=1),
        Variant("one anchor", single, LossSpec(num_classes=1, strides=(8,)), (8, 8), rows=1, images=1),
    ]


@dataclass(frozen=True)
class Built:
    """A kernel as compiled for one architecture.

    Attributes:
        kernel: the function's name.
        variant: the call that launches it.
        dtype: of the logits.
        capability: compute capability × 10.
        warps: warps of a program.
        registers: registers of a thread.
        spills: number of instructions that move registers to or from memory.
        stack_bytes: stack of a thread.
        shared_bytes: shared memory of a program.
        resident_warps: warps that fit a multiprocessor at once, at most 64.
        instructions: number of machine instructions.
        triton: version of the compiler.
    """

    kernel: str
    variant: str
    dtype: str
    capability: int
    warps: int
    registers: int
    spills: int
    stack_bytes: int
    shared_bytes: int
    resident_warps: int
    instructions: int
    triton: str


def compile_variant(variant: Variant, capability: int) -> list[Built]:
    """Returns every kernel that the variant launches, once.

    Raises:
        RuntimeError: a second call, which launches the kernels that the first one built, passes other constants.
    """
    with compiling_only(capability) as compiled:
        variant.call()
        variant.call()
    return [_built(name, kernel, variant, capability) for name, kernel in dict(compiled).items()]


@contextmanager
def compiling_only(capability: int) -> Iterator[list[tuple[str, Any]]]:
    """Within the block a launch compiles for the architecture and runs nothing; the list receives the name and kernel of each launch."""
    compiled: list[tuple[str, Any]] = []

    def note(kernel: Any, _grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        compiled.append((kernel.src.fn.__name__, kernel))
        check_constants(kernel, arguments)

    with compiling_for(capability, note):
        yield compiled


def _built(name: str, kernel: Any, variant: Variant, capability: int) -> Built:
    import triton

    usage, code = _disassembled(kernel.asm["cubin"])
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no register count of {name}; its output: {usage[:300]}")
    registers, stack = map(int, found.groups())
    warps = kernel.metadata.num_warps
    return Built(
        kernel=name.removesuffix("_kernel"),
        variant=variant.name,
        dtype=str(variant.dtype).removeprefix("torch."),
        capability=capability,
        warps=warps,
        registers=registers,
        spills=len(re.findall(r"\b(?:STL|LDL)\b", code)),
        stack_bytes=stack,
        shared_bytes=kernel.metadata.shared,
        resident_warps=_resident_warps(registers, warps),
        instructions=len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", code, re.MULTILINE)),
        triton=triton.__version__,
    )


def _resident_warps(registers: int, warps: int) -> int:
    """Returns how many warps fit a multiprocessor by registers, in whole programs."""
    per_warp = -(-registers * WARP // REGISTER_STEP) * REGISTER_STEP
    return min(REGISTERS // (per_warp * warps), MOST_WARPS // warps, MOST_BLOCKS) * warps


def _disassembled(cubin: bytes) -> tuple[str, str]:
    """Returns resource usage and machine code as text, from the tool that Triton ships."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        texts = (
            subprocess.run([tool, option, file.name], check=True, capture_output=True, text=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
        return next(texts), next(texts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print the table, and write it if ``--write`` is given; returns the exit code."""
    parser = argparse.ArgumentParser("python -m benches.gpu.compiled_kernels", description="Compile every Triton kernel without a GPU.")
    parser.add_argument("--capability", type=int, action="append", help=f"such as 90; all of {CAPABILITIES} when left out")
    parser.add_argument("--write", type=Path, help="a parquet file for the rows")
    parser.add_argument("--essential", action="store_true", help="only variants that between them launch every kernel")
    options = parser.parse_args(arguments)
    chosen = variants()[:ESSENTIAL] if options.essential else variants()
    capabilities = options.capability or CAPABILITIES
    built = [kernel for capability in capabilities for variant in chosen for kernel in compile_variant(variant, capability)]
    rows = pd.DataFrame([asdict(kernel) for kernel in built])
    print(rows.drop(columns="triton").to_string(index=False))
    rows["commit"], rows["written"] = commit(), now()
    if options.write:
        write_frame(rows, options.write)
    spilling = [kernel for kernel in built if kernel.spills]
    for kernel in spilling:
        print(
            f"{kernel.kernel} spills for sm_{kernel.capability} in variant {kernel.variant} ({kernel.dtype}): {kernel.spills} instructions"
        )
    return int(bool(spilling))


if __name__ == "__main__":
    sys.exit(main())
