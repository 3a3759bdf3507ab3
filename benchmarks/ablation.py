"""What each choice in the recipe `best` is worth on real photos, all at one budget of processor time.

    python benchmarks/ablation.py --data FOLDER --split benchmarks/semantic_drone_310.json [--budget 240] [--only 'size*' base]

Every line is `base` but for the one thing it names. How many epochs fit the budget is found by timing steps; reading, caching and scoring are not counted. Each line runs in a
process of its own on one thread, is scored at the photos' own size, and once more with an exponential moving average of its weights. A line that is in the results is not run again.
Rare classes are those with less than 1 % of the labelled training pixels.
"""
import argparse, fnmatch, json, os, subprocess, sys, time
from pathlib import Path
from choices import rare

BASE = dict(name='fpn', encoder='tf_efficientnet_lite0', loss_func='ce + lovasz', size=(192,288), bs=4, lr=4e-3, augment='flips')
LINES = {'base':{},
    'size 128x192':dict(size=(128,192)), 'size 256x384':dict(size=(256,384)), 'size 384x576':dict(size=(384,576)),
    'crops of 192x288 at half scale':dict(scale=.5), 'crops of 192x288 at 3/4 scale':dict(scale=.75), 'crops at half scale, rare classes favoured':dict(scale=.5, favour='rare'),
    'encoder lite1':dict(encoder='tf_efficientnet_lite1'), 'encoder lite2':dict(encoder='tf_efficientnet_lite2'), 'encoder resnet50':dict(encoder='resnet50_v1'),
    'network upernet':dict(name='upernet'), 'network segformer':dict(name='segformer'), 'network unet':dict(name='unet'), 'network pspnet':dict(name='pspnet', encoder='tf_efficientnet_lite0'),
    'loss ce':dict(loss_func='ce'), 'loss lovasz':dict(loss_func='lovasz'), 'loss focal + dice':dict(loss_func='focal + dice'), 'loss ce + dice':dict(loss_func='ce + dice'),
    'loss ce + lovasz, median frequency':dict(class_weights='median_freq'),
    'augment nadir':dict(augment='nadir'), 'augment none':dict(augment=None),
    'batch 2':dict(bs=2), 'batch 8':dict(bs=8), 'rate 2e-3':dict(lr=2e-3), 'rate 8e-3':dict(lr=8e-3), 'encoder at the full rate':dict(lr_ratio=1.), 'encoder at a tenth of the rate':dict(lr_ratio=.1),
    'no frozen epoch':dict(freeze=0), 'flat rate, then cosine':dict(schedule='flat_cos'), 'weight decay .1':dict(wd=.1), 'weight decay .001':dict(wd=.001),
    'batch 8, rate 8e-3':dict(bs=8, lr=8e-3), 'batch 8, rate 8e-3, no frozen epoch':dict(bs=8, lr=8e-3, freeze=0), 'batch 8, rate 8e-3, encoder lite1':dict(bs=8, lr=8e-3, encoder='tf_efficientnet_lite1'),
    'batch 8, rate 8e-3, 256x384':dict(bs=8, lr=8e-3, size=(256,384)), 'batch 8, rate 8e-3, upernet':dict(bs=8, lr=8e-3, name='upernet'), 'batch 8, rate 8e-3, nadir':dict(bs=8, lr=8e-3, augment='nadir'),
    'batch 8, 256x384, no frozen epoch':dict(bs=8, size=(256,384), freeze=0)}

def parse():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True, help='a data set that open_dataset knows')
    p.add_argument('--split', required=True, help='a split file')
    p.add_argument('--weights', nargs='*', default=[], help='files of ImageNet weights, as ENCODER=FILE; else auto')
    p.add_argument('--budget', type=float, default=240, help='seconds of processor time for training')
    p.add_argument('--seeds', default='0')
    p.add_argument('--only', nargs='*', default=['*'], help='names or patterns of lines')
    p.add_argument('--out', default=str(Path(__file__).parent/'results'))
    p.add_argument('--line', help=argparse.SUPPRESS)
    return p.parse_args()

