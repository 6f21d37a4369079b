"""The entry points of a release: the whole loss with its gradients, each exposed stage, the two-headed losses, the interface.

Each function takes the fields and arrays of a question and returns arrays. This file runs in the process of a release: it imports numpy,
torch, ``eras`` and the release only.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .eras import DETECTION, Era, NotOfferedError, accepted_layout, arrange, item_vector, make_criterion
from .stand_ins import GaussianFlow, Model

Fields = Mapping[str, Any]
Tensors = dict[str, Tensor]
USUAL: Fields = {
    "num_classes": 3,
    "reg_max": 16,
    "strides": (8, 16, 32),
    "class_weights": None,
    "args": {"box": 7.5, "cls": 0.5, "dfl": 1.5},
    "head": {},
    "model": {},
}
HEADS = ("one2many", "one2one")


def floating(name: str) -> torch.dtype:
    """Returns a torch dtype by its name."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


@contextlib.contextmanager
def arithmetic(fields: Fields) -> Iterator[None]:
    """The context with the default dtype and autocast of a question; float64 logits are computed in float64 throughout (spec 8a).

    With the field ``float_is_double`` that includes what a release converts by ``Tensor.float`` (segmentation spec section 8a).
    """
    before, narrow = torch.get_default_dtype(), torch.Tensor.float
    torch.set_default_dtype(torch.float64 if fields["dtype"] == "float64" else torch.float32)
    cast = fields.get("autocast")
    if fields["dtype"] == "float64" and fields.get("float_is_double"):
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        with torch.autocast("cpu", floating(cast)) if cast else contextlib.nullcontext():
            yield
    finally:
        torch.Tensor.float = narrow  # type: ignore[method-assign]
        torch.set_default_dtype(before)


def targets_of(fields: Fields, arrays: Tensors) -> dict[str, Any]:
    """Returns the batch as a trainer passes it: arrays of floating numbers in the default dtype, others, such as index maps, as they are.

    The field ``target_dtypes`` gives the dtypes that differ from that, ``image_size`` the size that some releases read of a batch.
    """
    usual = "float64" if fields["dtype"] == "float64" else "float32"
    dtypes = fields.get("target_dtypes", {})
    own = {name: usual if arrays[name].is_floating_point() else str(arrays[name].dtype)[6:] for name in fields["targets"]}
    batch: dict[str, Any] = {name: arrays[name].to(floating(dtypes.get(name, dtype))) for name, dtype in own.items()}
    if fields.get("flat_classes"):
        batch["cls"] = batch["cls"].reshape(-1)
    return batch | ({"resized_shape": [fields["image_size"]] * fields["batch_size"]} if "image_size" in fields else {})


def flow_of(arrays: Tensors) -> GaussianFlow | None:
    """Returns the flow of a pose question, if it has one."""
    return GaussianFlow(arrays["flow"].to(torch.get_default_dtype())) if "flow" in arrays else None


def leaf(array: Tensor, fields: Fields) -> Tensor:
    """Returns logits in the question's dtype that require a gradient."""
    return array.to(floating(fields["dtype"])).requires_grad_()


@functools.cache
def layout_of(era: Era) -> str:
    """Returns the layout of predictions that the release accepts, found with an ordinary definition, which every release accepts."""
    with arithmetic({"dtype": "float32"}):
        return accepted_layout(era.criterion()(Model(USUAL, torch.get_default_dtype()).build()), USUAL)


def loss(era: Era, fields: Fields, arrays: Tensors) -> Tensors:
    """Returns the whole loss: its sum, its items, the gradients of the sum."""
    model, leaves, (value, items) = call(era, fields, arrays)
    if fields["spec"]["class_weights"] is not None and "model.class_weights" not in model.attributes_read:
        raise NotOfferedError("class weights are not read")
    value.sum().backward()
    return {"total": value.sum().detach(), "items": item_vector(items), **gradients(leaves, model.flow)}


