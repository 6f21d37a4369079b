"""From rows to reports: reads what runs wrote, and never needs torch or another room of the project.

``python -m reports`` rebuilds every report whose rows lie under ``reports/out``. A kind of report is one record, of type
:class:`reports.document.Kind`: the columns that its rows have, and a function that makes a :class:`reports.document.Report` of them. That
record is rendered three times: as ``summary.md``, as a self-contained ``index.html`` and on the console.
"""
