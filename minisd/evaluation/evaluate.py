"""Everything that is measured of a checkpoint, and the table of it."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .. import data
from ..data import World
from ..pipeline import StableDiffusion
from .judge import Judge, train_reader
from .metrics import clip_score, copy_ratio, frechet_distance, psnr, wilson_interval

BATCH = 100  # pictures drawn at a time
AT_ONCE = 128  # lessons that a reader sees in one step
PASSES = 24  # so often a reader sees each lesson, bent in another way each time
LINEAR = ((0.1, 0.2, 0.06), (0.2, 0.1, 0.06))  # stretch, slant and shift at most, of x and of y
BEND = 0.06  # standard deviation of the shifts of 5 x 5 points; a picture spans [-1, 1]
COPY = 1 / 3  # a picture so much nearer to one training picture than to any other is a copy


@dataclass(frozen=True)
class Settings:
    """How the pictures are drawn that are judged."""

    samples: int = 2000  # half of them of seen combinations, half of held-out ones
    steps: int = 10  # those of the published table; the pipeline's own are fewer
    guidance: float = 3.0
    rescale: float = 0.9
    sampler: str | None = None  # the checkpoint's own
    seed: int = 0
    pool: int | None = None  # training pictures that are searched for copies, if not all
    trained: int = 0  # the seed of the training that saw them
    lessons: int = 0  # pictures drawn for a fresh reader to learn from; 0: no such test
    lesson_guidance: float = 1.75  # less than for pictures to look at: lessons are to be varied


def rates(answers: Tensor, truth: Tensor, world: World = data.ONE) -> dict:
    """Answers and truth (B, A) -> share right, jointly and by attribute, with Wilson intervals."""
    a, t = answers.cpu(), world.canonical(truth.cpu())
    columns = {"joint": (a == t).all(dim=1)}
    columns |= {name: a[:, i] == t[:, i] for i, name in enumerate(world.attributes)}
    if world is data.TWO:
        columns |= binding_and_relation(a, t)
    return {name: rate(right) for name, right in columns.items()}


def binding_and_relation(a: Tensor, t: Tensor) -> dict[str, Tensor]:
    """Of two digits, answers and truth (B, 5): has each its own colour, and are they where asked?

    Binding does not ask where the digits are. Relation is right if they lie along the right line,
    and what is seen fits the places asked for better than it fits them exchanged: the digits count,
    and where they do not decide, the colours.
    """
    things, asked = (x[:, [0, 1, 3, 4]] for x in (a, t))
    turned = asked.roll(2, dims=1)
    bound = (things == asked).all(dim=1) | (things == turned).all(dim=1)
    weight = torch.tensor([3, 1, 3, 1])  # of digit, colour, digit, colour
    in_place, exchanged = (((things == x) * weight).sum(dim=1) for x in (asked, turned))
    order = (in_place > exchanged) | (asked == turned).all(dim=1)  # two of a kind have no order
    return {"binding": bound, "relation": (a[:, 2] == t[:, 2]) & order}


def read(judge: Judge, images: Tensor, world: World) -> Tensor:
    """What the judge sees in pictures of this world: (B, A) long."""
    return judge.read_two(images) if world is data.TWO else judge(images)


def rate(right: Tensor) -> dict:
    """(B,) bool -> the share that is right, with its Wilson interval."""
    count, total = int(right.sum()), len(right)
    low, high = wilson_interval(count, total)
    return {"rate": count / total, "low": low, "high": high, "right": count, "of": total}


def cycle(combinations: Tensor, count: int, seed: int) -> Tensor:
    """`count` combinations, each as often as the others but for the last few: (count, 4)."""
    order = torch.randperm(len(combinations), generator=torch.Generator().manual_seed(seed))
    return combinations[order].repeat(-(-count // len(combinations)), 1)[:count]


@torch.no_grad()
def draw(pipe: StableDiffusion, captions: list[str], settings: Settings, seed: int, label: str):
    """Pictures (B, 3, 32, 32) in [-1, 1] for the captions."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for i in tqdm(range(0, len(captions), BATCH), desc=label, unit="batch", delay=0.1):
        out = pipe(
            captions[i : i + BATCH],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            guidance_rescale=settings.rescale,
            sampler=settings.sampler,
            generator=generator,
            output_type="pt",
        )
        pictures.append(out.images.cpu() * 2 - 1)
    return torch.cat(pictures)


