"""Tiny models of diffusers and transformers, with nothing left at its initial value.

A fresh norm is the identity and a fresh bias is zero, so freshly made models agree even where
weights are swapped or an epsilon is wrong. Here every parameter is random.
"""

import diffusers
import torch
import transformers

diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

GROUPS = 4  # of every group norm here


@torch.no_grad()
def randomise(model, seed=0, gain=1.0):
    """Draw every parameter anew; `gain` scales all but the norms. Returns the model, in eval mode.

    With a small gain the features between two norms are faint, about as faint as the epsilon that a
    norm adds to their variance: then a wrong epsilon shows.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            p.copy_(0.3 * noise + (1 if name.endswith("weight") else 0))
        elif p.dim() > 1 and "embedding" not in name:
            p.copy_(gain * noise / p[0].numel() ** 0.5)  # keeps the variance of what it multiplies
        else:
            p.copy_(gain * 0.3 * noise)
    return model.eval()


def unet(widths, attends, layers, heads=2, seed=0, gain=1.0, **options):
    """diffusers' U-Net; `attends` says which levels have cross-attention, from the top."""
    options = {"cross_attention_dim": 12, "sample_size": 8} | options
    model = diffusers.UNet2DConditionModel(
        block_out_channels=widths,
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
        layers_per_block=layers,
        attention_head_dim=heads,
        norm_num_groups=GROUPS,
        **options,
    )
    return randomise(model, seed, gain)


def autoencoder(widths=(8, 16), layers=1, seed=0, gain=1.0, **options):
    """diffusers' AutoencoderKL."""
    model = diffusers.AutoencoderKL(
        block_out_channels=widths,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        layers_per_block=layers,
        norm_num_groups=GROUPS,
        latent_channels=4,
        **options,
    )
    return randomise(model, seed, gain)


TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
TOWER |= {"num_attention_heads": 4}


def text_config(vocabulary=50, **options):
    """A CLIPTextConfig whose last two words are the start and the end of text."""
    ends = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": 0}
    options = TOWER | {"max_position_embeddings": 8} | ends | options
    return transformers.CLIPTextConfig(vocab_size=vocabulary, **options)


def text_encoder(vocabulary=50, seed=0, **options):
    """transformers' CLIPTextModel."""
    return randomise(transformers.CLIPTextModel(text_config(vocabulary, **options)), seed)


def clip(vocabulary=50, seed=0, activation="quick_gelu"):
    """transformers' CLIPModel; the towers differ in width, so that none is taken for the other."""
    text = text_config(vocabulary, hidden_act=activation)
    vision = TOWER | {"hidden_size": 20, "image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision | {"hidden_act": activation},
        projection_dim=6,
    )
    return randomise(transformers.CLIPModel(config), seed)


def captions(vocabulary=50):
    """Token ids (3, 8): start, words, end, then more ends; the last row has no padding."""
    start, end = vocabulary - 2, vocabulary - 1
    return torch.tensor(
        [
            [start, 5, 7, end, end, end, end, end],
            [start, end, end, end, end, end, end, end],
            [start, 9, 3, 7, 5, 5, 1, end],
        ]
    )
