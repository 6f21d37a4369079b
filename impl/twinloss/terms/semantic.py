"""The semantic term: cross-entropy and Dice of the classes' maps (segmentation spec section 5; Milletari et al. 2016, arXiv 1606.04797).

A pixel has one class at most, so the target is a map of classes, and the logits where it is 1 are few. No target tensor has the logits'
shape. Logits are read image by image, in either pass, and nothing of their size is kept.

Shape suffixes: B images, C classes, h and w the masks' grid, m pixels of the logits' grid, s pixels of one image that have a class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from twinloss.backends.saved_tensors import differentiated_once, save, saved
from twinloss.masks.sampling import nearest
from twinloss.masks.targets import TrueMasks, comparable
from twinloss.terms.classification import working_dtype
from twinloss.terms.held import HeldAnchors

NO_CLASS = -1
"""In a map of classes, where no instance shows."""


def class_map(sem_masks: Tensor, covered: Tensor, shape: torch.Size) -> Tensor:
    """The class that each pixel of the logits' grid is taught, (B, h_s, w_s) int32, ``NO_CLASS`` where no instance shows.

    Args:
        sem_masks: (B, h, w) class of each pixel of the masks' grid, truncated toward zero; read where an instance shows.
        covered: (B, h, w) bool, where an instance shows.
        shape: (B, C, h_s, w_s) of the logits; a class that none of the C is counts as no class.
    """
    resized = zip(sem_masks.shape[-2:], shape[-2:], strict=True)
    rows, columns = (nearest(size, to, sem_masks.device) for size, to in resized)
    kept, covered = (each.index_select(1, rows).index_select(2, columns) for each in (sem_masks, covered))
    kept = comparable(kept)
    taught = covered & (kept > -1) & (kept < shape[1])
    return torch.where(taught, kept.to(torch.int32), NO_CLASS)


def semantic_term(logits: Tensor, classes: Tensor) -> Tensor:
    """Half the mean cross-entropy plus half the mean Dice loss, with 1 beside both sums of its fraction.

    Args:
        logits: (B, C, h_s, w_s); −inf contributes the limit.
        classes: (B, h_s, w_s) of :func:`class_map`.

    Returns:
        A scalar in the working dtype.
    """
    result: Tensor = _SemanticTerm.apply(logits, classes)
    return result


def term_of_call(at: HeldAnchors, term: Callable[[Tensor, Tensor], Tensor] = semantic_term) -> Tensor:
    """:func:`semantic_term` of a call, or another function for it: 0 without semantic logits, and where nothing is held in the batch.

    Raises:
        ValueError: there are semantic logits and held anchors, and no map of classes.
    """
    extras = at.call.extras
    if "semantic" not in extras:
        return at.weight.new_zeros(())
    logits = extras["semantic"]
    if len(at) == 0:
        return logits.flatten()[:0].sum(dtype=at.dtype)
    if "sem_masks" not in extras:
        raise ValueError(
            "preds['proto'] has semantic logits, and batch no 'sem_masks'; give the class of each pixel (B, h, w), or the prototypes alone"
        )
    covered = TrueMasks.of(extras).cover(at.call.batch["batch_idx"], len(logits))
    return term(logits, class_map(extras["sem_masks"], covered, logits.shape))


class _SemanticTerm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BChw: Tensor, classes_Bhw: Tensor) -> Tensor:
        images, classes = logits_BChw.shape[:2]
        entropy, common_BC, either_BC = logits_BChw.new_zeros((), dtype=torch.float64), *_sums(logits_BChw)
        for image in range(images):
            logits_Cm, label_s, pixel_s = _taught(logits_BChw[image], classes_Bhw[image])
            share_Cm = logits_Cm.sigmoid()
            common_BC[image].index_add_(0, label_s, share_Cm[label_s, pixel_s].to(torch.float64))
            either_BC[image] = share_Cm.sum(-1, dtype=torch.float64) + torch.bincount(label_s, minlength=classes)
            logits_Cm[label_s, pixel_s] *= -1  # the cross-entropy with 1 is that of the opposite logit with 0
            entropy += _softplus(logits_Cm).sum(dtype=torch.float64)
        save(ctx, logits=logits_BChw, classes=classes_Bhw)
        ctx.sums = common_BC, either_BC
        dice_BC = (either_BC - 2 * common_BC) / (either_BC + 1)
        return ((entropy / logits_BChw.numel() + dice_BC.mean()) / 2).to(working_dtype(logits_BChw))

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None]:
        (logits_BChw, classes_Bhw), (common_BC, either_BC) = saved(ctx), ctx.sums
        to_entropy, to_dice = incoming / (2 * logits_BChw.numel()), incoming / (2 * common_BC.numel())
        # d Dice / d share = (2 I + 1) / (S + Y + 1)², less 2 / (S + Y + 1) where the target is 1
        everywhere_BC = ((2 * common_BC + 1) / (either_BC + 1).square() * to_dice).to(to_dice.dtype)
        at_target_BC = (2 / (either_BC + 1) * to_dice).to(to_dice.dtype)
        gradient_BChw = torch.empty_like(logits_BChw)
        for image, into_Chw in enumerate(gradient_BChw):
            logits_Cm, label_s, pixel_s = _taught(logits_BChw[image], classes_Bhw[image])
            share_Cm = logits_Cm.sigmoid_()
            slope_s = (share_Cm * (1 - share_Cm))[label_s, pixel_s]
            by_logit_Cm = share_Cm * to_entropy + share_Cm * (1 - share_Cm) * everywhere_BC[image].unsqueeze(-1)
            by_logit_Cm[label_s, pixel_s] -= to_entropy + slope_s * at_target_BC[image, label_s]
            into_Chw.copy_(by_logit_Cm.view_as(into_Chw))
        return gradient_BChw, None


def _sums(logits_BChw: Tensor) -> tuple[Tensor, Tensor]:
    """Two sums for each image and class, 0 so far: of the shares where the target is 1, and of all shares and targets."""
    common_BC = logits_BChw.new_zeros(logits_BChw.shape[:2], dtype=torch.float64)
    return common_BC, torch.zeros_like(common_BC)


def _taught(logits_Chw: Tensor, classes_hw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A copy of one image's logits (C, m) in the dtype of the arithmetic; and the class and place (s,) where the target is 1."""
    pixel_s = (classes_hw.flatten() != NO_CLASS).nonzero().squeeze(1)
    label_s = classes_hw.flatten()[pixel_s].to(torch.int64)
    return logits_Chw.flatten(1).to(working_dtype(logits_Chw), copy=True), label_s, pixel_s


def _softplus(logits: Tensor) -> Tensor:
    """max(x, 0) + log(1 + e^−|x|) of logits, of which −inf gives 0."""
    return logits.clamp(min=0) + logits.abs().neg_().exp_().log1p_()
