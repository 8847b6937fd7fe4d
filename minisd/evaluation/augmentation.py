"""Data augmentation for handwriting: a random affine map and an elastic distortion."""

import torch
import torch.nn.functional as F
from torch import Tensor

AFFINE = ((0.1, 0.2, 0.06), (0.2, 0.1, 0.06))  # bounds of each entry's deviation from the identity
ELASTIC = 0.06  # standard deviation of the displacements; a picture spans [-1, 1]
GRID = 5  # the displacements are drawn at GRID x GRID points and interpolated between them


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """The same digits in other handwriting: (B, 3, H, W) in [-1, 1]. The generator is a CPU one.

    Affine: scaled, sheared and shifted. Elastic: displaced by a smooth random field. Source:
    Simard, Steinkraus and Platt 2003, "Best practices for convolutional neural networks applied to
    visual document analysis", section 2.
    """
    count, _, height, width = images.shape
    deviation = 2 * torch.rand(count, 2, 3, generator=generator) - 1  # in [-1, 1]
    affine = torch.eye(2, 3) + torch.tensor(AFFINE) * deviation  # (B, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)  # (B, H, W, 2)
    field = ELASTIC * torch.randn(count, 2, GRID, GRID, generator=generator)
    field = F.interpolate(field, (height, width), mode="bicubic", align_corners=True)
    grid = (grid + field.permute(0, 2, 3, 1)).to(images.device)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1  # zero padding is black
