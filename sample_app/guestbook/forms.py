"""The forms. Each has a token against forgery (CSRF), and says what is wrong beside the field."""

import unicodedata

from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired
from wtforms import Field, Form, HiddenField, PasswordField, StringField, SubmitField, TextAreaField
from wtforms.validators import DataRequired, Length, Regexp, ValidationError

from . import passwords
from .models import AUTHOR_LENGTH, MESSAGE_LENGTH
from .sessions import current_account


def clean(value: str | None) -> str | None:
    """Strip the ends, and count a line break as one character, as browsers do for maxlength."""
    return value.strip().replace("\r\n", "\n") if value else value


def is_printable(text: str, allowed: str = "") -> bool:
    """Return whether a text has no control characters but `allowed` ones. PostgreSQL cannot store a NUL."""
    return not any(unicodedata.category(char) in ("Cc", "Cs") and char not in allowed for char in text)


class Printable:
    """Refuses control characters."""

    def __init__(self, allowed: str = "") -> None:
        self.allowed = allowed

    def __call__(self, form: Form, field: Field) -> None:
        if not is_printable(field.data or "", self.allowed):
            raise ValidationError("Please use letters, digits and punctuation only.")


class MessageForm(FlaskForm):
    """The entry of a member."""

    message = TextAreaField(
        "Your message",
        filters=[clean],
        validators=[
            DataRequired("Please write a message."),
            Length(max=MESSAGE_LENGTH, message="Please use at most %(max)d characters."),
            Printable(allowed="\n\t"),
        ],
    )
    submit = SubmitField("Sign the guestbook")


class EntryForm(MessageForm):
    """The entry of a guest."""

    author = StringField(
        "Your name",
        filters=[clean],
        validators=[
            DataRequired("Please tell us your name."),
            Length(max=AUTHOR_LENGTH, message="Please use at most %(max)d characters."),
            Printable(),
        ],
    )


class NewPassword:
    """Refuses a password that breaks the rules, and names all of them."""

    def __call__(self, form: Form, field: Field) -> None:
        account = current_account()
        name = account.name if account else form.name.data or ""
        if broken := passwords.broken_rules(field.data or "", name):
            raise ValidationError(f"Your password needs: {'; '.join(broken)}.")


class SignupForm(FlaskForm):
    """A new account."""

    name = StringField(
        "Name",
        filters=[clean],
        validators=[Regexp(r"^[A-Za-z0-9_-]{3,30}\Z", message="Please use 3 to 30 letters, digits, - and _.")],
    )
    password = PasswordField(
        "Password", validators=[DataRequired("Please choose a password."), Length(max=128), NewPassword()]
    )
    submit = SubmitField("Sign up")


class LoginForm(FlaskForm):
    """A login. The limits keep long texts from the hash."""

    name = StringField("Name", filters=[clean], validators=[DataRequired("Please enter your name."), Length(max=80)])
    password = PasswordField("Password", validators=[DataRequired("Please enter your password."), Length(max=128)])
    next = HiddenField()
    submit = SubmitField("Log in")


class PasswordForm(FlaskForm):
    """A changed password."""

    current = PasswordField(
        "Current password", validators=[DataRequired("Please enter your password."), Length(max=128)]
    )
    password = PasswordField(
        "New password", validators=[DataRequired("Please choose a password."), Length(max=128), NewPassword()]
    )
    submit = SubmitField("Change the password")


class TokenForm(FlaskForm):
    """A new API token."""

    name = StringField(
        "Name of the token",
        filters=[clean],
        validators=[DataRequired("Please name the token."), Length(max=40), Printable()],
    )
    submit = SubmitField("Create a token")


class AvatarForm(FlaskForm):
    """A picture; avatars.py looks at its content."""

    image = FileField("Your picture", validators=[FileRequired("Please choose a file.")])
    submit = SubmitField("Upload")


class ActionForm(FlaskForm):
    """A button: nothing but the token."""
