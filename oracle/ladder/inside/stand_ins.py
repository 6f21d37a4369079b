"""What a criterion of a release is given in place of a model: its attributes, and a flow. Imports torch only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class AttributeRecorder:
    """An object with given attributes that records the names of all attributes that are read, including missing ones."""

    name_: str
    given_: Mapping[str, Any]
    read_: set[str]

    def __getattr__(self, attribute: str) -> Any:
        self.read_.add(f"{self.name_}.{attribute}")
        if attribute in self.given_:
            return self.given_[attribute]
        raise AttributeError(f"the stand-in for {self.name_} has no {attribute!r}")


class GaussianFlow(nn.Module):
    """The density of a normal distribution: the flow of a pose loss (pose spec section 6).

    Args:
        matrix: (2, 2) by which a normalised error is multiplied to make it standard normal.
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def log_prob(self, errors: Tensor) -> Tensor:
        """Returns the log-density (P,) of normalised errors (P, 2), in their dtype."""
        matrix = self.matrix.to(errors.dtype)
        volume: Tensor = torch.linalg.slogdet(matrix)[1]
        return volume - (errors @ matrix.T).square().sum(1) / 2 - math.log(2 * math.pi)


@dataclass
class Model:
    """Replaces the reference's model: it has the attributes that a criterion reads of one, and no others.

    Attributes:
        spec: the definition, as a question has it.
        dtype: of the parameters and strides.
        epochs: of the training.
        flow: of a pose model, or ``None``.
        attributes_read: names of the attributes that were read.
    """

    spec: Mapping[str, Any]
    dtype: torch.dtype
    epochs: int = 10
    flow: GaussianFlow | None = None
    attributes_read: set[str] = field(default_factory=set)

    def build(self) -> AttributeRecorder:
        """Returns the object to pass to a criterion's constructor."""
        spec = self.spec
        parameter = nn.Parameter(torch.zeros(1, dtype=self.dtype))
        head = {
            "stride": torch.tensor(spec["strides"], dtype=self.dtype),
            "nc": spec["num_classes"],
            "reg_max": spec["reg_max"],
            "no": spec["num_classes"] + 4 * spec["reg_max"],
            **spec["head"],
            **({} if self.flow is None else {"flow_model": self.flow}),
        }
        given: dict[str, Any] = {
            "parameters": lambda: iter([parameter]),
            "model": [AttributeRecorder("model[-1]", head, self.attributes_read)],
            "args": AttributeRecorder("model.args", {**spec["args"], "epochs": self.epochs}, self.attributes_read),
            **spec["model"],
        }
        if spec["class_weights"] is not None:
            given["class_weights"] = torch.tensor(spec["class_weights"], dtype=self.dtype)
        return AttributeRecorder("model", given, self.attributes_read)
