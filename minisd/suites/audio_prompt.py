"""Audio prompts: does a spoken caption draw what it says, whoever says it, and through noise?

Full captions in all phrasings, of all combinations. Understood: the plain caption that is nearest
to what was heard means the same. Drawn: the judge reads all four attributes as they were said.
"""

import torch

from ..data import ONE
from ..evaluation import Judge, Table, percent, proportion
from ..extensions import audio_prompt
from ..extensions.audio_prompt import Speech, Spoken, join, with_noise
from ..pipeline import StableDiffusion
from . import Asked, batches

SAMPLES = 1000
FEWER = 0.4  # share of the samples for all but the first rows
DECIBELS = (30, 20, 10, 5, 0)  # speech over noise


def conditions(speech: Speech, samples: int) -> dict:
    """{name: (voices or None for text, decibels over noise or None, pictures)}"""
    fewer, unheard = max(2, int(FEWER * samples)), speech.groups["unheard"]
    found = {
        "the same captions as text": (None, None, samples),
        "voices that training heard": (speech.groups["heard"], None, samples),
        "voices that it never heard": (unheard, None, samples),
    }
    found |= {speech.voices[v]: ([v], None, fewer) for v in speech.groups["strange"]}
    return found | {f"never heard, {d} dB over noise": (unheard, d, fewer) for d in DECIBELS}


def captions(count: int, generator: torch.Generator):
    """Combinations (count, 4), and what is said of them."""
    every = ONE.all_combinations()
    chosen = every[torch.randint(len(every), (count,), generator=generator)]
    phrasings = torch.randint(len(ONE.phrasings), (count,), generator=generator).tolist()
    rows = zip(chosen.tolist(), phrasings, strict=True)
    return chosen, [ONE.say(row, phrasing=ONE.phrasings[i]) for row, i in rows]


def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> dict:
    spoken, speech = audio_prompt.load(asked.extensions / "audio-prompt", pipe), Speech()
    return {
        name: hear(spoken, judge, speech, *condition, asked.seed, name)
        for name, condition in conditions(speech, asked.samples).items()
    }


def hear(spoken: Spoken, judge: Judge, speech, voices, decibels, count, seed, label) -> dict:
    """Say captions, listen, draw: what is understood, and what is drawn as said."""
    generator = torch.Generator().manual_seed(seed)
    wanted, said = captions(count, generator)
    plain = [ONE.say(row) for row in wanted.tolist()]
    understood, answers = [], []
    for some in batches(count, label):
        part = said[some]
        if voices is None:
            context = spoken.pipe.encode_prompt(part)
        else:
            x, _ = join(speech.say(part, voices, generator), generator)
            if decibels is not None:
                x = with_noise(x, torch.full((len(x),), float(decibels)), generator)
            context = spoken.listen(x)
            understood += spoken.understood(context)
        drawn = spoken.pipe(prompt_embeds=context, generator=generator, output_type="pt").images
        answers.append(judge(2 * drawn - 1).cpu())
    right = {"drawn": (torch.cat(answers) == wanted).all(dim=1)}
    if voices is not None:
        same = [a == b for a, b in zip(understood, plain, strict=True)]
        right["understood"] = torch.tensor(same)
    return {name: proportion(column) for name, column in right.items()}


def tables(results: dict) -> dict[str, Table]:
    rows = [
        [
            name,
            str(row["drawn"]["of"]),
            percent(row["understood"]) if "understood" in row else "",
            percent(row["drawn"]),
        ]
        for name, row in results.items()
    ]
    return {"spoken captions": [["", "pictures", "understood, %", "drawn as said, %"], *rows]}


def headlines(results: dict) -> dict[str, str]:
    names = {"known": "voices that training heard", "new": "voices that it never heard"}
    return {f"as said, {k} voices, %": percent(results[name]["drawn"]) for k, name in names.items()}
