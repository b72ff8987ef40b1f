"""Which synset an ILSVRC id stands for: ids are not in the order of the synsets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from synq_tune.errors import InputError

TEXTS = ("map_clsloc.txt", "meta.txt", "synset_words.txt", "synsets.txt")


def synsets_of_ids(truth: Path, folders: Iterable[Path]) -> dict[str, str]:
    """ILSVRC id (text) → synset, from the development kit's `meta.mat` or a text list.

    A text list has `SYNSET ID NAME`, `ID SYNSET NAME`, or `SYNSET NAME` per line, where line n is
    id n. Of the last form an alphabetical list is passed over: it tells no id.

    Args:
        truth: the label file that needs the ids, for the message.
        folders: where to look, also in the `data` folder inside them.

    Raises:
        InputError: there is no such file, or none that tells the ids.
    """
    places = [place for folder in folders for place in (folder, folder / "data")]
    for place in places:
        for name in TEXTS:
            if (place / name).is_file():
                found = _from_text(place / name)
                if found:
                    return found
        if (place / "meta.mat").is_file():
            return _from_matlab(place / "meta.mat")
    raise InputError(
        f"{truth}: `the synsets of its ILSVRC ids are known` must hold, but got no meta.mat and no "
        f"{', '.join(TEXTS)} with ids beside it. Copy meta.mat from the development kit, or use "
        "val.txt."
    )


def _from_text(file: Path) -> dict[str, str]:
    rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    heads = [row[:2] for row in rows]
    if heads and all(len(head) == 2 and head[1].isdigit() for head in heads):
        pairs = [(identity, synset) for synset, identity in heads]
    elif heads and all(len(head) == 2 and head[0].isdigit() for head in heads):
        pairs = [(identity, synset) for identity, synset in heads]
    else:
        synsets = [head[0] for head in heads]
        if synsets == sorted(synsets):
            return {}
        pairs = [(str(number), synset) for number, synset in enumerate(synsets, start=1)]
    by_id = dict(pairs)
    if len(by_id) != len(pairs) or len(set(by_id.values())) != len(pairs):
        raise InputError(
            f"{file}: `each id and each synset appears once` must hold, but one comes twice."
        )
    return by_id


def _from_matlab(file: Path) -> dict[str, str]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        rows = loadmat(file, squeeze_me=True)["synsets"]
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in leaves}
    except (MatReadError, KeyError, ValueError, TypeError, IndexError, OSError) as error:
        raise InputError(
            f"{file}: `the development kit's synsets can be read` must hold, but got: {error}."
        ) from error
