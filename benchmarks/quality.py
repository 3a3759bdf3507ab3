"""Which way to train gives better masks: each line against `base`, with intervals over places.

    python benchmarks/quality.py --data FOLDER [--only base '60 photos*'] [--seeds 0,1] [--out FOLDER] [--table FILE]

The photos are split three times by place, so that each judges once. `base` is the recipe `best` with an FPN at three
fifths of its size, and a line is `base`, or that of its group, but for what it names, trained on one thread in a
process of its own; the last (averaged) weights are scored at the photos' own size, and on every second photo once more
under four drawn shifts of the light, and with more looks (`tta`). A line with `light=False` does not bring odd light to
the training's. What was trained stays in `--out`, models too, so that a night can be taken in parts; the table is
written to results/quality.md. Rare classes are those with less than 1 % of the labelled pixels.
"""
import argparse, fnmatch, json, os, random, subprocess, sys, time, warnings
from dataclasses import replace
from pathlib import Path
import numpy as np

BASE = dict(network='fpn', encoder='tf_efficientnet_lite0', size=(192,288), epochs=6)
SIX = dict(network='segformer', size=(256,384), epochs=11) # 388 s of one core with AVX-512 and bfloat16
LARGER = dict(size=(320,480), epochs=8) # as long, now that freed memory is kept
LINES = {
    'base':{},
    'light':dict(augment='light'),
    'nadir':dict(augment='nadir'),
    'size 256x384':dict(size=(256,384), epochs=3),
    'segformer':dict(network='segformer'),
    'segformer 256x384':dict(network='segformer', size=(256,384), epochs=7),
    '388 s: base':SIX,
    '388 s: fpn':SIX | dict(network='fpn', epochs=8),
    'larger: base':SIX | LARGER,
    'larger: 256x384':SIX | dict(epochs=12),
    '30 photos: base':SIX | LARGER | dict(few=30, epochs=55), # as many steps as with all 202 to 214
    '60 photos: base':SIX | LARGER | dict(few=60, epochs=27),
    '120 photos: base':SIX | LARGER | dict(few=120, epochs=14),
    'dubai: base':SIX | LARGER | dict(epochs=34), # --data: its 72 photos, 48 train
    'dubai: fpn':SIX | dict(network='fpn', epochs=34),
    '40 min: base':SIX | dict(size=(512,768), epochs=14),
    '388 s, Zen 5: base':SIX | dict(size=(384,576), epochs=8), # that kind takes 268 s for `larger: base`
    '388 s, Zen 5: 448x672':SIX | dict(size=(448,672), epochs=6),
    '40 min, Zen 5: base':SIX | dict(size=(512,768), epochs=28),
    '40 min, Zen 5: nadir':SIX | dict(size=(512,768), epochs=28, augment='nadir'),
    '40 min, Zen 5: 768x1152':SIX | dict(size=(768,1152), epochs=12, accumulate=2), # larger than these photos
    'larger: light as it comes':SIX | LARGER | dict(light=False),
}
def as_asked(name): return json.dumps(BASE | LINES[name])

SHIFTS = 'dark','warm','haze','soft'
LOOKS = dict(flips='flips', scales='.75,1,1.25') # ways of `tta`

def is_there(file, name): # and of these settings, and looked at in these ways
    o = np.load(file) if file.exists() else {}
    return {*SHIFTS, *LOOKS}<={*o} and str(o['line'])==as_asked(name)

def shifted(photo, how):
    "A photo as another hour, another white balance, hazy air or a cheaper camera would show it"
    import cv2
    x = photo.astype(np.float32)
    if how=='dark': x *= .45
    if how=='warm': x *= (1.25, 1., .65)
    if how=='haze': x = .5*x+.5*205
    if how=='soft': x = cv2.GaussianBlur(.4*x+.6*x.mean(2, keepdims=True), (0,0), 1.2)
    return np.clip(x, 0, 255).astype(np.uint8)

def fold(data, i):
    from drone_seg.data.splits import Split
    s = data.folds(3, 'place', seed=0, progress=False)[i]
    return Split(s.train, s.valid, 'place', 0, data.name)

def labelled(data, split, n, seed):
    "n photos of the training side, at most ten of a place, places in any order"
    place,rng = data.places(progress=False).place,random.Random(seed)
    by = {}
    for s in split.train: by.setdefault(place[s], []).append(s)
    groups = list(by.values())
    rng.shuffle(groups)
    return sorted([s for g in groups for s in rng.sample(g, min(10, len(g)))][:n])

def learner_of(data, split, line, seed):
    "The learner of a line, and its recipe"
    from drone_seg.train.by_recipe import recipe_dataloaders, recipe_learner
    from drone_seg.train.recipes import recipe
    r = recipe('best', keep=None, **{k:v for k,v in line.items() if k not in ('few','light')})
    r = replace(r, epochs=r.epochs-r.freeze_epochs)
    learn = recipe_learner(r, recipe_dataloaders(r, data, split, seed, 'cpu'))
    return learn,r

