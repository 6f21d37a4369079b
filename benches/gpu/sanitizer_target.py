"""A few small steps to run under a sanitizer: every kernel, several layouts, and sizes that no tile divides."""

from __future__ import annotations

import torch

from oracle.cases.build import build
from oracle.cases.case import Setting
from oracle.cases.workloads.small_dense import small_dense, small_dense_masks
from twinloss.loss import LOSSES

CASES = (
    small_dense(12, seed=1, reg_max=16),
    small_dense(9, seed=2, size=(56, 72), images=3, strides=(8, 16), topk2=3, class_weights=(1.0, 2.0, 0.5)),
    small_dense(7, seed=3, reg_max=1, topk=7, topk2=1),
    small_dense(5, seed=4, size=(256, 256), images=1, num_classes=2, strides=(4, 8)),
    small_dense(0),
    small_dense_masks(9, seed=5, mask_aware=True),
    small_dense_masks(9, seed=6, size=(56, 72), overlap_mask=False, mask_aware=True, grid=(21, 35)),
)


def main() -> None:
    """Run all cases on the GPU."""
    for case in CASES:
        for dtype in ("float32", "float16"):
            preds, batch = build(case, Setting(dtype, device="cuda"))
            LOSSES[case.spec.task](case.spec, backend="triton")(preds, batch)[0].sum().backward()
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
