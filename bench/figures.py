# SPDX-License-Identifier: Apache-2.0
"""How figures are written in docs/BENCHMARKS.md; for the scripts beside this one."""
import statistics


def spread(values, digits=0):
    low, middle, high = (
        f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low}–{high})"
