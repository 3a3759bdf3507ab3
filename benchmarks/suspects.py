"""Faults planted into real masks, and how many of them the head of a list shows: find_suspects beside cleanlab's segmentation ranking, on the same predictions.

    pip install --target LIB --no-deps cleanlab termcolor    (AGPL-3.0; only this program uses it)
    PYTHONPATH=LIB python benchmarks/suspects.py DATA RUN [--draws 6] [--out benchmarks/results/suspects.md]

The validation photos of RUN are predicted once, by the run, which has not trained on them. Then, for each kind of fault and each seed, faults are planted into
the masks of 16 of these photos, the other masks stay as they are, and both lists are made of the same predictions and the same masks.

Found is a fault when one of the first 50 (200) places of a list is a region of which half or more lies on points that were made wrong there; of a shifted mask or
another's mask also when the place is that whole photo. Counted alike for both. cleanlab ranks pixels and images, so its issue mask (`filter.find_label_issues`) is
joined to connected regions, in two ways (all issues; issues of one pair of classes), and these are ranked in four (size, mean, sum, mean times root of size of its
`rank.get_label_quality_scores`). Of the eight the one that does best is reported, for each kind and each length anew. Regions below 4 points are left out.
Void points are given to cleanlab, which knows no void, as what the model sees there."""
import argparse
from itertools import product
from pathlib import Path
import numpy as np
from scipy import ndimage
from drone_seg.all import *
from drone_seg.predict.stream import Looker
from drone_seg.runs.doubts import Answer, find_doubts, habits, log_rates

KINDS = {'other class': 'a region given another class', 'missed': 'a region given the class around it', 'shifted': 'a mask shifted by 3 to 6 % of the width',
         "another's mask": "a photo with the mask of another place"}
CUTS = 50,200

def regions_of(ids, classes, least, most): # connected regions of one class with a share of the photo in these bounds
    res = []
    for i in np.intersect1d(np.unique(ids), classes.scored_ids):
        label,n = ndimage.label(ids==i)
        size = np.bincount(label.reshape(-1), minlength=n+1)/ids.size
        res += [label==k for k in range(1, n+1) if least<=size[k]<=most]
    return res

def around(ids, region, classes): # the class that most of a region's rim has
    rim = ndimage.binary_dilation(region, iterations=3) & ~region
    n = np.bincount(ids[rim], minlength=256)
    n[np.setdiff1d(np.arange(256), classes.scored_ids)] = 0
    n[ids[region][0]] = 0
    return int(n.argmax()) if n.any() else None

def shifted(ids, rng):
    far,turn = rng.uniform(.03, .06)*ids.shape[1],rng.uniform(0, 2*np.pi)
    dy,dx = round(far*np.sin(turn)),round(far*np.cos(turn))
    wide = np.pad(ids, [(abs(dy),)*2, (abs(dx),)*2], mode='edge')
    return wide[abs(dy)-dy:, abs(dx)-dx:][:ids.shape[0],:ids.shape[1]]

def change(kind, ids, classes, rng, other): # a mask with a fault; None where this photo has no room for it
    if kind=="another's mask": return other if other.shape==ids.shape else None
    if kind=='shifted': return shifted(ids, rng)
    found = regions_of(ids, classes, .003, .08 if kind=='other class' else .05)
    if not found: return None
    region = found[rng.integers(len(found))]
    was = int(ids[region][0])
    if kind=='missed': new = around(ids, region, classes)
    else: new = rng.choice([i for i in classes.scored_ids if i!=was])
    if new is None: return None
    res = ids.copy()
    res[region] = new
    return res

def plant(kind, masks, place, classes, seed, n=16): # number of photo -> mask with a fault
    rng,res = np.random.default_rng([seed, list(KINDS).index(kind)]),{}
    for i in rng.permutation(len(masks)):
        if len(res)==n: break
        other = masks[int(rng.choice([j for j in range(len(masks)) if place[j]!=place[i]]))]
        new = change(kind, masks[i], classes, rng, other)
        if new is not None and (new!=masks[i]).mean()>=.003: res[int(i)] = new
    return res

