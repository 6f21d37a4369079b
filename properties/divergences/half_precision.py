"""Entries on rounding, most of them in half precision: anchors, image sizes, sums and probabilities (spec sections 2, 3, 7, 8a and 9)."""

from __future__ import annotations

from oracle.cases.case import Setting
from properties.divergences import questions
from properties.divergences.divergence import Divergence
from properties.divergences.small_cases import box, small_case, with_logits

HALF, BRAIN = Setting("float16"), Setting("bfloat16")
_ONE = small_case(box(4, 4, 20, 20), reg_max=1)
_FINITE = "all finite"
_OWN_DTYPE = "The twin computes half-precision logits in float32."

ENTRIES = (
    Divergence(
        name="float16-sum",
        what="Outside autocast the classification term of float16 logits is summed in float16, which overflows at ordinary batch sizes.",
        stage="loss",
        section="9",
        case=with_logits(_ONE, score=30000.0),
        setting=HALF,
        question=questions.non_finite,
        answers={"definition": _FINITE, "reference": "cls infinite", "twin": _FINITE},
        preferred="twin",
        why=f"{_OWN_DTYPE} The sum also overflows with 4 images, 8,400 anchors, 80 classes and ordinary logits.",
    ),
    Divergence(
        name="bfloat16-sum",
        what="Outside autocast the classification term of bfloat16 logits is summed in bfloat16, which keeps two or three digits.",
        stage="loss",
        section="8a",
        case=small_case(box(4, 4, 20, 20), size=(256, 256)),
        setting=BRAIN,
        question=questions.loss,
        answers={
            "definition": "box 1.85, cls 355, third 0.924",
            "reference": "box 1.85, cls 354, third 0.922",
            "twin": "box 1.85, cls 355, third 0.924",
        },
        preferred="twin",
        why=_OWN_DTYPE,
    ),
    Divergence(
        name="float16-probability",
        what="A float16 class logit below −17.4 has probability 0: a box whose candidates all have such logits gets no anchor.",
        stage="assign",
        section="8a",
        case=with_logits(_ONE, score=-18.0),
        setting=HALF,
        question=questions.holders,
        answers={"definition": "5→0", "reference": "nothing", "twin": "5→0"},
        preferred="twin",
        why="An unassigned box is not learnt, so that its scores do not rise.",
    ),
    Divergence(
        name="bfloat16-centres",
        what="Anchors are computed in the logits' dtype: beyond 128 cells a bfloat16 centre loses its fraction of 0.5.",
        stage="anchors",
        section="2",
        case=small_case(size=(8, 1032), reg_max=1),
        setting=BRAIN,
        question=questions.last_centre,
        answers={"definition": "(128.5, 0.5)", "reference": "(128, 0.5)", "twin": "(128.5, 0.5)"},
        preferred="twin",
        why="In images wider than 1,024 px, training in pure bfloat16 learns boxes that are half a cell off.",
    ),
    Divergence(
        name="float16-centres",
        what="Anchors are computed in the logits' dtype: beyond 1,024 cells a float16 centre loses its fraction of 0.5.",
        stage="anchors",
        section="2",
        case=small_case(size=(8, 8200), reg_max=1),
        setting=HALF,
        question=questions.last_centre,
        answers={"definition": "(1024.5, 0.5)", "reference": "(1024, 0.5)", "twin": "(1024.5, 0.5)"},
        preferred="twin",
        why="The boxes learnt there would be half a cell off; no image is that wide in practice.",
    ),
    Divergence(
        name="bfloat16-image-size",
        what="The image size is computed in the logits' dtype: in bfloat16 the boxes of a 2,056 px image are scaled by 2,048.",
        stage="targets",
        section="3",
        case=small_case(box(0, 0, 1028, 64), size=(64, 2056), reg_max=1),
        setting=BRAIN,
        question=questions.corners,
        answers={"definition": "(0, 0, 1028, 64)", "reference": "(0, 0, 1024, 64)", "twin": "(0, 0, 1028, 64)"},
        preferred="twin",
        why="The image size is a whole number and is known exactly.",
    ),
    Divergence(
        name="float16-distance",
        what="With R = 1 a float16 distance of more than 65,504 px overflows, and every term is NaN.",
        stage="decode",
        section="8a",
        case=with_logits(_ONE, elsewhere=8200.0),
        setting=HALF,
        question=questions.non_finite,
        answers={
            "definition": _FINITE,
            "reference": "box NaN, cls NaN, third NaN, gradient of boxes not finite, gradient of scores not finite",
            "twin": _FINITE,
        },
        preferred="twin",
        why=_OWN_DTYPE,
    ),
    Divergence(
        name="float16-logits-under-bfloat16",
        what="float16 logits under autocast to bfloat16 raise an error.",
        stage="loss",
        section="8a",
        case=_ONE,
        setting=Setting("float16", autocast="bfloat16"),
        question=questions.non_finite,
        answers={"definition": _FINITE, "reference": "RuntimeError", "twin": _FINITE},
        preferred="twin",
        why="Autocast has no effect inside the twin.",
    ),
    Divergence(
        name="bfloat16-logits-under-float16",
        what="bfloat16 logits under autocast to float16 raise an error.",
        stage="loss",
        section="8a",
        case=small_case(box(4, 4, 20, 20)),
        setting=Setting("bfloat16", autocast="float16"),
        question=questions.non_finite,
        answers={"definition": _FINITE, "reference": "RuntimeError", "twin": _FINITE},
        preferred="twin",
        why="Autocast has no effect inside the twin.",
    ),
    Divergence(
        name="float32-entropy-rounding",
        what="The cross-entropy of a float32 logit x is rounded at the scale of x: equal logits far below zero have a wrong sum.",
        stage="loss",
        section="7",
        case=with_logits(small_case(size=(256, 256), reg_max=1), score=-14.0),
        setting=Setting("float32"),
        question=questions.loss,
        answers={
            "definition": "box 0, cls 0.000426, third 0",
            "reference": "box 0, cls 0.000488, third 0",
            "twin": "box 0, cls 0.000426, third 0",
        },
        preferred="twin",
        why="The roundings of equal logits have one sign and add up, to 15 % here; a model that has learnt nothing has such logits. The "
        "twin's softplus keeps all digits. Verification of the drop-in asks again in float64, where the difference vanishes.",
    ),
)
