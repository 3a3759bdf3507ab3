"""What each way to split achieves on a data set: leakage, missing classes, how evenly classes lie; and what a score is worth after it.

    python benchmarks/splits.py --data FOLDER [--seeds 5] [--train] [--weights FILE] [--epochs 10]

The table is the mean over seeds. The package `iterative-stratification`, where it is installed, is measured beside `class`.
With --train one small network is trained after a split at random and one after a split by place (one thread; the same settings, seed and number of epochs),
and each is scored on its own validation photos, as people do.
"""
import argparse, os, time
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
from drone_seg.data.datasets import open_dataset
from drone_seg.data.splits import Split, class_deviation, side_counts

WAYS = ['random','class','pixels','place','place+class','place+pixels']

def peer(data, check, seed):
    "The way `class` as the package iterative-stratification does it"
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit
    n = check.scored>0
    sides = next(MultilabelStratifiedShuffleSplit(1, test_size=.2, random_state=seed).split(n, n))
    return Split(*([check.stems[i] for i in side] for side in sides), 'class', seed)

def measure(data, check, split, seconds):
    tr,va = (s.sum(0) for s in side_counts(split, check))
    leak = data.leakage(split, progress=False)
    return [leak.m, leak.n, 100*leak.share, sum(tr==0), sum(va==0), *class_deviation(split, check), abs(tr/tr.sum()-va/va.sum()).sum()/2, seconds]

def achieved(data, check, seeds):
    "Rows of the table, each a mean over seeds"
    ways = {by: lambda seed, by=by: data.split(by=by, valid=.2, seed=seed, progress=False) for by in WAYS}
    try: import iterstrat.ml_stratifiers; ways['class (iterative-stratification)'] = lambda seed: peer(data, check, seed)
    except ImportError: print('(iterative-stratification is not installed: no peer)')
    print('| way | validation photos | of them overlapping training | leakage % | classes missing in training | in validation | classes off by photos | by pixels | class shares apart | seconds |')
    print('|---|' + '---:|'*9)
    for name,make in ways.items():
        rows = []
        for seed in range(seeds):
            t = time.perf_counter()
            split = make(seed)
            rows.append(measure(data, check, split, time.perf_counter()-t))
        print(f'| {name} |' + ''.join(f' {v:{f}} |' for v,f in zip(np.mean(rows, 0), '.1f .1f .1f .1f .1f .4f .4f .3f .2f'.split())), flush=True)

def train(data, split, a):
    "Scores of a small network on the validation photos of the split it was trained with"
    import torch
    from fastai.torch_core import set_seed
    from drone_seg.models.bundle import as_bundle
    from drone_seg.train.learner import unet_learner
    torch.set_num_threads(1)
    set_seed(0)
    learn = unet_learner(data.dataloaders(split, size=(128,192), bs=8, seed=0, device='cpu'), 'tf_efficientnet_lite0', weights=a.weights)
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(a.epochs-1)
    return as_bundle(learn).evaluate(data, split.valid, progress=False)

def trained(data, a):
    "The same training after two splits"
    rows = []
    for by in ('random','place'):
        t = time.perf_counter()
        split = data.split(by=by, valid=.2, seed=0, progress=False)
        rows.append((by, len(split.valid), train(data, split, a), time.perf_counter()-t))
    iou = np.array([s.iou for _,_,s,_ in rows], dtype=float)
    both = np.isfinite(iou).all(0)
    print('\n| split | validation photos | mIoU | mIoU of the classes scored after both | pixel accuracy | seconds |\n|---|---:|---:|---:|---:|---:|')
    for (by,n,s,t),i in zip(rows, iou): print(f'| {by} | {n} | {s.miou:.4f} | {i[both].mean():.4f} ({both.sum()} classes) | {s.pixel_accuracy:.4f} | {t:.0f} |', flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True, help='a data set that open_dataset knows')
    p.add_argument('--seeds', type=int, default=5)
    p.add_argument('--train', action='store_true', help='train after a split at random and after one by place, too')
    p.add_argument('--weights', default='auto', help="ImageNet weights of the encoder: 'auto' or a file")
    p.add_argument('--epochs', type=int, default=10)
    a = p.parse_args()
    data = open_dataset(a.data)
    check = data.check(progress=False).raise_if_bad()
    print(f'{data.name}: {len(data)} photos, {data.places(progress=False)}; a fifth validates; mean of {a.seeds} seeds\n')
    achieved(data, check, a.seeds)
    if a.train: trained(data, a)

if __name__=='__main__': main()
