"""The nouns of WordNet, from its own database files: a taxonomy of WordNet ids.

WordNet: Christiane Fellbaum (ed.), *WordNet: An Electronic Lexical Database*, MIT Press, 1998. The
format of the files is that of the manual page wndb(5WN).
"""

import os
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from iirc_data.errors import BenchmarkError
from iirc_data.reading import read_regular
from iirc_data.taxonomies.reduction import make_taxonomy
from iirc_data.taxonomy import Taxonomy

DATA, INDEX = "data.noun", "index.noun"
_LARGEST = 1 << 28  # bytes; the nouns of WordNet 3.1 have 16 MB
_ID = re.compile(r"n([0-9]{8})")
_SENSE = re.compile(r"(.+)\.n\.([0-9]{1,3})")
_VERSION = re.compile(rb"WordNet (\S+) Copyright ([0-9]{4})")
_HYPERNYMS = (b"@", b"@i")  # of a kind, of an individual


@dataclass(frozen=True)
class Synset:
    """A noun synset.

    Attributes:
        words: Its words, the most frequent first, with spaces.
        hypernyms: WordNet ids of the synsets directly above it, in the order of the file.
    """

    words: tuple[str, ...]
    hypernyms: tuple[str, ...]


class WordNet:
    """The noun synsets of WordNet. Its ids, such as ``n02084071``, are those of ImageNet.

    Args:
        data: Content of ``data.noun``.
        index: Content of ``index.noun``.
        where: Name of the files in error messages.
    """

    def __init__(self, data: bytes, index: bytes, where: str) -> None:
        self._data = data
        self._index = index
        self.where = where
        self.synset = lru_cache(maxsize=None)(self._read_synset)

    @property
    def version(self) -> str:
        """For example ``"WordNet 3.0, Copyright 2006 by Princeton University"``."""
        match = _VERSION.search(self._data[:4096])
        if match is None:
            return "WordNet"
        number, year = (part.decode(errors="replace") for part in match.groups())
        return f"WordNet {number}, Copyright {year} by Princeton University"

    license_note = "WordNet licence (https://wordnet.princeton.edu/license-and-commercial-use)"

    def _read_synset(self, wnid: str) -> Synset:
        """Return a synset.

        Args:
            wnid: WordNet id: ``n`` and the offset of the synset in ``data.noun``.

        Raises:
            BenchmarkError: There is no such synset, or its line is damaged.
        """
        match = _ID.fullmatch(wnid)
        start = int(match[1]) if match else 0
        line = self._data[start : self._data.find(b"\n", start)]
        if match is None or not line.startswith(match[1].encode() + b" "):
            raise BenchmarkError(
                f"{wnid!r} is no noun synset of {self.version.partition(',')[0]} ({self.where}); "
                "the ids of ImageNet are those of WordNet 3.0"
            )
        try:
            return _parse(line.partition(b" | ")[0].split())
        except (IndexError, ValueError) as error:
            raise BenchmarkError(f"{self.where}: the line of {wnid} is damaged") from error

    def id_of(self, name: str) -> str:
        """Return the id of a synset.

        Args:
            name: A WordNet id, or a word and the number of its sense, such as ``dog.n.01``.

        Raises:
            BenchmarkError: There is no such synset.
        """
        sense = _SENSE.fullmatch(name)
        if sense is None:
            self.synset(name)
            return name
        word = sense[1].strip().lower().replace(" ", "_")
        start = self._index.find(b"\n" + word.encode(errors="replace") + b" ") + 1
        fields = self._index[start : self._index.find(b"\n", start)].split() if start else []
        n_senses = int(fields[2]) if len(fields) > 2 and fields[2].isdigit() else 0
        number = int(sense[2])
        if not 1 <= number <= n_senses:
            raise BenchmarkError(
                f"{name!r}: {word!r} has {n_senses} senses as a noun in {self.where}"
            )
        return "n" + fields[len(fields) - n_senses + number - 1].decode(errors="replace")

    def readable_name(self, wnid: str) -> str:
        """Return the first word of a synset."""
        return self.synset(wnid).words[0]

    def taxonomy(self, wnids: Iterable[str], *, several_superclasses: bool = False) -> Taxonomy:
        """Return the taxonomy of some synsets, up to WordNet's root.

        Args:
            wnids: WordNet ids of the leaf classes.
            several_superclasses: Follow all hypernyms of a synset; otherwise the first one.

        Raises:
            BenchmarkError: There is no such synset, or one of the synsets is above another.
        """
        leaves = list(dict.fromkeys(wnids))
        hypernyms: dict[str, tuple[str, ...]] = {}
        waiting = leaves[::-1]
        while waiting:
            wnid = waiting.pop()
            if wnid not in hypernyms:
                above = self.synset(wnid).hypernyms
                hypernyms[wnid] = above if several_superclasses else above[:1]
                waiting += hypernyms[wnid][::-1]
        superclasses: dict[str, list[str]] = {}
        for wnid, above in sorted(hypernyms.items()):
            for hypernym in above:
                superclasses.setdefault(hypernym, []).append(wnid)
        if both := [wnid for wnid in leaves if wnid in superclasses]:
            names = [f"{w} ({self.readable_name(w)})" for w in (both[0], superclasses[both[0]][0])]
            raise BenchmarkError(
                f"{names[0]} is a leaf class and a superclass of {names[1]}: leave one of them out"
            )
        return make_taxonomy(superclasses, leaves, self.where)