def settings(a): return dict(data=Path(a.data).resolve().name, split=Path(a.split).name, budget=a.budget)

def loaders(data, split, s, seed):
    if 'scale' in s: return data.crop_dataloaders(split, s['size'], s['bs'], scale=s['scale'], favour=s.get('favour'), per_photo=1, augment=s['augment'], num_workers=0, seed=seed, device='cpu', progress=False)
    return data.dataloaders(split, s['size'], s['bs'], s['augment'], num_workers=0, seed=seed, device='cpu', cache=True)

def seconds_per_epoch(learn):
    "Processor time of an epoch with everything free, from ten steps after three; weights, optimiser and draws are put back"
    import copy, torch
    from drone_seg.train.precision import forward_context
    state,rng = copy.deepcopy(learn.model.state_dict()),torch.get_rng_state()
    learn.unfreeze(); learn.create_opt(); learn.model.train()
    batches,t = [b for _,b in zip(range(13), learn.dls.train)],0
    for i,(x,y) in enumerate(batches):
        if i==3: t = time.process_time()
        learn.xb,learn.yb = (x,),(y,)
        with forward_context(learn, x.device): pred = learn.model(x.as_subclass(torch.Tensor))
        learn.loss_func(pred.float(), y).backward(); learn.opt.step(); learn.opt.zero_grad()
    t = (time.process_time()-t)/10
    learn.model.load_state_dict(state); torch.set_rng_state(rng); learn.opt = None; learn.freeze()
    return t*len(learn.dls.train)

def run_line(a):
    import copy, numpy as np, torch
    torch.set_num_threads(1)
    from fastai.torch_core import set_seed
    from fastai.callback.core import Callback
    from drone_seg.data.datasets import open_dataset
    from drone_seg.models.bundle import as_bundle
    from drone_seg.train.learner import seg_learner
    name,seed = json.loads(a.line)
    s = BASE | LINES[name]
    data = open_dataset(a.data); split = data.use_split(a.split)
    set_seed(seed)
    dls = loaders(data, split, s, seed)
    for dl in dls:
        for _ in dl: pass # fills the caches
    class Average(Callback):
        order,shadow,steps = 64,None,0
        def before_batch(self):
            if self.training and self.shadow is None: self.shadow = copy.deepcopy(self.model).requires_grad_(False).eval()
        def after_step(self):
            self.steps += 1
            d = min(decay, self.steps/(self.steps+10))
            for m,p in zip(self.shadow.state_dict().values(), self.model.state_dict().values()):
                if m.is_floating_point(): m.lerp_(p.detach(), 1-d)
                else: m.copy_(p)
    set_seed(seed)
    weights = dict(w.split('=') for w in a.weights).get(s['encoder'], 'auto')
    more = {k:s[k] for k in ('class_weights','lr_ratio','wd') if k in s}
    ema = Average()
    learn = seg_learner(dls, s['name'], s['encoder'], weights, s['loss_func'], lr=s['lr'], keep=None, cbs=ema, **more)
    per = seconds_per_epoch(learn)
    frozen = s.get('freeze', 1)
    epochs = max(1, round(a.budget/per-.7*frozen))
    decay = 1-1/max(20, .5*len(dls.train)) # half an epoch's memory
    set_seed(seed)
    cpu = time.process_time()
    class Clock(Callback): # validation is not counted
        order = 66
        def before_validate(self): self.since = time.process_time()
        def after_validate(self): spent.append(time.process_time()-self.since)
    spent = []; learn.add_cb(Clock())
    with learn.no_bar(), learn.no_logging():
        if s.get('schedule')=='flat_cos':
            learn.freeze(); learn.fit_one_cycle(frozen, learn.lr, pct_start=.9); learn.unfreeze(); learn.fit_flat_cos(epochs, learn.lr, pct_start=.5)
        elif frozen: learn.fine_tune(epochs, freeze_epochs=frozen)
        else: learn.unfreeze(); learn.fit_one_cycle(epochs, learn.lr, pct_start=.25)
    cpu = time.process_time()-cpu-sum(spent)
    few,res = rare(data, split),{}
    def judge():
        sc = as_bundle(learn).evaluate(data, split.valid, progress=False)
        iou = dict(zip(data.classes.scored_names, [float(v) for v in sc.iou]))
        return dict(miou=sc.miou, rare=float(np.nanmean([iou[c] for c in few])), pixel_accuracy=sc.pixel_accuracy, iou=iou)
    res['last'] = judge()
    learn.model.load_state_dict(ema.shadow.state_dict()); res['average'] = judge()
    return dict(name=name, seed=seed, settings=settings(a), epochs=epochs, s_per_epoch=per, cpu_s=cpu, valid_cpu_s=sum(spent), parameters=sum(p.numel() for p in learn.model.parameters()), rare_classes=few, **res)

