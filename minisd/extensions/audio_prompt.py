"""Audio prompts: a spoken caption draws the picture.

The U-Net reads a caption as L states of D numbers, whoever computed them. So an audio encoder needs
to learn one thing: to say of a recording what the text encoder says of the caption spoken in it, in
the plainest words that mean the same. Neither the text encoder nor the U-Net is changed, and no
picture is needed to teach it.

Sources: Radford et al. 2022, "Robust speech recognition via large-scale weak supervision"
(Whisper), for the spectrogram and the encoder; Carion et al. 2020, "End-to-end object detection
with transformers", for queries that are learnt.
"""

import math
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio import RATE, SECONDS, read_wav, trim
from ..call import check_tensor
from ..checkpoint import fingerprint, load_extension, save_extension, values_like
from ..checkpoint.options import require_parts
from ..data import ONE
from ..errors import InputError
from ..files import SHIPPED
from ..models import UNet
from ..models.clip import TransformerEncoder
from ..models.layers import matrices_between
from ..models.unet import timestep_features
from ..training import Recipe, Run, generator_for
from ..training.stages import Stage, train_stage
from . import Wrapper

RECIPE = Recipe(steps=4400, batch_size=16, learning_rate=3e-3)
SPEECH = SHIPPED / "speech.npz"
WINDOW, HOP, MELS = 200, 80, 40  # 25 and 10 milliseconds, as in Whisper; bands
STATE = 8 * HOP  # samples from one state of the encoder to the next
WORDS = 0.2  # weight of the loss that asks for the word spoken at each moment
MENTIONED = 0.3, 0.9  # share of attributes that training's captions name, at first and at last
MU = 255  # of G.711's curve, in which the recordings are stored
SAY = f"a spoken caption, to draw what it says: 16-bit PCM, at most {SECONDS} seconds"
OPTIONS = {"--audio": {"type": Path, "metavar": "FILE.wav", "help": SAY}}


@cache
def mel_filters() -> Tensor:
    """Triangles of equal width on the ear's scale, 2595 log10(1 + f / 700): (MELS, F)."""
    mel = torch.linspace(0, 2595 * math.log10(1 + RATE / 2 / 700), MELS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)  # (MELS + 2,) in Hz
    f = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)  # (F,) in Hz
    left, centre, right = (edges[i : i + MELS, None] for i in range(3))  # (MELS, 1)
    up_down = (f - left) / (centre - left), (right - f) / (right - centre)
    filters = torch.minimum(*up_down).clamp(min=0)  # (MELS, F)
    return filters / filters.sum(dim=1, keepdim=True).clamp(min=1e-6)


def log_mel(x: Tensor) -> Tensor:
    """Sound (B, T) -> Whisper's log-mel spectrogram (B, MELS, 1 + T // HOP), 80 dB deep."""
    window = torch.hann_window(WINDOW, device=x.device)
    spectrum = torch.stft(x, WINDOW, HOP, window=window, return_complex=True)  # (B, F, N)
    power = mel_filters().to(x.device) @ spectrum.abs().square()  # (B, MELS, N)
    log = power.clamp(min=1e-10).log10()
    log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8)
    return (log + 4) / 4  # (B, MELS, N)


@dataclass(frozen=True)
class AudioConfig:
    """L and D are those of the text encoder; num_words is that of SPEECH."""

    context_length: int = 16
    context_width: int = 128
    num_words: int = 35
    hidden_size: int = 128
    intermediate_size: int = 512
    num_layers: int = 3
    num_heads: int = 4
    hidden_act: str = "gelu"


