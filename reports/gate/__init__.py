"""The report of the gate: is this checkout's twin slower, heavier or less exact than another revision's?"""