def evaluate_pictures(
    pipe: StableDiffusion, judge: Judge, settings: Settings, world: World = data.ONE
) -> dict:
    """Draw captions of seen and of held-out combinations, and beside them render real pictures.

    The Frechet distance's floor compares two renderings of the same combinations, each with its own
    draw of the 2,000 test digits: as close as two sets of real pictures come.
    """
    groups = {"seen": world.seen_combinations(), "held_out": world.held_out_combinations()}
    results, drawn, real, again, captions = {}, [], [], [], []
    for i, (name, combinations) in enumerate(groups.items()):
        seed = settings.seed + i
        wanted = cycle(combinations, settings.samples // 2, seed)
        generator = torch.Generator().manual_seed(seed)
        batch, second = (
            world.draw_batch(len(wanted), "test", generator, attributes=wanted, complete=1.0)
            for _ in range(2)
        )
        pictures = draw(pipe, batch.captions, settings, seed, f"drawing {name.replace('_', ' ')}")
        results[name] = {
            "drawn": rates(read(judge, pictures, world), wanted, world),
            "real": rates(read(judge, batch.images, world), wanted, world),
        }
        drawn.append(pictures)
        real.append(batch.images)
        again.append(second.images)
        captions += batch.captions
    drawn, real, again = (torch.cat(parts) for parts in (drawn, real, again))
    features = {"drawn": judge.features(drawn), "real": judge.features(real)}
    results["frechet"] = {
        "drawn": frechet_distance(features["drawn"], features["real"]),
        "floor": frechet_distance(judge.features(again), features["real"]),
    }
    pool = world.draw_pool(settings.pool, settings.trained, pipe.device)
    pool = torch.cat([judge.features(batch.images) for batch in pool])
    results["copies"] = {k: rate((copy_ratio(f, pool) < COPY).cpu()) for k, f in features.items()}
    if pipe.clip:
        text = encode_texts(pipe, captions)
        results["clip_score"] = {
            "drawn": clip_score(encode_images(pipe, drawn), text),
            "real": clip_score(encode_images(pipe, real), text),
        }
    return results


@torch.no_grad()
def encode_images(pipe: StableDiffusion, images: Tensor) -> Tensor:
    """CLIP's unit vectors of pictures: (B, P)."""
    parts = [pipe.clip.encode_image(part.to(pipe.device)) for part in images.split(250)]
    return torch.cat(parts)


@torch.no_grad()
def encode_texts(pipe: StableDiffusion, captions: list[str]) -> Tensor:
    """CLIP's unit vectors of captions: (B, P)."""
    ids = pipe.tokenizer(captions).to(pipe.device)
    return torch.cat([pipe.clip.encode_text(part) for part in ids.split(250)])


def read_by_clip(pipe: StableDiffusion, images: Tensor, world: World = data.ONE) -> Tensor:
    """Zero-shot: of the full captions of all combinations, which is most like each picture?

    (B, 3, 32, 32) -> attributes (B, A).
    """
    candidates = world.canonical(world.all_combinations()).unique(dim=0)
    texts = encode_texts(pipe, [world.say(c) for c in candidates.tolist()])
    return candidates[(encode_images(pipe, images) @ texts.T).argmax(dim=1).cpu()]


def evaluate_clip(
    pipe: StableDiffusion, images: Tensor, truth: Tensor, world: World = data.ONE
) -> dict:
    """How often what CLIP sees is true."""
    return rates(read_by_clip(pipe, images, world), truth, world)


@torch.no_grad()
def evaluate_autoencoder(
    pipe: StableDiffusion, judge: Judge, images: Tensor, truth: Tensor, world: World = data.ONE
) -> dict:
    """PSNR, and how much of what the judge reads right it still reads right after decoding."""
    parts = [
        pipe.autoencoder.decode(pipe.autoencoder.encode(part.to(pipe.device)).mean).cpu()
        for part in images.split(250)
    ]
    decoded, before = torch.cat(parts), read(judge, images, world).cpu()
    readable = (before == world.canonical(truth)).all(dim=1)
    if not readable.any():
        raise ValueError(f"the judge reads none of {len(truth)} real pictures; take more samples")
    return {
        "psnr": psnr(decoded, images),
        "kept": rates(read(judge, decoded[readable], world), truth[readable], world),
    }


def bend(images: Tensor, generator: torch.Generator) -> Tensor:
    """As other hands might write the same digits: turned, stretched, slanted and bent a little.

    images (B, 3, H, W) in [-1, 1], generator: a CPU one. A random linear map, then random shifts of
    5 x 5 points with a smooth surface through them. Source: Simard, Steinkraus and Platt 2003,
    "Best practices for convolutional neural networks applied to visual document analysis".
    """
    count, _, height, width = images.shape
    spread = 2 * torch.rand(count, 2, 3, generator=generator) - 1  # in [-1, 1]
    linear = torch.eye(2, 3) + torch.tensor(LINEAR) * spread  # (B, 2, 3)
    where = F.affine_grid(linear, list(images.shape), align_corners=False)  # (B, H, W, 2)
    shifts = BEND * torch.randn(count, 2, 5, 5, generator=generator)
    shifts = F.interpolate(shifts, (height, width), mode="bicubic", align_corners=True)
    where = (where + shifts.permute(0, 2, 3, 1)).to(images.device)
    return F.grid_sample(images + 1, where, align_corners=False) - 1  # black comes in at the sides


def teach(pipe: StableDiffusion, settings: Settings, images: Tensor, truth: Tensor) -> dict:
    """Can one learn to read from drawn pictures alone? A fresh reader's digits, right or wrong.

    It sees nothing but pictures that the pipeline drew and the captions' attributes, and is then
    asked about real pictures. What the pipeline's own CLIP takes for something else than was asked
    for is left out. Sources: Ravuri and Vinyals 2019, "Classification accuracy score"; for CLIP's
    choice, Ramesh et al. 2021, "Zero-shot text-to-image generation", section 2.6. Raises ValueError
    if CLIP leaves less than a batch.
    """
    settings = replace(settings, guidance=settings.lesson_guidance)
    wanted = cycle(data.all_combinations(), settings.lessons, settings.seed)
    captions, _ = data.write_captions(wanted, torch.Generator().manual_seed(settings.seed), 1.0)
    lessons = draw(pipe, captions, settings, settings.seed + 200, "drawing lessons")
    if pipe.clip:
        shown = (read_by_clip(pipe, lessons) == wanted).all(dim=1)
        lessons, wanted = lessons[shown], wanted[shown]
        if len(lessons) < AT_ONCE:
            raise ValueError(
                f"CLIP finds what was asked for in {len(lessons)} of {settings.lessons} lessons; "
                "those teach nobody to read"
            )
    generator = torch.Generator().manual_seed(settings.seed)

    def batch_of_step() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(lessons), (AT_ONCE,), generator=generator)
        bent = bend(lessons[chosen].to(pipe.device), generator)
        return bent, wanted[chosen].to(pipe.device)

    steps = PASSES * len(lessons) // AT_ONCE
    pupil = train_reader(batch_of_step, settings.seed, steps, pipe.device)
    return {"lessons": len(lessons), **rate(pupil(images)[:, 0].cpu() == truth[:, 0].cpu())}


