"""What a task adds to the tensors of a case: here nothing, which is detection."""

from __future__ import annotations

import torch
from torch import Tensor

from oracle.cases.case import Case
from oracle.cases.logits import Floats, logits
from oracle.cases.tasks.flow import Flow


class CaseTask:
    """Predictions and targets of the cases of one task; a task derives from it and adds its own."""

    def predictions(self, case: Case) -> dict[str, Floats]:
        """Returns the predictions by name, in float32, with the same bits on every call; the second tensor of a pair has its own name."""
        boxes, scores = logits(case)
        return {"boxes": boxes, "scores": scores}

    def targets(self, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
        """Returns the targets other than image and class, on the CPU, in the dtype of the targets."""
        rows = torch.tensor([(b.cx, b.cy, b.w, b.h) for b in case.boxes], dtype=torch.float64).reshape(-1, 4)
        height, width = case.image_size
        # Rounded to float32 in every setting, so that all dtypes get the same boxes.
        return {"bboxes": (rows / torch.tensor([width, height, width, height], dtype=torch.float64)).float().to(dtype)}

    def flow(self, case: Case) -> Flow | None:
        """Returns a new module that the criteria of a case get beside its definition: the flow of a pose loss; here none."""
        return None
