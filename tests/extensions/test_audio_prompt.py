"""An audio encoder says of a recording what the text encoder says of the caption spoken in it."""

import math
import shutil

import numpy as np
import pytest
import torch

from benchmarks.speech import captions as captions_to_cut
from benchmarks.speech import to_mu_law
from minisd import StableDiffusion
from minisd.__main__ import main
from minisd.audio import RATE
from minisd.checkpoint import read_json, write_json
from minisd.data import ONE, TWO
from minisd.errors import InputError
from minisd.extensions import audio_prompt
from minisd.extensions.audio_prompt import (
    HOP,
    MELS,
    STATE,
    WINDOW,
    WORDS,
    AudioConfig,
    AudioEncoder,
    Speech,
    extend,
    hearing_loss,
    in_a_room,
    join,
    load,
    log_mel,
    mel_filters,
    plain_captions,
    readings,
    spoil,
    with_noise,
)
from minisd.files import SHIPPED
from minisd.training import Recipe, Run
from tests.helpers import tone, write_wav

CAPTION = "at the top left there is an orange eight"
TRAINED = SHIPPED / "extensions" / "audio-prompt"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def speech():
    return Speech()


# The recording


def test_silence_and_less_than_a_window_are_told(tiny_pipe, tmp_path):
    spoken = audio_prompt.Spoken(tiny_pipe, tiny_encoder(tiny_pipe))
    for audio in (write_wav(tmp_path / "say.wav", torch.zeros(RATE)), tone(440, 0.01)):
        with pytest.raises(InputError, match="nothing to hear"):
            spoken.listen(audio)


@pytest.mark.parametrize(
    "audio",
    [
        torch.full((RATE,), math.nan),
        torch.zeros(2, RATE),
        torch.zeros(1, 2, 3),
        torch.ones(RATE).int(),
        np.ones(RATE),
        [0.5] * RATE,
        None,
    ],
)
def test_a_bad_tensor_is_told_as_well(audio, tiny_pipe):
    spoken = audio_prompt.Spoken(tiny_pipe, tiny_encoder(tiny_pipe))
    with pytest.raises(InputError, match="audio"):
        spoken.listen(audio)


def test_sound_may_be_of_any_floats(tiny_pipe):
    spoken = audio_prompt.Spoken(tiny_pipe, tiny_encoder(tiny_pipe))
    contexts = [spoken.listen(tone(440).to(dtype)) for dtype in (torch.float32, torch.float64)]
    torch.testing.assert_close(*contexts)


def test_when_it_is_said_in_a_file_does_not_matter(tiny_pipe, tmp_path):
    spoken = audio_prompt.Spoken(tiny_pipe, tiny_encoder(tiny_pipe))
    x = 0.3 * torch.randn(RATE, generator=seeded())
    early, late = (torch.nn.functional.pad(x, space) for space in ((0, 50), (30_000, 9_000)))
    contexts = [spoken.listen(write_wav(tmp_path / "say.wav", y)) for y in (early, late)]
    torch.testing.assert_close(*contexts)


# The spectrogram


def test_each_band_sums_its_part_of_the_spectrum():
    filters = mel_filters()
    assert filters.shape == (MELS, WINDOW // 2 + 1) and (filters >= 0).all()
    torch.testing.assert_close(filters.sum(dim=1), torch.ones(MELS))
    assert (filters.argmax(dim=1).diff() >= 0).all()
    assert (filters > 0).any(dim=0)[1:-1].all()  # every frequency is in a band


@pytest.mark.parametrize("hertz", [300, 1000, 3000])
def test_a_tone_is_loudest_in_its_band(hertz):
    band = log_mel(tone(hertz)[None])[0].mean(dim=1).argmax()
    edges = 700 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + 4000 / 700), 42) / 2595) - 1)
    assert edges[band] <= hertz <= edges[band + 2]


