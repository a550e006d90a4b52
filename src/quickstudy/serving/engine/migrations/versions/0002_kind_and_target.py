"""A task has a kind, and an example a target, as JSON, instead of a label.

What is there classifies: the target of an example is its label as a JSON string.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

AS_JSON = {"sqlite": "json_quote(target)", "postgresql": "to_json(target)::text"}


def upgrade() -> None:
    # Nothing is dropped and made anew: on SQLite a task's examples would go with its table.
    op.add_column("tasks", sa.Column("kind", sa.Text, nullable=False, server_default="classify"))
    op.alter_column("examples", "label", new_column_name="target")
    op.execute(f"UPDATE examples SET target = {AS_JSON[op.get_context().dialect.name]}")
