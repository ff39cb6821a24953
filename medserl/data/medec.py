"""MEDEC's published files: fetched from its public repository, and turned into one JSON Lines file a split.

MEDEC: Ben Abacha et al., "MEDEC: A Benchmark for Medical Error Detection and Correction in Clinical Notes",
Findings of ACL 2025, CC BY 4.0. The MS part is public. The UW part needs a signed agreement: it is converted
where a user has it, never fetched. Of the test split nothing is told but its size and the notes that it
shares with other splits.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import tempfile
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from medserl.data.readers import ColumnNames, LoadedNotes, SkippedRow, read_notes, unique_ids
from medserl.data.tabular import NOT_NOTES, read_table
from medserl.data.writing import write_notes
from medserl.errors import DataError
from medserl.files import private_folder, write_private
from medserl.game.note import Note
from medserl.game.text import split_words

log = logging.getLogger("medserl")

SPLITS = ("train", "validation", "test")
TRAIN_PAIRS = "medec_ms_train_pairs.jsonl"
"""The training pairs alone, accepted where the training CSV is not at hand."""

_COLUMNS = ColumnNames(
    id="Text ID",
    note="Text",
    flag="Error Flag",
    corrected="Corrected Text",
    error_type="Error Type",
    error_sentence="Error Sentence",
    corrected_sentence="Corrected Sentence",
    error_sentence_id="Error Sentence ID",
    sentences="Sentences",
)

HOME_PAGE = "https://github.com/abachaa/MEDEC"
BASE_URL = "https://raw.githubusercontent.com/abachaa/MEDEC/49c59dcba43a7af8717590a405b11a57f42b04df/MEDEC-MS"
"""A fixed revision, so that everybody gets the same bytes."""

DOWNLOADS = "medec_ms"
CHECKSUMS = "SHA256SUMS"
_TIMEOUT = 60  # seconds without an answer


@dataclass(frozen=True)
class PublishedFile:
    """A file of MEDEC-MS: its name, how many texts it holds, and its checksum where we know it."""

    name: str
    texts: int
    sha256: str | None = None


PUBLISHED = (
    PublishedFile("MEDEC-Full-TrainingSet-with-ErrorType.csv", 2189),
    PublishedFile(
        "MEDEC-MS-ValidationSet-with-GroundTruth-and-ErrorType.csv",
        574,
        "7571aec311e2fb88d9084082af2323aa579d102e1d5e1a06faf930fe4fd3977d",
    ),
    PublishedFile("MEDEC-MS-TestSet-with-GroundTruth-and-ErrorType.csv", 597),
)


# -- conversion --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitReport:
    """What one split was made of. `skipped` names every row that was not used."""

    split: str
    path: Path
    sources: tuple[str, ...]
    pairs: int
    correct: int
    uncorrected: int
    skipped: tuple[SkippedRow, ...]


@dataclass(frozen=True)
class SharedText:
    """One text, by its words, that stands in more than one split: who holds it, as (split, note id)."""

    holders: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ConversionReport:
    """The splits written, texts shared between them, and files that were left out, each with the reason."""

    splits: tuple[SplitReport, ...]
    shared: tuple[SharedText, ...]
    left_out: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for a person."""
        lines = []
        for part in self.splits:
            uncorrected = f", {part.uncorrected} errors without a correction" if part.uncorrected else ""
            lines.append(
                f"{part.path}: {part.pairs} pairs, {part.correct} correct notes{uncorrected}, "
                f"{len(part.skipped)} rows skipped (from {', '.join(part.sources)})"
            )
            lines += [f"  skipped: {row}" for row in part.skipped]
        written = {part.split for part in self.splits}
        lines += [f"{split}: no file for it in the source" for split in SPLITS if split not in written]
        lines += [f"left out: {reason}" for reason in self.left_out]
        lines.append(f"texts that stand in more than one split: {len(self.shared)}")
        for text in self.shared:
            holders = (f"{note_id} ({split})" for split, note_id in text.holders)
            lines.append("  same text: " + ", ".join(holders))
        return lines


def convert_medec(source_dir: str | Path, out_dir: str | Path) -> ConversionReport:
    """Write medec_train.jsonl, medec_validation.jsonl and medec_test.jsonl from a folder of published files.

    Files are known by "train", "valid" or "test" in their names, in the folder and in those right below it.
    MS and UW files of a split go into one file. Nothing is written before everything was read.

    Raises:
        DataError: no folder, no MEDEC file in it, one that cannot be used, or an output that is not writable.
    """
    sources, left_out = find_sources(Path(source_dir))
    loaded: dict[str, list[tuple[Path, LoadedNotes]]] = defaultdict(list)
    seen: dict[str, Path] = {}
    for split, paths in sources.items():
        for path in paths:
            read = read_notes(path, _COLUMNS if path.suffix.lower() == ".csv" else ColumnNames())
            if read.sha256 in seen:
                left_out.append(f"{path} (the same file as {seen[read.sha256]})")
            else:
                seen[read.sha256] = path
                loaded[split].append((path, read))
    notes = {
        split: tuple(
            replace(note, split=split)
            for note in unique_ids((note for _, read in parts for note in read.notes), f"MEDEC {split}")
        )
        for split, parts in loaded.items()
    }
    reports = []
    for split, parts in loaded.items():
        out = Path(out_dir) / f"medec_{split}.jsonl"
        write_notes(out, notes[split])
        reports.append(_split_report(split, out, parts, notes[split]))
    return ConversionReport(tuple(reports), shared_texts(notes), tuple(left_out))


