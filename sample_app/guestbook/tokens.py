"""API tokens: shown once, stored as a digest, revocable."""

import secrets

from flask import Blueprint, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select

from . import accounts
from .forms import PasswordForm, TokenForm
from .limits import WRITES, limiter
from .models import ApiToken, db
from .sessions import TOKEN_PREFIX, current_account, login_required, token_digest

blueprint = Blueprint("tokens", __name__)
MOST = 20


@blueprint.post("/account/tokens")
@limiter.limit(WRITES)
@login_required
def create() -> ResponseReturnValue:
    form, account = TokenForm(), current_account()
    if db.session.query(ApiToken).filter_by(account_id=account.id).count() >= MOST:
        form.name.errors = [f"You have {MOST} tokens. Please revoke one first."]
    elif form.validate():
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        db.session.add(ApiToken(account_id=account.id, name=form.name.data, digest=token_digest(token)))
        db.session.commit()
        # Not after a redirect: the token would have to be stored until then.
        return accounts.page(PasswordForm(), token=token), 201
    return accounts.page(PasswordForm(), token_form=form), 422


@blueprint.post("/account/tokens/<int:number>/revoke")
@login_required
def revoke(number: int) -> ResponseReturnValue:
    token = db.first_or_404(select(ApiToken).filter_by(id=number, account_id=current_account().id))
    db.session.delete(token)
    db.session.commit()
    flash("The token is revoked.", "success")
    return redirect(url_for("accounts.show"), 303)
