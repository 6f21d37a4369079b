"""Text, JSON and YAML from elsewhere: what cannot be read is an error that names the file, the place in it and a remedy."""

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
_PLACE = re.compile(r"(?P<what>.*) - at `\$\.?(?P<place>.*)`", re.DOTALL)
_BYTE = re.compile(r"\(byte (\d+)\)")
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def text_of(path: Path) -> str:
    """The text in a file of UTF-8, with or without its mark.

    Raises:
        ValueError: the file cannot be opened, is in another encoding, or is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); see that it is a file that you may read") from error
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            raise ValueError(f"{path} is {encoding} text; save it as UTF-8")
    if (zero := content.find(0)) >= 0:
        raise ValueError(
            f"{path}, line {_line(content, zero)}: a zero byte; it is no text, or UTF-16 without its mark: save it as UTF-8 text"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
        raise ValueError(f"{path}, line {_line(content, at)}: byte 0x{content[at]:02x} is not UTF-8; save the file as UTF-8") from error


def _line(content: bytes, at: int) -> int:
    return content.count(b"\n", 0, at) + 1


def json_of(text: str, kind: type[T], name: object = "", remedies: Mapping[str, str] = _NO_REMEDIES) -> T:
    """The JSON text as a value of this type, which :mod:`msgspec` describes.

    Args:
        text: JSON as RFC 8259 has it, so without ``NaN`` and ``Infinity``.
        kind: a type, such as a :class:`msgspec.Struct`; fields that it does not have are passed over unless it forbids them.
        name: of the text, for errors, such as its file's path.
        remedies: what to say of a field that is not as it should be, by the field's name.

    Raises:
        ValueError: the text is not JSON, or not of this type; the message gives the name, the line or the field, and the remedy.
    """
    return _decoded(text, "JSON", lambda: msgspec.json.decode(text, type=kind), f"{name}: " if name else "", remedies)


def yaml_of(text: str, kind: type[T], name: object = "", remedies: Mapping[str, str] = _NO_REMEDIES) -> T:
    """The YAML text as a value of this type; arguments and errors as with :func:`json_of`."""
    # Not msgspec.yaml, which reads with libyaml where it can: that overruns its stack on deep nesting, and takes the process along.
    return _decoded(text, "YAML", lambda: msgspec.convert(yaml.safe_load(text), kind), f"{name}: " if name else "", remedies)


def _decoded(text: str, language: str, decode: Callable[[], T], before: str, remedies: Mapping[str, str]) -> T:
    try:
        return decode()
    except RecursionError as error:
        raise ValueError(f"{before}nested too deeply to be {language} that means anything here") from error
    except msgspec.ValidationError as error:
        raise ValueError(before + _misfit(str(error), remedies)) from error
    except (ValueError, yaml.YAMLError) as error:  # msgspec's own, and Unicode's, are ValueErrors
        said = " ".join(str(error).split())
        byte = _BYTE.search(said)
        where = f" (line {_line(text.encode('utf-8', 'replace'), int(byte[1]))})" if byte else ""
        raise ValueError(f"{before}not {language}{where}: {said}") from error


def _misfit(said: str, remedies: Mapping[str, str]) -> str:
    """What msgspec says of a value, its place first, and what helps."""
    found = _PLACE.fullmatch(said)
    what, place = (found["what"], found["place"]) if found else (said, "")
    names = re.findall(r"[A-Za-z_]\w*", place) + re.findall(r"field `(\w+)`", what)
    remedy = next((remedies[name] for name in reversed(names) if name in remedies), "")
    return (f"{place}: " if place else "") + what[:1].lower() + what[1:] + (f"; {remedy}" if remedy else "")


def strict(kind: type, **types: Any) -> type[msgspec.Struct]:
    """The record's fields as a type for :func:`json_of` that refuses every field which the dataclass lacks.

    Args:
        kind: a dataclass.
        types: types of fields that JSON writes in another way than the dataclass holds them.
    """
    hints = get_type_hints(kind) | types
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(kind):
        default: Any = msgspec.NODEFAULT if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = msgspec.field(default_factory=field.default_factory)
        fields.append((field.name, hints[field.name], default))
    return msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True, kw_only=True)
