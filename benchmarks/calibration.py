"""What a probability is worth on real photos, before and after calibration, and what leaving pixels blank buys.

    python benchmarks/calibration.py RUN DATA [--out benchmarks/results/calibration.md]

RUN is a run folder of `drone_seg train` whose split has three sides by place (`drone_seg split DATA --by place --test .25`): the model is trained on the first, fitted on the
validation photos, and everything is measured on the test photos, which neither training nor the fit has seen. One thread."""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[k] = '1'
import argparse, time
from pathlib import Path
import numpy as np, torch
from drone_seg.data.datasets import open_dataset
from drone_seg.models.bundle import load_bundle
from drone_seg.predict.confidence import *
import drone_seg.report.evaluate # gives Bundle.evaluate

torch.set_num_threads(1)

def sample(model, data, stems, pixels=1_000_000):
    "Logits to fit on, per photo"
    res = []
    for k,s in enumerate(stems):
        image,ids = data[s]
        res.append(pick_logits(model.stream(image, dtype='fp32'), data.classes.encode(ids), max(1, pixels//len(stems)), k))
    return res

def temperatures(model, data, valid, train):
    "What the temperature is fitted on, and what comes out"
    parts,res = dict(zip(valid, sample(model, data, valid))),{'nothing (T = 1)':1.}
    res[f'{len(valid)} validation photos'] = fit_temperature(list(parts.values()))
    for name,half in zip(('one half of their places', 'the other half'), halve_by_place(data, valid)):
        res[f'{name} ({len(half)} photos)'] = fit_temperature([parts[s] for s in half])
    rng = np.random.default_rng(0)
    few = [fit_temperature([parts[s] for s in rng.choice(valid, 5, replace=False)]) for _ in range(200)]
    for name,q in (('5 validation photos, lowest of 200 draws', 0), ('the same, highest', 1)): res[name] = float(np.quantile(few, q))
    start = time.process_time()
    fit_temperature(list(parts.values()))
    spent = time.process_time()-start
    some = train[::max(1, len(train)//len(valid))][:len(valid)]
    res[f'{len(some)} training photos (the lie)'] = fit_temperature(sample(model, data, some))
    return res,sum(len(z) for z,_,_ in parts.values()),spent

def calibration_table(model, data, temps, test):
    lines = ['| fitted on | temperature | ECE on test photos | largest gap | NLL |', '|---|---:|---:|---:|---:|']
    for (name,t),(c,nll) in zip(temps.items(), judge_calibration(model, data, test, tuple(temps.values()), dtype='fp32')):
        lines.append(f'| {name} | {t:.3f} | {c.ece:.4f} | {c.mce:.3f} | {nll:.4f} |')
    return lines,c.definition

def bins_table(model, data, T, test):
    "Reliability before and after, in tenths"
    (a,_),(b,_) = judge_calibration(model, data, test, (1., T), bins=10, dtype='fp32')
    lines = ['| probability | share of pixels before | right before | share after | right after |', '|---|---:|---:|---:|---:|']
    n = sum(r['pixels'] for r in a.table)
    for x,y in zip(a.table, b.table):
        lines.append(f"| {x['low']:.1f} to {x['high']:.1f} | {x['pixels']/n:.1%} | {x['accuracy']:.1%} | {y['pixels']/n:.1%} | {y['accuracy']:.1%} |")
    return lines

def risk_table(model, data, test):
    ways = [('max', {}), ('margin', {}), ('entropy', {}), ('max', dict(tta='flips')), ('disagreement', dict(tta='flips')), ('disagreement', dict(tta=(.75, 1, 1.25)))]
    lines = ['| confidence | error, all answered | at 95 % coverage | 90 % | 80 % | 50 % | AURC | best possible AURC |', '|---|---:|---:|---:|---:|---:|---:|---:|']
    for measure,how in ways:
        c = risk_coverage(model, data, test, measure, progress=False, dtype='fp32', **how)
        r = c.at(1)['risk']
        cells = [f"{x['risk']:.4f}" + (f" (at {x['coverage']:.0%})" if x['coverage']-want>.005 else '') for want in (1, .95, .9, .8, .5) for x in [c.at(want)]]
        lines.append(f"| {measure}{', ' + str(how['tta']) if how else ''} | {' | '.join(cells)} | {c.aurc:.4f} | {r+(1-r)*np.log(1-r):.4f} |")
    return lines

def abstain_table(model, data, valid, test):
    "Thresholds chosen on validation photos, kept on test photos"
    chosen = risk_coverage(model, data, valid, progress=False, dtype='fp32')
    lines = ['| coverage wanted (threshold found on validation photos) | pixels answered | error | mIoU of the answered |', '|---|---:|---:|---:|']
    for want in (1, .9, .8):
        t = chosen.at(want)['threshold'] if want<1 else None
        s = model.evaluate(data, test, progress=False, abstain=t, dtype='fp32')
        blank = getattr(s, 'abstained_pixels', 0)
        lines.append(f"| {want:.0%}{f' ({t:.3f})' if t is not None else ''} | {1-blank/(blank+s.matrix.sum()):.1%} | {1-s.pixel_accuracy:.4f} | {s.miou:.4f} |")
    return lines

def cost_table(model, data, stem):
    lines,image = ['| asked for | CPU seconds of one photo enlarged to 24 Mpx |', '|---|---:|'],np.repeat(np.repeat(data[stem][0], 8, 0), 8, 1)[:4000,:6000]
    for name,how in (('ids only', {}), ('max', dict(confidence='max')), ('margin', dict(confidence='margin')), ('entropy', dict(confidence='entropy'))):
        start = time.process_time()
        model.predict(image, dtype='fp32', **how)
        lines.append(f'| {name} | {time.process_time()-start:.1f} |')
    return lines

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('run', type=Path); p.add_argument('data', type=Path); p.add_argument('--out', type=Path)
    a = p.parse_args()
    model,data = load_bundle(a.run),open_dataset(a.data)
    model.temperature = None
    train,valid,test = (model.split.get(k) or [] for k in ('train','valid','test'))
    if not test: raise SystemExit(f'{a.run}: its split has no test photos; see --help')
    temps,pixels,spent = temperatures(model, data, valid, train)
    T = list(temps.values())[1]
    lines,definition = calibration_table(model, data, temps, test)
    text = [f"{data.name}: {len(train)} photos trained ({model.training.get('arch')}, {model.training.get('epochs')} epochs, {model.size[1]}x{model.size[0]}), {len(valid)} fitted ({pixels} pixels drawn), {len(test)} of other places judge; one thread. "
            f"Finding the temperature took {spent:.1f} CPU s, after predicting.", '', *lines, '', definition, '', f'Reliability at T = 1 and T = {T:.3f}:', '', *bins_table(model, data, T, test), '']
    model.temperature = T
    [(c,nll)] = judge_calibration(model, data, test, (1.,), tta='flips', dtype='fp32')
    text += [f'Averaged over four flips at T = {T:.3f} each: ECE {c.ece:.4f}, NLL {nll:.4f}.', '', f'Leaving pixels blank, by confidence at T = {T:.3f}, on the test photos:', '', *risk_table(model, data, test), '']
    text += [*abstain_table(model, data, valid, test), '', 'A blank pixel is neither hit nor error.', '', *cost_table(model, data, test[0])]
    print('\n'.join(text))
    if a.out: a.out.write_text('\n'.join(text)+'\n')

if __name__=='__main__': main()
