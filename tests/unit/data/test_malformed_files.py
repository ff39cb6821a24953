"""Two hundred files that are not as they should be: each is read rightly, or refused in one line that names it.

A case is a name, the bytes, and what is expected: the texts that are read, or words of the refusal.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from medserl.data.columns import ColumnNames
from medserl.data.readers import read_notes
from medserl.errors import DataError

Case = tuple[str, bytes, "list[str] | str"]

TEXTS = ["He has fever, 38.3 C; no cough.", "Patient’s pulse | is 80/min."]
CSV_ENDINGS, JSON_ENDINGS = ("csv", "CSV", "csv.gz"), ("jsonl", "ndjson", "json", "JSONL")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252")


def packed(name: str, content: bytes) -> bytes:
    return gzip.compress(content) if name.endswith(".gz") else content


def delimited(separator: str, line_end: str, texts: list[str], header: tuple[str, ...] = ("id", "note")) -> str:
    rows = [separator.join(header)]
    rows += [separator.join([str(i), f'"{text}"']) for i, text in enumerate(texts)]
    return line_end.join(rows) + line_end


def well_formed() -> Iterator[Case]:
    for ending, separator, line_end in product(CSV_ENDINGS, ",;\t|", ("\n", "\r\n", "\r")):
        yield f"a.{ending}", delimited(separator, line_end, TEXTS).encode(), TEXTS
    for ending, encoding in product(("csv", "tsv"), ENCODINGS):
        yield f"a.{ending}", delimited("\t", "\r\n", TEXTS).encode(encoding), TEXTS
    for ending, encoding in product(JSON_ENDINGS, ENCODINGS):
        rows = "".join(json.dumps({"note": text}, ensure_ascii=False) + "\n" for text in TEXTS)
        yield f"a.{ending}", rows.encode(encoding), TEXTS
    for encoding, ending in product(ENCODINGS, ("txt", "TXT", "txt.gz")):
        yield f"a.{ending}", TEXTS[1].encode(encoding), TEXTS[1:]
    for content in (
        [{"note": text} for text in TEXTS], TEXTS, {"note": TEXTS}, {"note": {"0": TEXTS[0], "1": TEXTS[1]}},
    ):  # fmt: skip
        yield "a.json", json.dumps(content).encode(), TEXTS
        yield "a.jsonl", json.dumps(content, indent=1).encode(), TEXTS
    for first in ("sep=;\n", '"sep=;"\r\n', "SEP=;\r\n", "\ufeffsep=;\n"):
        yield "a.csv", (first + delimited(";", "\n", TEXTS)).encode(), TEXTS


def odd_but_right() -> Iterator[Case]:
    for content in (
        "id;note;\n1;Pain.;\n2;Ache.;\n", "id;note;;;\n1;Pain.;;;\n2;Ache.;;;\n", ",note,\n1,Pain.,x\n2,Ache.,\n",
        "\n\nid,note\n1,Pain.\n\n2,Ache.\n\n", "id,note\n1,Pain.\nid,note\n2,Ache.\n", "note\nPain.\nAche.",
        "id,note\n1,Pain.\n\ufeffid,note\n2,Ache.\n", "ID , Note \n1,Pain.\n2,Ache.\n",
        "id,note\n1,Pain.\n2,Ache.\n3,\n4,NaN\n", "id,note\n1,Pain.\n2,Ache.\n3,one, two\n",
        "id,note,x\n1,Pain.\n2,Ache.,,\n", "note,b,b2\nPain.,,\nAche.,1,2\n",
    ):  # fmt: skip
        yield "a.csv", content.encode(), ["Pain.", "Ache."]
    for bad in (b"\x92", b"\xff", b"\x00", b"\xe2\x80", b"\xc3"):
        yield "a.csv", b"note\nPain.\nx" + bad + b"x\nAche.\n\xe2\x80\x9cSo\xe2\x80\x9d\n", ["Pain.", "Ache.", "“So”"]
        rows = (
            b'{"note": "Pain."}\n{"note": "x'
            + bad
            + b'x"}\n{"note": "Ache."}\n{"note": "\xe2\x80\x9cSo\xe2\x80\x9d"}\n'
        )
        yield "a.jsonl", rows, ["Pain.", "Ache.", "“So”"]
    for value in ("NaN", "null", "Infinity", "-Infinity", "5", "[]", "{}", "true", '""', '" "', '"\\ud83d"'):
        yield "a.jsonl", f'{{"note": "Pain."}}\n{{"note": {value}}}\n'.encode(), ["Pain."]
    for value in ("7", "7.0", "NaN", "null", '"7"', '"é"'):
        yield "a.jsonl", f'{{"note": "Pain.", "id": {value}}}\n'.encode(), ["Pain."]
    for value in ("true", "[1]", "Infinity", "{}", "9" * 5000, '"\\ud83d"'):
        good = '{"note": "Pain.", "id": 1}\n'
        expected: list[str] | str = ["Pain."] if value != "9" * 5000 else "line 2"
        yield "a.jsonl", f'{good}{{"note": "Ache.", "id": {value}}}\n'.encode(), expected
    yield "a.csv", b"note\nPain, fever; no rash\nAche | 3,5 mg\n\x1a", ["Pain, fever; no rash", "Ache | 3,5 mg"]
    yield "gzip.csv", gzip.compress(b"note\nPain.\n"), ["Pain."]
    yield "a.csv", b'note\n"one\ntwo\r\nthree"\n', ["one\ntwo\r\nthree"]
    yield "a.csv", b"note\n" + b"x" * 100_001 + b"\nPain.\n", ["Pain."]


def refused() -> Iterator[Case]:
    for ending in ("csv", "tsv", "json", "jsonl", "ndjson", "txt", "csv.gz"):
        for content in ("", " \n\t\n", "\ufeff", "\ufeff\r\n"):
            yield f"a.{ending}", packed(f"a.{ending}", content.encode()), "the file is empty"
    for ending in ("xlsx", "xls", "ods", "parquet"):
        for content in (b"", b"PK\x03\x04", b"id,note\n1,Pain.\n", b"PAR1PAR1", b"\xd0\xcf\x11\xe0" + b"\0" * 600):
            yield f"a.{ending}", content, "can be read"
    for ending in ("docx", "pdf", "zip", "csv.zip", "gz", "bz2", "csvx", "xml", ""):
        yield f"a.{ending}", b"note\nPain.\n", "cannot tell the format"
    for name in ("._a.csv", "~$a.xlsx", ".DS_Store", "._a.jsonl"):
        yield name, b"\x00\x05\x16\x07", "beside the real one"
    for magic, words in (
        (b"PK\x03\x04", "zip"), (b"%PDF-1.7", "PDF"), (b"PAR1", "Parquet"), (b"BZh9", "bzip2"),
        (b"\xd0\xcf\x11\xe0", "old Word or Excel"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"),
    ):  # fmt: skip
        yield "a.csv", magic + b"\x00rest", words
        yield "a.txt", magic + b"\x00rest", words
    for encoding in ("cp1251", "mac-roman", "shift-jis", "cp1250", "koi8-r", "gb2312"):
        text = {
            "mac-roman": "Fièvre élevée",
            "cp1250": "Gorączka źle łóżko",
            "shift-jis": "患者は熱がある",
            "gb2312": "病人发烧",
        }
        content = f"note\n{text.get(encoding, 'Пациент жалуется на боль')}\n".encode(encoding)
        yield "a.csv", content, "UTF-8"
    for content in (
        'id,note\n1,"not closed\n', 'id,note\n1,"Pain" is bad\n', 'id,note\n1,"a\n2,b\n3,"c"\n', '"', '"id,note\n1,x\n',
    ):  # fmt: skip
        yield "a.csv", content.encode(), "broken CSV" if "note" in content[1:] or content == '"' else ""
    for header in ("note,note", "id,id,note", "note,text", "Note,NOTE", "note,notes"):
        yield "a.csv", f"{header}\n1,2\n".encode(), "a.csv"
    for content in ("Befund;Nr\nKopf;1\n", "1,Pain.\n2,Ache.\n", "a|b\nc|d\n", "He has fever.\nShe is well.\n"):
        yield "a.csv", content.encode(), "--note-column"
    yield "a.csv", b"id,note\n1,Pain.\nnote,id\nAche.,2\n", "a second header"
    for label, values in (
        ("label", "01"), ("is_error", "01"), ("gold", "01"), ("y", "ab"), ("Class", "xy"), ("has error", "01"),
        ("verdict", "10"), ("flag", "10"), ("anything", "01"), ("isCorrect", "01"), ("target", "12"),
    ):  # fmt: skip
        yield "a.csv", f"text,{label}\nPain.,{values[0]}\nAche.,{values[1]}\n".encode(), "--label-column"
        yield "a.json", json.dumps({"text": ["Pain.", "Ache."], label: list(values)}).encode(), "--label-column"
    for content in (
        '{"note": "Pain.', "[", '[{"note": "Pain."}', '{"note": "a"}\n{"note": ', "[1, 2]", "5", "null", "[]",
        '{"note": "a", "note": "b"}', "[" * 100_000, '{"a": ' * 50_000, '{"note": "Pain."}\n[1]\n', "[{}, []]",
    ):  # fmt: skip
        yield "a.json", content.encode(), ""
        yield "a.jsonl", content.encode(), ""
    yield "a.csv", "note\nPain.\n".encode("utf-16-le"), "zero bytes"
    yield "a.csv", b"\xff\xfen\x00o", "UTF-16"
    yield "a.csv.gz", gzip.compress(b"note\nPain.\n")[:-6], "gzip"
    yield "a.csv.gz", gzip.compress(b"note\nPain.\n" * 50)[:20] + b"broken" * 20, "gzip"
    yield "a.txt", b"id,note\n1,Pain.\n", "looks like a table"
    yield "a.txt", b'{"note": "Pain."}\n{"note": "Ache."}\n', "looks like JSON"
    yield "a.txt", b"\xe2\x80\x9cPain\xe2\x80\x9d\nbad \x92\n", "line 2"
    yield "a.txt", b"x" * 100_001, "100,001 characters"


CASES = [*well_formed(), *odd_but_right(), *refused()]


def test_there_are_two_hundred() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize(("name", "content", "expected"), CASES, ids=range(len(CASES)))
def test_read_rightly_or_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, expected: list[str] | str
) -> None:
    path = tmp_path / name
    if isinstance(expected, list):
        path.write_bytes(packed(name, content))
        assert [note.correct_note for note in read_notes(path).notes] == expected
        return
    path.write_bytes(content)
    with pytest.raises(DataError) as refusal:
        read_notes(path)
    message = str(refusal.value)
    assert name in message and "\n" not in message and len(message) < 700
    assert expected in message


@pytest.mark.parametrize("values", ["ab", "12", "pn", "31"])
def test_labels_of_unknown_meaning_are_refused_with_their_values(tmp_path: Path, values: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\nPain.,{values[0]}\nAche.,{values[1]}\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"which value of 'label' means an error\? It holds '{values[0]}' x 1"):
        read_notes(path, ColumnNames(flag="label"))
