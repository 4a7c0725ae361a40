"""Large JSON files: read element by element, and annotations of images in little memory."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iirc_data.errors import SourceError
from iirc_data.sources import json_stream
from iirc_data.sources.coco import CocoListing, read_coco
from iirc_data.sources.json_stream import elements_of_arrays

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(
    content=st.dictionaries(st.text(), VALUES | st.lists(VALUES, max_size=4), max_size=4),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
    chunk=st.integers(1, 9),
)
def test_elements_are_those_of_the_whole_file_wherever_it_is_cut(
    tmp_path_factory, content, ascii_only, indent, chunk
):
    path = tmp_path_factory.getbasetemp() / "content.json"
    text = json.dumps(content, ensure_ascii=ascii_only, indent=indent)
    path.write_bytes(text.encode(errors="surrogatepass" if ascii_only else "replace"))
    whole = json.loads(path.read_text(encoding="utf-8"))
    expected = [
        (key, element)
        for key, value in whole.items()
        if isinstance(value, list)
        for element in value
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        assert list(elements_of_arrays(path)) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "expected '{' at character 0, got ''"),
        (b"[1, 2]", r"expected '\{' at character 0, got '\['"),
        (b'{"a": [1, 2', r"expected ',' or '\]' at character 11, got ''"),
        (b'{"a": [1, ]}', "Expecting value in the value at character 10"),
        (b'{"a": [1 2]}', r"expected ',' or '\]' at character 9, got '2'"),
        (b'{"a": ["b}', "Unterminated string .* in the value at character 7"),
        (b'{"a" [1]}', "expected ':' at character 5"),
        (b"{a: [1]}", "expected '\"' at character 1, got 'a'"),
        (b'{"a": [1]} {', "expected the end at character 11"),
        (b'{"a": ["\xff"]}', "can't decode byte 0xff"),
        (b'{"a": [' + b"[" * 100_000, "recursion"),
        (b'{"a": [' + b"1" * 5_000 + b"]}", "digits"),
    ],
)
def test_what_is_no_json_is_named_with_its_place(tmp_path, text, problem):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(SourceError, match=f"(?s)a.json is not a JSON object of arrays .*{problem}"):
        list(elements_of_arrays(path))


def test_a_damaged_element_is_not_looked_for_in_the_rest_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", 10)
    monkeypatch.setattr(json_stream, "_LONGEST", 100)
    path = tmp_path / "a.json"
    path.write_text('{"a": [{"b": }, ' + " " * 10_000 + "1]}")
    with pytest.raises(SourceError, match="Expecting value in the value at character 7"):
        next(elements_of_arrays(path))


N = 4_000


def test_annotations_take_a_small_part_of_the_memory_of_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", 1 << 12)
    fields = {"width": 500, "height": 375, "license": 0, "rights_holder": "x", "date": "2015"}
    fields |= {"latitude": 39.08, "longitude": -120.41, "location_uncertainty": None}
    images = [{"id": 7 * k, "file_name": f"train/{k % 10}/{k:036}.jpg"} | fields for k in range(N)]
    annotations = [{"id": k, "image_id": 7 * k, "category_id": k % 10} for k in range(N)]
    content = {"images": images, "annotations": annotations[::-1], "categories": [{"id": 1}]}
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    peaks = []
    for read in (read_coco, lambda path: json.loads(path.read_bytes())):
        tracemalloc.start()
        read(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert 5 * peaks[0] < peaks[1]
    listing = CocoListing(read_coco(path), {k: f"class {k}" for k in range(10)})
    assert len(listing) == 10 and list(listing) == [f"class {k}" for k in range(10)]
    for number in range(10):
        expected = [image["file_name"] for image in images[number::10]]
        assert listing[f"class {number}"] == sorted(expected)
    assert np.array_equal(read_coco(path).image_category, np.arange(N) % 10)
