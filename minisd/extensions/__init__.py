"""What stands on the pipeline. Each file is one idea, whole: network, loss, training, use.

The core imports none, none imports another, and each can be deleted with its tests. A file has

RECIPE                   how it is trained by `python -m minisd extend NAME`
extend(run, pipe)        trains it; returns a pipeline, or a Wrapper with `save_pretrained(folder)`
load(folder, pipe)       what `extend` returned, read again
examples(extended, dataset, generator)    pictures and captions that show it; may be missing
OPTIONS                  {flag: argparse's arguments}: what it adds to `sample`; may be missing
use(pipe, options, call) with these options: may wrap the pipeline and change the call's arguments
"""

import copy
from dataclasses import replace

from torch import nn

from ..errors import InputError


class Wrapper:
    """A pipeline with something added, or a wrapper with more. The rest is the pipeline's own."""

    def __init__(self, pipe):
        self.pipe = pipe

    def __getattr__(self, name: str):
        if name == "pipe":  # in a copy that is still empty
            raise AttributeError(name)
        return getattr(self.pipe, name)

    def __call__(self, *arguments, **options):
        return self.pipe(*arguments, **options)

    def to(self, device=None, dtype=None) -> "Wrapper":
        """Move the pipeline, and what was added to its device. Returns itself."""
        self.pipe.to(device, dtype)
        for added in vars(self).values():
            if isinstance(added, nn.Module):
                added.to(self.pipe.device)
        return self


def replace_parts(pipe, **parts):
    """The pipeline with other parts, and around it the same wrappers."""
    if not isinstance(pipe, Wrapper):
        return replace(pipe, **parts)
    around = copy.copy(pipe)
    around.pipe = replace_parts(pipe.pipe, **parts)
    return around


def unwrapped(pipe):
    """The pipeline. InputError if there is something around it, which may need its own U-Net."""
    if isinstance(pipe, Wrapper):
        raise InputError("load an extension that brings a U-Net first, and others on top of it")
    return pipe
