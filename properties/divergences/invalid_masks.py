"""Entries on masks and prototypes that must raise an error (segmentation spec section 10)."""

from __future__ import annotations

import math

import torch

from oracle.cases.case import Case
from properties.divergences import mask_cases, mask_edits, questions
from properties.divergences.divergence import Divergence, refused
from properties.divergences.input_edits import Edit
from properties.divergences.questions import Question
from properties.divergences.small_cases import box

_NAN = math.nan


def _refused(name: str, what: str, case: Case, edit: Edit, reference: str, question: Question = questions.mask_terms) -> Divergence:
    """An entry on input that must raise an error."""
    return refused(name=f"mask-{name}", what=what, case=case, edit=edit, question=question, reference=reference, named="masks")


ENTRIES = (
    _refused("missing", "A batch without `masks` raises a KeyError.", mask_cases.ONE, mask_edits.without("masks"), "KeyError"),
    _refused(
        "missing-unheld",
        "A batch without `masks` is accepted if its boxes hold no anchor.",
        mask_cases.mask_case(box(40, 40, 48, 48)),
        mask_edits.without("masks"),
        "mask 0",
    ),
    _refused(
        "semantic-missing",
        "Semantic logits without `sem_masks` raise a KeyError.",
        mask_cases.SEMANTIC,
        mask_edits.without("sem_masks"),
        "KeyError",
    ),
    _refused(
        "instances-too-few",
        "Fewer instance masks than boxes raise an IndexError.",
        mask_cases.INSTANCES,
        mask_edits.target("masks", lambda masks: masks[:1]),
        "IndexError",
    ),
    _refused(
        "maps-too-few",
        "Fewer index maps than images raise an IndexError.",
        mask_cases.TWO,
        mask_edits.target("masks", lambda maps: maps[:1]),
        "IndexError",
    ),
    _refused(
        "maps-too-many",
        "More index maps than images are ignored.",
        mask_cases.TWO,
        mask_edits.target("masks", lambda maps: torch.cat([maps, maps[:1]])),
        "mask 0.298",
    ),
    _refused(
        "maps-as-instances",
        "Index maps taken for instance masks make their indices targets above 1.",
        mask_cases.mask_case(mask_cases.FIRST, box(12, 12, 28, 28), overlap_mask=False),
        mask_edits.target("masks", lambda masks: torch.stack([masks[0], 2 * masks[1]])),
        "mask 18.7",
    ),
    _refused(
        "instances-as-maps",
        "An index map of 0 and 255 is that of box 254, so that every target is 0.",
        mask_cases.ONE,
        mask_edits.target("masks", lambda maps: 255 * maps),
        "mask 26.9",
    ),
    _refused(
        "instances-of-255",
        "Instance masks of 0 and 255 make targets of 255.",
        mask_cases.INSTANCES,
        mask_edits.target("masks", lambda masks: 255 * masks),
        "mask -1.36e+04",
    ),
    _refused(
        "maps-of-bool",
        "A bool index map makes every instance box 0.",
        mask_cases.CROWDED,
        mask_edits.target("masks", lambda maps: maps != 0),
        "mask 3.47",
    ),
    _refused("index-negative", "A negative index matches no box.", mask_cases.ONE, mask_edits.pixel("masks", (0, 2, 2), -1.0), "mask 1.95"),
    _refused(
        "index-fractional", "A fractional index matches no box.", mask_cases.ONE, mask_edits.pixel("masks", (0, 2, 2), 0.5), "mask 1.95"
    ),
    _refused("index-nan", "A NaN index matches no box.", mask_cases.ONE, mask_edits.pixel("masks", (0, 2, 2), _NAN), "mask 1.95"),
    _refused(
        "instance-nan",
        "A NaN in an instance mask makes the mask term NaN.",
        mask_cases.INSTANCES,
        mask_edits.pixel("masks", (0, 2, 2), _NAN),
        "mask nan",
    ),
    _refused(
        "instance-negative",
        "A negative value of an instance mask gives a term without lower bound.",
        mask_cases.INSTANCES,
        mask_edits.pixel("masks", (0, 2, 2), -50.0),
        "mask 91.6",
    ),
    _refused(
        "class-beyond-classes",
        "A class ≥ C in `sem_masks` raises a RuntimeError, on CUDA a device assert.",
        mask_cases.SEMANTIC,
        mask_edits.pixel("sem_masks", (0, 2, 2), 2.0),
        "RuntimeError",
    ),
    _refused(
        "semantic-smaller",
        "`sem_masks` smaller than the masks take the upper left part of the cover.",
        mask_cases.SEMANTIC,
        mask_edits.target("sem_masks", lambda classes: classes[:, ::2, ::2]),
        "mask 0.155, semantic 6.29",
    ),
    _refused(
        "semantic-larger",
        "`sem_masks` larger than the masks raise an obscure error.",
        mask_cases.SEMANTIC,
        mask_edits.target("sem_masks", lambda classes: classes.repeat(1, 2, 2)),
        "RuntimeError",
    ),
    _refused(
        "prototypes-of-coefficients",
        "Coefficients for another number of prototypes raise an obscure error.",
        mask_cases.ONE,
        mask_edits.coefficients(lambda found: torch.cat([found, found[:, :1]], 1)),
        "RuntimeError",
    ),
    _refused(
        "prototypes-of-fewer-images",
        "Prototypes of fewer images leave the missing images out, and every term is multiplied by their number.",
        mask_cases.TWO,
        mask_edits.prototypes(lambda found: found[:1]),
        "box 2.29, mask 0.0775, cls 14.8, dfl 1.09, semantic 0",
        questions.loss,
    ),
)