def chances(look, image, step): # (C, h, w) float16, every so many pixels
    H,W = image.shape[:2]
    res = np.zeros((look.bundle.classes.n, -(-H//step), -(-W//step)), np.float16)
    for rows,cols,block in look(image):
        y,x = (-(s.start or 0)%step for s in (rows, cols))
        p = block[:,y::step,x::step].softmax(0).half().numpy()
        top,left = ((rows.start or 0)+y)//step,((cols.start or 0)+x)//step
        res[:,top:top+p.shape[1],left:left+p.shape[2]] = p
    return res

def ours(answers, n): # (photo, region or None for all of it), the worst first
    each = [habits(a, n) for a in answers]
    total = sum(each)
    found = [(i, d) for i,a in enumerate(answers) for d in find_doubts(a, log_rates(total, each[i]))]
    res = []
    for i,d in sorted(found, key=lambda o: -o[1].score)[:max(CUTS)]:
        (y,x,h,w),region = d.box,np.zeros(answers[i].given.shape, bool)
        region[y:y+h,x:x+w] = d.region
        res.append((i, None if d.given is None else np.flatnonzero(region)))
    return res

def joined(issues, keys): # connected regions of issues that have one key
    for k in np.unique(keys[issues]):
        label,n = ndimage.label(issues & (keys==k))
        flat = label.reshape(-1)
        order = np.argsort(flat, kind='stable')
        yield from np.split(order, np.searchsorted(flat[order], np.arange(1, n+1)))[1:]

def cleanlab_lists(given, seen, P): # its eight lists
    from cleanlab.segmentation import filter, rank
    labels = np.where(given==IGNORE, seen, given).astype(int)
    issues = filter.find_label_issues(labels, P, n_jobs=1, verbose=False)
    _,quality = rank.get_label_quality_scores(labels, P, verbose=False)
    doubt,res = 1-quality.reshape(len(P), -1),{}
    for how in ('all','pairs'):
        found = []
        for i in range(len(P)):
            keys = labels[i]*256+seen[i] if how=='pairs' else np.zeros_like(labels[i])
            found += [(i, r, doubt[i][r].mean()) for r in joined(issues[i], keys) if len(r)>=4]
        by = dict(size=lambda o: (-len(o[1]), -o[2]), mean=lambda o: (-o[2], -len(o[1])), sum=lambda o: -o[2]*len(o[1]), root=lambda o: -o[2]*len(o[1])**.5)
        for name,key in by.items(): res[f'{how}, {name}'] = [(i, r) for i,r,_ in sorted(found, key=key)[:max(CUTS)]]
    return res

def found_in(places, planted, wrong, kind): # share of planted faults that the first places show
    whole,got,res = kind in list(KINDS)[2:],set(),[]
    for k,(i,region) in enumerate(places, 1):
        if i in planted and (whole if region is None else wrong[i].reshape(-1)[region].mean()>=.5): got.add(i)
        if k in CUTS: res.append(len(got)/len(planted))
    return res + [len(got)/len(planted)]*(len(CUTS)-len(res))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path)
    p.add_argument('run', type=Path)
    p.add_argument('--draws', type=int, default=6)
    p.add_argument('--first', type=int, default=0, help='number of the first draw')
    p.add_argument('--out', type=Path)
    a = p.parse_args()
    data,run = open_dataset(a.data),open_run(a.run)
    stems,classes,look = run.split.valid,data.classes,Looker(run.model)
    where = data.places(progress=False).place
    masks,place = [data.read_ids(s) for s in stems],[where[s] for s in stems]
    step = -(-max(masks[0].shape)//512)
    P = np.stack([chances(look, data.read_photo(s), step) for s in stems]).astype(np.float32)
    seen,sure = P.argmax(1).astype(np.uint8),(P.max(1)*255).round().astype(np.uint8)
    points = lambda ids: classes.encode(ids)[::step,::step]
    true = np.stack([points(m) for m in masks])
    right = (seen==true)[true!=IGNORE].mean()
    rows = {}
    for seed,kind in product(range(a.first, a.first+a.draws), KINDS):
        planted = plant(kind, masks, place, classes, seed)
        given = true.copy()
        for i,m in planted.items(): given[i] = points(m)
        wrong = given!=true
        lists = {'ours': ours([Answer(*o) for o in zip(given, seen, sure)], classes.n)} | cleanlab_lists(given, seen, P)
        for name,places in lists.items(): rows.setdefault((kind, name), []).append(found_in(places, planted, wrong, kind))
        print(seed, kind, {n: [round(v, 2) for v in rows[kind, n][-1]] for n in lists}, flush=True)
    lines = [f"Share of planted faults found in the first {CUTS[0]} and {CUTS[1]} places, mean of {a.draws} draws of 16 faults each (standard error over draws): `python benchmarks/suspects.py DATA RUN --draws {a.draws} --first {a.first}`.", '',
             f"{data.name}, {len(stems)} validation photos of a run of recipe {run.recipe.name} (mIoU {run.scores.miou:.3f}, {right:.1%} of the points right), predicted once by the run that has not trained on them, compared every {step} pixels.",
             "cleanlab 2.9: the best of its eight lists for each kind and length, chosen afterwards, in its favour.", '',
             f'| fault | ours, {CUTS[0]} | cleanlab, {CUTS[0]} | ours, {CUTS[1]} | cleanlab, {CUTS[1]} |', '|---|---|---|---|---|']
    for kind,about in KINDS.items():
        cells = []
        for c in range(len(CUTS)):
            of = {n: np.array(v)[:,c] for (k,n),v in rows.items() if k==kind}
            mine,best = of.pop('ours'),max(of, key=lambda n: of[n].mean())
            say = lambda v: f'{v.mean():.2f} ({v.std(ddof=1)/len(v)**.5:.2f})' if len(v)>1 else f'{v.mean():.2f}'
            cells += [say(mine), f'{say(of[best])} {best}']
        lines.append(f'| {about} | ' + ' | '.join(cells) + ' |')
    text = '\n'.join(lines)+'\n'
    print(text)
    if a.out: a.out.write_text(text)

if __name__=='__main__': main()
