"""Reports from the rows that runs write. This package imports neither torch nor another room of the project.

``python -m reports`` rebuilds every report whose rows lie under ``reports/out``. A kind of report is one record, of type
:class:`reports.document.Kind`: the columns of its rows, and a function that makes a :class:`reports.document.Report` of them. The
report is rendered as ``summary.md``, as a self-contained ``index.html``, and on the console.
"""
