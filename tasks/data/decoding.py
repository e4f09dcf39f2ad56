"""Decodes bytes to text; an error names the line that is not in the encoding, and the encoding that the bytes look like."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Protocol

from tasks.errors import InputError


class HowDecoded(Protocol):
    """The encoding, and whether bytes that are not valid in it are refused (`error`) or become U+FFFD (`replace`)."""

    @property
    def encoding(self) -> str: ...

    @property
    def bad_bytes(self) -> str: ...


def decoded(data: bytes, path: Path, how: HowDecoded) -> str:
    """Return the text of `data` without a byte order mark.

    Raises InputError naming the line of a byte that is not valid in the encoding, or of a NUL.
    """
    try:
        text = data.decode(how.encoding, "replace" if how.bad_bytes == "replace" else "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x}" if error.start < len(data) else "the end of the file"
        raise InputError(
            f"{path}: line {line}",
            f"{byte} is not {how.encoding}; {_other_encoding(data, how)}, bad_bytes: replace puts U+FFFD in its place",
        ) from error
    except (UnicodeError, ValueError) as error:  # a few codecs raise errors without a position
        raise InputError(path, f"is not {how.encoding}: {error}") from error
    text = text.removeprefix("\ufeff")
    if how.bad_bytes == "error" and "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        looks = _looks_like_utf16(data)
        raise InputError(f"{path}: line {line}", f"a NUL character, which no text has{'; ' if looks else ''}{looks}")
    return text


def _other_encoding(data: bytes, how: HowDecoded) -> str:
    is_utf16 = codecs.lookup(how.encoding).name.startswith("utf-16")
    return (not is_utf16 and _looks_like_utf16(data)) or "encoding: names another"


def _looks_like_utf16(data: bytes) -> str:
    """Return the option to set if the bytes look like UTF-16, which begins with a mark or has a NUL in every other byte; else ""."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the file begins like UTF-16: encoding: utf-16 reads that"
    start = data[:1000]
    for zeros, name in ((start[1::2], "utf-16-le"), (start[::2], "utf-16-be")):
        if zeros and zeros.count(0) > len(zeros) // 2:
            return f"the file looks like UTF-16: encoding: {name} reads that"
    return ""
