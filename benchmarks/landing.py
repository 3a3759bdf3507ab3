"""Landing zones on real photos, judged by their true masks: the published recipe and ours, over thresholds of confidence.

    python benchmarks/landing.py --run RUN --data DATA [--split split.json] [--gsd .035] [--radius 1 2.5] [--photos 0] [--out benchmarks/results]

RUN is a run folder of `drone_seg train` on the Semantic Drone data, DATA those data. Only validation photos of the split are used (the run's own split if none is given); no test of ours chose a threshold on others.
Writes landing.json, landing.md and landing.png.

Metres per pixel are AN ASSUMPTION: the photos were taken from 5 to 30 m and do not say which. 46 cars that lie whole in their masks are 120 pixels long in the median (quartiles 94 and 139); a car of 4.4 m makes that .037 m per pixel
at 768 pixels (.032 to .047), and photos without cars may be from lower. Taken is .035, for all photos. What is measured depends on the radius in pixels only: 1 m is 29 pixels.

Published (`mobile-landing`): argmax, five classes merged into 'safe', blurred against speckle, drawn green. It proposes no zones, so ours are sought in its green: the same largest circles, without clearance or threshold. Its kernel is not on record; a Gaussian of
9 pixels at 768 is used, and safe is what is above one half.

Judged by the true mask: a pixel is wrong if its true class is none of the five, for all ways alike (void is not counted); forbidden if the way's own preset forbids it; `never` are people, animals, vehicles and water. A photo has
a true zone if such a circle, with such a clearance, is in its true mask sorted by the way's own preset."""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ[k] = '1'
import argparse, json, math, sys, time, warnings
warnings.filterwarnings('ignore')
from pathlib import Path
import cv2, numpy as np, torch
from drone_seg.data.datasets import open_dataset
from drone_seg.photo.gsd import Gsd
from drone_seg.files import replacing
from drone_seg.use.ground import *
from drone_seg.use.circles import disc, free_radius, pick_circles
from drone_seg.use.landing import *
from drone_seg.use.zones import rank_zones
from drone_seg.models.bundle import load_bundle

torch.set_num_threads(1); cv2.setNumThreads(1)
SAFE = PRESETS['mobile-landing'].landable
NEVER = ('person','dog','car','bicycle','water','pool')
LEVELS = [0, .5, .7, .8, .9, .95]
WAYS = [ # name, preset, clearance in m, confidence
    ('five classes', 'mobile-landing', 0., 'max'), ('five classes, 0.5 m', 'mobile-landing', .5, 'max'), ('five classes, 0.5 m, eight looks', 'mobile-landing', .5, 'both'),
    ('no roofs, 0.5 m', 'ground', .5, 'max'), ('no roofs, no streets, 0.5 m', 'strict', .5, 'max')]

def is_one_of(ids, classes, names): return np.isin(ids, [classes.id_of(n) for n in names])

def published_map(ids, classes, kernel=9): # 'safe' as the recipe draws it
    safe = is_one_of(ids, classes, SAFE).astype(np.float32)
    return np.where(cv2.GaussianBlur(safe, (kernel, kernel), 0)>.5, LANDABLE, FORBIDDEN).astype(np.uint8)

class Tally:
    "What a way proposed, photo by photo"
    def __init__(self, least): self.least,self.rows = least,[]

    def add(self, risk, circles, wrong, never, forbidden, true_zone):
        zones = []
        for y,x,r in circles:
            (where,inside),(core,within) = disc(risk.shape, y, x, r),disc(risk.shape, y, x, self.least)
            count = lambda m: int(m[where][inside].sum())
            zones.append(dict(wrong=count(wrong), never=count(never), forbidden=count(forbidden), pixels=int(inside.sum()), core=int(wrong[core][within].sum())))
        safe = risk==LANDABLE
        self.rows.append(dict(zones=zones, safe=int(safe.sum()), false_safe=int((safe&wrong).sum()), true_zone=bool(true_zone)))

    def scores(self, rows=None):
        rows = self.rows if rows is None else rows
        zones,best = [z for r in rows for z in r['zones']],[r['zones'][0] for r in rows if r['zones']]
        have,lack = [r for r in rows if r['true_zone']],[r for r in rows if not r['true_zone']]
        share = lambda v: float(np.mean(v)) if len(v) else None
        none = lambda zs, key: share([z[key]==0 for z in zs])
        return dict(zones=len(zones), clean=none(zones, 'wrong'), best_clean=none(best, 'wrong'), core_clean=none(zones, 'core'), no_forbidden=none(zones, 'forbidden'), no_never=none(zones, 'never'), nearly_clean=share([z['wrong']<=.01*z['pixels'] for z in zones]),
                    photos=len(rows), with_true_zone=len(have), found=share([bool(r['zones']) for r in have]), found_clean=share([any(z['wrong']==0 for z in r['zones']) for r in have]), false_alarm=share([bool(r['zones']) for r in lack]),
                    false_safe_map=sum(r['false_safe'] for r in rows)/max(1, sum(r['safe'] for r in rows)), false_safe_zones=sum(z['wrong'] for z in zones)/max(1, sum(z['pixels'] for z in zones)))

    def interval(self, key, rounds=1000, seed=0): # photos drawn again; those of one place are alike, so it is too narrow
        rng,vals = np.random.default_rng(seed),[]
        for _ in range(rounds):
            v = self.scores([self.rows[i] for i in rng.integers(0, len(self.rows), len(self.rows))])[key]
            if v is not None: vals.append(v)
        return [float(v) for v in np.percentile(vals, [2.5, 97.5])] if vals else None

