"""CIFAR's pickles, as Python 2 and 3 write them; and pickles that want more than data."""

import os
import pickle
import struct
import subprocess

import numpy as np
import pytest

from iirc_data.errors import SourceError
from iirc_data.sources import restricted_pickle
from iirc_data.sources.restricted_pickle import load_cifar_pickle
from tests.conftest import encode

# {'data': array([[1, 2], [3, 4]], uint8), 'fine_labels': [7]}, with the opcodes that numpy under
# Python 2 wrote into cifar-100-python: text as SHORT_BINSTRING, globals by their old names
PYTHON_2 = (
    b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
    b"q\x03K\x00\x85U\x01b\x87Rq\x04(K\x01K\x02K\x02\x86cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87R"
    b"q\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x01\x02\x03\x04tb"
    b"U\x0bfine_labelsq\x07]q\x08K\x07au."
)


def load(tmp_path, data: bytes):
    path = tmp_path / "train"
    path.write_bytes(data)
    return load_cifar_pickle(path)


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_a_pickle_of_python_2_is_read_as_the_ordinary_unpickler_reads_it(tmp_path):
    found = load(tmp_path, PYTHON_2)
    assert found[b"fine_labels"] == [7]
    assert found[b"data"].dtype == np.uint8
    assert found[b"data"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_gives_what_was_written(tmp_path, protocol):
    content = {
        b"filenames": [b"a.png", b"\xff\x00.png"],
        b"fine_labels": [3, 99, 10**9],
        b"batch_label": "training batch",
        b"ratio": 0.5,
        b"data": np.arange(24, dtype=np.uint8).reshape(4, 6),
        b"fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        b"big_endian": np.arange(3, dtype=">i4"),
        b"scalar array": np.array(True),
        b"empty": np.empty((0, 3072), np.uint8),
    }
    if protocol <= 2:  # Python 3 writes b"" as a call of bytes, which CIFAR never has
        del content[b"empty"]
    found = load(tmp_path, pickle.dumps(content, protocol))
    assert list(found) == list(content)
    for key, value in content.items():
        assert type(found[key]) is type(value)
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype
            assert np.array_equal(found[key], value)
            found[key][...] = 0  # as with the ordinary unpickler, the caller's own to write
        else:
            assert found[key] == value


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_both_names_of_numpys_inner_package_are_known(tmp_path, module):
    written = pickle.dumps({b"data": np.arange(3)}, 2)
    current = b"numpy._core.multiarray" if b"numpy._core" in written else b"numpy.core.multiarray"
    found = load(tmp_path, written.replace(current, module.encode()))
    assert found[b"data"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function", [os.system, eval, subprocess.run, getattr, np.load, np.frombuffer, bytearray]
)
def test_a_call_is_refused_and_named_and_not_made(tmp_path, function, protocol):
    marker = tmp_path / "ran"
    hostile = pickle.dumps({b"data": Call(function, f"touch {marker}")}, protocol)
    with pytest.raises(SourceError, match=rf"train: names the global \w+\.{function.__name__}"):
        load(tmp_path, hostile)
    assert not marker.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"(dS'data'\n(cos\nsystem\nS'true'\nos.",  # OBJ
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x04\x8c\x05numpy\x8c\x0ctesting.call\x93.",  # a dotted name walks through modules
        b"\x80\x02cnumpy.core.multiarray\nscalar\n.",
    ],
)
def test_other_ways_to_name_a_global_are_refused(tmp_path, opcodes):
    with pytest.raises(SourceError, match="names the global"):
        load(tmp_path, opcodes)


def test_a_persistent_id_is_refused(tmp_path):
    with pytest.raises(SourceError, match="persistent"):
        load(tmp_path, b"Pfile\n.")


# state for the BUILD opcode: {"label": 1} for __dict__, and (None, {...}) for setattr
DICT_STATE = b"}X\x05\x00\x00\x00labelK\x01s"
SLOT_STATE = b"N" + DICT_STATE + b"\x86"


@pytest.mark.parametrize("state", [DICT_STATE, SLOT_STATE])
def test_the_stand_ins_cannot_be_altered(tmp_path, state):
    victim = f"c{__name__}\nencode\n".encode()
    pickle.loads(b"\x80\x02" + victim + state + b"b.")
    assert encode.label == 1, "the opcodes of this test should alter what is not protected"
    for (module, name), stand_in in restricted_pickle._STAND_INS.items():
        with pytest.raises(SourceError):
            load(tmp_path, b"\x80\x02" + f"c{module}\n{name}\n".encode() + state + b"b.")
        assert not hasattr(stand_in, "label")


def test_a_stand_in_does_not_come_out_as_a_value(tmp_path):
    for module, name in restricted_pickle._STAND_INS:
        named = f"c{module}\n{name}\n".encode()
        with pytest.raises(SourceError, match="where CIFAR has"):
            load(tmp_path, b"\x80\x02}U\x01a" + named + b"s.")


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()]),
        np.array([b"text"]),
        np.zeros(2, [("a", "u1"), ("b", "f4")]),
        np.array(["2020-01-01"], "datetime64[D]"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, array, protocol):
    with pytest.raises(SourceError):
        load(tmp_path, pickle.dumps({b"data": array}, protocol))


NESTED = b"K\x01" + b"2\x86" * 60  # a pair of one pair twice, and so on: 2 ** 60 numbers in words


@pytest.mark.parametrize(
    "shape", [b"K\x02K\x03\x86", b"J\xff\xff\xff\xffK\x02\x86", b"U\x01a", NESTED]
)
def test_a_shape_that_does_not_fit_the_data_is_refused(tmp_path, shape):
    wrong = PYTHON_2.replace(b"K\x02K\x02\x86", shape)
    assert wrong != PYTHON_2
    with pytest.raises(SourceError, match="an array of shape"):
        load(tmp_path, wrong)


def test_huge_sizes_are_refused_without_reserving_memory(tmp_path):
    with pytest.raises(SourceError, match="memo entry"):
        load(tmp_path, b"\x80\x02}r" + struct.pack("<I", 2**32 - 2) + b".")
    with pytest.raises(SourceError):
        load(tmp_path, b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"x.")


@pytest.mark.parametrize("content", [[1], {1: b"a"}, {b"a": [[1]]}, {b"a": {b"b": 1}}])
def test_another_structure_than_cifars_is_refused(tmp_path, content):
    with pytest.raises(SourceError, match=r"CIFAR has|as a key"):
        load(tmp_path, pickle.dumps(content))


def test_every_truncation_is_refused(tmp_path):
    for length in range(len(PYTHON_2)):
        with pytest.raises(SourceError, match="train"):
            load(tmp_path, PYTHON_2[:length])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        load_cifar_pickle(tmp_path / "nowhere")
