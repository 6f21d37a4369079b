"""Wrong numbers: the definition is right and is told something else (spec sections 0, 5.1, 7 and 13)."""

from __future__ import annotations

from properties.selfcheck.planted_faults.fault import Fault, numbers

ENTRIES = (
    Fault(name="one candidate more", violates="K candidates are kept per box.", section="5.4", spec=numbers(topk=lambda s: s.topk + 1)),
    Fault(
        name="one candidate less", violates="K candidates are kept per box.", section="5.4", spec=numbers(topk=lambda s: max(s.topk - 1, 1))
    ),
    Fault(name="K always 10", violates="K is `topk`.", section="5.4", spec=numbers(topk=lambda _: 10)),
    Fault(name="α + 0.01", violates="m = p^α · o^β.", section="5.3", spec=numbers(alpha=lambda s: s.alpha + 0.01)),
    Fault(name="β + 0.05", violates="m = p^α · o^β.", section="5.3", spec=numbers(beta=lambda s: s.beta + 0.05)),
    Fault(name="α and β swapped", violates="m = p^α · o^β.", section="5.3", spec=numbers(alpha=lambda s: s.beta, beta=lambda s: s.alpha)),
    Fault(name="β always 6", violates="β is a number of the definition.", section="5.3", spec=numbers(beta=lambda _: 6.0)),
    Fault(name="ε_a of 1e-7", violates="ε_a = 1e-9 (assigner).", section="0", spec=numbers(assign_eps=lambda _: 1e-7)),
    Fault(name="ε_a of 1e-10", violates="ε_a = 1e-9 (assigner).", section="0", spec=numbers(assign_eps=lambda _: 1e-10)),
    Fault(name="ε_c of 1e-6", violates="ε_c = 1e-7 (CIoU).", section="0", spec=numbers(ciou_eps=lambda _: 1e-6)),
    Fault(name="ε_c of 1e-9", violates="ε_c = 1e-7 (CIoU).", section="0", spec=numbers(ciou_eps=lambda _: 1e-9)),
    Fault(
        name="clamped to R − 1",
        violates="Target distances are clamped to [0, R − 1 − 0.01].",
        section="7",
        spec=numbers(clamp_margin=lambda _: 1e-6),
    ),
    Fault(
        name="clamped to R − 1.1",
        violates="Target distances are clamped to [0, R − 1 − 0.01].",
        section="7",
        spec=numbers(clamp_margin=lambda _: 0.1),
    ),
    Fault(
        name="gains swapped",
        violates="The three terms, each times its gain.",
        section="7",
        spec=numbers(gains=lambda s: (s.gains[0], s.gains[2], s.gains[1])),
    ),
    Fault(
        name="box gain of 7.499",
        violates="The three terms, each times its gain.",
        section="7",
        spec=numbers(gains=lambda s: (s.gains[0] * 7.499 / 7.5, *s.gains[1:])),
    ),
    Fault(
        name="sides below the first stride lengthened",
        violates="A side shorter than s_1 is first lengthened to s_1.",
        section="5.1",
        spec=numbers(lengthen=lambda _: "first"),
    ),
    Fault(
        name="no side lengthened",
        violates="A side shorter than s_1 is first lengthened to s_1.",
        section="5.1",
        spec=numbers(lengthen=lambda _: "never"),
    ),
    Fault(
        name="no second cut",
        violates="Of what each box still holds, only its topk2 anchors remain.",
        section="5.6",
        spec=numbers(topk2=lambda _: None),
    ),
    Fault(
        name="second cut keeps one more",
        violates="Of what each box still holds, only its topk2 anchors remain.",
        section="5.6",
        spec=numbers(topk2=lambda s: s.topk2 and s.topk2 + 1),
    ),
    Fault(
        name="class weights forgotten",
        violates="C factors multiply the classification term elementwise.",
        section="13",
        spec=numbers(class_weights=lambda _: None),
    ),
    Fault(
        name="class weights in reverse",
        violates="C factors multiply the classification term elementwise.",
        section="13",
        spec=numbers(class_weights=lambda s: s.class_weights and s.class_weights[::-1]),
    ),
    Fault(
        name="every anchor weighs alike",
        violates="Σ_F (1 − CIoU(pred_i, gt_i)) · w_i / S.",
        section="7",
        spec=numbers(anchor_weights=lambda _: "sum"),
    ),
)
