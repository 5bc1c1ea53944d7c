# SPDX-License-Identifier: Apache-2.0
"""docs/PROTOCOL.md says what replicator/link/wire.h and link.h say: offsets, sizes, numbers, moves."""
import re

import pytest
from volume import REPOSITORY

pytestmark = pytest.mark.plain

WIDTHS = {"uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "uint64_t": 8, "int64_t": 8, "char": 1}
PAGE = (REPOSITORY / "docs/PROTOCOL.md").read_text()
WIRE = (REPOSITORY / "replicator/link/wire.h").read_text()


def source(path):
    return (REPOSITORY / path).read_text()


def table(text, columns):
    """Rows of the first table in `text` whose head begins with `columns`."""
    lines = iter(text.splitlines())
    for line in lines:
        if [cell.strip() for cell in line.strip("|").split("|")][: len(columns)] == columns:
            break
    else:
        raise AssertionError(f"there is no table {columns}")
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def section(heading):
    found = re.search(rf"^###? {re.escape(heading)}$(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
    assert found, f"there is no heading {heading}"
    return found[1]


def structs():
    """name: [(offset in the comment or None, computed offset, size, field)]"""
    found = {}
    for name, body in re.findall(r"^struct (\w+) \{(.*?)^\};", WIRE, re.M | re.S):
        offset, fields = 0, []
        for line in body.splitlines():
            field = re.match(r"\s+(?:std::)?(\w+) (\w+)(?:\[(\d+)\])?;(?:\s*// (\d+))?", line)
            if not field or field[1] not in WIDTHS:
                continue
            size = WIDTHS[field[1]] * int(field[3] or 1)
            fields.append((int(field[4]) if field[4] else None, offset, size, field[2]))
            offset += size
        if fields:
            found[name] = fields
    return found


def enumeration(text, name):
    body = re.search(rf"enum class {name}\b[^{{]*\{{(.*?)\}};", text, re.S)[1]
    body = re.sub(r"//[^\n]*", "", body)
    return {int(value): word for word, value in re.findall(r"k(\w+)\s*=\s*(\d+)", body)}


def constant(name, text=WIRE):
    words = re.sub(r"std::size_t\{(\d+)\}", r"\1", text)
    found = re.search(rf"\b{name}\s*(?:=|\{{)\s*([^;}}]+)", words)
    assert found, name
    return found[1].strip()


@pytest.mark.parametrize("name", structs())
def test_fields(name):
    fields = structs()[name]
    for told, computed, _, field in fields:
        assert told in (None, computed), f"the comment beside {name}.{field} says {told}"
    rows = table(section(name), ["offset", "size", "field", "meaning"])
    assert [tuple(row[:3]) for row in rows] == [
        (str(offset), str(size), field) for _, offset, size, field in fields
    ]
    total = sum(size for _, _, size, _ in fields)
    assert f"\n{total} bytes.\n" in section(name)
    asserted = re.search(rf"static_assert\(sizeof\({name}\) == (\d+)", WIRE)
    assert asserted is None or int(asserted[1]) == total


def size_of_messages():
    sizes = {name: sum(field[2] for field in fields) for name, fields in structs().items()}
    text = int(constant("kMaxTextBytes"))
    frame_format = source("journal/format/format.h")
    payload = (1 << 20) + 65536
    assert constant("kMaxFramePayload", frame_format) == "kMaxDataBytes + 65536"
    assert constant("kMaxDataBytes", frame_format) == "1 << 20"
    header = int(re.search(r"sizeof\(FrameHeader\) == (\d+)", frame_format)[1])
    assert constant("kMaxFindingsBytes") == "1 << 20"
    told = int(constant("kMaxToldSnapshots"))
    return {
        "Refuse": text,
        "Trouble": text,
        "Frame": header + payload,
        "Committed": sizes["LsnMessage"],
        "Hurry": sizes["LsnMessage"],
        "Heartbeat": 0,
        "Snapshots": sizes["SnapshotsHead"] + told * sizes["WireSnapshot"],
        "Findings": 1 << 20,
        **{name: sizes[name] for name in ("Hello", "Welcome", "Ack", "Greeting")},
    }


def test_types_and_limits():
    rows = table(section("Types"), ["type", "message", "from", "body"])
    assert {int(row[0]): row[1] for row in rows} == enumeration(WIRE, "MessageType")
    assert {row[1]: int(row[4]) for row in rows} == size_of_messages()


def test_findings():
    rows = table(section("WireFinding"), ["kind", "finding", "meaning"])
    assert {int(row[0]): row[1] for row in rows} == enumeration(
        source("journal/format/finding.h"), "FindingKind"
    )


def test_numbers():
    assert f"`{constant('kWireMagic')}`" in section("MessageHeader")
    assert f"of the protocol: {constant('kWireVersion')} " in section("MessageHeader")
    tcp = source("replicator/link/tcp.h")
    below = section("Below: TCP and TLS")
    assert f"| port | {constant('kDefaultPort', tcp)}," in below
    assert f"within {constant('kHandshakeWithin', tcp)} s" in below
    assert f"at most {constant('kMaxHandshakes', tcp)} at a time" in below
    for kind, word in enumeration(WIRE, "WelcomeKind").items():
        spelled = {"Continue": "continue", "StartOver": "start over", "Resync": "resync"}[word]
        assert f"{kind} {spelled}" in section("Welcome")


def test_states_and_moves():
    link = source("replicator/link/link.h")
    names = re.search(r"kNames\{(.*?)\}", link, re.S)[1]
    states = re.findall(r'"([a-z-]+)"', names)
    body = re.search(r"kLegalMoves\[\d+\]\[\d+\] = \{(.*?)\n\};", link, re.S)[1]
    rows = re.findall(r"\{([^{}]*)\}", body)
    legal = {
        (states[row], states[column])
        for row, words in enumerate(rows)
        for column, word in enumerate(words.split(","))
        if word.strip() == "true"
    }
    documented = table(section("States of a link"), ["from", "to", "when"])
    assert {(row[0], row[1]) for row in documented} == legal
