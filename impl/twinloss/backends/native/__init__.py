"""The loss on a CPU in one pass each way, in C++ that the machine's own compiler builds at the first use.

``source/`` holds the arithmetic, a header per part of the definition; ``build`` makes a library of it with a ``compiler``, kept in one of
the user's ``folders``; ``library`` is the door to its functions; ``loss`` makes them differentiable. Nothing is built on import or on
installation, and where there is no compiler the torch backend serves instead.
"""
