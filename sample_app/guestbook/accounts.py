"""Sign up, log in, log out, and the account's own page."""

from math import ceil

import click
from flask import Blueprint, Response, current_app, flash, make_response, redirect, render_template, request, url_for
from flask.cli import with_appcontext
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from . import lockout, passwords
from .forms import ActionForm, AvatarForm, LoginForm, PasswordForm, SignupForm, TokenForm
from .limits import LOGINS, SIGNUPS, WRITES, address, limiter
from .models import MODERATOR, Account, ApiToken, Export, db
from .sessions import current_account, local_target, log_in, log_out, login_required

blueprint = Blueprint("accounts", __name__)


def find(name: str) -> Account | None:
    return db.session.scalar(select(Account).where(Account.name == name.strip().lower()))


@blueprint.route("/signup", methods=["GET", "POST"])
@limiter.limit(SIGNUPS, key_func=address, methods=["POST"])
def signup() -> ResponseReturnValue:
    form = SignupForm()
    if not form.validate_on_submit():
        return render_template("signup.html", form=form), 422 if form.is_submitted() else 200
    account = Account(name=form.name.data.lower(), password_hash=passwords.hash_password(form.password.data))
    db.session.add(account)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        form.name.errors = ["This name is taken."]
        return render_template("signup.html", form=form), 422
    response = _logged_in(account, url_for("entries.index"))
    flash("Welcome! You are logged in.", "success")
    return response


@blueprint.route("/login", methods=["GET", "POST"])
@limiter.limit(LOGINS, key_func=address, methods=["POST"])
def login() -> ResponseReturnValue:
    form = LoginForm(next=request.args.get("next"))
    if not form.validate_on_submit():
        return render_template("login.html", form=form), 422 if form.is_submitted() else 200
    account = find(form.name.data)
    problem, wait = check_password(form.name.data, account, form.password.data)
    if problem:
        form.password.errors = [problem]
        return failed(render_template("login.html", form=form), wait)
    return _logged_in(account, local_target(form.next.data))


@blueprint.post("/logout")
@login_required
def logout() -> ResponseReturnValue:
    log_out()
    return redirect(url_for("entries.index"), 303)


@blueprint.get("/account")
@login_required
def show() -> ResponseReturnValue:
    return page(PasswordForm())


@blueprint.post("/account/password")
@limiter.limit(WRITES)
@login_required
def change_password() -> ResponseReturnValue:
    account, form = current_account(), PasswordForm()
    if not form.validate():
        return page(form), 422
    problem, wait = check_password(account.name, account, form.current.data)
    if problem:
        form.current.errors = [problem]
        return failed(page(form), wait)
    account.password_hash = passwords.hash_password(form.password.data)
    return _end_sessions(account, "Your password is changed, and all other sessions have ended.")


@blueprint.post("/account/sessions")
@login_required
def end_sessions() -> ResponseReturnValue:
    return _end_sessions(current_account(), "All other sessions have ended.")


def page(
    password_form: PasswordForm,
    token_form: TokenForm | None = None,
    avatar_form: AvatarForm | None = None,
    token: str = "",
) -> str:
    """Render the account's page with the form on it that was refused, or with a new token."""
    own = {"account_id": current_account().id}
    return render_template(
        "account.html",
        password_form=password_form,
        token_form=token_form or TokenForm(None),
        avatar_form=avatar_form or AvatarForm(None),
        action=ActionForm(),
        token=token,
        tokens=db.session.scalars(select(ApiToken).filter_by(**own).order_by(ApiToken.id)).all(),
        exports=db.session.scalars(select(Export).filter_by(**own).order_by(Export.id.desc()).limit(5)).all(),
    )


def check_password(name: str, account: Account | None, password: str) -> tuple[str, int]:
    """Check a password, and count the attempt; return what to tell if it failed, and the seconds to wait if locked."""
    key, wait = lockout.begin(name, account)
    if wait:
        return f"Too many attempts. Wait {ceil(wait / 60)} minutes, or use a device that you have logged in with.", wait
    if not passwords.matches(account.password_hash if account else None, password):
        return "The name or the password is wrong.", 0
    lockout.forget(key)
    if account and passwords.needs_rehash(account.password_hash):
        account.password_hash = passwords.hash_password(password)
        db.session.commit()
    return "", 0


def failed(body: str, wait: int) -> Response:
    """Report a failed login to nginx, which removes the header; fail2ban counts it for the visitor's address."""
    current_app.logger.warning("login refused" if wait else "login failed")
    response = make_response(body, 429 if wait else 422)
    response.headers["X-Flaskhost-Login"] = "failed"
    if wait:
        response.headers["Retry-After"] = str(wait)
    return response


def _logged_in(account: Account, target: str) -> Response:
    log_in(account)
    response = make_response(redirect(target, 303))
    lockout.remember_device(response, account)
    return response


def _end_sessions(account: Account, message: str) -> ResponseReturnValue:
    account.session_version += 1
    db.session.commit()
    # This one goes on, as a new one.
    log_in(account)
    flash(message, "success")
    return redirect(url_for("accounts.show"), 303)


@click.command("promote")
@click.argument("name")
@with_appcontext
def promote(name: str) -> None:
    """Make an account a moderator."""
    account = find(name)
    if not account:
        raise click.ClickException(f"there is no account {name}")
    account.role = MODERATOR
    db.session.commit()
    click.echo(f"{account.name} is a moderator")
