"""The autoencoder is measured on what the judge can read."""

import pytest
import torch

from minisd.data import ONE
from minisd.evaluation import evaluate_autoencoder

from .stubs import SAMPLES, Album, Stub


def test_the_autoencoder_is_measured_on_what_the_judge_can_read(listening, deaf):
    good, bad = listening[1]["autoencoder"], deaf["autoencoder"]
    assert good["kept"]["joint"]["rate"] > 0.95 and bad["kept"]["joint"]["rate"] == 0
    assert good["kept"]["joint"]["of"] == bad["kept"]["joint"]["of"] <= SAMPLES
    assert good["psnr"] > 30 > bad["psnr"]


def test_pictures_that_nobody_can_read_are_told_of(judge):
    batch = ONE.batch(3, "test", torch.Generator().manual_seed(0))
    batch.images = -torch.ones_like(batch.images)
    with pytest.raises(ValueError, match="reads none of 3 real pictures; take more"):
        evaluate_autoencoder(Stub(), judge, ONE, batch)


def test_pictures_without_attributes_have_a_psnr_and_need_no_judge():
    found = evaluate_autoencoder(Stub(), None, Album(), Album().batch(10, "test"))
    assert list(found) == ["psnr"]
