"""What a definition and a call are given: numbers, predictions and targets, checked and admitted.

:mod:`~twinloss.inputs.admission` is a call's entrance; :mod:`~twinloss.inputs.tasks` names what each task gives beside boxes and scores.
"""