def measure(bundle, ds, stems, gsd, radii, n=3):
    c = bundle.classes
    tallies = {(r, w, l): Tally(r/gsd) for r in radii for w,l in [('published', None), *((w[0], l) for w in WAYS for l in LEVELS)]}
    for k,s in enumerate(stems):
        image,mask = ds[s]
        wrong,never = ~is_one_of(mask, c, SAFE) & ~np.isin(mask, list(c.void)),is_one_of(mask, c, NEVER)
        one = bundle.predict(image, confidence='max', dtype='fp32')
        many = bundle.predict(image, confidence='disagreement', tta='d4', dtype='fp32')
        green,five = published_map(one.ids, c),risk_map(mask, c, 'mobile-landing')
        for r in radii: tallies[r, 'published', None].add(green, pick_circles(free_radius(green), r/gsd, n), wrong, never, wrong, free_radius(five).max()>=r/gsd)
        for name,preset,clearance,conf in WAYS:
            p,sure = (one, one.confidence) if conf=='max' else (many, np.minimum(one.confidence, many.confidence))
            true = risk_map(mask, c, preset)
            widest = free_radius(true, clearance/gsd).max()
            for l in LEVELS:
                found = landing_zones(p.ids, preset, Gsd(gsd, guess=True), min(radii), c, sure, clearance=clearance, min_confidence=l, n=n)
                for r in radii: # the largest circles come first, so those of a larger radius are among them; only the ranking differs
                    zones = rank_zones([z for z in found if z.radius>=r], r, clearance, math.hypot(*mask.shape)/2*gsd)
                    tallies[r, name, l].add(found.risk, [(z.row, z.col, z.radius/gsd) for z in zones], wrong, never, true==FORBIDDEN, widest>=r/gsd)
        if (k+1)%8==0: print(f"{k+1} of {len(stems)} photos", flush=True)
    return tallies

PANELS = (('clean', 'zones without a single wrong pixel'), ('core_clean', 'no wrong pixel within the radius asked for'), ('found_clean', 'photos with a true zone: a clean one found'), ('false_safe_map', 'wrong pixels among those called landable'))

def curves(rows, path, title):
    import matplotlib; matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    radii = list(dict.fromkeys(r['radius'] for r in rows))
    fig,axes = plt.subplots(len(radii), len(PANELS), figsize=(15,3.6*len(radii)), constrained_layout=True, squeeze=False)
    for line,radius in zip(axes, radii):
        for a,(key,label) in zip(line, PANELS):
            for name in dict.fromkeys(r['way'] for r in rows):
                part = [r for r in rows if (r['way'],r['radius'])==(name,radius) and r[key] is not None]
                if name=='published': a.axhline(part[0][key], color='k', ls='--', label='published: argmax, merge, blur')
                else: a.plot([r['threshold'] for r in part], [r[key] for r in part], 'o-', ms=4, label=name)
            a.set(title=label, xlabel='each pixel of a zone at least so sure'); a.grid(alpha=.3); a.title.set_fontsize(9)
            if key!='false_safe_map': a.set_ylim(-.02, 1.02)
        line[0].set_ylabel(f'radius {radius:g} m')
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc='outside lower center', ncols=6, fontsize=9); fig.suptitle(title, fontsize=10)
    with replacing(path) as tmp: fig.savefig(tmp, format='png', dpi=90)

