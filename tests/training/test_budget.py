"""Equal seconds for networks that are compared."""

from types import SimpleNamespace

from minisd.training import Recipe, budget


def test_the_seconds_of_a_step_are_the_median_of_rounds_taken_in_turn(monkeypatch):
    """A clock on which the first round is slow, as is one of the others."""
    now, calls = [0.0], []

    def tick(model, loss_of_step, recipe, label):
        calls.append(model)
        slow = {1: 50.0, 3: 9.0}.get(calls.count(model), 1.0)
        now[0] += recipe.steps * slow * {"small": 0.1, "large": 0.4}[model]

    monkeypatch.setattr(budget, "train", tick)
    monkeypatch.setattr(budget.time, "process_time", lambda: now[0])
    stages = {name: SimpleNamespace(model=name, loss_of_step=None) for name in ("small", "large")}
    seconds = budget.seconds_a_step(stages, Recipe(steps=5, batch_size=2))
    assert {name: round(s, 6) for name, s in seconds.items()} == {"small": 0.1, "large": 0.4}
    assert calls == ["small", "large"] * 4
