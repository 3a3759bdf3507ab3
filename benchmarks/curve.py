"""Held back: from trainings on 40 and 70 % of the places, what all of them should score, and what they did score.

    python benchmarks/curve.py --data FOLDER [--recipe fast] [--size 96x144] [--steps 300] [--seeds 0,1] [--weights FILE] [--runs FOLDER] [--out benchmarks/results/curve.md]

Each seed draws its own validation places and parts. Runs that are finished are not trained again.

--probe is a stand-in that takes seconds a seed: as in benchmarks/next.py, the encoder stays as it came and a classifier of single points is trained.
"""
import argparse, sys, time
from pathlib import Path
from drone_seg.data.datasets import open_dataset
from drone_seg.runs.curve import foresee, learning_curve, parts_of
from drone_seg.runs.run import open_run

SHARES = .4,.7,1

def parse():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True)
    p.add_argument('--recipe', default='fast')
    p.add_argument('--size', default='96x144')
    p.add_argument('--steps', type=int, default=300, help='of each training')
    p.add_argument('--seeds', default='0,1')
    p.add_argument('--weights', default='auto')
    p.add_argument('--probe', action='store_true', help='points on a frozen encoder in the place of whole trainings')
    p.add_argument('--runs', default='curve', help='folder for the runs')
    p.add_argument('--out', default=str(Path(__file__).parent/'results'/'curve.md'))
    return p.parse_args()

def held_back(a, data, seed):
    "A line of the table"
    out,start = Path(a.runs)/f'seed{seed}',time.process_time()
    curve = learning_curve(a.recipe, data, out=out, shares=SHARES, seed=seed, steps=a.steps, size=a.size, weights=a.weights, bar=False)
    runs = [open_run(out/name) for name in ('40','70','100')]
    place = data.places(progress=False).place
    photos = [len(r.split.train) for r in runs]
    said = foresee(photos[:2], [r.matrices for r in runs[:2]], [place[s] for s in runs[0].stems], photos[2])
    was = [r.scores.miou for r in runs]
    inside = 'inside' if said.low<=was[2]<=said.high else 'outside'
    print(curve, f'{time.process_time()-start:.0f} s of processor time', sep='\n', flush=True)
    cells = [seed, ' / '.join(map(str, photos)), ' / '.join(f'{v:.3f}' for v in was[:2]), said, f'{was[2]:.3f}', inside, f'{was[2]-said.value:+.3f}', curve.twice]
    return f"| {' | '.join(map(str, cells))} |"

def probes(a, data):
    "The same by the stand-in: a table"
    import numpy as np
    from next import Points, judge_points, train_points
    from drone_seg.scores.intervals import score_intervals
    points,place,n,rows,off = Points(data, a.weights),data.places(progress=False).place,data.classes.n,[],[]
    for seed in map(int, a.seeds.split(',')):
        split = data.split(by='place', valid=.2, seed=seed, progress=False)
        parts = parts_of(data, split, SHARES, seed)
        matrices = [judge_points(points, train_points(points, p.train, n, seed), split.valid, n) for p in parts]
        photos = [len(p.train) for p in parts]
        said = foresee(photos[:2], matrices[:2], [place[s] for s in split.valid], photos[2])
        was = [score_intervals(m)['miou'].value for m in matrices]
        off.append((was[2]-said.value, said.low<=was[2]<=said.high, said.high-said.low, abs(was[2]-was[1])))
        cells = [seed, ' / '.join(map(str, photos)), ' / '.join(f'{v:.3f}' for v in was[:2]), said, f'{was[2]:.3f}', f'{off[-1][0]:+.3f}']
        rows.append(f"| {' | '.join(map(str, cells))} |")
        print(rows[-1], flush=True)
    d,inside,wide,gained = np.array(off, float).T
    said = f"Inside {inside.sum():.0f} of {len(off)}; off by {d.mean():+.3f} on average, {abs(d).mean():.3f} without sign (the last trained score taken for the answer: {gained.mean():.3f}); the interval is {wide.mean():.3f} wide on average."
    head = '| seed | photos: 40, 70, 100 % | mIoU of 40 and 70 % | foreseen for 100 % | scored | off by |'
    return '\n'.join([head, '|---'*6+'|', *rows, '', said])

def main():
    a = parse()
    data = open_dataset(a.data)
    if a.probe: return Path(a.out).write_text(f"# Learning curve, held back: by a stand-in\n\n{probes(a, data)}\n")
    head = ['seed','photos: 40, 70, 100 %','mIoU of 40 and 70 %','foreseen for 100 %','scored','is','off by','foreseen for twice as many']
    rows = [held_back(a, data, int(s)) for s in a.seeds.split(',')]
    names = {a.data: 'DATA', a.weights: 'WEIGHTS', a.runs: 'RUNS', a.out: 'OUT'}
    given = [names.get(x, x) for x in sys.argv[1:]]
    about = f"`python benchmarks/curve.py {' '.join(given)}` on {data.name}, recipe {a.recipe} at {a.size}, {a.steps} steps of each training. Foreseen from the first two trainings alone."
    Path(a.out).write_text('\n'.join(['# Learning curve, held back', '', f"| {' | '.join(head)} |", '|'+'---|'*len(head), *rows, '', about, '']))
    print(Path(a.out).read_text())

if __name__=='__main__': main()
