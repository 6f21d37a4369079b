"""Reads rows, with errors that name file, column and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

Type = Literal["text", "number", "count"]


class RowsError(ValueError):
    """A file of rows does not have its schema; the message names the file, the fault and the remedy."""


@dataclass(frozen=True)
class Schema:
    """The columns of a kind of rows.

    Attributes:
        required: name and type of the columns that a file must have; other columns are ignored.
        optional: columns that may be missing; they are read as missing values.
        choices: permitted values of columns.
        defaults: values of optional columns where a row, such as one of an older file, has none.
        written_by: the command that writes such rows, for error messages.
    """

    required: Mapping[str, Type]
    written_by: str
    optional: Mapping[str, Type] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)


def read(path: Path, schema: Schema) -> pd.DataFrame:
    """Returns the rows of a parquet file, with the columns of ``schema`` only and in its order.

    Raises:
        RowsError: the file is missing, is no parquet file, holds no rows, lacks a column, or has a value of another type.
    """
    if not path.exists():
        raise RowsError(f"there are no rows at {path}; write them with `{schema.written_by}`, or name another file with --rows")
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these
        raise RowsError(f"{path} is not a readable parquet file ({error}); write it anew with `{schema.written_by}`") from error
    return validated(rows, schema, path)


def validated(rows: pd.DataFrame, schema: Schema, path: Path) -> pd.DataFrame:
    """Returns the schema's columns of ``rows``; errors name ``path``.

    Raises:
        RowsError: there are no rows, a column is missing, or a value has another type or is not among the choices.
    """
    missing = [name for name in schema.required if name not in rows]
    if missing:
        raise RowsError(f"{path} lacks the columns: {', '.join(missing)}; write it anew with `{schema.written_by}`")
    if rows.empty:
        raise RowsError(f"{path} has columns, but no row; `{schema.written_by}` recorded nothing, see what it printed")
    columns = {name: _column(rows, name, kind, path) for name, kind in {**schema.required, **schema.optional}.items()}
    columns |= {name: columns[name].fillna(value) for name, value in schema.defaults.items()}
    for name, allowed in schema.choices.items():
        strange = columns[name][~columns[name].isin(allowed)]
        if len(strange):
            raise RowsError(f"{path}, row {strange.index[0]}: {name} is '{strange.iloc[0]}'; it must be one of {', '.join(allowed)}")
    return pd.DataFrame(columns)


def _column(rows: pd.DataFrame, name: str, kind: Type, path: Path) -> pd.Series:
    if name not in rows:
        return pd.Series(pd.NA, index=rows.index, dtype="string") if kind == "text" else pd.Series(float("nan"), index=rows.index)
    column = rows[name]
    if kind == "text":
        return column.astype("string")
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    wrong = column[numbers.isna() & column.notna() & (column.astype("string").str.lower() != "nan")]
    if kind == "count":
        wrong = pd.concat([wrong, column[(numbers < 0) | (numbers % 1 != 0) & numbers.notna()]])
    if len(wrong):
        wanted = "a count" if kind == "count" else "a number"
        raise RowsError(f"{path}, row {wrong.index[0]}: {name} is '{wrong.iloc[0]}'; it must be {wanted}")
    return numbers
