"""The student of few_steps learns to name the end of its teacher's path."""

import pytest
import torch

from minisd import StableDiffusion
from minisd.diffusion import SAMPLERS, NoiseSchedule, sample
from minisd.extensions.few_steps import KNOWN, LENGTH, consistency_loss, extend
from minisd.training import Recipe, Run
from tests.evaluation.stubs import Album

SCHEDULE = NoiseSchedule()
TIMES = [t for t, _ in SAMPLERS["lcm"].pairs(SCHEDULE, KNOWN)]
POINT = torch.linspace(-1, 1, 16).reshape(1, 4, 2, 2)  # a dataset of one picture


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def perfect(x_t, t, context=None):
    """v of a network that knows the one picture."""
    a = SCHEDULE.a(t, x_t) if t.dim() else SCHEDULE.alphas_cumprod[t]
    return (a.sqrt() * x_t - POINT) / (1 - a).sqrt()


def loss(student, teacher=perfect, count=500):
    x0, context = POINT.expand(count, -1, -1, -1), torch.zeros(count, 1, 1)
    return consistency_loss(student, teacher, SCHEDULE, x0, context, seeded())


def test_who_names_the_end_of_the_path_everywhere_has_no_loss():
    assert loss(perfect).item() == pytest.approx(0, abs=1e-9)
    assert loss(lambda x, t, c: torch.zeros_like(x)).item() > 0.01


def test_student_and_teacher_are_asked_at_the_two_ends_of_a_step():
    asked = {"student": [], "teacher": []}

    def student(x, t, context):
        asked["student"].append(t)
        return perfect(x, t)

    def teacher(x, t):
        asked["teacher"].append(t)
        return perfect(x, t)

    loss(student, teacher)
    (begin,), (end, also_begin) = asked["teacher"], asked["student"]
    assert torch.equal(begin, also_begin)
    assert set(begin.tolist()) == set(TIMES)  # every timestep that the sampler visits
    further = torch.tensor([TIMES.index(t) + LENGTH for t in begin.tolist()])
    inside = further < KNOWN
    assert end[inside].tolist() == [TIMES[i] for i in further[inside].tolist()]


def test_at_the_end_there_is_nothing_to_guess():
    """The target of the last steps is where the teacher leads, whatever the student says of it."""

    def student(x, t, context):
        late = (t <= TIMES[KNOWN - LENGTH])[:, None, None, None]
        return torch.where(late, perfect(x, t), torch.nan)

    for seed in range(40):
        start = torch.randint(KNOWN, (1,), generator=seeded(seed)).item()
        value = consistency_loss(
            student, perfect, SCHEDULE, POINT, torch.zeros(1, 1, 1), seeded(seed)
        )
        assert bool(value < 1e-9) == (start >= KNOWN - LENGTH)  # else it is NaN


def test_only_the_guess_at_the_beginning_is_taught():
    weight = torch.ones((), requires_grad=True)
    calls = []

    def student(x, t, context):
        calls.append(torch.is_grad_enabled())
        return weight * perfect(x, t)

    loss(student).backward()
    assert calls == [False, True] and weight.grad is not None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = {"few_steps": Recipe(steps=3, batch_size=8, learning_rate=1e-3)}
    return Run(tmp_path_factory.mktemp("run"), Album(), recipes=recipe)


@pytest.fixture(scope="module")
def extended(run, tiny_pipe):
    """(the tiny pipeline, the same with a student)"""
    run.working.mkdir(exist_ok=True)
    return tiny_pipe, extend(run, tiny_pipe)


def test_the_student_is_another_u_net_in_the_same_pipeline(extended, tmp_path):
    teacher, student = extended
    assert student.sampler == "lcm" and student.defaults.guidance_scale == 1
    assert student.text_encoder is teacher.text_encoder
    changed = [
        not torch.equal(a, b)
        for a, b in zip(teacher.unet.parameters(), student.unet.parameters(), strict=True)
    ]
    assert any(changed)
    student.save_pretrained(tmp_path)
    loaded = StableDiffusion.from_pretrained(tmp_path)
    assert loaded.sampler == "lcm" and loaded.defaults == student.defaults
    draw = [
        p("a red seven", generator=seeded(), output_type="pt").images for p in (student, loaded)
    ]
    torch.testing.assert_close(*draw, atol=1e-4, rtol=0)


def test_a_perfect_student_draws_in_one_step():
    x = sample(perfect, SCHEDULE, torch.randn(5, 4, 2, 2, generator=seeded()), 1, sampler="lcm")
    torch.testing.assert_close(x, POINT.expand(5, -1, -1, -1))