def table(rows, a):
    rows = sorted((r for r in rows if r['settings']==settings(a)), key=lambda r: -r['average']['miou'])
    lacking = [n for n in LINES if n not in {r['name'] for r in rows}]
    out = [f"`python benchmarks/ablation.py --data FOLDER --split benchmarks/{settings(a)['split']} --budget {a.budget:g}`\n",
           f"Every line {a.budget:g} s of processor time on one thread, scored at the photos' own size on the validation side of {settings(a)['split']}; base: FPN, {BASE['encoder']}, 192x288, batch 4, ce + lovasz, rate 4e-3, flips.\n",
           'line | seed | mIoU of the average | its rare classes | mIoU of the last weights | their rare classes | accuracy (average) | epochs | CPU s', '--- | --- | --- | --- | --- | --- | --- | --- | ---']
    return '\n'.join(out+[f"{r['name']} | {r['seed']} | {r['average']['miou']:.3f} | {r['average']['rare']:.3f} | {r['last']['miou']:.3f} | {r['last']['rare']:.3f} | {r['average']['pixel_accuracy']:.3f} | {r['epochs']} | {r['cpu_s']:.0f}" for r in rows])+'\n'+(f"\nNot run: {'; '.join(lacking)}.\n" if lacking else '')

def main():
    a = parse()
    if a.line: print('RESULT '+json.dumps(run_line(a)), flush=True); return
    out = Path(a.out)/'ablation.json'
    read = lambda: json.loads(out.read_text()) if out.exists() else []
    for seed in map(int, a.seeds.split(',')):
        for name in LINES:
            if not any(fnmatch.fnmatch(name, p) for p in a.only) or any((r['name'],r['seed'],r['settings'])==(name,seed,settings(a)) for r in read()): continue
            env = dict(os.environ, OMP_NUM_THREADS='1', NO_ALBUMENTATIONS_UPDATE='1')
            run = subprocess.run([sys.executable, __file__, *sys.argv[1:], '--line', json.dumps([name, seed])], env=env, capture_output=True, text=True)
            found = [l for l in run.stdout.splitlines() if l.startswith('RESULT ')]
            if not found: print(f'{name}, seed {seed} FAILED: {(run.stderr.strip().splitlines() or [""])[-1]}', flush=True); continue
            row = json.loads(found[0][7:])
            out.write_text(json.dumps(read()+[row], indent=1))
            print(f"{name}, seed {seed}: average {row['average']['miou']:.3f}, rare {row['average']['rare']:.3f}; last {row['last']['miou']:.3f}, rare {row['last']['rare']:.3f}; {row['epochs']} epochs, {row['cpu_s']:.0f} CPU s", flush=True)
    (Path(a.out)/'ablation.md').write_text(table(read(), a))

if __name__=='__main__': main()
