# SPDX-License-Identifier: Apache-2.0
"""How figures are written in docs/BENCHMARKS.md; for the scripts beside this one."""
import statistics


def spread(values, digits=0):
    low, middle, high = (
        f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low}–{high})"


def ratio(there, raw):
    """Of the medians; in brackets the lowest and the highest ratio of one round."""
    middle = statistics.median(there) / statistics.median(raw)
    rounds = [one / other for one, other in zip(there, raw)]
    return middle, f"{middle:.2f} ({min(rounds):.2f}–{max(rounds):.2f})"


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
    yield ""
