"""Whatever it is given: right, or one clear line; nothing lost. Random damage, prompts and kills.

    python -m benchmarks.torture     # 200 configurations, 200 weight files, 1,000 prompts, 50 kills

Every case comes from the seed and its number. minisd must refuse it in one short line or draw what
diffusers draws; a run that is killed must end, resumed, with the weights of one that was not. The
table says how often which of these happened. Whatever else happens is named, and the exit code 1.
"""

import argparse
import random
import shutil
import sys
import tempfile
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
import transformers
from tqdm import tqdm

from benchmarks.damage import change_config, change_weights
from benchmarks.kills import Kills
from minisd import StableDiffusion
from minisd.errors import InputError
from minisd.evaluation import to_markdown
from minisd.files import SHIPPED

PROMPT = "a large red seven at the top left"
NOISE = 2 * torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
STEPS, GUIDANCE = 3, 3.0
TOLERANCE = 2e-3  # of pixels in [0, 1]
LONGEST = 400  # characters of a message
REFUSED, SAME, SAID = "refused in one line", "as the reference", "another picture, and a note why"
BATCH = 50  # prompts drawn at once
COUNTS = {"seed": 0, "configs": 200, "weights": 200, "prompts": 1000, "kills": 50}


# What both libraries answer


@torch.no_grad()
def ours(folder: Path) -> tuple[torch.Tensor, ...]:
    """A picture (1, 3, H, W), and how well CLIP thinks that two pictures fit its prompt (2, 1)."""
    pipe = StableDiffusion.from_pretrained(folder)
    return draw(pipe, guidance_rescale=0.0), pipe.clip(NOISE, pipe.tokenizer([PROMPT]))


@torch.no_grad()
def theirs(folder: Path) -> tuple[torch.Tensor, ...]:
    pipe = their_pipeline(folder)
    clip = transformers.CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32)
    ids = their_ids(pipe, [PROMPT])
    return draw(pipe), clip(input_ids=ids, pixel_values=NOISE).logits_per_image


def draw(pipe, prompt=PROMPT, guidance_scale=GUIDANCE, **options) -> torch.Tensor:
    options |= {"num_inference_steps": STEPS, "guidance_scale": guidance_scale}
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, generator=generator, output_type="pt", **options).images


def their_pipeline(folder: Path) -> diffusers.StableDiffusionPipeline:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def their_ids(pipe, prompts: list[str]) -> torch.Tensor:
    tokenizer = pipe.tokenizer
    length = {"max_length": tokenizer.model_max_length, "padding": "max_length"}
    return tokenizer(prompts, truncation=True, return_tensors="pt", **length).input_ids


def same(a: tuple, b: tuple) -> bool:
    shapes = all(x.shape == y.shape for x, y in zip(a, b, strict=True))
    (picture, logits), (their_picture, their_logits) = a, b
    return shapes and bool(
        (picture - their_picture).abs().max() <= TOLERANCE
        and torch.allclose(logits, their_logits, rtol=1e-3, atol=1e-2)
    )


def refusal(error: Exception) -> str:
    """What to say of an exception: REFUSED if it is one that the user gets in one short line."""
    line = str(error)
    if not isinstance(error, InputError | OSError):
        return f"a traceback: {type(error).__name__}: {line[:200]!r}"
    if "\n" in line or len(line) > LONGEST:
        return f"a message of {len(line)} characters: {line[:200]!r}"
    return REFUSED


