"""Names that people take for one, and names of shards that plain WebDataset opens."""

import re
import string
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iirc_data.shards.shard_names import escaped, shard_path
from iirc_data.spelling import folded, spelt_twice, with_known_spelling

NFC, NFD = (normalize(form, "chêne") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("other", ["Oak", "OAK", "oak ", " oak"])
def test_names_that_differ_in_case_or_outer_blanks_are_a_pair(other):
    assert spelt_twice(["oak", "rose", other]) == [tuple(sorted(["oak", other]))]


def test_composed_and_decomposed_accents_are_a_pair():
    assert spelt_twice([NFC, NFD]) == [(NFD, NFC)]
    assert spelt_twice(["oak", "oaks", "o-ak", "chene", NFC]) == []


@given(st.text())
def test_folding_is_the_same_for_every_form_of_a_name(name):
    for form in ("NFC", "NFD"):
        assert folded(normalize(form, name)) == folded(name)
    assert folded(f" {name}\t") == folded(name)


def test_a_missing_name_is_shown_with_the_spelling_that_is_there():
    known = ["Oak tree", NFD, "rose"]
    assert with_known_spelling(["oak_tree", "elm"], known) == (
        "'oak_tree' (there is 'Oak tree'), elm"
    )
    wide = "\uff52\uff4f\uff53\uff45"
    assert with_known_spelling([wide], known) == f"{wide!r} (there is 'rose')"
    assert with_known_spelling([NFC], known) == r"'ch\xeane' (there is 'che\u0302ne')"
    assert with_known_spelling(list("abc"), [], most=2) == "a, b, …"


def test_ordinary_names_stay_in_the_paths_of_shards():
    ordinary = "n01440764 tabby cat,crane(bird)@1%[x]&~'é!_-+^ a=b*$.9"
    assert shard_path("train", ordinary, 7) == f"train/{ordinary}-000007.tar"


@given(st.text(string.printable + "é") | st.text("=7BD{}.:a", max_size=8))
def test_an_escaped_name_can_be_read_back_and_holds_nothing_that_webdataset_expands(name):
    found = escaped(name)
    assert re.sub("=([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), found) == name
    assert not set(found) & set("{}?#;:\\")
    assert not found.startswith(".")
