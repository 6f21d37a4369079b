"""What a definition and a call are given: numbers, predictions and targets, checked and admitted.

:mod:`~twinloss.inputs.admission` is the entrance of a call; :mod:`~twinloss.inputs.tasks` names what each task gives beside boxes and scores.
"""
