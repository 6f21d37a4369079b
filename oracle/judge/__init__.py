"""Compares answers with the definition and gives verdicts: AGREE, AMBIGUOUS or DIFFER, stage by stage.

:class:`~oracle.judge.truth.DefinitionAnswers` holds the expected answers for one case; one module judges each kind of answer:

    oracle.comparison.compare          one contender on one case, stage by stage
    ├─ anchors, decode      errors     stages_before_assignment.anchor_errors, decode_errors    ─┐
    ├─ targets              verdict    stages_before_assignment.judge_target_rows                │
    │                       errors     stages_before_assignment.target_errors                   ─┤
    ├─ candidates           verdict    stages_before_assignment.judge_candidates                 ├─ worst_elements.judge_quantity
    ├─ metrics              errors     stages_before_assignment.metric_errors                   ─┤   turns errors into a verdict
    ├─ assign               verdict    assignment.judge_assignment, with a hint from hints       │
    │                       errors     assignment.weight_errors                                 ─┤
    └─ loss_given, loss     errors     loss_and_gradients.outcome_errors                        ─┘

A contender that shows no assignment is judged on the inferred ones (:mod:`oracle.inference`), with the term bounds of
:mod:`~oracle.judge.indistinguishable`.
"""
