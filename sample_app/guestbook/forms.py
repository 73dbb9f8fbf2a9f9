"""The form that visitors fill in."""

import unicodedata

from flask_wtf import FlaskForm
from wtforms import Field, Form, StringField, SubmitField, TextAreaField
from wtforms.validators import DataRequired, Length, ValidationError

from .models import AUTHOR_LENGTH, MESSAGE_LENGTH


def _clean(value: str | None) -> str | None:
    """Strip the ends, and count a line break as one character, as browsers do for maxlength."""
    return value.strip().replace("\r\n", "\n") if value else value


class Printable:
    """Refuses control characters but those in `allowed`; PostgreSQL cannot store a NUL, for one."""

    def __init__(self, allowed: str = "") -> None:
        self.allowed = allowed

    def __call__(self, form: Form, field: Field) -> None:
        text = field.data or ""
        if any(unicodedata.category(char) == "Cc" and char not in self.allowed for char in text):
            raise ValidationError("Please use letters, digits and punctuation only.")


class EntryForm(FlaskForm):
    """A new entry."""

    author = StringField(
        "Your name",
        filters=[_clean],
        validators=[
            DataRequired("Please tell us your name."),
            Length(max=AUTHOR_LENGTH, message="Please use at most %(max)d characters."),
            Printable(),
        ],
    )
    message = TextAreaField(
        "Your message",
        filters=[_clean],
        validators=[
            DataRequired("Please write a message."),
            Length(max=MESSAGE_LENGTH, message="Please use at most %(max)d characters."),
            Printable(allowed="\n\t"),
        ],
    )
    submit = SubmitField("Sign the guestbook")
