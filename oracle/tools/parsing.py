"""Reads text, JSON and YAML of users; an error names the file, the place in it and the remedy."""

from __future__ import annotations

import codecs
import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
import yaml  # type: ignore[import-untyped]  # its stubs would be one more dependency

T = TypeVar("T")

_NO_REMEDIES: Mapping[str, str] = {}
_NO_FIELDS: Mapping[str, tuple[Any, Any]] = {}
_PLACE = re.compile(r"(?P<what>.*) - at `\$\.?(?P<place>.*)`", re.DOTALL)
_BYTE = re.compile(r"\(byte (\d+)\)")
# UTF-32 first: its byte-order mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_text(path: Path) -> str:
    """Returns the text of a UTF-8 file, with or without byte-order mark.

    Raises:
        ValueError: the file cannot be opened, has another encoding, or is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give a file with read permission") from error
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            raise ValueError(f"{path} is {encoding} text; save it as UTF-8")
    if (zero := content.find(0)) >= 0:
        raise ValueError(
            f"{path}, line {_line(content, zero)}: a zero byte: this is no text, or UTF-16 without a byte-order mark; save it as UTF-8 text"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
        raise ValueError(f"{path}, line {_line(content, at)}: byte 0x{content[at]:02x} is not UTF-8; save the file as UTF-8") from error


def _line(content: bytes, at: int) -> int:
    return content.count(b"\n", 0, at) + 1


def parse_json(text: str, kind: type[T], name: object = "", remedies: Mapping[str, str] = _NO_REMEDIES) -> T:
    """Parses JSON text as a value of a type.

    Args:
        text: JSON by RFC 8259, without ``NaN`` and ``Infinity``.
        kind: a type that :mod:`msgspec` supports, such as a :class:`msgspec.Struct`; unknown fields are ignored unless it forbids them.
        name: name of the text in errors, such as the path of its file.
        remedies: remedy for a wrong field, by the field's name.

    Raises:
        ValueError: the text is not JSON, or not of this type; the message gives the name, the line or the field, and the remedy.
    """
    return _decoded(text, "JSON", lambda: msgspec.json.decode(text, type=kind), f"{name}: " if name else "", remedies)


def parse_yaml(text: str, kind: type[T], name: object = "", remedies: Mapping[str, str] = _NO_REMEDIES) -> T:
    """Parses YAML text as a value of a type; arguments and errors as for :func:`parse_json`."""
    # Not msgspec.yaml, which uses libyaml if it is installed: libyaml overflows the stack on deep nesting and crashes the process.
    return _decoded(text, "YAML", lambda: msgspec.convert(yaml.safe_load(text), kind), f"{name}: " if name else "", remedies)


def _decoded(text: str, language: str, decode: Callable[[], T], before: str, remedies: Mapping[str, str]) -> T:
    try:
        return decode()
    except RecursionError as error:
        raise ValueError(f"{before}nested too deeply; this is not the {language} that is expected here") from error
    except msgspec.ValidationError as error:
        raise ValueError(before + _validation_message(str(error), remedies)) from error
    except (ValueError, yaml.YAMLError) as error:  # msgspec's own, and Unicode's, are ValueErrors
        message = " ".join(str(error).split())
        byte = _BYTE.search(message)
        where = f" (line {_line(text.encode('utf-8', 'replace'), int(byte[1]))})" if byte else ""
        raise ValueError(f"{before}not {language}{where}: {message}") from error


def _validation_message(message: str, remedies: Mapping[str, str]) -> str:
    """Returns msgspec's message with the place first and the remedy last."""
    found = _PLACE.fullmatch(message)
    what, place = (found["what"], found["place"]) if found else (message, "")
    names = re.findall(r"[A-Za-z_]\w*", place) + re.findall(r"field `(\w+)`", what)
    remedy = next((remedies[name] for name in reversed(names) if name in remedies), "")
    return (f"{place}: " if place else "") + what[:1].lower() + what[1:] + (f"; {remedy}" if remedy else "")


def strict_type(kind: type, *, further: Mapping[str, tuple[Any, Any]] = _NO_FIELDS, **types: Any) -> type[msgspec.Struct]:
    """Returns a type for :func:`parse_json` with the fields of a dataclass, which refuses all other fields.

    Args:
        kind: a dataclass.
        further: fields that the JSON has besides, each with its type and default, by name.
        types: types of fields whose JSON form differs from the dataclass's, by name.
    """
    hints = get_type_hints(kind) | types
    fields: list[tuple[str, Any, Any]] = [(name, *rest) for name, rest in further.items()]
    for field in dataclasses.fields(kind):
        default: Any = msgspec.NODEFAULT if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = msgspec.field(default_factory=field.default_factory)
        fields.append((field.name, hints[field.name], default))
    return msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True, kw_only=True)