def evaluate(
    pipe: StableDiffusion,
    judge: Judge,
    settings: Settings | None = None,
    world: World = data.ONE,
) -> dict:
    """All measurements of one checkpoint, as plain numbers that JSON can hold.

    Raises ValueError for fewer than 2 samples, for fewer than 1000 lessons (but 0 is no test), for
    lessons in a world that nobody can give them in, and where the pipeline does.
    """
    settings = settings or Settings()
    if settings.lessons and settings.lessons < 1000:
        raise ValueError(f"{settings.lessons} pictures teach nobody to read; take 1000 or more")
    if settings.lessons and world is not data.ONE:
        raise ValueError("lessons are given in the world of one digit only")
    if settings.samples < 2:
        raise ValueError(
            f"samples must be at least 2, one seen and one held out, not {settings.samples}"
        )
    generator = torch.Generator().manual_seed(settings.seed + 100)
    test = world.draw_batch(settings.samples, "test", generator)
    images, truth = test.images, test.attributes
    results = {"world": world.name, "settings": vars(settings)}
    results |= evaluate_pictures(pipe, judge, settings, world)
    if settings.lessons:
        results["taught"] = teach(pipe, settings, images, truth)
    results["autoencoder"] = evaluate_autoencoder(pipe, judge, images, truth, world)
    if pipe.clip:
        results["zero_shot"] = evaluate_clip(pipe, images, truth, world)
    return results


def percent(cell: dict) -> str:
    """A rate with its interval, e.g. 95.8 [94.4, 96.9]."""
    return f"{100 * cell['rate']:.1f} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def accuracy(results: dict) -> list[list[str]]:
    """The rates as rows of text, the first of them the head."""
    rows = {
        "seen, drawn": results["seen"]["drawn"],
        "seen, real renders": results["seen"]["real"],
        "held out, drawn": results["held_out"]["drawn"],
        "held out, real renders": results["held_out"]["real"],
        "autoencoder keeps": results["autoencoder"]["kept"],
    }
    if "zero_shot" in results:
        rows["CLIP zero-shot"] = results["zero_shot"]
    names = list(results["seen"]["drawn"])
    head = ["% right [95% interval]", *names]
    return [head, *([label, *(percent(row[n]) for n in names)] for label, row in rows.items())]


def format_table(results: dict) -> str:
    """The results as a table for the terminal."""
    lines = [f"{row[0]:24}" + "".join(f"{c:>20}" for c in row[1:]) for row in accuracy(results)]
    frechet = results["frechet"]
    lines += [
        "",
        f"Frechet distance        {frechet['drawn']:.2f} (real to real: {frechet['floor']:.2f})",
        f"reconstruction          {results['autoencoder']['psnr']:.1f} dB PSNR",
    ]
    copies = {k: f"{100 * c['rate']:.1f} %" for k, c in results["copies"].items()}
    lines.append(f"copies                  {copies['drawn']} (real: {copies['real']})")
    if "taught" in results:
        rate = results["taught"]["rate"]
        lines.append(f"a reader taught by it   {100 * rate:.1f} % of real digits right")
    if "clip_score" in results:
        score = results["clip_score"]
        lines.append(f"CLIP score              {score['drawn']:.1f} (real: {score['real']:.1f})")
    return "\n".join(lines)
