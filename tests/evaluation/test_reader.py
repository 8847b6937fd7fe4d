"""The judge is trained on training handwriting only, and the seed decides the result."""

import torch

from minisd.evaluation import reader, train_judge


def test_training_a_judge_depends_on_the_seed_alone():
    one, same, other = (
        train_judge(seed, steps=2, batch_size=8).reader.state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)


def test_a_judge_may_see_what_training_holds_out_but_not_the_test_handwriting(monkeypatch):
    splits, combinations = [], []
    draw = reader.data.draw_batch

    def spy(size, split, generator, device, attributes):
        splits.append(split)
        combinations.append(attributes)
        return draw(size, split, generator, device, attributes)

    monkeypatch.setattr(reader.data, "draw_batch", spy)
    train_judge(steps=3, batch_size=32)
    assert set(splits) == {"train"}
    assert reader.data.is_held_out(torch.cat(combinations)).any()
