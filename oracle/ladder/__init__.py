"""The release ladder: the same cases put to many releases of the reference, each in a process of its own, and what changed between them.

Two halves that meet only through :mod:`oracle.ladder.inside.messages`:

- **outside**, in the suite's process: ``case_kinds`` and ``cases`` (what is asked), ``releases`` and ``install`` (who is asked), ``process``
  and ``answers`` (asking, once), ``changes`` and ``search`` (what differs, and since when), ``definitions`` (which twin agrees);
- **inside**, in the release's process: ``child``, ``openings`` and ``adapters``, which import numpy, torch and the release, and nothing of
  the suite.
"""
