"""Kinds of boxes: how their ground truth is read, which anchors lie inside, how they are decoded and how they overlap.

:mod:`~twinloss.geometry.base` says what a kind must know, :mod:`~twinloss.geometry.registry` lists all.
"""
