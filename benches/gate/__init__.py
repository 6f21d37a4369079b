"""The gate: is the twin of this checkout slower, heavier or less exact than the twin of another revision?"""
