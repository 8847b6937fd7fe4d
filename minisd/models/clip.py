"""CLIP: a text tower and a vision tower that share one embedding space.

Token ids (B, L) -> states (B, L, D); pictures (B, 3, H, W) -> features (B, D). Both towers are the
same pre-norm transformer. Source: Radford et al. 2021, "Learning transferable visual models from
natural language supervision"; attribute names as in `transformers.CLIPModel`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .layers import MultiHeadAttention, matrices_between, tokens


@dataclass(frozen=True)
class TextConfig:
    """Defaults are minisd's, except vocab_size and end_id, which the tokenizer decides."""

    vocab_size: int = 49408
    end_id: int = 49407
    max_length: int = 16
    hidden_size: int = 128
    intermediate_size: int = 512
    num_layers: int = 2
    num_heads: int = 4
    hidden_act: str = "quick_gelu"


@dataclass(frozen=True)
class VisionConfig:
    """Defaults are minisd's."""

    image_size: int = 32
    patch_size: int = 8
    hidden_size: int = 128
    intermediate_size: int = 512
    num_layers: int = 4
    num_heads: int = 4
    hidden_act: str = "quick_gelu"

    def __post_init__(self):
        """InputError unless patches fill the picture."""
        if self.patch_size < 1 or self.image_size % self.patch_size:
            raise InputError(f"patches of {self.patch_size} do not fill {self.image_size} pixels")


@dataclass(frozen=True)
class CLIPConfig:
    """Both towers, and the width of the space that they share."""

    text: TextConfig
    vision: VisionConfig
    projection_dim: int = 128


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the approximation of GELU that CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class SelfAttention(nn.Module):
    """Self-attention with biases: (B, N, C) -> (B, N, C)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        self.attention = MultiHeadAttention(heads)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)  # (B, N, C) each
        return self.out_proj(self.attention(q, k, v, mask))       # (B, N, C)


class MLP(nn.Module):
    """Each token by itself: (B, N, C) -> (B, N, C)."""

    def __init__(self, channels: int, hidden: int, activation: str):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.fc1(x))  # (B, N, hidden)
        return self.fc2(h)                # (B, N, C)


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer: (B, N, C) -> (B, N, C)."""

    def __init__(self, config: TextConfig | VisionConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size)
        self.self_attn = SelfAttention(config.hidden_size, config.num_heads)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask)  # (B, N, C)
        return x + self.mlp(self.layer_norm2(x))           # (B, N, C)


class TransformerEncoder(nn.Module):
    """The stack of layers, without the last `skip` of them: (B, N, C) -> (B, N, C)."""

    def __init__(self, config: TextConfig | VisionConfig):
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_layers)])

    def forward(self, x: Tensor, mask: Tensor | None = None, skip: int = 0) -> Tensor:
        for layer in self.layers[: len(self.layers) - skip]:
            x = layer(x, mask)  # (B, N, C)
        return x


class TextEmbeddings(nn.Module):
    """Token ids (B, L) -> (B, L, C): an embedding of the token plus one of its position."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_length, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        position = self.position_embedding.weight[: ids.shape[1]]  # (L, C)
        return self.token_embedding(ids) + position                # (B, L, C)


class TextEncoder(nn.Module):
    """Token ids (B, L) -> states (B, L, D), the context that the U-Net reads.

    skip: layers to leave out at the end, as diffusers' clip_skip.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = TransformerEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size)

    def forward(self, ids: Tensor, skip: int = 0) -> Tensor:
        x = self.embeddings(ids)                   # (B, L, D)
        future = torch.full((ids.shape[1],) * 2, -torch.inf, device=x.device, dtype=x.dtype)
        x = self.encoder(x, future.triu(1), skip)  # (B, L, D); token i sees 0 ... i
        return self.final_layer_norm(x)            # (B, L, D)

    def pool(self, states: Tensor, ids: Tensor) -> Tensor:
        """The state at the first end-of-text token, which has seen the whole text: (B, D)."""
        end = (ids == self.config.end_id).int().argmax(dim=-1)  # (B,)
        return states[torch.arange(len(ids), device=ids.device), end]


class VisionEmbeddings(nn.Module):
    """Pictures (B, 3, H, W) -> (B, 1 + N, C): a class token, then a token for each patch."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        size, width = config.patch_size, config.hidden_size
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, size, stride=size, bias=False)
        self.position_embedding = nn.Embedding(1 + (config.image_size // size) ** 2, width)

    def forward(self, images: Tensor) -> Tensor:
        patches = tokens(self.patch_embedding(images))           # (B, N, C)
        first = self.class_embedding.expand(len(images), 1, -1)  # (B, 1, C)
        x = torch.cat([first, patches], dim=1)                   # (B, 1 + N, C)
        return x + self.position_embedding.weight                # (B, 1 + N, C)


class VisionEncoder(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] -> the class token's state (B, C)."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size)  # spelt so in every CLIP checkpoint
        self.encoder = TransformerEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pre_layrnorm(self.embeddings(images))  # (B, 1 + N, C)
        x = self.encoder(x)                             # (B, 1 + N, C)
        return self.post_layernorm(x[:, 0])             # (B, C)


class CLIP(nn.Module):
    """Both towers, each projected into the joint space, and the learnt temperature."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        self.text_model = TextEncoder(config.text)
        self.vision_model = VisionEncoder(config.vision)
        joint = config.projection_dim
        self.text_projection = nn.Linear(config.text.hidden_size, joint, bias=False)
        self.visual_projection = nn.Linear(config.vision.hidden_size, joint, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.init_weights()

    def init_weights(self):
        """Text embeddings start small, as in CLIP; patch positions at the scale of the patches."""
        text, vision = self.text_model.embeddings, self.vision_model.embeddings
        nn.init.normal_(text.token_embedding.weight, std=0.02)
        nn.init.normal_(text.position_embedding.weight, std=0.02)
        nn.init.normal_(vision.position_embedding.weight, std=0.3)
        nn.init.normal_(vision.class_embedding, std=0.3)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights for Muon: all but the embeddings."""
        return matrices_between(self, [self.text_model.embeddings, self.vision_model.embeddings])

    def encode_text(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> unit vectors (B, P)."""
        pooled = self.text_model.pool(self.text_model(ids), ids)
        return F.normalize(self.text_projection(pooled), dim=-1)

    def encode_image(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] -> unit vectors (B, P)."""
        return F.normalize(self.visual_projection(self.vision_model(images)), dim=-1)

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        """Similarity of every picture to every text, in logits: (pictures, texts)."""
        pictures, texts = self.encode_image(images), self.encode_text(ids)      # (B, P) each
        # bfloat16 is too coarse for logits
        with torch.autocast(images.device.type, enabled=False):
            return self.logit_scale.exp() * pictures.float() @ texts.float().T  # (B, B)
