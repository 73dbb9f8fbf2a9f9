"""Roman numerals for the toolbox."""

from toolbox.tools import BadInput

NUMERALS = {
    "M": 1000, "CM": 900, "D": 500, "CD": 400, "C": 100, "XC": 90, "L": 50, "XL": 40, "X": 10, "IX": 9, "V": 5,
    "IV": 4, "I": 1,
}  # fmt: skip


def roman(text):
    """Roman numerals."""
    if not text.isdecimal():
        raise BadInput(text)
    number, result = int(text), ""
    for numeral, value in NUMERALS.items():
        result += numeral * (number // value)
        number %= value
    return result