class AudioEncoder(nn.Module):
    """Sound (B, T) at RATE -> the context that the U-Net reads (B, L, D).

    Whisper's encoder, but eight spectra become one state, and each band is normalised over time, so
    that neither microphone nor loudness counts. In place of its decoder, L queries stand in the row
    with the states and gather what the text encoder would say.
    """

    def __init__(self, config: AudioConfig):
        super().__init__()
        self.config, width = config, config.hidden_size
        self.conv1 = nn.Conv1d(MELS, width, 4, stride=2, padding=2)
        self.conv2 = nn.Conv1d(width, width, 8, stride=4, padding=4)
        self.pre_layer_norm = nn.LayerNorm(width)  # else the positions are louder than the sound
        self.queries = nn.Parameter(torch.randn(config.context_length, width))
        self.encoder = TransformerEncoder(config)
        self.final_layer_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, config.context_width)
        self.words = nn.Linear(width, 1 + config.num_words)  # for training alone

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights for Muon."""
        return [self.conv2.weight, *matrices_between(self.encoder, [])]

    def states(self, x: Tensor) -> Tensor:
        """Of the queries, then of the sound, one every STATE samples: (B, L + N / 8, C)."""
        x = F.instance_norm(log_mel(x))  # (B, MELS, N)
        x = F.gelu(self.conv1(x))  # (B, C, N / 2)
        x = self.conv2(x).transpose(1, 2)  # (B, N / 8, C)
        times = torch.arange(x.shape[1], device=x.device)
        x = self.pre_layer_norm(F.gelu(x)) + timestep_features(times, x.shape[2])
        queries = self.queries.expand(len(x), -1, -1)  # (B, L, C)
        return self.final_layer_norm(self.encoder(torch.cat([queries, x], dim=1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.states(x)[:, : self.config.context_length])  # (B, L, D)


def readings(unet: UNet) -> Tensor:
    """The U-Net's keys and values of a token are linear in its context: their matrix (K, D)."""
    layers = [layer for name, layer in unet.named_modules() if name.endswith("attn2")]
    weights = [w.weight for layer in layers for w in (layer.to_k, layer.to_v)]  # (C, D) each
    return torch.cat([w / w.norm(dim=1).mean() for w in weights]).detach()


def hearing_loss(encoder, x: Tensor, target: Tensor, spoken: Tensor, reading: Tensor) -> Tensor:
    """How far the sound's context is from the text's, and how far each state is from its word.

    x (B, T), target (B, L, D), spoken (B, T): the number of the word at each moment, or 0. Half of
    the first is measured after reading (K, D), as the U-Net does. Without the second it is learnt
    very slowly which of all the sounds made the difference.
    """
    length, spoken = encoder.config.context_length, spoken[:, ::STATE].long()  # (B, M)
    queries, sounds = encoder.states(x).tensor_split([length], dim=1)
    named = encoder.words(sounds[:, : spoken.shape[1]]).transpose(1, 2)  # (B, 1 + words, M)
    apart = encoder.projection(queries) - target  # (B, L, D)
    to_text = (apart.square().mean() + (apart @ reading.T).square().mean()) / 2
    return to_text + WORDS * F.cross_entropy(named, spoken)


class Speech:
    """Words spoken by many voices, joined to captions. `benchmarks/speech.py` made the file."""

    def __init__(self, path: Path = SPEECH):
        with np.load(path) as file:
            sound, ends, groups = file["sound"], file["ends"], file["groups"]
            self.words, self.voices = file["words"].tolist(), file["voices"].tolist()
        x = torch.from_numpy(sound).float() / 127.5 - 1
        sounds = x.sign() * ((1 + MU) ** x.abs() - 1) / MU  # out of G.711's curve
        self.sounds = sounds.tensor_split(torch.from_numpy(ends.flatten())[:-1])
        self.groups = {str(g): np.flatnonzero(groups == g).tolist() for g in dict.fromkeys(groups)}

    def say(self, captions: list[str], voices: list[int], generator) -> list[Tensor]:
        """Each caption (2, T) by one of the voices, at another speed, with other pauses.

        First the sound, then the number of the word that is spoken, from 1; 0 where there is none.
        """
        said = []
        for caption in captions:
            words = [self.words.index(word) for word in caption.replace(",", "").split()]
            speed, which, *chance = torch.rand(2 + len(words), generator=generator).tolist()
            first = voices[int(which * len(voices))] * len(self.words)
            parts = []
            for word, share in zip(words, chance, strict=True):
                pause = int(0.4 * RATE * share**4)  # up to 0.4 seconds, most far shorter
                sound = self.sounds[first + word]
                both = torch.stack([sound, torch.full_like(sound, 1 + word)])
                parts.append(F.pad(both, (0, pause)))
            longer = 1.25 ** (1 - 2 * speed)  # 0.8 to 1.25 times; the pitch falls with it
            x = torch.cat(parts, dim=1)[:, None]  # (2, 1, T)
            sound = F.interpolate(x[:1], scale_factor=longer, mode="linear")
            said.append(torch.cat([sound, F.interpolate(x[1:], sound.shape[2])])[:, 0])
        return said


