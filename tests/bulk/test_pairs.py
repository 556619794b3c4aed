"""Lists of pairs: what is read from where, and what is said of a list that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.evaluation_faces import PEOPLE, write_faces
from pyarrow import parquet

from xfr_plugin.bulk import PairTable, read_pair_table
from xfr_plugin.errors import InputError

ROWS = [
    {"probe": "a/0.png", "reference": "b/0.png", "genuine": False, "camera": "x"},
    {"probe": "a/0.png", "reference": "a/1.png", "genuine": True, "camera": "y"},
]


def names_of(table: PairTable) -> list[tuple[str, str]]:
    return [(table.names[a], table.names[b]) for a, b in zip(table.probes, table.references, strict=True)]


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"pairs{suffix}"
    if suffix == ".csv":
        lines = [f"{r['probe']},{r['reference']},{int(bool(r['genuine']))},{r['camera']}" for r in ROWS]
        path.write_text("\n".join(["probe,reference,genuine,camera", *lines]))
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    else:
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_all_kinds_of_files_give_the_same_pairs(tmp_path: Path, suffix: str) -> None:
    table = read_pair_table(written(tmp_path, suffix))
    assert names_of(table) == [(row["probe"], row["reference"]) for row in ROWS]
    assert table.genuine.tolist() == [0, 1]
    assert table.columns.column("camera").to_pylist() == ["x", "y"]
    assert table.paths[0] == tmp_path / "a/0.png"
    assert len(table.names) == 3  # each photo once


def test_a_folder_against_itself_has_each_pair_once(tmp_path: Path) -> None:
    write_faces(tmp_path, photos=2)
    (tmp_path / "notes.txt").write_text("no photo")
    table = read_pair_table(tmp_path, people=True)
    count = 2 * len(PEOPLE)
    pairs = names_of(table)
    assert len(set(map(frozenset, pairs))) == len(pairs) == count * (count - 1) // 2
    assert table.genuine.sum() == len(PEOPLE)
    same = [a.split("/")[0] == b.split("/")[0] for a, b in pairs]
    assert table.genuine.astype(bool).tolist() == same
    assert table.people == [name.split("/")[0] for name in table.names]


def test_probes_are_paired_with_the_whole_gallery(tmp_path: Path) -> None:
    write_faces(tmp_path / "gallery", photos=1)
    (tmp_path / "probes.txt").write_text("a.jpg\n\nb.jpg\na.jpg\n")
    table = read_pair_table(tmp_path / "probes.txt", gallery=tmp_path / "gallery")
    assert names_of(table) == [(probe, f"{p}/0.png") for probe in ("a.jpg", "b.jpg") for p in PEOPLE]
    assert table.paths[0] == tmp_path / "a.jpg"
    assert table.paths[-1] == tmp_path / "gallery" / PEOPLE[-1] / "0.png"
    assert (table.genuine == -1).all()


def test_digests_tell_lists_apart(tmp_path: Path) -> None:
    table = read_pair_table(written(tmp_path, ".csv"))
    other = PairTable(table.names, table.paths, table.references, table.probes, table.genuine)
    assert table.digest() == read_pair_table(written(tmp_path, ".parquet")).digest() != other.digest()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pairs.csv", "first,second\na,b\n", "no column 'probe'"),
        ("pairs.csv", "probe,reference,genuine\na,b,perhaps\n", "genuine must be 1, 0 or empty"),
        ("pairs.csv", "probe,reference\na,\n", "pair 0: reference must name a photo"),
        ("pairs.csv", "probe,reference\n", "there are no pairs"),
        ("pairs.jsonl", "{", "cannot be read"),
        ("pairs.doc", "", "not from"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_pair_table(tmp_path / name)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file of pairs"):
        read_pair_table(tmp_path / "pairs.csv")


def test_an_empty_truth_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("probe,reference,genuine\na,b,\nc,d,1\n")
    assert np.array_equal(read_pair_table(tmp_path / "pairs.csv").genuine, [-1, 1])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lists_of_other_programs_are_read(tmp_path: Path, encoding: str, ending: str) -> None:
    text = ending.join(["probe,reference,genuine", "Zoë 1/a.png,b.png,1", ""])
    (tmp_path / "pairs.csv").write_bytes(text.encode(encoding))
    assert names_of(read_pair_table(tmp_path / "pairs.csv")) == [("Zoë 1/a.png", "b.png")]


def test_two_columns_of_one_name_are_refused_in_every_kind_of_file(tmp_path: Path) -> None:
    for twice in ("probe", "camera"):
        (tmp_path / "pairs.csv").write_text(f"probe,reference,camera,{twice}\na,b,x,y\n")
        with pytest.raises(InputError, match=f"2 columns '{twice}'"):
            read_pair_table(tmp_path / "pairs.csv")
    table = pa.table([["a"], ["b"], ["c"]], names=["probe", "reference", "reference"])
    parquet.write_table(table, tmp_path / "pairs.parquet")
    with pytest.raises(
        InputError, match=r"2 columns 'reference'|Multiple matches for FieldRef.Name.reference"
    ):
        read_pair_table(tmp_path / "pairs.parquet")


def test_a_truth_that_is_not_a_number_is_not_known(tmp_path: Path) -> None:
    table = pa.table({"probe": ["a", "c"], "reference": ["b", "d"], "genuine": [float("nan"), 1.0]})
    parquet.write_table(table, tmp_path / "pairs.parquet")
    assert read_pair_table(tmp_path / "pairs.parquet").genuine.tolist() == [-1, 1]


def test_photos_in_no_folder_of_a_person_are_nobodys(tmp_path: Path) -> None:
    write_faces(tmp_path, photos=1)
    (tmp_path / "stray.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"whose photo is stray\.png"):
        read_pair_table(tmp_path, people=True)


def test_pictures_of_the_run_are_no_photos(tmp_path: Path) -> None:
    write_faces(tmp_path, photos=1)
    run = tmp_path / "run" / "pictures"
    run.mkdir(parents=True)
    (run / "000000-xssab.png").write_bytes(b"")
    assert len(read_pair_table(tmp_path, besides=tmp_path / "run").names) == len(PEOPLE)
    assert len(read_pair_table(tmp_path, gallery=tmp_path, besides=tmp_path / "run").names) == 2 * len(PEOPLE)


@pytest.mark.parametrize("source", ["n" * 5000, "a\0b.csv", "folder\n/pairs.csv"])
def test_strange_paths_are_errors_of_ours(source: str) -> None:
    for settings in ({}, {"gallery": source}):
        with pytest.raises(InputError):
            read_pair_table(source, **settings)


@pytest.mark.parametrize("source", [[("a", "b")], pa.table({"probe": ["a"]}), None])
def test_what_is_no_path_is_refused(source: object) -> None:
    with pytest.raises(InputError, match="pairs are a path"):
        read_pair_table(source)  # type: ignore[arg-type]  # that is the point