def trained(a):
    "Train one fold of a line; its bundle and the seconds it took"
    from fastai.callback.core import Callback, CancelValidException
    from fastai.torch_core import set_seed
    from drone_seg.data.datasets import open_dataset
    from drone_seg.models.bundle import as_bundle
    from drone_seg.train.by_recipe import recipe_stages
    from drone_seg.train.fit import fit_stages
    name,seed,i = json.loads(a.line)
    line = BASE | LINES[name]
    data = open_dataset(a.data)
    split = fold(data, i)
    if 'few' in line: split = replace(split, train=labelled(data, split, line['few'], seed))
    set_seed(seed)
    learn,r = learner_of(data, split, line, seed)
    class Unjudged(Callback): # the last weights are taken, so no epoch needs a score
        order = -4
        def before_validate(self): raise CancelValidException
    learn.add_cb(Unjudged())
    for _ in learn.dls.train: pass # reading the photos is no part of the comparison
    set_seed(seed)
    cpu = time.process_time()
    with learn.no_bar(), learn.no_logging(): fit_stages(learn, recipe_stages(r))
    cpu = time.process_time()-cpu
    return data,split,as_bundle(learn),cpu

def run_line(a):
    import torch
    torch.set_num_threads(1)
    data,split,model,cpu = trained(a)
    if not (BASE | LINES[json.loads(a.line)[0]]).get('light', True): model = replace(model, light=None)
    scores = model.evaluate(data, split.valid, progress=False)
    n,res = data.classes.n,dict(stems=split.valid, matrices=scores.matrices)
    half = split.valid[::2]
    for how in SHIFTS: res[how] = np.stack([judge(model, data, s, n, how) for s in half])
    for how,tta in LOOKS.items(): res[how] = np.stack([judge(model, data, s, n, tta=tta) for s in half])
    model.save(Path(a.file).with_suffix(''))
    line = as_asked(json.loads(a.line)[0])
    np.savez_compressed(a.file, **res, half=half, cpu_s=cpu, names=data.classes.scored_names, line=line)
    return cpu

def judge(model, data, stem, n, how='', tta=None):
    from drone_seg.scores.count import count
    image,ids = data[stem]
    answer = model.predict(shifted(np.asarray(image), how), tta=tta).ids
    return np.asarray(count(model.classes.encode(answer), data.classes.encode(np.asarray(ids)), n))

def of_line(out, name, seeds):
    "All folds of a line: (seeds, photos, C, C) matrices, names of photos, of shifts likewise, CPU s; None if one lacks"
    files = [[out/f"{name.replace(':', '')} {s} {i}.npz".replace(' ', '_') for i in range(3)] for s in seeds]
    files = [row for row in files if all(is_there(f, name) for f in row)]
    if not files: return None
    rows = [[dict(np.load(f)) for f in row] for row in files]
    join = lambda k: np.stack([np.concatenate([o[k] for o in row]) for row in rows])
    fold_of = np.repeat(range(3), [len(o['stems']) for o in rows[0]])
    cpu_s = np.mean([o['cpu_s'] for row in rows for o in row])
    return dict(matrices=join('matrices'), stems=join('stems')[0], half=join('half')[0], names=rows[0][0]['names'],
                fold=fold_of, cpu_s=cpu_s, **{k:join(k) for k in (*SHIFTS, *LOOKS)})

def rare_of(matrices): # classes under 1 % of the labelled pixels
    pixels = matrices[0].sum((0,2))
    return (pixels>0) & (pixels<.01*pixels.sum())

def difference(first, second, groups, classes):
    "Of the mean IoU of some classes: second minus first, an interval over places"
    from drone_seg.scores.confusion import class_scores
    from drone_seg.scores.intervals import Interval, jackknife, sum_by_group
    def both(m):
        sums = sum_by_group(m, groups)
        total = sums.sum(1)
        score = lambda t: np.nanmean(class_scores(t)['iou'][...,classes], -1).mean(0)
        return score(total),score(total[:,None]-sums)
    (a,a_without),(b,b_without) = both(first),both(second)
    low,high,seen = jackknife(b-a, b_without-a_without)
    return Interval(float(b-a), float(low), float(high), len(set(groups)), float(seen)),float(b)

def shown(v): return '' if np.isnan(v) else f'{v:.3f}' # a data set may have no rare class

def say(i): return '' if np.isnan(i.value) else f"{i.value:+.3f} ({i.low:+.3f} to {i.high:+.3f})"

def under_shifts(name, o, base, place):
    "A line of the second table: how scores under each shift differ from those of `base`"
    k,groups = min(len(o['matrices']), len(base['matrices'])),[str(place[s]) for s in o['half']]
    every = base['matrices'][0].sum((0,2))>0
    return [name, *[say(difference(base[s][:k], o[s][:k], groups, every)[0]) for s in SHIFTS]]

