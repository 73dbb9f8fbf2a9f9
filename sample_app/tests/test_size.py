"""The app stays small enough to be read in an evening."""

import io
import token
import tokenize
from pathlib import Path

HERE = Path(__file__).parent.parent
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip


def lines_of_code(text: str) -> int:
    """Count lines without blank ones, comments and docstrings."""
    lines: set[int] = set()
    before = tokenize.NEWLINE
    for one in tokenize.generate_tokens(io.StringIO(text).readline):
        is_docstring = one.type == token.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if one.type not in NO_CODE and not is_docstring:
            lines.update(range(one.start[0], one.end[0] + 1))
        if one.type not in (tokenize.NL, tokenize.COMMENT):
            before = one.type
    return len(lines)


def test_app_has_at_most_1500_lines_of_code():
    files = [*HERE.glob("guestbook/**/*.py"), *HERE.glob("migrations/**/*.py")]
    assert 1000 < sum(lines_of_code(file.read_text()) for file in files) <= 1500
    assert all(lines_of_code(file.read_text()) <= 150 for file in files)
