"""Wrong fields of the definition (spec sections 0, 5.1, 5.3 to 5.6, 7 and 13)."""

from __future__ import annotations

from properties.selfcheck.planted_faults.fault import Fault, with_numbers

ENTRIES = (
    Fault("one candidate more", "K candidates are kept per box.", "5.4", spec=with_numbers(topk=lambda s: s.topk + 1)),
    Fault("one candidate less", "K candidates are kept per box.", "5.4", spec=with_numbers(topk=lambda s: max(s.topk - 1, 1))),
    Fault("K always 10", "K is `topk`.", "5.4", spec=with_numbers(topk=lambda _: 10)),
    Fault("α + 0.01", "m = p^α · o^β.", "5.3", spec=with_numbers(alpha=lambda s: s.alpha + 0.01)),
    Fault("β + 0.05", "m = p^α · o^β.", "5.3", spec=with_numbers(beta=lambda s: s.beta + 0.05)),
    Fault("α and β swapped", "m = p^α · o^β.", "5.3", spec=with_numbers(alpha=lambda s: s.beta, beta=lambda s: s.alpha)),
    Fault("β always 6", "β is a field of the definition.", "5.3", spec=with_numbers(beta=lambda _: 6.0)),
    Fault("ε_a of 1e-7", "ε_a = 1e-9 (assigner).", "0", spec=with_numbers(assign_eps=lambda _: 1e-7)),
    Fault("ε_a of 1e-10", "ε_a = 1e-9 (assigner).", "0", spec=with_numbers(assign_eps=lambda _: 1e-10)),
    Fault("ε_c of 1e-6", "ε_c = 1e-7 (CIoU).", "0", spec=with_numbers(ciou_eps=lambda _: 1e-6)),
    Fault("ε_c of 1e-9", "ε_c = 1e-7 (CIoU).", "0", spec=with_numbers(ciou_eps=lambda _: 1e-9)),
    Fault("clamped to R − 1", "Target distances are clamped to [0, R − 1 − 0.01].", "7", spec=with_numbers(clamp_margin=lambda _: 1e-6)),
    Fault("clamped to R − 1.1", "Target distances are clamped to [0, R − 1 − 0.01].", "7", spec=with_numbers(clamp_margin=lambda _: 0.1)),
    Fault(
        "gains swapped",
        "The three terms, each times its gain.",
        "7",
        spec=with_numbers(gains=lambda s: (s.gains[0], s.gains[2], s.gains[1])),
    ),
    Fault(
        "box gain of 7.499",
        "The three terms, each times its gain.",
        "7",
        spec=with_numbers(gains=lambda s: (s.gains[0] * 7.499 / 7.5, *s.gains[1:])),
    ),
    Fault(
        "sides below the first stride lengthened",
        "A side shorter than s_1 is first lengthened to s_1.",
        "5.1",
        spec=with_numbers(lengthen=lambda _: "first"),
    ),
    Fault(
        "no side lengthened", "A side shorter than s_1 is first lengthened to s_1.", "5.1", spec=with_numbers(lengthen=lambda _: "never")
    ),
    Fault("no second cut", "Of what each box still holds, only its topk2 anchors remain.", "5.6", spec=with_numbers(topk2=lambda _: None)),
    Fault(
        "second cut keeps one more",
        "Of what each box still holds, only its topk2 anchors remain.",
        "5.6",
        spec=with_numbers(topk2=lambda s: s.topk2 and s.topk2 + 1),
    ),
    Fault(
        "class weights forgotten",
        "C factors multiply the classification term elementwise.",
        "13",
        spec=with_numbers(class_weights=lambda _: None),
    ),
    Fault(
        "class weights in reverse",
        "C factors multiply the classification term elementwise.",
        "13",
        spec=with_numbers(class_weights=lambda s: s.class_weights and s.class_weights[::-1]),
    ),
    Fault("every anchor weighs alike", "Σ_F (1 − CIoU(pred_i, gt_i)) · w_i / S.", "7", spec=with_numbers(anchor_weights=lambda _: "sum")),
)
