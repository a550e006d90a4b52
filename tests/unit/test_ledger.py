"""ledger.py: the chain, what became of each move, and every way to tamper with it."""

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from quickstudy.registry import ledger
from quickstudy.registry.ledger import LedgerEntry, Move

WHEN = {"when": "2026-03-03T10:00:00+00:00", "who": "ada@lab"}


def chain(*moves: Move, evidence: Any = None) -> list[LedgerEntry]:
    """An intent and its end for each move."""
    lines: list[LedgerEntry] = []
    for move in moves:
        before = lines[-1].digest if lines else ledger.START
        intent = ledger.entry("intent", "promote", before=before, why="bésser", moves=[move], evidence=evidence, **WHEN)
        done = ledger.entry("done", "promote", before=intent.digest, of=intent.digest, **WHEN)
        lines += [intent, done]
    return lines


def stored(lines: list[LedgerEntry]) -> list[tuple[int, str]]:
    return [(number, line.line) for number, line in enumerate(lines, start=1)]


THREE = chain(Move("champion", None, 1), Move("champion", 1, 2), Move("champion", 2, 3), evidence={"gain": 0.1 + 0.2})


def test_a_ledger_reads_as_it_was_written() -> None:
    found = ledger.read(stored(THREE), end=THREE[-1].digest)
    assert list(found.entries.values()) == THREE and found.breaks == () and found.last == THREE[-1].digest
    assert found.states() == {1: "done", 3: "done", 5: "done"} and found.standing() == {"champion": 3}
    assert found.open is None
    assert ledger.read([]).last == ledger.START and ledger.read([]).standing() == {}


def test_who_was_champion_at_a_moment() -> None:
    def line(when: str, moves: list[Move], kind: str, before: str, of: str | None = None) -> LedgerEntry:
        return ledger.entry(kind, "promote", before=before, when=when, who="ada@lab", moves=moves, of=of)  # type: ignore[arg-type]

    lines: list[LedgerEntry] = []
    for day, moves, end in (
        ("03", [Move("champion", None, 1)], "done"),
        ("05", [Move("champion", 1, 2), Move("previous", None, 1)], "struck"),
        ("07", [Move("champion", 1, 3), Move("previous", None, 1)], "done"),
    ):
        when = f"2026-03-{day}T10:00:00+00:00"
        intent = line(when, moves, "intent", lines[-1].digest if lines else ledger.START)
        lines += [intent, line(when, [], end, intent.digest, intent.digest)]
    found = ledger.read(stored(lines))

    def version(alias: str, day: str, hour: str = "10") -> int | None:
        entry = found.at(alias, f"2026-03-{day}T{hour}:00:00+00:00")
        return None if entry is None else next(move.target for move in entry.moves if move.alias == alias)

    assert version("champion", "03", "09") is None and version("champion", "03") == 1
    assert version("champion", "06") == 1 and version("previous", "06") is None
    assert version("champion", "07") == 3 and version("previous", "08") == 1


def test_the_digest_is_that_of_the_content_and_of_the_line_before() -> None:
    values = json.loads(THREE[2].line)
    said = values["digest"]
    values["digest"] = ""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == said and values["before"] == THREE[1].digest


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("field", ["who", "why", "when", "verb", "kind", "of", "before", "moves", "evidence"])
def test_one_edited_field_shows_in_its_line(number: int, field: str) -> None:
    lines = stored(THREE)
    values = json.loads(lines[number - 1][1])
    values[field] = [{"alias": "champion", "origin": 7, "target": 8}] if field == "moves" else "another"
    lines[number - 1] = (number, json.dumps(values))
    found = ledger.read(lines)
    assert [broken.number for broken in found.broken] == [number] and "was edited" in str(found.broken[0])


@pytest.mark.parametrize("number", range(1, 6))
def test_an_edit_with_a_new_digest_shows_in_the_line_after(number: int) -> None:
    forged = dataclasses.replace(THREE[number - 1], who="eve", digest="")
    forged = ledger.entry(**{name: value for name, value in vars(forged).items() if name != "digest"})
    lines = stored([*THREE[: number - 1], forged, *THREE[number:]])
    assert ledger._parse(forged.line) == forged
    assert [broken.number for broken in ledger.read(lines).broken] == [number + 1]


@pytest.mark.parametrize("number", range(1, 6))
def test_a_removed_line_shows_in_the_line_after(number: int) -> None:
    lines = [line for line in stored(THREE) if line[0] != number]
    assert [broken.number for broken in ledger.read(lines).broken] == [number + 1]


def test_lines_cut_off_at_the_end_show_by_the_end_that_is_kept_elsewhere() -> None:
    for kept in range(6):
        (broken,) = ledger.read(stored(THREE[:kept]), end=THREE[5].digest).broken
        assert broken.number == kept + 1 and "is missing" in str(broken)
    assert ledger.read(stored(THREE), end=THREE[3].digest).broken == ()  # killed before the end was written


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"kind": "done"}', '{"moves": 1}', '{"moves": [1]}'])
def test_a_line_that_cannot_be_read_is_one_break(text: str) -> None:
    lines = stored(THREE)
    lines[2] = (3, text)
    found = ledger.read(lines, end=THREE[-1].digest)
    assert [str(broken) for broken in found.broken] == ["line 3 cannot be read"]


def test_a_line_without_its_end_is_open_and_one_that_was_struck_moved_nothing() -> None:
    found = ledger.read(stored(THREE[:3]))
    assert found.open == THREE[2] and found.states() == {1: "done", 3: "open"} and found.standing() == {"champion": 1}
    struck = ledger.entry("struck", "promote", before=THREE[2].digest, of=THREE[2].digest, **WHEN)
    found = ledger.read(stored([*THREE[:3], struck]))
    assert found.open is None and found.states()[3] == "struck" and found.standing() == {"champion": 1}


def test_of_two_lines_that_follow_the_same_one_the_first_counts() -> None:
    rival = ledger.entry("intent", "promote", before=THREE[1].digest, moves=[Move("champion", 1, 9)], **WHEN)
    found = ledger.read(stored([*THREE[:3], rival, *THREE[3:]]), end=THREE[-1].digest)
    assert found.breaks == () and not found.holds(rival.digest) and found.standing() == {"champion": 3}


def test_a_person_can_let_a_broken_line_stand_and_it_stays_visible() -> None:
    lines = stored(THREE)
    lines[3] = (4, lines[3][1].replace("ada", "eve"))
    broken = ledger.read(lines)
    accepted = ledger.entry("accepted", "accept", before=broken.last, why="a test", accepts=[4], **WHEN)
    lines.append((7, accepted.line))
    found = ledger.read(lines, end=accepted.digest)
    assert found.broken == () and [broken.number for broken in found.breaks] == [4]
    assert found.standing() == {"champion": 3}
    lines[5] = (6, lines[5][1].replace("ada", "eve"))  # the acceptance covers what was broken then
    assert [broken.number for broken in ledger.read(lines, end=accepted.digest).broken] == [6]


def test_an_alias_that_was_taken_away_stands_nowhere() -> None:
    lines = chain(Move("challenger", None, 2), Move("challenger", 2, None))
    assert ledger.read(stored(lines)).standing() == {"challenger": None}
