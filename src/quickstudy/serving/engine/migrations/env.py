"""What Alembic runs for each of its commands: the migrations, on the connection and in the transaction of
`quickstudy.serving.engine.schema.upgrade`."""

from alembic import context

from quickstudy.serving.engine import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=schema.VERSION_TABLE,
)
context.run_migrations()
