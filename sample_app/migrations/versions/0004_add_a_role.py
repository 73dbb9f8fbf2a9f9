"""Add a role, which replaces the flag of moderators

Expand: the new column has a default, so that a release that does not know it can still insert rows. A release that
reads the role and no longer the flag follows; only then may 0005 remove the flag.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-27 09:40:00
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("account") as batch:
        batch.add_column(sa.Column("role", sa.String(length=20), server_default="member", nullable=False))
        batch.create_check_constraint("role", "role IN ('member', 'moderator')")
    op.execute("UPDATE account SET role = 'moderator' WHERE is_moderator")


def downgrade() -> None:
    with op.batch_alter_table("account") as batch:
        batch.drop_constraint(op.f("ck_account_role"), type_="check")
        batch.drop_column("role")
