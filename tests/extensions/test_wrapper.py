"""What all wrappers of a pipeline have in common."""

import torch
from torch import nn

from minisd.extensions import Wrapper


class Pipe:
    """A pipeline that says where it was moved."""

    device = torch.device("meta")
    moves = ()

    def to(self, device=None, dtype=None):
        self.moves += ((device, dtype),)
        return self


def test_a_wrapper_moves_the_pipeline_and_what_it_adds_and_stays_a_wrapper():
    wrapper = Wrapper(Pipe())
    wrapper.network = nn.Linear(2, 2)
    assert wrapper.to("meta", torch.bfloat16) is wrapper
    assert wrapper.pipe.moves == (("meta", torch.bfloat16),)
    assert wrapper.network.weight.device == torch.device("meta")
    assert wrapper.network.weight.dtype == torch.float32  # each casts as it needs