def outcome(folder: Path, original: tuple, harmless: bool) -> str:
    """REFUSED, SAME or SAID; or whatever else happened."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        try:
            answer = ours(folder)
        except Exception as error:
            said = refusal(error)
            return f"refused, and is harmless: {error}" if harmless and said == REFUSED else said
        noted = any("site-packages" not in note.filename for note in notes)  # minisd's own
        try:
            reference = theirs(folder)
        except Exception:  # then what was changed may be nothing to either of us
            reference = original
    if same(answer, reference):
        return SAME
    return SAID if noted else "another picture, or CLIP, than the reference's"


# Damage


def damaged(make: Callable, count: int, name: str, seed: int, tell: Callable) -> Counter:
    """Try `count` cases on a copy of the shipped weights."""
    counts = Counter()
    with tempfile.TemporaryDirectory() as folder:
        weights = shutil.copytree(SHIPPED / "weights", Path(folder) / "weights")
        original = theirs(weights)
        for number in tqdm(range(count), desc=name):
            case = make(random.Random(f"{name} {number} {seed}"), weights)
            file = weights / case.file
            before = file.read_bytes()
            file.unlink()  # not over it: a library may still have the old one in its memory
            file.write_bytes(case.content)
            found = outcome(weights, original, case.harmless)
            counts[tell(found, f"{name} {number}, {case.file}: {case.what}")] += 1
            file.unlink()
            file.write_bytes(before)
    return counts


# Prompts

CAPTION = [*PROMPT.split(), "picture", "of", "two", "3", ",", "digit", "zero", "in", "center"]
STRANGE = ["<|endoftext|>", "<|startoftext|>", "<|endoftext|", "&amp;", "'s", "it's", "$\\frac$"]
STRANGE += ["\u200d", "\ufeff", "e\u0301", "\u00e9", "\u0130", "\u1e9e", "\u0644\u0627", "\uac00"]
STRANGE += ["\U0001f469\u200d\U0001f680", "\u00bd", "\x00", "\n", "\t", "\u3000", "\x1b[31m"]
PLANES = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x600), (0x900, 0xE00), (0x2000, 0x2C00)]
PLANES += [(0x3040, 0x9FFF), (0x1F300, 0x1FAFF), (0, 0x20), (0xD800, 0xDFFF)]
ALPHABETS = [  # without what is a letter in one version of Unicode and nothing in an earlier one
    [c for c in map(chr, range(*plane)) if unicodedata.category(c) != "Cn"] for plane in PLANES
]


def prompt_of(r: random.Random) -> str:
    """Words, symbols and characters of any kind; now and then thousands of them."""
    parts = []
    for _ in range(r.choice([0, 1, 2, 5, 10, 40, r.choice([40, 3000])])):
        alphabet = r.choice(ALPHABETS[: r.choice([1, 4, 8, 8, len(ALPHABETS)])])
        letters = "".join(r.choices(alphabet, k=r.randrange(1, 8)))
        parts.append(r.choice([r.choice(CAPTION), r.choice(STRANGE), letters]))
    return r.choice([" ", " ", "", "  "]).join(parts)


def prompts(count: int, seed: int, tell: Callable) -> Counter:
    """Ids and notes of each prompt by itself; then pictures, of many at once."""
    counts, drawn = Counter(), []
    pipe, reference = StableDiffusion.from_pretrained(), their_pipeline(SHIPPED / "weights")
    for number in tqdm(range(count), desc="prompts"):
        prompt = prompt_of(random.Random(f"prompts {number} {seed}"))
        case = f"prompts {number}: {prompt[:60]!r}"
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            try:
                pipe.encode_prompt([prompt])
                said = {refusal(InputError(str(note.message))) for note in notes} - {REFUSED}
                ids = pipe.tokenizer([prompt])
                if not torch.equal(ids, their_ids(reference, [prompt])):
                    said.add("other ids than the reference's")
                found = "; ".join(said) or SAME
                drawn.append((prompt, case))
            except Exception as error:
                found = refusal(error)
        counts[tell(found, case)] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each has been looked at
        for first in range(0, len(drawn), BATCH):
            batch = [prompt for prompt, _ in drawn[first : first + BATCH]]
            a, b = draw(pipe, batch, 1.0, guidance_rescale=0.0), draw(reference, batch, 1.0)
            for (_, case), difference in zip(drawn[first:], (a - b).abs().amax(dim=(1, 2, 3))):
                if difference > TOLERANCE:
                    counts[tell("another picture than the reference's", case)] += 1
    return counts


def be_quiet() -> None:
    """Both libraries warn of much that is of no interest here."""
    warnings.simplefilter("ignore", FutureWarning)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity(library.utils.logging.CRITICAL)
        library.utils.logging.disable_progress_bar()


def torture(seed: int, configs: int, weights: int, prompt_count: int, kills: int) -> int:
    """Run all cases and print the table; returns how many came out wrong."""
    be_quiet()
    wrong = []

    def tell(found: str, case: str) -> str:
        if found in (REFUSED, SAME, SAID):
            return found
        wrong.append(case)
        print(f"WRONG: seed {seed}, {case}: {found}", flush=True)
        return "wrong"

    rows = {
        "configurations": damaged(change_config, configs, "configs", seed, tell),
        "weight files": damaged(change_weights, weights, "weights", seed, tell),
        "prompts": prompts(prompt_count, seed, tell),
        "kills, resumed to the same weights": Kills(seed, tell, SAME).run(kills),
    }
    columns = [SAME, REFUSED, SAID, "wrong"]
    table = [[name, *(str(counts[c]) for c in columns)] for name, counts in rows.items()]
    print("\n" + to_markdown([["", *columns], *table]))
    return len(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, count in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help="(%(default)s)")
    o = parser.parse_args()
    sys.exit(bool(torture(*(getattr(o, name) for name in COUNTS))))


if __name__ == "__main__":
    main()
