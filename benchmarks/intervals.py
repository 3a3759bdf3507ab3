"""How often intervals hold the truth: leaving out one place at a time (`drone_seg.scores.intervals`) against the bootstrap.

    python benchmarks/intervals.py [--cases 2000] [--out benchmarks/results/intervals.md]

Two models on drawn places (`draw_places` of tests/test_intervals.py); the truth is their mIoU on 20,000 places. Two minutes on one core."""
import argparse, sys
from pathlib import Path
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tests'))
from test_intervals import draw_places
from drone_seg.scores.confusion import class_scores
from drone_seg.scores.intervals import difference_intervals, score_intervals

def miou(matrices): # (..., C, C) to (...)
    return np.nanmean(class_scores(matrices)['iou'], axis=-1)

def bootstrap(matrices, times): # mIoU of each draw of places
    return miou(np.tensordot(times, matrices, 1))

def held(places, cases, seed=1):
    "Share of cases in which each interval holds the truth: of a difference, and of one score"
    rng = np.random.default_rng(seed)
    first,second = draw_places(20_000, rng, .3)
    truth = miou(first.sum(0)),miou(second.sum(0))
    res = np.zeros(4)
    for _ in range(cases):
        some = rng.integers(0, 20_000, places)
        a,b = first[some],second[some]
        times = rng.multinomial(places, np.full(places, 1/places), size=1000)
        drawn_a,drawn_b = bootstrap(a, times),bootstrap(b, times)
        d,one = difference_intervals(a, b)['miou'],score_intervals(a)['miou']
        bounds = ((d.low, d.high), np.percentile(drawn_b-drawn_a, (2.5, 97.5)), (one.low, one.high), np.percentile(drawn_a, (2.5, 97.5)))
        for i,((low,high),t) in enumerate(zip(bounds, (truth[1]-truth[0],)*2 + (truth[0],)*2)): res[i] += low<=t<=high
    return res/cases

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--cases', type=int, default=2000)
    p.add_argument('--out', type=Path)
    a = p.parse_args()
    lines = [f"Share of {a.cases} drawn cases in which a 95 % interval of mIoU holds the truth (benchmarks/intervals.py).", '',
             '| places | difference, one left out | difference, bootstrap | one score, one left out | one score, bootstrap |', '|---|---|---|---|---|']
    for places in (5, 6, 8, 16, 40): lines.append(f"| {places} | " + ' | '.join(f'{v:.1%}' for v in held(places, a.cases)) + ' |')
    text = '\n'.join(lines)+'\n'
    print(text)
    if a.out: a.out.write_text(text)

if __name__=='__main__': main()