def open_wordnet(place: Path | None = None) -> WordNet:
    """Open WordNet's files ``data.noun`` and ``index.noun``.

    Args:
        place: Their folder, a folder ``nltk_data``, or a ``wordnet.zip`` of nltk. By default the
            places where the system and nltk install them.

    Raises:
        BenchmarkError: The files are not there, or cannot be read.
    """
    places = [place] if place is not None else list(_usual_places())
    for folder in places:
        for candidate in ("", "dict", "wordnet", "corpora/wordnet"):
            if (folder / candidate / DATA).is_file():
                return _read_folder(folder / candidate)
        for archive in (folder, folder / "wordnet.zip", folder / "corpora/wordnet.zip"):
            if archive.suffix == ".zip" and archive.is_file():
                return _read_archive(archive)
    raise BenchmarkError(
        f"no {DATA} in {', '.join(map(str, places))}: install WordNet (Debian: apt install "
        "wordnet-base; nltk: python -m nltk.downloader wordnet) or give the folder of its files"
    )


def _usual_places() -> Iterator[Path]:
    yield from (Path(place) for place in [os.environ.get("WNSEARCHDIR", "")] if place)
    yield from map(Path, ("/usr/share/wordnet", "/usr/local/share/wordnet"))
    yield from (Path(p) for p in os.environ.get("NLTK_DATA", "").split(os.pathsep) if p)
    yield from (Path.home() / "nltk_data", Path(sys.prefix) / "nltk_data")
    yield from map(Path, ("/usr/share/nltk_data", "/usr/local/share/nltk_data"))


def _read_folder(folder: Path) -> WordNet:
    try:
        contents = [read_regular(folder / name) for name in (DATA, INDEX)]
    except OSError as error:
        raise BenchmarkError(f"cannot read WordNet in {folder}: {error.strerror}") from error
    return WordNet(contents[0], contents[1], str(folder))


def _read_archive(path: Path) -> WordNet:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            found = [members[f"wordnet/{name}"] for name in (DATA, INDEX)]
            if any(member.file_size > _LARGEST for member in found):
                raise BenchmarkError(f"{path}: a file is larger than {_LARGEST >> 20} MiB")
            contents = [archive.read(member) for member in found]
    except KeyError as error:
        raise BenchmarkError(f"{path} is not nltk's archive of WordNet: no {error}") from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise BenchmarkError(f"cannot read {path}: {error}") from error
    return WordNet(contents[0], contents[1], str(path))


def _parse(fields: list[bytes]) -> Synset:
    n_words = int(fields[3], 16)
    words = fields[4 : 4 + 2 * n_words : 2]
    pointers = fields[5 + 2 * n_words :]
    if not words or len(pointers) < 4 * int(fields[4 + 2 * n_words]):
        raise ValueError("too few fields")
    above = [
        "n" + pointers[i + 1].decode()
        for i in range(0, len(pointers) - 3, 4)
        if pointers[i] in _HYPERNYMS and pointers[i + 2] == b"n"
    ]
    return Synset(tuple(w.decode().replace("_", " ") for w in words), tuple(dict.fromkeys(above)))
