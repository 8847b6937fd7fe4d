"""The results as tables, for the terminal or in Markdown."""

LABELS = {"seen": "seen", "held_out": "held out"}
Table = list[list[str]]  # the head, then the rows


def percent(cell: dict) -> str:
    """A proportion with its interval, e.g. 95.8 [94.4, 96.9]."""
    return f"{100 * cell['rate']:.1f} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def distance(value: float) -> str:
    """One decimal; below one, as between CLIP's unit vectors, two significant digits."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def accuracy_table(results: dict) -> Table:
    """The shares of pictures that show what was asked for, by attribute."""
    rows = {}
    for group, label in LABELS.items():
        rows[f"{label}, drawn"] = results[group]["drawn"]
        if "unguided" in results[group]:
            rows[f"{label}, guidance 1"] = results[group]["unguided"]
        rows[f"{label}, real renders"] = results[group]["real"]
    rows["autoencoder keeps"] = results["autoencoder"]["kept"]
    if "zero_shot" in results:
        rows["CLIP zero-shot"] = results["zero_shot"]
    names = list(results["seen"]["drawn"])
    head = ["% right [95% interval]", *names]
    return [head, *([label, *(percent(row[n]) for n in names)] for label, row in rows.items())]


def incomplete_table(results: dict) -> Table:
    """What becomes of captions that leave things out."""
    head = ["% [95% interval], captions that name", "as asked, all decided", "as asked"]
    table = [[*head, "all decided", "left open: rarest, most frequent value"]]
    for named, row in results["incomplete"].items():
        rates = [percent(row[name]) for name in ("whole", "asked", "decided")]
        table.append([named, *rates, ", ".join(f"{x:.2f}" for x in row["spread"])])
    return table


def quality_table(results: dict) -> Table:
    """Everything that needs no attributes, drawn pictures beside real ones."""
    rows = [["", "drawn", "real"]]
    if frechet := results.get("frechet"):
        values = (distance(frechet["drawn"]), f"{distance(frechet['floor'])} (another set)")
        features = {"judge": "the judge's", "CLIP": "its own CLIP's"}[frechet["features"]]
        rows.append([f"Frechet distance in {features} features", *values])
        if "unguided" in frechet:
            rows.append(["the same, guidance 1", distance(frechet["unguided"]), ""])
    if score := results.get("clip_score"):
        rows.append(["CLIP score", f"{score['drawn']:.1f}", f"{score['real']:.1f}"])
    for group, cells in results.get("retrieval", {}).items():
        for name, chance in cells["chance"].items():
            label = f"CLIP retrieval, {LABELS[group]}, {name}, % (chance {100 * chance:.1f})"
            rows.append([label, percent(cells["drawn"][name]), percent(cells["real"][name])])
    if copies := results.get("copies"):
        label = "copies of training pictures, %"
        rows.append([label, percent(copies["drawn"]), percent(copies["real"])])
    for name, how in {"classification_accuracy": "", "plain_classification": ", no tricks"}.items():
        if cell := results.get(name):
            what = f"classification accuracy score{how}, %"
            rows.append([f"{what}, from {cell['pictures']:,} drawn pictures", percent(cell), ""])
    rows.append(["reconstruction, PSNR", "", f"{results['autoencoder']['psnr']:.1f} dB"])
    return rows


def to_text(table: Table) -> str:
    """A table for the terminal, in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in table)
    return "\n".join("  ".join(row).rstrip() for row in rows)


def to_markdown(table: Table) -> str:
    """A table in Markdown."""
    head, *rows = table
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def settings_line(results: dict) -> str:
    """What the pictures were drawn with."""
    s = results["settings"]
    how = f"{s['samples']:,} pictures, {s['steps']} steps of {s['sampler']}"
    how += f", guidance {s['guidance']:g}, guidance_rescale {s['rescale']:g}; "
    how += "95% intervals after Wilson."
    if "incomplete" in results:
        how += " Captions that leave things out are drawn as by a call without arguments."
    return how


def format_results(results: dict, markdown: bool = False) -> str:
    """What `evaluate` measured: tables of attributes, if there are any, and one of the rest."""
    tables = [accuracy_table(results)] if "seen" in results else []
    tables += [incomplete_table(results)] if "incomplete" in results else []
    tables.append(quality_table(results))
    blocks = map(to_markdown if markdown else to_text, tables)
    return "\n\n".join([*blocks, settings_line(results)])
