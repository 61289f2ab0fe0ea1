"""Page of the comparison of mobile engines."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from igcv.deploy.folding.forms import LITERAL
from studies.benchmarks.engines_timing import BASELINE, CANDIDATES, MEASURED, NETWORKS
from studies.benchmarks.spreads import spread, with_quartiles

ARCHITECTURES = {"x86_64": "x86; not measured on ARM", "aarch64": "ARM"}
LITERAL_FORM = "its literal form"
TARGETS = (  # image size, network in its best form, what it is compared with, highest ratio of the times
    (224, "igcv3_d_p50", BASELINE, 0.66),
    (32, "igcv3_d_p50", BASELINE, 0.60),
    (224, "igcv3_d_half", BASELINE, 0.75),
    (32, "igcv3_d_half", BASELINE, 0.68),
    (224, "igcv3_d_100", BASELINE, 1.25),
    (32, "igcv3_d_100", BASELINE, 1.20),
    *((size, network, LITERAL_FORM, 1.0) for size in (224, 32) for network in NETWORKS),
)
Row = dict[str, Any]


class Place(NamedTuple):
    """Rows of one engine and image size, by network and form."""

    engine: str
    size: int
    rows: dict[tuple[str, str], Row]

    @property
    def base(self) -> Row:
        """The row of MobileNetV2."""
        return next(row for (network, _), row in self.rows.items() if network == BASELINE)

    def best(self, network: str) -> Row:
        """Return the row of the best form of a network."""
        return next(row for form in CANDIDATES if (row := self.rows[network, form])["cpu_ms"])


def page(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    places = places_of(result["rows"])
    architecture = result["machine"]["architecture"]
    where = ARCHITECTURES.get(architecture, architecture)
    lines = [f"# IGCV3 and MobileNetV2 in mobile engines ({where})", "", *introduction(result, places)]
    lines += ["", "## Targets", "", *target_table(places)]
    for size in dict.fromkeys(place.size for place in places):
        lines += ["", f"## {size} x {size} pixels", ""]
        lines += time_table([place for place in places if place.size == size])
    return "\n".join([*lines, "", "## Choice of the best form", "", *form_table(places), ""])


def places_of(rows: Sequence[Row]) -> list[Place]:
    """Return the rows by engine and image size, in their order."""
    places: dict[tuple[str, int], Place] = {}
    for row in rows:
        key = (row["engine"], row["size"])
        places.setdefault(key, Place(*key, {})).rows[row["network"], row["form"]] = row
    return [*places.values()]


def introduction(result: dict[str, Any], places: Sequence[Place]) -> Iterator[str]:
    """Yield the conditions and the method."""
    about = result["machine"]
    rounds = sorted({len(place.base["cpu_ms"]) for place in places})
    others = ("architecture", "processor", "cores", "threads", "date")
    versions = ", ".join(f"{name} {value}" for name, value in about.items() if name not in others)
    yield (
        f"Measured {about['date']}: {about['processor']}, {about['cores']} cores; float32, batch 1, "
        f"{about['threads']} thread, random weights. The networks have 1000 classes at 224 pixels and 10 at 32. "
        "Times are CPU times of a process per engine and image size, which runs the networks in random order in each "
        f"of {' or '.join(map(str, rounds))} rounds. Ratios are taken within each round. A value is the median "
        "(first to third quartile; minimum to maximum). Written by `python -m studies.benchmarks.engines`."
    )
    yield from ("", f"Versions: {versions}.")
    measured = {place.engine for place in places}
    if absent := [engine.title for name, engine in MEASURED.items() if name not in measured]:
        yield from ("", f"Engines that were not measured: {', '.join(absent)}.")


def target_table(places: Sequence[Place]) -> Iterator[str]:
    """Yield the targets next to the median ratios of the best forms."""
    titles = " | ".join(engine.title for engine in MEASURED.values())
    yield f"| pixels | network, best form | compared with | target | {titles} |"
    yield f"|---:|---|---|---:|{'---|' * len(MEASURED)}"
    by_key = {(place.engine, place.size): place for place in places}
    for size, network, other, target in TARGETS:
        cells = [verdict(by_key.get((engine, size)), network, other, target) for engine in MEASURED]
        yield f"| {size} | {network} | {other} | at most {target:.2f} | {' | '.join(cells)} |"


def verdict(place: Place | None, network: str, other: str, target: float) -> str:
    """Return the median ratio of the time of a best form, and whether the ratio reaches the target."""
    if place is None:
        return "not measured"
    reference = place.base if other == BASELINE else place.rows[network, LITERAL]
    found = round(median(ratios(place.best(network)["cpu_ms"], reference["cpu_ms"])), 3)
    return f"{found:.3f}, " + ("reached" if found <= target else f"missed by {found - target:.3f}")


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Return the ratio of the times in each round."""
    return [a / b for a, b in zip(of, to, strict=True)]


def time_table(places: Sequence[Place]) -> Iterator[str]:
    """Yield the times of all networks in each engine, with their ratios."""
    yield f"| engine | network | form | CPU ms per image | ratio to {BASELINE} | ratio to literal |"
    yield "|---|---|---|---:|---:|---:|"
    for place in places:
        for (network, form), row in place.rows.items():
            times = row["cpu_ms"]
            if not times:
                continue
            literal = place.rows.get((network, LITERAL), row)
            cells = (
                MEASURED[place.engine].title,
                network,
                form,
                spread(times, 2),
                with_quartiles(ratios(times, place.base["cpu_ms"])),
                "" if literal is row else with_quartiles(ratios(times, literal["cpu_ms"])),
            )
            yield f"| {' | '.join(cells)} |"


def form_table(places: Sequence[Place]) -> Iterator[str]:
    """Yield the median ratios to MobileNetV2 of all forms, from the rounds that chose the best form."""
    rounds = sorted({len(place.base["choice_cpu_ms"]) for place in places})
    forms = (LITERAL, *CANDIDATES)
    yield (
        f"Median ratios to {BASELINE} in {' or '.join(map(str, rounds))} separate rounds before those above. The best "
        "form, in bold, is the fastest of the forms other than literal."
    )
    yield from ("", f"| pixels | engine | network | {' | '.join(forms)} |", f"|---:|---|---|{'---:|' * 4}")
    for place in places:
        for network in NETWORKS:
            best = place.best(network)
            rows = [place.rows[network, form] for form in forms]
            found = [median(ratios(row["choice_cpu_ms"], place.base["choice_cpu_ms"])) for row in rows]
            cells = [
                f"**{ratio:.2f}**" if row is best else f"{ratio:.2f}"
                for row, ratio in zip(rows, found, strict=True)
            ]
            yield f"| {place.size} | {MEASURED[place.engine].title} | {network} | {' | '.join(cells)} |"
