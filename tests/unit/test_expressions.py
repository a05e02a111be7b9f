"""What is said of a regular expression that RE2 does not take: the piece, and what RE2 has not."""

from __future__ import annotations

import re

import pytest

from gateway.routing.regex import full_match


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/a(b", "missing ')'"),
        ("/a)b", "unexpected ')'"),
        ("[a", "missing ']'"),
        ("/(?!x)y", "invalid perl operator (?!; RE2 has no look-ahead or look-behind"),
        ("(?<=x)a", "invalid perl operator (?<=; RE2 has no look-ahead or look-behind"),
        ("(?>a)", "invalid perl operator (?>; RE2 has no atomic groups or possessive quantifiers"),
        ("a++", "bad repetition operator ++; RE2 has no atomic groups or possessive quantifiers"),
        (r"(a)\1", r"invalid escape sequence \1; RE2 has no back-references"),
        ("*.html", "no argument for repetition operator *"),
        ("[z-a]", "invalid character class range z-a"),
        ("a{2000}", "invalid repetition size {2000}"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        full_match(text)
