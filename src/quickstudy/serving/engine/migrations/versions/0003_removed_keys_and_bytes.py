"""A removed key leaves its row, so that a service that had keys stays closed; what a task and a tenant take is known.

Bytes are counted as `quickstudy.serving.engine.store` counts those of new examples.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BYTES = {"sqlite": "length(CAST(target AS BLOB))", "postgresql": "octet_length(target)"}


def upgrade() -> None:
    op.add_column("keys", sa.Column("removed", sa.String(25)))
    op.add_column("tasks", sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "usage",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    one = f"length(content) + {BYTES[op.get_context().dialect.name]} + 500"
    op.execute(f"UPDATE tasks SET bytes = (SELECT coalesce(sum({one}), 0) FROM examples WHERE task = tasks.id)")
    op.execute("INSERT INTO usage (tenant, bytes) SELECT tenant, sum(bytes) FROM tasks GROUP BY tenant")
