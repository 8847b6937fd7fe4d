"""Captions say what is in the picture, in plain English, and nothing else."""

import re

import pytest
import torch

from minisd.data import (
    ONE,
    VALUES,
    all_combinations,
    fits,
    held_out_combinations,
    is_held_out,
    say,
    seen_combinations,
    write_captions,
)
from tests.helpers import read_caption


@pytest.fixture(scope="module")
def written():
    """10,000 captions of random combinations: (captions, mentioned, combinations)."""
    generator = torch.Generator().manual_seed(0)
    combinations = all_combinations()[torch.randint(800, (10_000,), generator=generator)]
    return *write_captions(combinations, generator), combinations


def full_captions(combination):
    return {say(combination, phrasing=p, numeral=n) for p in ONE.phrasings for n in (False, True)}


def test_there_are_800_combinations_each_once():
    assert [len(values) for values in VALUES] == [10, 8, 2, 5]
    assert len(set(map(tuple, all_combinations().tolist()))) == 800


def test_a_fifth_is_held_out_by_the_rule():
    rule = {tuple(c) for c in all_combinations().tolist() if sum(c) % 5 == 0}
    assert set(map(tuple, held_out_combinations().tolist())) == rule
    assert (len(held_out_combinations()), len(seen_combinations())) == (160, 640)
    assert not is_held_out(seen_combinations()).any()


def test_every_word_and_every_pair_of_words_is_seen_in_training():
    """What is held out can be composed of what was seen: only whole combinations are new."""
    seen = seen_combinations()
    for a in range(4):
        for b in range(a):
            assert len(set(map(tuple, seen[:, [a, b]].tolist()))) == len(VALUES[a]) * len(VALUES[b])


def test_a_caption_names_what_it_mentions_and_nothing_else(written):
    captions, mentioned, combinations = written
    wanted = torch.where(mentioned, combinations, -1).tolist()
    assert [read_caption(c) for c in captions] == wanted


def test_full_captions_name_all_four():
    for combination in all_combinations().tolist():
        for caption in full_captions(combination):
            assert read_caption(caption) == combination, caption


def test_different_combinations_never_share_a_full_caption():
    sets = [full_captions(c) for c in all_combinations().tolist()]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 800 * len(ONE.phrasings) * 2


@pytest.mark.parametrize(
    ("mentioned", "numeral", "caption"),
    [
        ((1, 1, 1, 1), False, "a small orange eight in the center"),
        ((1, 1, 0, 1), False, "an orange eight in the center"),
        ((1, 0, 0, 0), False, "an eight"),
        ((1, 0, 0, 0), True, "an 8"),
        ((0, 1, 0, 0), False, "an orange digit"),
        ((0, 0, 0, 0), False, "a digit"),
    ],
)
def test_the_article_fits_what_follows(mentioned, numeral, caption):
    assert say((8, 1, 0, 4), mentioned, numeral=numeral) == caption


def test_a_caption_fits_every_picture_that_has_the_attributes_it_names():
    shown = torch.tensor([(7, 0, 1, 0), (7, 0, 0, 3), (7, 2, 1, 0), (3, 0, 1, 0)])
    said = torch.tensor([(7, 0, 1, 0)] * 3 + [(5, 5, 0, 1)])
    named = torch.tensor([(1, 1, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (0, 0, 0, 0)]).bool()
    expected = [[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]]  # of each picture
    assert fits(shown, said, named).int().tolist() == expected


def test_no_caption_has_a_wrong_article(written):
    for caption in written[0]:
        for article, word in re.findall(r"\b(an?) (\w+)", caption):
            assert (article == "an") == (word in ("orange", "eight", "8")), caption


def test_captions_are_tidy(written):
    for caption in written[0]:
        assert caption == " ".join(caption.split()).strip(" ,")
        assert " ," not in caption


def test_every_phrasing_and_both_spellings_of_digits_occur(written):
    captions = written[0]
    numerals = sum(bool(re.search(r"\d", c)) for c in captions) / len(captions)
    assert 0.1 < numerals < 0.3
    for start in (
        "the ",
        "a picture of ",
        "at the ",
        "in the center there is ",
        "small ",
        "a red ",
    ):
        assert any(c.startswith(start) for c in captions), start


def test_complete_is_the_share_of_captions_that_surely_name_all():
    combinations = all_combinations()
    _, always = write_captions(combinations, torch.Generator().manual_seed(0), complete=1.0)
    _, rarely = write_captions(combinations, torch.Generator().manual_seed(0), complete=0.0)
    assert always.all()
    assert 0.1 < rarely.all(dim=1).float().mean() < 0.3  # 0.9 * 0.6^3 = 0.19


def test_the_generator_decides_every_word():
    combinations = all_combinations()
    one, same, other = (
        write_captions(combinations, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert one == same != other
