"""The release ladder: the same questions put to many releases of the reference, and the changes between their answers.

Each release runs in a process of its own. An example: does 8.3.253 give another loss than 8.3.252?

1. In the suite's process, ``catalogue`` makes :class:`~oracle.ladder.questions.Question` records, such as ``typical/0/loss/float32``: the
   entry point ``loss`` with the arrays of one batch. Those of other tasks than detection come from ``task_catalogue``, and ``tasks`` says
   how a definition reaches a release.
2. ``AnswerCache("8.3.253")`` reads earlier answers from the cache. For the missing ones, ``install`` puts the release into a folder, and
   :class:`~oracle.ladder.release_process.Release` asks the fork server (``inside.fork_server``, which has imported torch and no release)
   for a new process.
3. That process (``inside.serve``) imports the release, finds its API with ``inside.eras``, and sends a greeting: version and era.
4. ``Release.ask`` sends the question as a :class:`~oracle.ladder.inside.messages.Message`; ``inside.entry_points`` calls the release's loss
   and sends back its sum, items and gradients. An exception, a death or a time-out of the process is an answer too.
5. ``changes`` compares the answers of both releases and gives a verdict, such as ``rounding`` or ``changed``; ``search`` halves the steps
   between releases that differ; ``definitions`` compares each release with the twin of its definition; ``rows`` collects it all.

Modules in ``inside`` run in the release's process, and import numpy, torch and the release only.
"""