def join(said: list[Tensor], generator: torch.Generator) -> Tensor:
    """Several of (2, T) -> (2, B, T): each begins anywhere in the silence that is left."""
    longest = max(x.shape[1] for x in said) * (1 + 0.2 * torch.rand((), generator=generator).item())
    batch = torch.zeros(2, len(said), (int(longest) // 4000 + 1) * 4000)  # round, for fast FFTs
    for i, (x, share) in enumerate(zip(said, torch.rand(len(said), generator=generator).tolist())):
        start = int(share * (batch.shape[2] - x.shape[1]))
        batch[:, i, start : start + x.shape[1]] = x
    return batch


def in_a_room(x: Tensor, generator: torch.Generator) -> Tensor:
    """Echoes: (B, T) -> (B, T), convolved with noise that dies away in 5 to 100 milliseconds."""
    chance, t = torch.rand(2, len(x), 1, generator=generator), torch.arange(RATE // 4) / RATE
    echo = torch.randn(len(x), len(t), generator=generator) * (-t / (0.005 * 20 ** chance[0])).exp()
    echo = 0.5 * chance[1] * echo / echo.norm(dim=1, keepdim=True)  # (B, K)
    echo[:, 0] += 1
    n = x.shape[1] + len(t)
    return torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(echo, n), n)[:, : x.shape[1]]


def with_noise(x: Tensor, decibels: Tensor, generator: torch.Generator) -> Tensor:
    """(B, T) -> (B, T): from hiss to rumble, so many decibels (B,) below the speech."""
    f = torch.fft.rfftfreq(x.shape[1], 1 / RATE).clamp(min=50)  # (F,) Hz
    slope = torch.rand(len(x), 1, generator=generator)  # 0: white, 1: 1 / f
    white = torch.randn(x.shape, generator=generator)
    noise = torch.fft.irfft(torch.fft.rfft(white) * f ** (-slope / 2), x.shape[1])
    noise = noise / noise.square().mean(dim=1, keepdim=True).sqrt()
    speaks = x.abs() > 0.01 * x.abs().amax(dim=1, keepdim=True)
    loudness = (x.square() * speaks).sum(dim=1) / speaks.sum(dim=1)  # (B,)
    return x + noise * (loudness.sqrt() * 10 ** (-decibels / 20))[:, None]


def spoil(x: Tensor, generator: torch.Generator) -> Tensor:
    """Training's sounds (B, T), in rooms, through noise, softly or loudly."""
    decibels, gain = torch.rand(2, len(x), generator=generator)
    x = with_noise(in_a_room(x, generator), 5 + 45 * decibels, generator)
    return x * 10 ** (-1.5 * gain[:, None])


class Spoken(Wrapper):
    """A pipeline that takes recordings for captions."""

    def __init__(self, pipe, encoder: AudioEncoder):
        super().__init__(pipe)
        self.encoder = encoder

    @torch.no_grad()
    def listen(self, audio: str | Path | Tensor) -> Tensor:
        """A WAV file, sound (T,) or several (B, T) at RATE -> context (B, L, D)."""
        if isinstance(audio, (str, Path)):
            audio = F.pad(trim(read_wav(audio)), [RATE // 10] * 2)
        one = isinstance(audio, Tensor) and audio.dim() == 1
        x = check_tensor("audio", audio[None] if one else audio, None, None).float()
        if x.shape[1] < WINDOW or x.abs().amax(dim=1).min() < 1e-3:  # -60 dB
            raise InputError("there is nothing to hear in the audio; record a caption")
        return self.encoder(x.to(self.pipe.device))

    @torch.no_grad()
    def understood(self, context: Tensor) -> list[str]:
        """The plain caption that the text encoder reads as nearest to each of (B, L, D)."""
        captions = plain_captions()
        ids = self.pipe.tokenizer(captions).to(context.device)
        read = torch.cat([self.pipe.text_encoder(part) for part in ids.split(1000)])
        nearest = torch.cdist(context.flatten(1), read.flatten(1)).argmin(dim=1)  # (B,)
        return [captions[i] for i in nearest.tolist()]

    def __call__(self, audio: str | Path | Tensor, **options):
        """As the pipeline's, but the prompt is heard: `audio` as in `listen`."""
        return self.pipe(prompt_embeds=self.listen(audio), **options)

    def save_pretrained(self, folder: str | Path, dtype=None) -> None:
        config, stands_on = asdict(self.encoder.config), fingerprint(self.pipe.text_encoder)
        save_extension(folder, self.encoder, config, stands_on, dtype)


@cache
def plain_captions() -> list[str]:
    """Each combination, with everything that may be left out left out, in the plainest words."""
    rows = product(*([*range(len(values)), None] for values in ONE.values))
    return [ONE.say([v or 0 for v in row], [v is not None for v in row]) for row in rows]


def extend(run: Run, pipe) -> Spoken:
    """Teach an audio encoder to say what the pipeline's text encoder says."""
    if run.dataset.name != ONE.name:
        raise InputError(f"{SPEECH.name} has the words of one digit only, not {run.dataset.name}")
    torch.manual_seed(run.seed)
    speech, combinations, (first, last) = Speech(), ONE.all_combinations(), MENTIONED
    recipe, reading = run.recipes["audio_prompt"], readings(pipe.unet)
    size = (recipe.batch_size,)
    config = pipe.tokenizer.max_length, pipe.text_encoder.config.hidden_size, len(speech.words)
    encoder = AudioEncoder(AudioConfig(*config)).to(run.device)

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for("spoken captions", step, run.seed)
        chosen = combinations[torch.randint(len(combinations), size, generator=generator)]
        share = first + (last - first) * min(1, 3 * step / recipe.steps)  # short captions first
        mentioned = torch.rand(chosen.shape, generator=generator) < share
        phrasings = torch.randint(len(ONE.phrasings), size, generator=generator).tolist()
        rows = list(zip(chosen.tolist(), mentioned.tolist()))
        said = [ONE.say(*row, ONE.phrasings[i]) for row, i in zip(rows, phrasings)]
        target = pipe.encode_prompt([ONE.say(*row) for row in rows])  # (B, L, D)
        x, spoken = join(speech.say(said, speech.groups["heard"], generator), generator)
        x = spoil(x, generator).to(run.device)
        return hearing_loss(encoder, x, target, spoken.to(run.device), reading)

    return Spoken(pipe, train_stage(run, Stage("audio_prompt", encoder, loss_of_step, [encoder])))


def examples(spoken: Spoken, dataset, generator: torch.Generator) -> tuple[list, list[str]]:
    """What voices that training never heard say, drawn, and what was understood."""
    speech, captions = Speech(), dataset.gallery(32, generator)
    said = speech.say(captions, speech.groups["unheard"], generator)
    context = spoken.listen(join(said, generator)[0])
    images = spoken.pipe(prompt_embeds=context, generator=generator).images
    return images, spoken.understood(context)


def use(pipe, options, call: dict):
    """Hear --audio, and say what was understood."""
    if options.audio is None:
        return pipe
    if options.prompts:
        raise InputError("give captions or --audio, not both")
    spoken = load(options.extensions / "audio-prompt", pipe)
    call["prompt_embeds"] = spoken.listen(options.audio)
    options.prompts = spoken.understood(call["prompt_embeds"])
    print(f"heard: {options.prompts[0]}")
    return pipe


def build(config: dict) -> AudioEncoder:
    """The encoder that a file describes. InputError if there is none such."""
    config = values_like(asdict(AudioConfig()), config)
    require_parts(config, "num_heads", [config["hidden_size"]])
    return AudioEncoder(AudioConfig(**config))


def load(folder: str | Path, pipe) -> Spoken:
    """The encoder that `extend` taught."""
    stands_on = fingerprint(pipe.text_encoder)
    encoder = load_extension(folder, "audio-prompt", build, stands_on)
    return Spoken(pipe, encoder.to(pipe.device))
