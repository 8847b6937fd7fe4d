"""Make data/speech.npz: every word of the captions of one digit, spoken by many voices.

    pip install espeakng-loader==0.2.4 && apt install flite      # this script alone needs them
    python -m benchmarks.speech --out data/speech.npz

eSpeak NG speaks whole captions, which are cut at the words, so that a word sounds as it does among
others; Flite says them one by one. A voice is an accent, a timbre, a speed and a pitch. Training
hears 24 of eSpeak's and two of Flite's, which are built from recordings of people. The others are
to test with: six of eSpeak's other timbres, and four strange ones: whispered, creaky, and two more
of Flite's, a woman's and one that joins pairs of sounds.

eSpeak NG is under the GPL 3, which covers the program and not what it says. Flite and its voices
are free for any use. Neither is a dependency: minisd needs only what they said.
"""

import argparse
import ctypes
import io
import re
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minisd.audio import RATE, read_wav, resample, trim
from minisd.data import ONE
from minisd.errors import InputError
from minisd.extensions.audio_prompt import MU
from minisd.files import open_atomically

ACCENTS = "en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc", "en-029"
HEARD = (
    "m1 f1 m2 f2 m3 f3 m5 m6 m7 steph Gene belinda Alex edward john Alicia Michael shelby Reed "
    "grandma paul klatt Lee anika"
)
ESPEAK = {"heard": HEARD, "unheard": "m4 f4 Andrea Mike linda boris", "strange": "whisper croak"}
FLITE = {"rms": "heard", "awb": "heard", "slt": "strange", "kal16": "strange"}


class Espeak:
    """eSpeak NG's library."""

    def __init__(self):
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate = self.library.espeak_Initialize(2, 0, data, 0)  # 2: sound goes to the callback
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event)
        )
        self.callback = kind(self.hear)
        self.library.espeak_SetSynthCallback(self.callback)

    def hear(self, wave, count: int, events) -> int:
        self.wave += wave[:count] if wave else []
        i = 0
        while events[i].kind:  # the last is 0
            if events[i].kind == 1:  # a word begins
                self.begins[events[i].text_position - 1] = events[i].sample
            i += 1
        return 0

    def __call__(self, voice: str, speed: int, pitch: int, text: str):
        """A sentence (T,) in [-1, 1] at RATE, and {index of a word's first letter: its start}."""
        self.wave, self.begins, words = [], {}, text.encode()
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise InputError(f"eSpeak NG has no voice {voice}")
        for parameter, value in ((1, speed), (3, pitch)):
            self.library.espeak_SetParameter(parameter, value, 0)
        self.library.espeak_Synth(words, len(words) + 1, 0, 1, 0, 1, None, None)
        self.library.espeak_Synchronize()
        wave = torch.tensor(self.wave, dtype=torch.float32)
        begins = {i: start * RATE // self.rate for i, start in self.begins.items()}
        return loud(resample(wave, self.rate, RATE)), begins


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("kind", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


def captions(number: int) -> list[str]:
    """Captions that have every word between them; each voice has others."""
    rows = [(d, (d + number) % 8, d % 2, (d + number // 2) % 5) for d in range(10)]
    phrasings = [ONE.phrasings[(d + number) % len(ONE.phrasings)] for d in range(10)]
    full = [ONE.say(row, phrasing=phrasing) for row, phrasing in zip(rows, phrasings, strict=True)]
    order = np.random.default_rng(number).permutation(10)  # a word's last place is kept
    return ["an orange digit", "there red is red at red of red in red", *(full[i] for i in order)]


def loud(wave: Tensor) -> Tensor:
    """As loud as every other."""
    return wave / wave.abs().max()


def cut(speak: Espeak, voice: str, number: int) -> dict[str, Tensor]:
    """{word: its sound}"""
    found = {}
    for caption in captions(number):
        wave, begins = speak(voice, 120 + 37 * number % 80, 25 + 29 * number % 60, caption)
        begins[len(caption)] = len(wave)
        starts = [*(word.start() for word in re.finditer(r"\w+", caption)), len(caption)]
        for begin, end in pairwise(starts):
            if {begin, end} <= begins.keys():  # else two words are joined, as often "in the"
                found[caption[begin:end].strip(" ,")] = trim(wave[begins[begin] : begins[end]])
    return found


def flite(voice: str, words: list[str]) -> dict[str, Tensor]:
    """{word: its sound}"""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "word.wav"
        for word in words:
            spelt = {"a": "uh"}.get(word, word)  # alone it would be the letter's name
            subprocess.run(["flite", "-voice", voice, "-t", spelt, "-o", str(path)], check=True)
            found[word] = loud(trim(read_wav(path)))
    return found


def to_mu_law(wave: Tensor) -> np.ndarray:
    """[-1, 1] -> bytes, finer near zero: ITU-T G.711's curve."""
    small = wave.sign() * torch.log1p(MU * wave.abs()) / np.log1p(MU)
    return ((small + 1) / 2 * 255).round().byte().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("data/speech.npz"))
    o = parser.parse_args()
    speak, spoken = Espeak(), {}
    for group, timbres in ESPEAK.items():
        for timbre in timbres.split():
            voice = f"{ACCENTS[len(spoken) % len(ACCENTS)]}+{timbre}"
            spoken[voice] = group, cut(speak, voice, len(spoken))
    words = sorted(spoken[voice][1])
    for voice, group in FLITE.items():
        spoken[f"flite {voice}"] = group, flite(voice, words)
    sounds = [to_mu_law(found[word]) for _, found in spoken.values() for word in words]
    ends = np.cumsum([len(sound) for sound in sounds]).reshape(len(spoken), len(words))
    arrays = {"sound": np.concatenate(sounds), "ends": ends, "words": np.array(words)}
    groups = [group for group, _ in spoken.values()]
    arrays |= {"voices": np.array(list(spoken)), "groups": np.array(groups)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with open_atomically(o.out) as file:
        file.write(buffer.getbuffer())
    print(f"{o.out}: {len(spoken)} voices, {len(words)} words, {o.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(main())