def call(era: Era, fields: Fields, arrays: Tensors) -> tuple[Model, Tensors, tuple[Tensor, Any]]:
    """Returns the stand-in for a model, the predictions that require a gradient, and what a criterion returns for them."""
    model = Model(fields["spec"], torch.get_default_dtype(), flow=flow_of(arrays))
    criterion = make_criterion(era.criterion(fields["spec"]["criterion"]), fields["spec"], model.build())
    leaves = {name: leaf(arrays[name], fields) for name in fields["predictions"]}
    return model, leaves, criterion(arrange(layout_of(era), leaves, fields["grids"]), targets_of(fields, arrays))


def gradients(leaves: Tensors, flow: GaussianFlow | None = None) -> Tensors:
    """Returns the gradients of the leaves, and of the flow, that have one."""
    found = leaves | ({} if flow is None else {"flow": flow.matrix})
    return {f"gradient of {name}": value.grad for name, value in found.items() if value.grad is not None}


def two_heads(era: Era, fields: Fields, arrays: Tensors) -> Tensors:
    """Returns a two-headed loss (spec section 12), named by the field ``criterion``, after ``updates`` calls of its ``update``."""
    kind, own = era.find("loss", fields["criterion"]), fields["spec"]["criterion"]
    model = Model(fields["spec"], torch.get_default_dtype(), fields["epochs"], flow_of(arrays))
    criterion = kind(model.build(), *(() if own == DETECTION else (era.criterion(own),)))
    for _ in range(fields["updates"]):
        criterion.update()
    leaves = {name: leaf(arrays[name], fields) for name in fields["predictions"]}
    heads = {head: {name.removeprefix(f"{head} "): leaves[name] for name in leaves if name.startswith(head)} for head in HEADS}
    preds = {head: arrange(layout_of(era), own, fields["grids"]) for head, own in heads.items()}
    value, items = criterion(preds, targets_of(fields, arrays))
    value.sum().backward()
    return {"total": value.sum().detach(), "items": item_vector(items), **gradients(leaves, model.flow)}


def plain_criterion(era: Era, fields: Fields) -> Any:
    """Returns a criterion with the question's definition."""
    return make_criterion(era.criterion(), fields["spec"], Model(fields["spec"], torch.get_default_dtype()).build())


def stage(criterion: Any, name: str) -> Any:
    """Returns a method or part of a criterion.

    Raises:
        NotOfferedError: the criterion has none of that name.
    """
    part = getattr(criterion, name, None)
    if part is None:
        raise NotOfferedError(f"no {name}")
    return part


def anchors(era: Era, fields: Fields, arrays: Tensors) -> Tensors:
    """Returns anchor centres (A, 2) in grid units and their strides (spec section 2)."""
    dtype = floating(fields["dtype"])
    maps = [torch.zeros(1, 1, *grid, dtype=dtype) for grid in fields["grids"]]
    centres, strides = era.find("tal", "make_anchors")(maps, arrays["strides"].to(dtype), 0.5)
    return {"centres": centres, "strides": strides}


def ground_truth(era: Era, fields: Fields, arrays: Tensors) -> Tensors:
    """Returns padded ground truth (spec section 3)."""
    rows, scale = arrays["rows"].to(torch.get_default_dtype()), arrays["scale"].to(torch.get_default_dtype())
    return {"padded": stage(plain_criterion(era, fields), "preprocess")(rows, fields["batch_size"], scale)}


def decoding(era: Era, fields: Fields, arrays: Tensors) -> Tensors:
    """Returns decoded boxes (B, A, 4) in grid units (spec section 4)."""
    dtype = floating(fields["dtype"])
    centres, logits = arrays["points"].to(dtype), arrays["boxes"].to(dtype).transpose(1, 2).contiguous()
    return {"corners": stage(plain_criterion(era, fields), "bbox_decode")(centres, logits)}


def assignment(era: Era, fields: Fields, arrays: Tensors) -> Tensors:
    """Returns the assignment (spec section 5): weight t of each anchor, and class and box where t > 0, else -1."""
    assigner = stage(plain_criterion(era, fields), "assigner")
    given = [arrays[name].to(torch.get_default_dtype()) for name in ("probabilities", "corners", "centres")]
    truth = [arrays["labels"].long(), arrays["truth"].to(torch.get_default_dtype()), arrays["valid"].bool()]
    labels, _, scores, _, rows = assigner(*given, *truth)
    weight = scores.sum(-1)
    held = weight > 0
    return {"weight": weight, "class": labels.long().where(held, -1), "box": rows.long().where(held, -1)}


