"""Kinds of boxes: how their ground truth is read, how they are decoded and how they overlap. Upright boxes so far."""
