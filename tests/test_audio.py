"""Sound that comes in: rates, the kinds of WAV files, and those that are refused."""

import pytest
import torch

from minisd.audio import RATE, SECONDS, read_wav, resample
from minisd.errors import InputError
from tests.helpers import tone, write_wav


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_another_rate_is_the_same_sound(rate):
    x = resample(tone(440, rate=rate), rate, RATE)
    assert len(x) == RATE
    torch.testing.assert_close(x[500:-500], tone(440)[500:-500], atol=0.01, rtol=0)


def test_what_a_lower_rate_cannot_hold_is_left_out():
    assert resample(tone(6000, rate=44100), 44100, RATE).abs().max() < 0.05  # above RATE / 2


def test_a_file_is_read_at_our_rate_with_its_channels_mixed(tmp_path):
    x = 0.5 * tone(440, rate=16000)
    stereo = torch.stack([x, torch.zeros_like(x)], dim=1)
    mono, mixed = (read_wav(write_wav(tmp_path / "a.wav", y, 16000)) for y in (x, stereo))
    torch.testing.assert_close(mono[500:-500], 0.5 * tone(440)[500:-500], atol=0.01, rtol=0)
    torch.testing.assert_close(mixed, mono / 2, atol=1e-3, rtol=0)


def changed(path, *changes):
    """A good file with bytes replaced at an index."""
    data = bytearray(write_wav(path, tone(440)).read_bytes())
    for index, value in changes:
        data[index : index + len(value)] = value
    path.write_bytes(data)
    return path


def number(value, size=4):
    return value.to_bytes(size, "little")


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_stream_whose_length_was_not_known_is_read_to_its_end(size, tmp_path):
    """As ffmpeg and espeak-ng write it into a pipe."""
    whole = read_wav(write_wav(tmp_path / "whole.wav", tone(440)))
    stream = changed(tmp_path / "stream.wav", (40, number(size)))
    assert torch.equal(read_wav(stream), whole)


def test_other_chunks_and_the_extensible_form_of_pcm_are_read(tmp_path):
    path = write_wav(tmp_path / "say.wav", tone(440))
    whole, data = read_wav(path), path.read_bytes()
    notes = b"LIST" + number(3) + b"abc\0"
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    form = number(0xFFFE, 2) + data[22:36] + number(22, 2) + number(16, 2) + number(4) + guid
    for before in (notes + data[12:36], b"fmt " + number(40) + form):
        path.write_bytes(data[:12] + before + data[36:] + notes)
        assert torch.equal(read_wav(path), whole)


BAD = {
    "is no WAV file; save it as one of 16-bit PCM": lambda path: path.write_text("a red seven"),
    "this is no WAV file": lambda path: path.write_bytes(b""),
    "no WAV file; save": lambda path: changed(path, (12, b"junk")),  # without a format
    "8-bit A-law; save it as 16-bit PCM": lambda p: changed(p, (20, b"\6"), (34, b"\x08")),
    "32-bit floats; save it as 16-bit PCM": lambda p: changed(p, (20, b"\3"), (34, b"\x20")),
    "16-bit samples of the kind 85; save": lambda path: changed(path, (20, b"\x55")),
    "holds 8-bit PCM; save it": lambda path: write_wav(path, tone(440), width=1),
    "it is empty; record a caption": lambda path: write_wav(path, torch.zeros(0)),
    "is empty": lambda path: changed(path, (22, b"\0")),  # no channels
    "empty": lambda path: changed(path, (24, number(0))),  # no samples a second
    "lasts 10.5 seconds; the most is 10": lambda path: write_wav(path, tone(440, SECONDS + 0.5)),
    "is cut short": lambda path: path.write_bytes(write_wav(path, tone(440)).read_bytes()[:-1000]),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_file_is_told_in_one_line(message, tmp_path):
    path = tmp_path / "say.wav"
    BAD[message](path)
    with pytest.raises(InputError, match="say.wav") as error:
        read_wav(path)
    assert message in str(error.value) and "\n" not in str(error.value)
