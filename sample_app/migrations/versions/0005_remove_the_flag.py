"""Remove the flag of moderators, which the role has replaced

Contract: no release that runs, or that somebody rolls back to, reads the flag any more. In an app with a history, this
migration comes with a later release than 0004.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-27 09:45:00
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("account") as batch:
        batch.drop_column("is_moderator")


def downgrade() -> None:
    with op.batch_alter_table("account") as batch:
        batch.add_column(sa.Column("is_moderator", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute("UPDATE account SET is_moderator = (role = 'moderator')")
