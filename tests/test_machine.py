"""Devices are found, or refused in one line; the machine has a name."""

import pytest
import torch

from minisd.machine import describe, pick_device


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="there is no device") as error:
        pick_device(name)
    assert "\n" not in str(error.value)


def test_the_machine_says_what_a_number_depends_on():
    text = describe()
    assert torch.__version__.split("+")[0] in text and "cores" in text and "\n" not in text