def redraw(folder): # the curves once more, from the numbers that were kept
    d = json.loads((Path(folder)/'landing.json').read_text())
    curves(d['rows'], Path(folder)/'landing.png', f"{d['about']['photos']} validation photos, at most 3 zones each; metres at an ASSUMED {d['about']['gsd_assumed']*100:g} cm per pixel")

COLUMNS = dict(clean='no wrong pixel', best_clean='in the best of a photo', core_clean='within the radius asked for', no_forbidden='no forbidden pixel', no_never='no pixel of `never`', nearly_clean='at most 1 % wrong', found='found where there is one', found_clean='a clean one', false_alarm='proposed where there is none')

def table(rows):
    pc = lambda v: '-' if v is None else f'{v:.0%}'
    head = ['way','threshold','zones',*COLUMNS.values(),'wrong area called landable','wrong area in zones']
    lines = ['| ' + ' | '.join(head) + ' |','|---'*len(head)+'|']
    for r in rows:
        ci = '' if not r['clean_interval'] else f" ({r['clean_interval'][0]:.0%} to {r['clean_interval'][1]:.0%})"
        lines.append('| ' + ' | '.join([r['way'], '-' if r['threshold'] is None else f"{r['threshold']:g}", str(r['zones']), *(pc(r[k]) + (ci if k=='clean' else '') + (f" of {r['with_true_zone']}" if k=='found' else '') for k in COLUMNS), f"{r['false_safe_map']:.1%}", f"{r['false_safe_zones']:.2%}"]) + ' |')
    return '\n'.join(lines)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--run', required=True); ap.add_argument('--data', required=True); ap.add_argument('--split')
    ap.add_argument('--gsd', type=float, default=.035); ap.add_argument('--radius', type=float, nargs='+', default=[1., 2.5]); ap.add_argument('--photos', type=int, default=0); ap.add_argument('--out', default='benchmarks/results')
    args,start = ap.parse_args(),time.process_time()
    bundle,ds,out = load_bundle(args.run),open_dataset(args.data),Path(args.out)
    valid = json.loads(Path(args.split).read_text())['valid'] if args.split else bundle.split['valid']
    stems,seen = [s for s in valid if s in set(ds.stems)][:args.photos or None],set(bundle.split.get('train', []))
    if not stems or seen & set(stems): sys.exit(f"{len(seen & set(stems))} of {len(stems)} photos trained the model, or none is here; give the split it was trained with")
    tallies = measure(bundle, ds, stems, args.gsd, args.radius)
    rows = [dict(radius=r, way=w, threshold=l, **t.scores(), clean_interval=t.interval('clean')) for (r,w,l),t in tallies.items()]
    h,w = ds[stems[0]][0].shape[:2]
    miou = bundle.scores.get('miou')
    about = dict(photos=len(stems), size=[h,w], gsd_assumed=args.gsd, radii_m=args.radius, ways=WAYS, model=dict(training=bundle.training, size=list(bundle.size), miou=miou, temperature=bundle.temperature), cpu_seconds=time.process_time()-start)
    with replacing(out/'landing.json') as tmp: tmp.write_text(json.dumps(dict(about=about, rows=rows), indent=1))
    redraw(out)
    parts = [f"## Radius {r:g} m ({r/args.gsd:.0f} px)\n\n{table([x for x in rows if x['radius']==r])}" for r in args.radius]
    text = f"""# Landing zones against true masks

`python benchmarks/landing.py --run RUN --data DATA`. {len(stems)} validation photos of {w}x{h}, {args.gsd:g} m per pixel, **which is assumed**; at most 3 zones per photo. Model: {bundle.training.get('arch')} at {bundle.size[1]}x{bundle.size[0]}, mIoU {miou if miou is None else round(miou, 3)}, {'never calibrated' if not bundle.temperature else f'temperature {bundle.temperature:.2f}'}. {about['cpu_seconds']:.0f} CPU s.
Words and judges: see the script. In brackets: 95 % interval, photos drawn again 1000 times; photos of one place are alike, so it is too narrow.

![](landing.png)

"""
    with replacing(out/'landing.md') as tmp: tmp.write_text(text + '\n\n'.join(parts) + '\n')
    print(text + '\n\n'.join(parts))

if __name__=='__main__': main()