def row_of(name, o, base, place):
    "A line of the table: a line's scores, and how they differ from those of `base`"
    k = min(len(o['matrices']), len(base['matrices'])) # seeds that both have
    mine,other = o['matrices'][:k],base['matrices'][:k]
    groups = np.array([str(place[s]) for s in o['stems']])
    every,few = other[0].sum((0,2))>0,rare_of(other)
    (d,value),(rare,rare_value) = difference(other, mine, groups, every),difference(other, mine, groups, few)
    half = np.flatnonzero(np.isin(o['stems'], o['half']))
    lost = [difference(o['matrices'][:,half], o[s], groups[half], every)[0].value for s in SHIFTS]
    said = lambda i: '' if o is base else say(i)
    seen = '' if o is base else f'{d.seen:.3f}'
    return [name, str(k), shown(value), said(d), shown(rare_value), said(rare), seen,
            *[f'{v:+.3f}' for v in lost], f"{o['cpu_s']:.0f}"]

def looked_at(name, o, place):
    "A line of the third table: what more looks bring on every second photo, and what they bring to rare classes"
    half,groups = np.flatnonzero(np.isin(o['stems'], o['half'])),[str(place[s]) for s in o['half']]
    once = o['matrices'][:,half]
    every,few = once[0].sum((0,2))>0,rare_of(o['matrices']) & (once[0].sum((0,2))>0)
    return [name, *[say(difference(once, o[k], groups, c)[0]) for k in LOOKS for c in (every, few)]]

def fold_by_fold(name, o):
    "A line of the fourth table: mIoU and that of the rare classes on each split by itself, and their means"
    from drone_seg.scores.confusion import class_scores
    sums = [o['matrices'][:,o['fold']==i].sum(1) for i in range(3)] # each (seeds, C, C)
    ious = [class_scores(m)['iou'] for m in sums] # a class that is answered where it is not counts 0
    rare = rare_of(o['matrices'])
    rows = [[np.nanmean(iou[:,classes], -1).mean() for iou in ious] for classes in (rare>=0, rare)]
    return [name, *[shown(v) for row in rows for v in (*row, np.mean(row))]]

def table(a, data):
    place,seeds = data.places(progress=False).place,[int(s) for s in a.seeds.split(',')]
    warnings.filterwarnings('ignore', 'Mean of empty slice')
    lines = {name: o for name in LINES if (o := of_line(Path(a.out), name, seeds))}
    rows = [['line','seeds','mIoU','against base','rare','against base','seen from',*SHIFTS,'CPU s']]
    under = [['against base, under', *SHIFTS]]
    more = [['looks beside one', *[f'{k}{c}' for k in LOOKS for c in ('', ', rare')]]]
    apart = [['each split by itself', *[f'{k} {c}' for k in ('mIoU', 'rare') for c in (1, 2, 3, 'mean')]]]
    for t in (rows, under, more, apart): t.append(['---']*len(t[0]))
    for name,o in lines.items():
        group,colon,_ = name.partition(':')
        base = lines.get(group+': base' if colon else 'base')
        if base is not None: rows.append(row_of(name, o, base, place))
        more.append(looked_at(name, o, place))
        apart.append(fold_by_fold(name, o))
        if base is not None and o is not base: under.append(under_shifts(name, o, base, place))
    first = next(iter(lines.values()))
    few = ', '.join(first['names'][rare_of(first['matrices'])]) or 'none'
    return '\n'.join([
        f"`python benchmarks/quality.py --data FOLDER`: {data.name}, {len(data.stems)} photos, each judged once.\n",
        *map(' | '.join, rows), f"\nRare: {few}. Shifts: mIoU lost under each on every second photo.\n",
        *map(' | '.join, under), '', *map(' | '.join, apart), '', *map(' | '.join, more),
        "\nWhat was tried and not kept: quality-tried.md.\n"])

def parse():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True, help='a data set that open_dataset knows')
    p.add_argument('--seeds', default='0')
    p.add_argument('--only', nargs='*', default=['*'], help='names or patterns of lines')
    p.add_argument('--out', default='quality', help='where what was trained is kept')
    p.add_argument('--table', default=Path(__file__).parent/'results/quality.md', help='file for the table')
    p.add_argument('--line', help=argparse.SUPPRESS)
    p.add_argument('--file', help=argparse.SUPPRESS)
    return p.parse_args()

def main():
    a = parse()
    if a.line: return print(f'{run_line(a):.0f} CPU s', flush=True)
    out = Path(a.out)
    out.mkdir(exist_ok=True, parents=True)
    todo = [(name,int(s),i) for s in a.seeds.split(',') for name in LINES for i in range(3)
            if any(fnmatch.fnmatch(name, p) for p in a.only)]
    for name,seed,i in todo:
        file = out/f"{name.replace(':', '')} {seed} {i}.npz".replace(' ', '_')
        if is_there(file, name): continue
        env = dict(os.environ, OMP_NUM_THREADS='1', NO_ALBUMENTATIONS_UPDATE='1')
        line = ['--data', a.data, '--out', a.out, '--file', str(file), '--line', json.dumps([name, seed, i])]
        run = subprocess.run([sys.executable, __file__, *line], env=env, capture_output=True, text=True)
        said = (run.stdout if run.returncode==0 else 'FAILED: '+run.stderr).strip().splitlines()
        print(f'{name}, seed {seed}, fold {i+1}:', said[-1] if said else '?', flush=True)
    from drone_seg.data.datasets import open_dataset
    Path(a.table).write_text(table(a, open_dataset(a.data)))

if __name__=='__main__': main()