def overlap(era: Era, fields: Fields, arrays: Tensors) -> Tensors:
    """Returns the CIoU of pairs of boxes, and its gradient (spec section 6)."""
    first, second = leaf(arrays["first"], fields), arrays["second"].to(floating(fields["dtype"]))
    value = era.find("metrics", "bbox_iou")(first, second, xywh=False, CIoU=True)
    value.sum().backward()
    return {"ciou": value.detach(), **gradients({"first": first})}


def distances(era: Era, fields: Fields, arrays: Tensors) -> Tensors:
    """Returns clamped distances from anchors to sides (spec section 7)."""
    dtype = floating(fields["dtype"])
    bins = fields["spec"]["reg_max"] - 1
    return {"distances": era.find("tal", "bbox2dist")(arrays["points"].to(dtype), arrays["second"].to(dtype), bins)}


def distribution(era: Era, fields: Fields, arrays: Tensors) -> Tensors:
    """Returns the distribution term of each box, and its gradient (spec section 7)."""
    term = era.find("loss", "DFLoss")(fields["spec"]["reg_max"])
    bins, target = leaf(arrays["bins"], fields), arrays["target"].to(floating(fields["dtype"])).clone()
    value = term(bins, target)
    value.sum().backward()
    return {"term": value.detach(), **gradients({"bins": bins})}


def interface(era: Era, fields: Fields, arrays: Tensors) -> dict[str, Any]:
    """Returns how the loss is called: module, signature, layout of predictions, shape of results, attributes read of the model."""
    own = fields["spec"]["criterion"]
    kind = era.criterion(own)
    model, _, (value, items) = call(era, fields, arrays)
    return {
        "place": era.loss if own == DETECTION else f"{kind.__module__}:{kind.__name__}",
        "options": options(kind),
        "options of the assigner": options(era.find("tal", fields["assigner"])),
        "predictions": layout_of(era),
        "loss": "scalar" if value.ndim == 0 else f"vector of {len(value)}",
        "items": f"mapping of {', '.join(items)}" if isinstance(items, Mapping) else f"vector of {len(items)}",
        "read of the model": ", ".join(sorted(model.attributes_read)),
        **{f"has {name}": offers(era, *place) for name, place in PLACES.items() if own == DETECTION},
    }


def options(call: Callable[..., Any]) -> str:
    """Returns the parameters of a callable with their defaults, without annotations."""
    return ", ".join(str(parameter.replace(annotation=parameter.empty)) for parameter in inspect.signature(call).parameters.values())


def offers(era: Era, module: str, name: str) -> bool:
    """Whether a release has an attribute of a module."""
    try:
        era.find(module, name)
    except NotOfferedError:
        return False
    return True


PLACES = {
    "E2EDetectLoss": ("loss", "E2EDetectLoss"),
    "E2ELoss": ("loss", "E2ELoss"),
    "DFLoss": ("loss", "DFLoss"),
    "bbox_iou": ("metrics", "bbox_iou"),
    "bbox2dist": ("tal", "bbox2dist"),
    "make_anchors": ("tal", "make_anchors"),
}
ENTRY_POINTS: dict[str, Callable[[Era, Fields, Tensors], Tensors]] = {
    "loss": loss,
    "two heads": two_heads,
    "anchors": anchors,
    "ground truth": ground_truth,
    "decoding": decoding,
    "assignment": assignment,
    "overlap": overlap,
    "distances": distances,
    "distribution": distribution,
}


def answer(era: Era, fields: Fields, arrays: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Returns the fields and arrays of the answer to one question; exceptions of the release are passed on."""
    torch.manual_seed(0)
    with arithmetic(fields):
        if fields["entry_point"] == "interface":
            return interface(era, fields, arrays), {}
        return {}, ENTRY_POINTS[fields["entry_point"]](era, fields, arrays)