def test_the_spectrogram_has_whispers_scale():
    x = torch.randn(1, RATE, generator=seeded())
    quiet, loud = log_mel(x), log_mel(10 * x)
    assert quiet.shape == (1, MELS, 1 + RATE // HOP)
    torch.testing.assert_close(loud - quiet, torch.full_like(quiet, 0.5))  # 20 dB: 2 of log10, / 4
    x[:, : RATE // 2] = 0
    silence = log_mel(x)
    torch.testing.assert_close(silence.amax() - silence.amin(), torch.tensor(2.0))  # 8 of log10


# The encoder


def tiny_encoder(pipe):
    torch.manual_seed(0)
    width = pipe.text_encoder.config.hidden_size
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2}
    return AudioEncoder(AudioConfig(pipe.tokenizer.max_length, width, 35, **sizes))


def test_any_sound_becomes_a_context_and_its_order_counts(tiny_pipe):
    encoder = tiny_encoder(tiny_pipe)
    like = tiny_pipe.encode_prompt("a red seven")
    x = torch.randn(2, 3 * RATE, generator=seeded())
    assert encoder(x).shape[1:] == like.shape[1:] and len(encoder(x[:, :500])) == 2
    assert not torch.allclose(encoder(x), encoder(x.flip(1)), atol=1e-3)


# The spoken captions


def test_there_is_a_word_for_every_caption(speech):
    words = {w for text in ONE.texts() for w in text.replace(",", "").split() if not w.isdigit()}
    assert words <= set(speech.words)
    for number in range(36):
        spoken = {w for c in captions_to_cut(number) for w in c.replace(",", "").split()}
        assert spoken == set(speech.words)


def test_training_hears_its_own_voices_alone(speech, tiny_pipe, tmp_path, monkeypatch):
    asked, say = [], Speech.say

    def listen(self, captions, voices, generator):
        asked.append(voices)
        return say(self, captions, voices, generator)

    monkeypatch.setattr(Speech, "say", listen)
    train_for_two_steps(tmp_path, tiny_pipe)
    assert asked == [speech.groups["heard"]] * 2
    assert sorted(v for group in speech.groups.values() for v in group) == list(range(36))


def test_sounds_are_stored_in_a_byte_each():
    x = torch.linspace(-1, 1, 1001)
    kept = torch.from_numpy(to_mu_law(x)).float() / 127.5 - 1
    kept = kept.sign() * ((1 + audio_prompt.MU) ** kept.abs() - 1) / audio_prompt.MU
    assert (kept - x).abs().max() < 0.03 and (kept - x)[x.abs() < 0.02].abs().max() < 0.001


def test_a_caption_is_its_words_in_order(speech):
    ((sound, number),) = speech.say([CAPTION], [3], seeded())
    spoken = number[number > 0].unique_consecutive().long() - 1
    assert [speech.words[i] for i in spoken] == CAPTION.split()
    words = [speech.sounds[3 * 35 + i] for i in spoken]
    longest = sum(map(len, words))
    assert 0.8 * longest <= len(sound) <= 1.25 * (longest + 9 * 0.4 * RATE)
    loud = sound.abs()  # in the pauses only what interpolation smears
    assert loud[number == 0].mean() < 0.01 * loud[number > 0].mean()
    again, other = (speech.say([CAPTION], [3], seeded(s))[0] for s in (0, 1))
    assert torch.equal(again[0], sound) and other.shape != again.shape


def test_sounds_are_joined_whole():
    said = [torch.ones(2, 500), 2 * torch.ones(2, 3000)]
    batch = join(said, seeded())
    assert batch.shape[:2] == (2, 2) and batch.sum(dim=2).tolist() == [[500, 6000]] * 2


def test_spoiling_keeps_the_length_and_differs_each_time():
    x = tone(440)[None].repeat(4, 1)
    a, b, c = (spoil(x, seeded(s)) for s in (0, 0, 1))
    assert a.shape == x.shape and torch.equal(a, b) and not torch.allclose(a, c)


def test_the_states_stand_where_their_words_are_spoken(tiny_pipe):
    """A click changes the states nearest to it most, whatever its place."""
    encoder = tiny_encoder(tiny_pipe)
    encoder.encoder.layers = encoder.encoder.layers[:0]  # attention carries it everywhere
    length = encoder.config.context_length
    for place in (10, 25):
        x = 1e-3 * torch.randn(1, 40 * STATE, generator=seeded())
        clicked = x.clone()
        clicked[0, place * STATE - 100 : place * STATE + 100] += 1
        change = (encoder.states(clicked) - encoder.states(x))[0, length:].norm(dim=1)
        assert abs(change.argmax().item() - place) <= 1


def test_who_says_what_the_text_says_and_names_each_word_has_no_loss(tiny_pipe):
    encoder = tiny_encoder(tiny_pipe)
    x = torch.randn(2, RATE, generator=seeded())
    length, target = encoder.config.context_length, encoder(x)
    number, reading = torch.zeros(2, RATE), torch.zeros(3, target.shape[2])
    reading[:, 0] = 2.0  # three times twice what is in the first place
    torch.nn.init.zeros_(encoder.words.weight)
    with torch.no_grad():
        encoder.words.bias.copy_(torch.tensor([50.0] + [0.0] * 35))

    def loss(target, number):
        return hearing_loss(encoder, x, target, number, reading).item()

    assert loss(target, number) == pytest.approx(0, abs=1e-6)
    far = loss(target + 1, number)
    assert far == pytest.approx((1 + 4) / 2, rel=1e-4) and target.shape[1] == length
    number[:, : RATE // 2] = 4
    assert loss(target, number) == pytest.approx(WORDS * 25, rel=0.1)


def test_the_readings_are_the_u_nets_keys_and_values(tiny_pipe):
    reading = readings(tiny_pipe.unet)
    layer = next(m for n, m in tiny_pipe.unet.named_modules() if n.endswith("attn2"))
    context = torch.randn(2, 5, reading.shape[1], generator=seeded())
    keys = layer.to_k(context)
    found = (context @ reading.T)[..., : keys.shape[2]]
    torch.testing.assert_close(found * layer.to_k.weight.norm(dim=1).mean(), keys)
    layers = sum(n.endswith("attn2") for n, _ in tiny_pipe.unet.named_modules())
    assert len(reading) >= 2 * layers * keys.shape[2] and not reading.requires_grad


@pytest.mark.parametrize("decibels", [0.0, 20.0])
def test_noise_is_as_loud_as_asked(decibels):
    x = tone(440)[None].repeat(2, 1)
    noise = with_noise(x, torch.full((2,), decibels), seeded()) - x
    found = 10 * torch.log10(x.square().mean(dim=1) / noise.square().mean(dim=1))
    torch.testing.assert_close(found, torch.full((2,), decibels), atol=0.3, rtol=0)


def test_a_room_answers_after_the_sound():
    x = torch.zeros(8, RATE)
    x[:, 1000] = 1
    y = in_a_room(x, seeded())
    assert y[:, :1000].abs().max() < 1e-4 and (y[:, 1000] > 0.5).all()
    early, late = y[:, 1001:2000].square().sum(dim=1), y[:, 2000:3000].square().sum(dim=1)
    assert (early > 1e-6).all() and (early > late).all()


# Training and use


def train_for_two_steps(folder, pipe):
    run = Run(folder, ONE, recipes={"audio_prompt": Recipe(steps=2, batch_size=2)})
    run.working.mkdir(parents=True)
    return extend(run, pipe)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_pipe):
    """(the tiny pipeline that listens, the folder where it is kept)"""
    folder = tmp_path_factory.mktemp("extensions") / "audio-prompt"
    spoken = train_for_two_steps(folder, tiny_pipe)
    spoken.save_pretrained(folder)
    return spoken, folder


def test_what_is_saved_hears_the_same(trained, tiny_pipe, speech):
    spoken, folder = trained
    x, _ = join(speech.say([CAPTION], [0], seeded()), seeded())
    loaded = load(folder, tiny_pipe)
    assert torch.equal(loaded.listen(x), spoken.listen(x))
    images = loaded(x, generator=seeded(), output_type="pt").images
    same = tiny_pipe(prompt_embeds=spoken.listen(x), generator=seeded(), output_type="pt").images
    assert torch.equal(images, same)


def test_it_stands_on_the_text_encoder_alone(trained, tiny_pipe, tmp_path):
    with pytest.raises(InputError, match="trained for another checkpoint"):
        load(trained[1], StableDiffusion.from_pretrained())
    with pytest.raises(InputError, match="holds no audio-prompt .* train one with"):
        load(tmp_path, tiny_pipe)


@pytest.mark.parametrize("heads", [0, -4, 3, 2.0, "4", True, None, 10**30, [4]])
def test_heads_that_no_encoder_has_are_told(heads, trained, tiny_pipe, tmp_path):
    folder = shutil.copytree(trained[1], tmp_path / "audio-prompt")
    about = read_json(folder / "config.json")
    about["config"]["num_heads"] = heads
    write_json(folder / "config.json", about)
    with pytest.raises(InputError, match=r"config\.json is damaged: num_heads (must be|is)"):
        load(folder, tiny_pipe)


def test_the_words_of_two_digits_are_not_there(tiny_pipe, tmp_path):
    with pytest.raises(InputError, match="words of one digit only, not two"):
        extend(Run(tmp_path, TWO), tiny_pipe)


def test_what_the_text_encoder_says_is_understood(tiny_pipe):
    spoken = audio_prompt.Spoken(tiny_pipe, tiny_encoder(tiny_pipe))
    captions = plain_captions()
    assert len(captions) == len(set(captions)) == 11 * 9 * 3 * 6
    some = [captions[i] for i in (0, 700, -1)]
    assert spoken.understood(tiny_pipe.encode_prompt(some)) == some


def test_the_command_hears(trained, tiny_weights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "say.wav", 0.5 * tone(440, rate=44100), 44100)
    words = ["sample", "--audio", "say.wav", "--weights", str(tiny_weights)]
    words += ["--extensions", str(trained[1].parent), "--steps", "2"]
    assert main(words) == 0
    assert "heard: " in capsys.readouterr().out and (tmp_path / "sample.png").exists()
    assert main([*words, "a red seven"]) == 1
    assert "give captions or --audio, not both" in capsys.readouterr().err


@pytest.mark.parametrize(("group", "least"), [("heard", 0.9), ("unheard", 0.8)])
def test_the_shipped_weights_understand(group, least, speech):
    spoken = load(TRAINED, StableDiffusion.from_pretrained())
    combinations = ONE.seen_combinations()[::10].tolist()
    captions = [ONE.say(c, phrasing=ONE.phrasings[i % 6]) for i, c in enumerate(combinations)]
    said, _ = join(speech.say(captions, speech.groups[group], seeded()), seeded())
    found = spoken.understood(spoken.listen(said))
    right = [a == ONE.say(c) for a, c in zip(found, combinations, strict=True)]
    assert np.mean(right) >= least
