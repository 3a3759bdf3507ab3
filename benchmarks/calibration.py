"""What a probability is worth on real photos, before and after calibration, and what leaving pixels blank buys.

    python benchmarks/calibration.py RUN DATA [--out benchmarks/results/calibration.md]

RUN is a run folder of `drone_seg train` whose split has three sides by place (`drone_seg split DATA --by place --test .25`): the model is trained on the first, fitted on the
validation photos, and everything is measured on the test photos, which neither training nor the fit has seen. One thread."""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[k] = '1'
import argparse, time
from pathlib import Path
import numpy as np, torch
from drone_seg.scores.calibration import Calibration
from drone_seg.classes import IGNORE
from drone_seg.scores.confusion import Confusion
from drone_seg.data.datasets import open_dataset
from drone_seg.models.bundle import load_bundle
from drone_seg.runs.confidence import judge_calibration, pick_logits, fit_temperature, halve_by_place
from drone_seg.scores.coverage import RiskCoverage
from drone_seg.predict.confidence import MEASURES, to_bytes
from drone_seg.predict.stream import Looker

torch.set_num_threads(1)

def sample(model, data, stems, pixels=1_000_000):
    "Logits to fit on, per photo"
    res = []
    for k,s in enumerate(stems):
        image,ids = data[s]
        res.append(pick_logits(Looker(model, dtype='fp32')(image), data.classes.encode(ids), max(1, pixels//len(stems)), k))
    return res

def temperatures(model, data, valid, train):
    "What the temperature is fitted on, what comes out, pixels, CPU seconds; and the temperatures of two halves"
    parts = dict(zip(valid, sample(model, data, valid)))
    start = time.process_time()
    res = {'nothing (T = 1)':1., f'{len(valid)} validation photos':fit_temperature(list(parts.values()))}
    spent = time.process_time()-start
    halves = [(len(h), fit_temperature([parts[s] for s in h])) for h in halve_by_place(data, valid)]
    rng = np.random.default_rng(0)
    few = [fit_temperature([parts[s] for s in rng.choice(valid, 5, replace=False)]) for _ in range(50)]
    res['5 of them, lowest of 50 draws'],res['5 of them, highest of 50 draws'] = min(few),max(few)
    some = train[::max(1, len(train)//len(valid))][:len(valid)]
    res[f'{len(some)} training photos (the lie)'] = fit_temperature(sample(model, data, some))
    return res,sum(len(z) for z,_,_ in parts.values()),spent,halves

def calibration_table(judged, temps):
    yield from ('| fitted on | temperature | ECE on test photos | largest gap | NLL |', '|---|---:|---:|---:|---:|')
    for (name,t),(c,nll) in zip(temps.items(), judged): yield f'| {name} | {t:.3f} | {c.ece:.4f} | {c.mce:.3f} | {nll:.4f} |'

def bins_table(a, b):
    "Reliability before and after"
    yield from ('| probability | share of pixels before | right before | share after | right after |', '|---|---:|---:|---:|---:|')
    share = lambda c,r: f"{r['pixels']/sum(x['pixels'] for x in c.table):.1%} | {r['accuracy']:.1%}"
    for x,y in zip(a.table, b.table):
        if x['pixels'] or y['pixels']: yield f"| {x['low']:.2f} to {x['high']:.2f} | {share(a, x)} | {share(b, y)} |"

def watch(model, data, stems, thresholds=(), tta=None):
    "One pass: risk-coverage of each measure, calibration, and a confusion matrix of what is answered above each threshold of 'max'"
    several = tta is not None
    curves,cal = {m:RiskCoverage() for m in (('max','disagreement') if several else MEASURES)},Calibration()
    counts = {t:Confusion(data.classes.n, data.classes.scored_names) for t in (0, *thresholds)}
    for s in stems:
        image,ids = data[s]
        truth,conf,answer = data.classes.encode(ids),{m:np.zeros(ids.shape, np.uint8) for m in curves},np.zeros(ids.shape, np.uint8)
        p = np.zeros(ids.shape, np.float32)
        for r,c,block in Looker(model, dtype='fp32', tta=tta, confidence='disagreement' if several else None)(image):
            z,differ = (block[:-1],block[-1]) if several else (block/model.temperature,None)
            answer[r,c],p[r,c] = z.argmax(0).byte().numpy(),MEASURES['max'](z).numpy()
            for m in curves: conf[m][r,c] = to_bytes(1-differ/np.log(4) if m=='disagreement' else MEASURES[m](z))
        ok = truth!=IGNORE
        for m in curves: curves[m].add(conf[m], answer==truth, ok)
        cal.add(np.minimum(p, 1), answer==truth, ok)
        for t,n in counts.items(): n.add(answer, np.where(conf['max']<round(255*t), IGNORE, truth).astype(np.uint8))
    return curves,cal,{t:n.scores() for t,n in counts.items()}

def risk_rows(curves, name=''):
    for m,c in curves.items():
        r = c.at(1)['risk']
        cells = [f"{x['risk']:.4f}" + (f" ({x['coverage']:.0%})" if x['coverage']-want>.005 else '') for want in (1, .95, .9, .8, .5) for x in [c.at(want)]]
        yield f"| {m}{name} | {' | '.join(cells)} | {c.aurc:.4f} | {r+(1-r)*np.log(1-r):.4f} |"

def cost_table(model, data, stem):
    image = np.repeat(np.repeat(data[stem][0], 4, 0), 4, 1)
    yield from (f'| asked for | CPU s for one photo enlarged to {image.shape[0]*image.shape[1]/1e6:.1f} Mpx |', '|---|---:|')
    model.predict(image, dtype='fp32')
    for name,how in (('ids only', {}), ('max', dict(confidence='max')), ('margin', dict(confidence='margin')), ('entropy', dict(confidence='entropy'))):
        start = time.process_time()
        model.predict(image, dtype='fp32', **how)
        yield f'| {name} | {time.process_time()-start:.1f} |'

def report(model, data):
    train,valid,test = (model.split.get(k) or [] for k in ('train','valid','test'))
    model.temperature = None
    temps,pixels,spent,halves = temperatures(model, data, valid, train)
    T = list(temps.values())[1]
    yield (f"{data.name}: {len(train)} photos trained ({model.training.get('arch')}, {model.training.get('epochs')} epochs, {model.size[1]}x{model.size[0]}), {len(valid)} of other places fitted "
           f"({pixels} pixels drawn; {spent:.1f} CPU s after predicting), {len(test)} of yet other places judge; one thread, float32.\n")
    judged = judge_calibration(Looker(model, dtype='fp32'), data, test, tuple(temps.values()))
    yield from calibration_table(judged, temps)
    yield '\n' + 'Two halves of the validation photos, no place in common: ' + ', '.join(f'T = {t:.3f} ({n} photos)' for n,t in halves) + '.'
    yield '\n' + judged[0][0].definition + f'\n\nReliability on the test photos at T = 1 and T = {T:.3f}:\n'
    yield from bins_table(judged[0][0], judged[1][0])
    model.temperature = T
    at = {want:watch(model, data, valid)[0]['max'].at(want)['threshold'] for want in (.9,)}
    curves,_,scores = watch(model, data, test, at.values())
    yield f'\nLeaving pixels blank on the test photos, by confidence at T = {T:.3f}; the error of the answered pixels at each coverage (a coverage in brackets is the nearest that bytes allow):\n'
    yield from ('| confidence | all answered | 95 % | 90 % | 80 % | 50 % | AURC | best possible |', '|---|'+'---:|'*7)
    yield from risk_rows(curves)
    for want,t in at.items():
        a,b = scores[0],scores[t]
        yield (f"\nA threshold of {t:.3f}, which answers {want:.0%} of the validation pixels, answers {b.matrix.sum()/a.matrix.sum():.1%} of the test pixels: error {1-a.pixel_accuracy:.4f} to {1-b.pixel_accuracy:.4f}, "
               f"mIoU {a.miou:.4f} to {b.miou:.4f} (of the answered pixels; blank ones are neither hits nor errors).")
    yield ''
    yield from cost_table(model, data, test[0])
    flips,cal,_ = watch(model, data, test, tta='flips')
    yield f'\nThe same averaged over four flips, each at T = {T:.3f}: ECE {cal.ece:.4f}.\n'
    yield from ('| confidence | all answered | 95 % | 90 % | 80 % | 50 % | AURC | best possible |', '|---|'+'---:|'*7)
    yield from risk_rows(flips, ', four flips')

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('run', type=Path); p.add_argument('data', type=Path); p.add_argument('--out', type=Path)
    a = p.parse_args()
    model,data,lines = load_bundle(a.run),open_dataset(a.data),[]
    if not model.split.get('test'): raise SystemExit(f'{a.run}: its split has no test photos; see --help')
    for line in report(model, data):
        print(line, flush=True)
        lines.append(line)
    if a.out: a.out.write_text('\n'.join(lines)+'\n')

if __name__=='__main__': main()
