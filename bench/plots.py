# SPDX-License-Identifier: Apache-2.0
"""The plots of docs/BENCHMARKS.md, by gnuplot; for bench/report."""
import statistics
import subprocess

from results import PERCENTILES
from works import CONCURRENCY, PLACES

COLOURS = {"raw": "#555555", "overlay": "#0060ad", "dev": "#dd8452", "tls": "#2a9d5c",
           "every": "#8e44ad", "bindfs": "#b5a642"}
STYLE = "set terminal svg size 720,420 font 'sans-serif,13' background 'white'\nset grid\n"


def draw(script):
    done = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"report: gnuplot: {done.stderr}")
    return done.stdout


def block(name, lines):
    return f"${name} << END\n" + "\n".join(lines) + "\nEND\n"


def throughput(figures, description):
    """Medians of deliveries against concurrency, with the lowest and highest round as bars."""
    script = STYLE + (
        f"set title 'Durable deliveries of 2 KiB, a Maildir each: {description}'\n"
        "set xlabel 'deliverers at once'\nset ylabel 'deliveries per second'\n"
        "set logscale x 2\nset xrange [0.8:20]\nset yrange [0:*]\nset key top left\n"
        f"set xtics ({', '.join(str(n) for n in CONCURRENCY)})\n"
    )
    curves = []
    for place in COLOURS:
        found = [f for f in figures if f["work"] == "delivery" and f["place"] == place]
        if not found:
            continue
        lines = [f"{f['at_once']} {statistics.median(f['rounds'])} {min(f['rounds'])} "
                 f"{max(f['rounds'])}" for f in sorted(found, key=lambda f: f["at_once"])]
        script += block(place, lines)
        title = PLACES[place].replace("`", "")
        curves.append(f"${place} using 1:2:3:4 with yerrorlines lw 2 pt 7 ps 0.6 "
                      f"lc rgb '{COLOURS[place]}' title '{title}'")
    return draw(script + "plot " + ", ".join(curves) + "\n")


def latency(figures, description):
    """Percentiles of one delivery, the directory itself (dashed) and through the overlay."""
    script = STYLE + (
        f"set title 'How long one durable delivery takes: {description}'\n"
        "set xlabel 'percentile'\nset ylabel 'milliseconds'\nset logscale y\n"
        "set xrange [-0.2:3.2]\nset key top left\n"
        f"set xtics ({', '.join(f'{chr(39)}{p}{chr(39)} {i}' for i, p in enumerate(PERCENTILES))})\n"
    )
    curves = []
    for place, dash in (("raw", 2), ("overlay", 1)):
        for number, at_once in enumerate((1, 4, 16)):
            found = [f for f in figures if (f["work"], f["place"], f["at_once"]) ==
                     ("delivery", place, at_once)]
            if not found:
                continue
            name = f"{place}{at_once}"
            times = found[0]["latency_us"]
            script += block(name, [f"{i} {times[str(p)] / 1000}"
                                   for i, p in enumerate(PERCENTILES)])
            colour = ("#2a9d5c", "#0060ad", "#c0392b")[number]
            curves.append(f"${name} using 1:2 with linespoints lw 2 dt {dash} pt 7 ps 0.6 "
                          f"lc rgb '{colour}' title '{place}, {at_once}'")
    return draw(script + "plot " + ", ".join(curves) + "\n")
