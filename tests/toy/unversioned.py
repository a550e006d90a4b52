"""A database of the service as it was before there were migrations: the statements that it sent then, and what it must
still say after it was upgraded."""

import json
from typing import Any

from quickstudy.serving.engine.store import Example, Kept, Key, Store

_TABLES = """
CREATE TABLE keys (
	digest VARCHAR(64) NOT NULL,
	tenant TEXT NOT NULL,
	created VARCHAR(25) NOT NULL,
	PRIMARY KEY (digest)
);
CREATE TABLE tasks (
	id VARCHAR(32) NOT NULL,
	tenant TEXT NOT NULL,
	name TEXT NOT NULL,
	modality VARCHAR(8) NOT NULL,
	revision INTEGER NOT NULL,
	last INTEGER NOT NULL,
	created VARCHAR(25) NOT NULL,
	PRIMARY KEY (id)
);
CREATE INDEX tasks_of_tenant ON tasks (tenant, id);
CREATE TABLE examples (
	task VARCHAR(32) NOT NULL,
	number INTEGER NOT NULL,
	label TEXT NOT NULL,
	content BLOB NOT NULL,
	PRIMARY KEY (task, number),
	FOREIGN KEY(task) REFERENCES tasks (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE TABLE vectors (
	task VARCHAR(32) NOT NULL,
	number INTEGER NOT NULL,
	model VARCHAR(16) NOT NULL,
	packed BLOB NOT NULL,
	PRIMARY KEY (task, number, model),
	FOREIGN KEY(task, number) REFERENCES examples (task, number) ON DELETE CASCADE
)
 WITHOUT ROWID;
"""
"""for SQLite; for PostgreSQL SQLAlchemy wrote BYTEA, and left out what is SQLite's alone"""

_PICTURES = [
    bytes.fromhex(
        f"89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a2000000{data}0000000049454e44ae426082"
    )
    for data in (
        "154944415478da63fcafc9c0c0a8c1c0c0c0c40023001854015757200277",
        "184944415478da634c616060606298cdc0c0086131303000001329016a91eaa5d5",
        "184944415478da635cc0c0c0c0c40021e21998181816320000101f01a8ed064dd2",
        "124944415478da63bcc3c0c0c0c4804c28030010db01071175e361",
    )
]
"""PNG files of 4 × 4 pixels, dark to light"""

_ROWS = {
    "INSERT INTO keys (digest, tenant, created) VALUES (?, ?, ?)": [
        ("1b45b725810b14f2513e8f2389d8372419741fc0cabf76b5a93cfc3c5bd4069d", "ann", "2026-03-01T09:00:00+00:00"),
        ("3900f6497283dabb769ecaca7a7a6fd93aa552edec148ad6778431dcf6db4245", "bob", "2026-03-02T10:30:00+00:00"),
    ],
    "INSERT INTO tasks (id, tenant, name, modality, revision, last, created) VALUES (?, ?, ?, ?, ?, ?, ?)": [
        ("0195500000001111111111111111aaaa", "ann", "tickets", "text", 4, 6, "2026-03-01T09:05:00+00:00"),
        ("0195500000002222222222222222bbbb", "ann", "shades", "image", 1, 4, "2026-03-01T09:06:00+00:00"),
        ("0195500000003333333333333333cccc", "bob", "sayings", "text", 2, 9, "2026-03-02T11:00:00+00:00"),
        ("0195500000004444444444444444dddd", "bob", "emptied", "text", 3, 2, "2026-03-02T12:00:00+00:00"),
    ],
    "INSERT INTO examples (task, number, label, content) VALUES (?, ?, ?, ?)": [
        ("0195500000001111111111111111aaaa", 1, "billing", b"My card was charged twice."),
        ("0195500000001111111111111111aaaa", 2, "billing", b"Please send me the invoice again."),
        ("0195500000001111111111111111aaaa", 4, "delivery", b"The parcel has not arrived."),
        ("0195500000001111111111111111aaaa", 6, "delivery", "Où est ma commande ?".encode()),
        ("0195500000002222222222222222bbbb", 1, "dark", _PICTURES[0]),
        ("0195500000002222222222222222bbbb", 2, "dark", _PICTURES[1]),
        ("0195500000002222222222222222bbbb", 3, "light", _PICTURES[2]),
        ("0195500000002222222222222222bbbb", 4, "light", _PICTURES[3]),
        ("0195500000003333333333333333cccc", 1, 'he said "no"', b"one"),
        ("0195500000003333333333333333cccc", 2, "back\\slash \\n", b"two"),
        ("0195500000003333333333333333cccc", 3, "null", b"three"),
        ("0195500000003333333333333333cccc", 4, "12", b"four"),
        ("0195500000003333333333333333cccc", 5, '["a", "b"]', b"five"),
        ("0195500000003333333333333333cccc", 6, "ünïcode 🚀\u2028", b"six"),
        ("0195500000003333333333333333cccc", 7, "a\tline\nand\x01\x1f\x7f/", b"seven"),
        ("0195500000003333333333333333cccc", 8, "12", b""),
        ("0195500000003333333333333333cccc", 9, "%s ? :name", b"\x00nine\x00"),
    ],
    "INSERT INTO vectors (task, number, model, packed) VALUES (?, ?, ?, ?)": [
        ("0195500000001111111111111111aaaa", 1, "0123456789abcdef", b"\x00\x01\xff"),
        ("0195500000001111111111111111aaaa", 4, "0123456789abcdef", b"\x02"),
        ("0195500000001111111111111111aaaa", 4, "fedcba9876543210", b"\x03"),
    ],
}

