"""A folder of one's own captioned pictures: what is found, split, skipped and refused."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from minisd import StableDiffusion
from minisd.data import Folder, Pictures, fits, load_dataset
from minisd.data.folder import read_captions, read_picture
from minisd.errors import InputError
from minisd.training import stages
from tests.helpers import tiny_run

NAMES = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def draw(path, colour, number=0, size=(40, 40)):
    """One plain picture with a dot that makes it unlike the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    image.putpixel((number % 40, number // 40), (128, 128, 128))
    image.save(path)


def fill(folder, count=60):
    """`count` pictures and a metadata.jsonl; returns its rows."""
    rows = []
    for i in range(count):
        name = list(NAMES)[i % len(NAMES)]
        draw(folder / "pictures" / f"{i:03}.png", NAMES[name], i)
        rows.append({"file_name": f"pictures/{i:03}.png", "text": f"a {name} square"})
    text = "\n".join(json.dumps(row) for row in rows) + "\n"
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("folder") / "squares"
    fill(path)
    return path


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_pictures_come_with_their_own_captions(folder):
    batch = Folder(folder).batch(50, "train", seeded())
    assert batch.images.shape == (50, 3, 32, 32) and batch.mentioned.all()
    for image, caption in zip(batch.images, batch.captions, strict=True):
        name = caption.split()[1]
        colour = torch.tensor(NAMES[name]) / 127.5 - 1
        torch.testing.assert_close(image[:, 20, 20], colour, atol=0.02, rtol=0)


@pytest.mark.parametrize("size", [32, 64])
def test_pictures_have_the_size_that_is_asked_for(folder, size):
    dataset = load_dataset(str(folder), size)
    assert dataset.image_size == size and dataset.batch(2).images.shape == (2, 3, size, size)


def test_the_layouts_say_the_same(folder, tmp_path):
    rows = {folder / "pictures" / f"{i:03}.png" for i in range(60)}
    captions = dict(read_captions(folder))
    assert captions.keys() == rows
    texts = sorted(captions.values())

    table = tmp_path / "table"
    fill(table)
    with open(table / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file_name", "text"])
        writer.writeheader()
        for line in (table / "metadata.jsonl").read_text().splitlines():
            writer.writerow(json.loads(line))
    (table / "metadata.jsonl").unlink()
    assert sorted(dict(read_captions(table)).values()) == texts

    beside = tmp_path / "beside"
    for path, text in captions.items():
        draw(beside / path.name, (0, 0, 0))
        (beside / path.name).with_suffix(".txt").write_text(f" {text}\n", encoding="utf-8")
    assert sorted(dict(read_captions(beside)).values()) == texts

    classes = tmp_path / "classes"
    for path, text in captions.items():
        draw(classes / text.replace(" ", "_") / path.name, (0, 0, 0))
    assert sorted(dict(read_captions(classes)).values()) == texts


def test_a_tenth_is_held_back_and_stays_so_whatever_the_files_are_called(folder, tmp_path):
    dataset = Folder(folder)
    assert len(dataset.indices["test"]) == 6 and len(dataset.indices["train"]) == 54
    assert not set(dataset.indices["test"].tolist()) & set(dataset.indices["train"].tolist())
    for path, text in read_captions(folder):
        renamed = tmp_path / f"{999 - int(path.stem)}.png"
        renamed.write_bytes(path.read_bytes())
        renamed.with_suffix(".txt").write_text(text, encoding="utf-8")
    other = Folder(tmp_path)
    for split in ("train", "test"):
        ours, theirs = (
            {d.pixels[i].numpy().tobytes() for i in d.indices[split]} for d in (dataset, other)
        )
        assert ours == theirs


def test_test_pictures_are_never_trained_on(folder):
    dataset = Folder(folder)
    test = {dataset.pixels[i].numpy().tobytes() for i in dataset.indices["test"]}
    shown = [dataset.batch(500, "train", seeded()).images, *(b.images for b in dataset.pool())]
    pixels = ((torch.cat(shown) + 1) * 127.5).round().byte()
    assert not test & {picture.numpy().tobytes() for picture in pixels}
    assert len(pixels[500:].unique(dim=0)) == len(dataset.indices["train"]) == dataset.pool_size


def test_equal_captions_fit_one_anothers_pictures(folder):
    dataset = Folder(folder)
    batch = dataset.batch(20, "train", seeded())
    true = fits(batch.attributes, batch.attributes, batch.mentioned)
    for i, a in enumerate(batch.captions):
        assert [a == b for b in batch.captions] == true[i].tolist()


def test_the_seed_decides_the_batch(folder):
    dataset = Folder(folder)
    a, b, c = (dataset.batch(20, "test", seeded(s)) for s in (1, 1, 2))
    assert torch.equal(a.images, b.images) and a.captions == b.captions
    assert not torch.equal(a.images, c.images)


def test_the_groups_to_measure_on_are_apart(folder):
    dataset = Folder(folder)
    groups = dataset.test_groups(1000, 0)
    assert len(groups["held_out"][0].captions) == len(dataset.indices["test"])
    shown = torch.cat([batch.images for pair in groups.values() for batch in pair])
    assert len(shown.unique(dim=0)) == len(shown)  # no picture twice


def test_what_was_found_is_said(folder):
    lines = Folder(folder).describe()
    assert "60 pictures of 32 pixels with 4 different captions" in lines[0]
    assert any("6 of them are held back" in line for line in lines)
    assert any("'a green square'" in line or "'a white square'" in line for line in lines)


def test_pictures_may_come_from_anywhere():
    """A dataset of one's own in three lines: arrays and captions."""
    pixels = [np.full((32, 32, 3), i, dtype=np.uint8) for i in range(60)]
    dataset = Pictures("greys", pixels, [f"grey {i}" for i in range(60)])
    assert dataset.about["name"] == "greys" and dataset.image_size == 32
    batch = dataset.batch(20, "train", seeded())
    greys = ((batch.images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    assert batch.captions == [f"grey {i}" for i in greys]
    with pytest.raises(InputError, match="few has 49 different captioned pictures; .* 50 or more"):
        Pictures("few", pixels[:49], ["grey"] * 49)


def test_broken_pictures_are_named_and_skipped(tmp_path):
    fill(tmp_path)
    good = (tmp_path / "pictures" / "003.png").read_bytes()
    (tmp_path / "pictures" / "001.png").write_text("no picture")
    (tmp_path / "pictures" / "003.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "pictures" / "004.png").unlink()
    dataset = Folder(tmp_path)
    assert len(dataset.captions) == 57
    skipped = [line for line in dataset.describe() if line.startswith("skipped")]
    assert [any(name in line for line in skipped) for name in ("001", "003", "004")] == [True] * 3
    assert len(skipped) == 3 and not any("\n" in line for line in skipped)


def test_a_changed_folder_is_another_data_set_and_a_moved_one_is_not(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    rows = fill(here)
    before = Folder(here).identity
    assert Folder(here).identity == before
    assert Folder(here, 64).identity != before
    here.rename(there)
    assert Folder(there).identity == before
    assert Folder(there).about["name"] == str(there.resolve())
    rows[0]["text"] = "a crimson square"
    (there / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert Folder(there).identity != before


def rewrite(folder, change):
    """Change the rows of the metadata."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows = [row for i, old in enumerate(rows) for row in change(i, old)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_a_picture_may_have_several_captions(tmp_path):
    fill(tmp_path)
    rewrite(tmp_path, lambda i, row: [row, {**row, "text": f"picture {i}"}])
    dataset = Folder(tmp_path)
    assert len(dataset.captions) == 120 and "picture 7" in dataset.captions
    test, train = (
        {dataset.pixels[i].numpy().tobytes() for i in dataset.indices[split]}
        for split in ("test", "train")
    )
    assert test and not test & train


def test_what_is_left_out_is_counted(tmp_path):
    fill(tmp_path, 80)
    rewrite(tmp_path, lambda i, row: [{**row, "text": ""}] if i < 4 else [row] if i < 70 else [])
    dataset = Folder(tmp_path)
    assert len(dataset.captions) == 66
    lines = dataset.describe()
    assert sum("it has no caption" in line for line in lines) == 5
    assert lines[-1] == "and 9 more were skipped"


def test_numbers_are_captions_too(tmp_path):
    fill(tmp_path)
    rewrite(tmp_path, lambda i, row: [{**row, "text": i % 10}])
    assert sorted(set(Folder(tmp_path).captions)) == list("0123456789")


def test_metadata_may_lie_in_subfolders(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    captions = Folder(tmp_path).captions
    assert len(captions) == 120 and set(captions) == {f"a {name} square" for name in NAMES}


@pytest.mark.parametrize(("mode", "white"), [("I;16", 65535), ("L", 255), ("1", 1)])
def test_grey_pictures_of_any_depth_keep_their_greys(tmp_path, mode, white):
    image = Image.new(mode, (40, 40), 0)
    image.paste(white, (0, 0, 40, 20))
    image.save(tmp_path / "x.png")
    pixels = read_picture(tmp_path / "x.png", 32)
    assert pixels[:14].min() > 250 and pixels[18:].max() < 5


def test_pixels_without_a_known_range_are_skipped_with_the_reason(tmp_path):
    Image.new("F", (40, 40), 0.5).save(tmp_path / "x.tiff")
    with pytest.raises(ValueError, match="its mode is F; save it with 8 bits a channel"):
        read_picture(tmp_path / "x.tiff", 32)


def test_a_byte_order_mark_belongs_to_no_caption(tmp_path):
    draw(tmp_path / "a.png", (0, 0, 0))
    (tmp_path / "a.txt").write_text("a black square", encoding="utf-8-sig")
    assert read_captions(tmp_path) == [(tmp_path / "a.png", "a black square")]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "é.txt"])
def test_line_ends_and_marks_of_windows_belong_to_no_caption(tmp_path, name):
    draw(tmp_path / "é.png", (0, 0, 0))
    text = {
        ".jsonl": '{"file_name": "é.png", "text": "grün, ☃"}\r\n\r\n',
        ".csv": 'file_name,text\r\né.png,"grün, ☃"\r\n',
        ".txt": "grün,\r\n☃\r\n",
    }[name[name.index(".") :]]
    (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
    assert read_captions(tmp_path) == [(tmp_path / "é.png", "grün, ☃")]


def test_names_and_captions_are_the_same_whatever_the_locale(tmp_path):
    classes, listed = tmp_path / "bücher", tmp_path / "listed"
    for i in range(50):
        draw(classes / "ein_café" / f"ü{i}.png", (0, 0, 200), i)
        draw(listed / f"ü{i}.png", (0, 0, 200), i)
    row = '{{"file_name": "ü{}.png", "text": "ein café"}}'
    text = "\n".join(map(row.format, range(50)))
    (listed / "metadata.jsonl").write_text(text, encoding="utf-8")
    code = """if True:
        import locale, sys
        from pathlib import Path

        from minisd.checkpoint import write_json
        from minisd.data import Folder

        assert "UTF" not in locale.getpreferredencoding(False).upper()
        found = [Folder(folder).about for folder in sys.argv[1:]]
        write_json(Path(sys.argv[1]) / "about.json", {"found": found})
        assert Folder(found[0]["name"]).about == found[0]  # as it is read from a checkpoint
    """
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, classes, listed]
    subprocess.run(command, env=os.environ | ascii_only, check=True)
    found = json.loads((classes / "about.json").read_text(encoding="utf-8"))["found"]
    assert found == [Folder(folder).about for folder in (classes, listed)]
    assert set(Folder(listed).captions) == set(Folder(classes).captions) == {"ein café"}


def test_messages_about_long_names_and_captions_are_short(tmp_path):
    rows = fill(tmp_path)
    rows[0]["file_name"], rows[1]["text"] = "x" * 20_000, "y" * 20_000
    text = "\n".join(map(json.dumps, rows))
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8")
    lines = Folder(tmp_path).describe()
    assert any("xxx ... xxx" in line for line in lines)
    assert any("'yyy" in line and "yyy'" in line for line in lines)
    assert max(map(len, lines)) < 500


def test_pictures_are_cropped_to_the_middle_and_turned_upright_on_white(tmp_path):
    wide = Image.new("RGB", (90, 30), (255, 0, 0))
    wide.paste((0, 0, 255), (30, 0, 60, 30))  # the middle third
    wide.save(tmp_path / "wide.png")
    assert (read_picture(tmp_path / "wide.png", 32)[2:-2, 2:-2] == (0, 0, 255)).all()

    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png", 32) == 255).all()

    upright = Image.new("L", (20, 20), 0)
    upright.paste(255, (0, 0, 20, 10))  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    upright.rotate(180).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    pixels = read_picture(tmp_path / "turned.jpg", 32)
    assert pixels[:12].min() > 200 and pixels[20:].max() < 50


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
def test_any_format_that_pillow_reads(tmp_path, suffix):
    draw(tmp_path / f"x.{suffix}", (200, 30, 30))
    assert np.abs(read_picture(tmp_path / f"x.{suffix}", 32)[16, 16].astype(int) - 30).min() < 12


def no_captions(folder):
    (folder / "metadata.jsonl").unlink()
    for file in (folder / "pictures").iterdir():
        file.rename(folder / file.name)


def three_pictures(folder):
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    (folder / "metadata.jsonl").write_text("\n".join(lines[:3]))


def another_column(folder):
    text = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_text(text.replace('"text"', '"caption"'))


def half_a_line(folder):
    text = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_text(text[: len(text) // 2 - 5])


def table(folder, row):
    """The same as a table, with another row 5."""
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    rows = [",".join(json.loads(line).values()) for line in lines]
    rows[4] = row
    (folder / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    (folder / "metadata.jsonl").unlink()


def a_field_too_many(folder):
    table(folder, "pictures/004.png,a red, bright square")


def a_field_too_few(folder):
    table(folder, "pictures/004.png")


def a_list(folder):
    rewrite(folder, lambda i, row: [{**row, "text": ["a", "b"]} if i == 2 else row])


def half_a_character(folder):
    rewrite(folder, lambda i, row: [{**row, "text": "\ud800"} if i == 2 else row])


def another_encoding(folder):
    (folder / "metadata.jsonl").write_bytes(b'\n{"file_name": "x.png", "text": "caf\xe9"}')


@pytest.mark.parametrize("number", [0, 17, 59])  # 17 has the smallest hash
def test_a_picture_that_occurs_often_leaves_some_of_both_splits(tmp_path, number):
    rows = fill(tmp_path)
    again = [{**rows[number], "text": f"caption {i}"} for i in range(200)]
    text = "\n".join(json.dumps(row) for row in rows + again)
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8")
    dataset = Folder(tmp_path, 8)
    for split, indices in dataset.indices.items():
        assert len(dataset.pixels[indices].unique(dim=0)) >= (1 if split == "test" else 20)
    for pair in dataset.test_groups(1000, 0).values():
        assert len(pair[0].captions) == len(pair[1].captions) >= 1


def test_a_caption_may_have_lines_and_a_hidden_folder_is_no_class(tmp_path):
    text = 'file_name,text\na.png,"a red\n\nsquare"\n'
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    assert read_captions(tmp_path) == [(tmp_path / "a.png", "a red square")]
    (tmp_path / "metadata.csv").unlink()
    for name in ("squares/a.png", ".thumbnails/a.png"):
        draw(tmp_path / name, (255, 0, 0))
    assert read_captions(tmp_path) == [(tmp_path / "squares" / "a.png", "squares")]


def a_quote_that_never_ends(folder):
    (folder / "metadata.jsonl").unlink()
    text = 'file_name,text\na.png,"a square\n' + "b.png,a square\n" * 10_000
    (folder / "metadata.csv").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_captions, "has no captions: it needs a metadata.jsonl"),
        (three_pictures, "has 3 different captioned pictures; training needs 50 or more"),
        (another_column, "metadata.jsonl: row 1 cannot be read: it lacks 'text'"),
        (a_quote_that_never_ends, "metadata.csv is damaged: field larger than"),
        (half_a_line, "metadata.jsonl: row 30 cannot be read"),
        (a_field_too_many, "metadata.csv: row 5 cannot be read: it needs one file_name and one"),
        (a_field_too_few, "metadata.csv: row 5 cannot be read: it needs one file_name and one"),
        (a_list, "metadata.jsonl: row 3 cannot be read: it needs one file_name and one text"),
        (half_a_character, "metadata.jsonl: row 3 cannot be read"),
        (another_encoding, r"jsonl is not UTF-8 \(line 2: b'\\xe9\"}'\); save it as UTF-8"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(tmp_path, damage, message):
    fill(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        Folder(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_folder_that_is_not_there_and_a_size_that_digits_do_not_have(tmp_path):
    with pytest.raises(InputError, match="is not a folder of pictures"):
        load_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere/caf\\udce9' is not UTF-8"):
        load_dataset(str(tmp_path / "nowhere/caf\udce9"))
    with pytest.raises(InputError, match="rendered at 32 pixels only"):
        load_dataset("two", 64)


@pytest.mark.parametrize("size", [32, 64])
def test_it_trains_to_a_pipeline_that_draws(folder, tmp_path, size):
    dataset = Folder(folder, size)
    run = tiny_run(tmp_path / "run", dataset=dataset)
    tokenizer = stages.train_tokenizer(run)
    assert tokenizer.max_length == 5  # start, three words, end
    assert 0 < stages.estimate(run, tokenizer) < 60
    stages.train_all(run)
    pipe = StableDiffusion.from_pretrained(tmp_path / "run")
    out = pipe("a red square", num_inference_steps=2, output_type="pt", generator=seeded())
    assert out.images.shape == (1, 3, size, size)
    assert pipe.data == dataset.about
    with pytest.raises(InputError, match="other settings: data"):
        stages.train_all(replace(run, dataset=Folder(folder, 96 - size)), resume=True)
