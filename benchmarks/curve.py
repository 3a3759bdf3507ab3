"""Held back: from trainings on 40 and 70 % of the places, what all of them should score, and what they did score.

    python benchmarks/curve.py --data FOLDER [--recipe fast] [--size 96x144] [--steps 300] [--seeds 0,1] [--weights FILE] [--runs FOLDER] [--out benchmarks/results/curve.md]

Each seed draws its own validation places and parts. Runs that are finished are not trained again.
"""
import argparse, sys, time
from pathlib import Path
from drone_seg.data.datasets import open_dataset
from drone_seg.runs.curve import foresee, learning_curve
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

def main():
    a = parse()
    data = open_dataset(a.data)
    head = ['seed','photos: 40, 70, 100 %','mIoU of 40 and 70 %','foreseen for 100 %','scored','is','off by','foreseen for twice as many']
    rows = [held_back(a, data, int(s)) for s in a.seeds.split(',')]
    names = {a.data: 'DATA', a.weights: 'WEIGHTS', a.runs: 'RUNS', a.out: 'OUT'}
    given = [names.get(x, x) for x in sys.argv[1:]]
    about = f"`python benchmarks/curve.py {' '.join(given)}` on {data.name}, recipe {a.recipe} at {a.size}, {a.steps} steps of each training. Foreseen from the first two trainings alone."
    Path(a.out).write_text('\n'.join(['# Learning curve, held back', '', f"| {' | '.join(head)} |", '|'+'---|'*len(head), *rows, '', about, '']))
    print(Path(a.out).read_text())

if __name__=='__main__': main()