OPEN = "from quickstudy.serving.engine.store import Store; import sys; Store(sys.argv[1])"
KILLED = """
import os, signal, sqlalchemy

@sqlalchemy.event.listens_for(sqlalchemy.Engine, "after_cursor_execute")
def kill(connection, cursor, statement, *_):
    if statement.startswith("UPDATE examples"):
        os.kill(os.getpid(), signal.SIGKILL)
"""
"""Before an opening: every example has been rewritten, and nothing committed."""

KEY = "qs_the-key-of-ann"
MODEL = "0123456789abcdef" + "0" * 48
TICKETS, SHADES, SAYINGS, EMPTIED = (row[0] for row in list(_ROWS.values())[1])

_SAYINGS = {
    "%s ? :name": 1,
    "12": 2,
    '["a", "b"]': 1,
    "a\tline\nand\x01\x1f\x7f/": 1,
    "back\\slash \\n": 1,
    'he said "no"': 1,
    "null": 1,
    "ünïcode 🚀\u2028": 1,
}
_KEPT = {
    "ann": [
        Kept(TICKETS, "tickets", "classify", "text", 4, "2026-03-01T09:05:00+00:00", {"billing": 2, "delivery": 2}, 4),
        Kept(SHADES, "shades", "classify", "image", 1, "2026-03-01T09:06:00+00:00", {"dark": 2, "light": 2}, 4),
    ],
    "bob": [
        Kept(SAYINGS, "sayings", "classify", "text", 2, "2026-03-02T11:00:00+00:00", _SAYINGS, 9),
        Kept(EMPTIED, "emptied", "classify", "text", 3, "2026-03-02T12:00:00+00:00", {}, 0),
    ],
}


def fill(connection: Any, *, postgresql: bool = False) -> None:
    """Make the tables and rows through a driver's connection, and leave the rest to who commits."""
    tables = _TABLES.replace("BLOB", "BYTEA").replace("WITHOUT ROWID", "") if postgresql else _TABLES
    cursor = connection.cursor()
    for statement in tables.split(";"):
        cursor.execute(statement)
    for statement, rows in _ROWS.items():
        cursor.executemany(statement.replace("?", "%s") if postgresql else statement, rows)


def check(store: Store) -> None:
    """All that was in the database before is in it, and nothing else."""
    assert store.all_keys() == [
        Key("1b45b725810b", "ann", "2026-03-01T09:00:00+00:00"),
        Key("3900f6497283", "bob", "2026-03-02T10:30:00+00:00"),
    ]
    assert store.tenant_of(KEY) == "ann" and store.tenant_of("qs_the-key-of-bob") == "bob"
    for tenant, kept in _KEPT.items():
        assert store.tasks(tenant, 100, None) == kept
        assert [store.task(tenant, one.id) for one in kept] == kept
        assert store.revisions([one.id for one in kept]) == {
            one.id: (tenant, one.revision, "classify", one.modality) for one in kept
        }
    packed = {TICKETS: {1: b"\x00\x01\xff", 4: b"\x02"}}
    for one in _KEPT["ann"] + _KEPT["bob"]:
        contents = store.contents(one.id, MODEL)
        assert contents is not None and contents.packed == packed.get(one.id, {})
        assert (contents.kind, contents.modality, contents.revision) == ("classify", one.modality, one.revision)
        examples = list(_ROWS.values())[2]
        assert contents.examples == tuple(Example(*row[1:]) for row in examples if row[0] == one.id)
    assert store.unseen(MODEL, "classify", "", 10) == [TICKETS, SHADES, SAYINGS]


def check_that_it_grows(store: Store, targets_of: Any) -> None:
    """A task goes on as if it had been made today: numbers follow, and the same targets are the same text.

    Args:
        targets_of: the targets of a task's examples as the database holds them.
    """
    labels = [row[2] for row in list(_ROWS.values())[2] if row[0] == SAYINGS]
    texts = [label.encode() for label in labels]
    done = store.add("bob", SAYINGS, labels, texts, [b""] * len(labels), MODEL, lambda kept: None)
    assert done is not None and done[1] == list(range(10, 19)) and done[0].revision == 3
    assert done[0].classes["12"] == 4 and done[0].examples == 18
    held = targets_of(SAYINGS)
    assert held[:9] == held[9:] and [json.loads(one) for one in held[:9]] == labels
    removed = store.remove("bob", SAYINGS, 5)
    assert removed is not None and removed.revision == 4 and removed.classes['["a", "b"]'] == 1
    assert store.delete("bob", SAYINGS) and targets_of(SAYINGS) == []