def find_sources(source_dir: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of each split, and what was left out and why. Raises DataError where there is none."""
    if not source_dir.is_dir():
        raise DataError(f"{source_dir}: no such folder; give the one that holds MEDEC's CSV files")
    sources: dict[str, list[Path]] = {}
    left_out = []
    found = [*source_dir.iterdir(), *source_dir.glob("*/*")]
    for path in sorted(path for path in found if path.suffix.lower() == ".csv" and path.is_file()):
        if path.name.startswith((".", *NOT_NOTES)):
            left_out.append(f"{path} (what a system keeps beside the real file)")
            continue
        named = re.findall(r"(?<![a-z])(train|valid|test)", path.name.casefold())
        if len(set(named)) == 1:
            split = {"train": "train", "valid": "validation", "test": "test"}[named[0]]
            sources.setdefault(split, []).append(path)
        else:
            left_out.append(f"{path} (its name does not say train, validation or test)")
    pairs = source_dir / TRAIN_PAIRS
    if pairs.is_file() and "train" in sources:
        left_out.append(f"{pairs} (the training CSV holds its pairs)")
    elif pairs.is_file():
        sources["train"] = [pairs]
    if not sources:
        raise DataError(f"{source_dir}: no MEDEC file there; wanted are CSV files named with train, valid or test")
    return {split: sources[split] for split in SPLITS if split in sources}, left_out


def _split_report(
    split: str, out: Path, parts: Iterable[tuple[Path, LoadedNotes]], notes: tuple[Note, ...]
) -> SplitReport:
    pairs = sum(note.is_pair for note in notes)
    correct = sum(note.incorrect_note is None for note in notes)
    return SplitReport(
        split=split,
        path=out,
        sources=tuple(path.name for path, _ in parts),
        pairs=pairs,
        correct=correct,
        uncorrected=len(notes) - pairs - correct,
        skipped=tuple(row for _, read in parts for row in read.skipped),
    )


def shared_texts(notes: Mapping[str, Iterable[Note]]) -> tuple[SharedText, ...]:
    """Texts, correct or incorrect, that stand in more than one split, case and punctuation aside."""
    holders: dict[tuple[str, ...], dict[tuple[str, str], None]] = defaultdict(dict)
    for split, members in notes.items():
        for note in members:
            for text in (note.correct_note, note.incorrect_note):
                if text is not None:
                    holders[split_words(text).keys][split, note.note_id] = None
    shared = (tuple(found) for found in holders.values() if len({split for split, _ in found}) > 1)
    return tuple(SharedText(found) for found in dict.fromkeys(shared))


# -- fetching ----------------------------------------------------------------------------------------------


def fetch_medec(out_dir: str | Path, base_url: str = BASE_URL) -> ConversionReport:
    """Download the published MEDEC-MS files into `out_dir/medec_ms` and convert them into `out_dir`.

    Raises:
        DataError: as `download_medec` and `convert_medec` say.
    """
    published = Path(out_dir) / DOWNLOADS
    download_medec(published, base_url)
    return convert_medec(published, out_dir)


def download_medec(folder: str | Path, base_url: str = BASE_URL) -> tuple[Path, ...]:
    """Put the published MEDEC-MS files into a folder; files that are there already are only checked.

    The validation file's checksum is known. For the other two it is not: their columns and number of texts
    are checked instead, and the checksum of what came is kept in `SHA256SUMS`, which later runs must match.

    Raises:
        DataError: no network, or a file that is not what was published.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    recorded = _read_checksums(folder / CHECKSUMS)
    paths = []
    for published in PUBLISHED:
        path = folder / published.name
        content = path.read_bytes() if path.is_file() else _download(f"{base_url}/{published.name}")
        checksum = hashlib.sha256(content).hexdigest()
        expected = published.sha256 or recorded.get(published.name)
        if expected and checksum != expected:
            known_from = "published" if published.sha256 else f"recorded in {folder / CHECKSUMS}"
            raise DataError(
                f"{path}: its SHA-256 {checksum[:12]}... is not the one {known_from} ({expected[:12]}...); "
                f"delete it to fetch it again, or download by hand from {HOME_PAGE} and use --source DIR"
            )
        if not expected:
            _check_contents(content, published)
            log.info("%s: no checksum is known, but columns and %d texts fit", path.name, published.texts)
        if not path.is_file():
            write_private(private_folder(folder) / published.name, content)
        recorded[published.name] = checksum
        paths.append(path)
    lines = (f"{checksum}  {name}\n" for name, checksum in recorded.items())
    write_private(folder / CHECKSUMS, lines)
    return tuple(paths)


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"cannot download {url} ({error}); download by hand from {HOME_PAGE}") from None
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"cannot download {url} ({reason}); "
            f"if this machine is offline, download MEDEC-MS by hand from {HOME_PAGE} and use --source DIR"
        ) from None


def _check_contents(content: bytes, published: PublishedFile) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / published.name
        path.write_bytes(content)
        table = read_table(path)
    missing = [name for name in asdict(_COLUMNS).values() if name and name not in table.columns]
    if missing:
        raise DataError(f"{published.name}: not as published: no column {missing[0]!r}; see {HOME_PAGE}")
    texts = sum(bool(row.values["Text"].strip()) for row in table.rows)
    if texts != published.texts:
        raise DataError(
            f"{published.name}: not as published: {texts} texts instead of {published.texts}; see {HOME_PAGE}"
        )


def _read_checksums(path: Path) -> dict[str, str]:
    """Checksums by file name, as `sha256sum` writes them; none where there is no such file."""
    if not path.is_file():
        return {}
    checksums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if not match:
            raise DataError(f"{path}, line {number}: no checksum and file name; delete the file to start anew")
        checksums[match[2]] = match[1]
    return checksums
