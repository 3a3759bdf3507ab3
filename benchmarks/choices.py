"""What each loss, each network and each option of the U-Net is worth on real photos: same photos, split, size, epochs, encoder weights and seeds.

    python benchmarks/choices.py --data FOLDER --split benchmarks/semantic_drone_310.json [--only loss decoder net] [--seeds 0,1]

Every line is trained by `seg_learner` as a U-Net of plain blocks with ce + lovasz, but for the one thing the line names: the encoder frozen for one epoch, then free, flips, the best epoch kept.
Each runs in a process of its own on one thread; a line that is already in the results with the same settings is not run again. Time is processor time, which other
programs on the machine do not change. Rare classes are those with less than 1 % of the labelled training pixels.
"""
import argparse, json, os, subprocess, sys, time
from pathlib import Path
from first_unet import fast_bf16, score

BASE = dict(name='unet', encoder='tf_efficientnet_lite0', loss_func='ce + lovasz', net={}, lr=4e-3) # The U-Net with plain blocks, unless a line says otherwise
LINES = {
    'loss': {'plain cross-entropy':dict(loss_func='ce'), 'ce, weights by median frequency':dict(loss_func='ce', class_weights='median_freq'),
        'ce + lovasz, weights by median frequency':dict(loss_func='ce + lovasz', class_weights='median_freq'),
        'ce, weights by effective number':dict(loss_func='ce', class_weights='effective'), 'ce(label_smoothing=.1)':dict(loss_func='ce(label_smoothing=.1)')} | {
        t:dict(loss_func=t) for t in ('focal', 'dice', 'dice(log=True)', 'jaccard', 'jaccard(per_image=True)', 'tversky(alpha=.3, beta=.7)', 'lovasz', 'ohem',
        'focal + dice', 'focal + 40*dice', 'ce + dice', 'ce + jaccard', 'ce + tversky(alpha=.3, beta=.7)', 'ce + boundary', 'ce + lovasz', 'ce + lovasz + boundary')},
    'decoder': {'widths 128-64-32-16':dict(net=dict(widths=(128,64,32,16))), 'widths 512-256-128-64':dict(net=dict(widths=(512,256,128,64))),
        'stride 4':dict(net=dict(out_stride=4)), 'stride 1':dict(net=dict(out_stride=1)), 'residual blocks':dict(net=dict(block='residual')),
        'residual blocks, ce + lovasz weighted by median frequency':dict(net=dict(block='residual'), class_weights='median_freq'),
        "decoder='fastai'":dict(net=dict(decoder='fastai'))},
    'net': {n:dict(name=n) for n in ('unetplusplus', 'linknet', 'deeplabv3', 'deeplabv3plus', 'pspnet', 'fpn', 'upernet', 'segformer')} | {
        'fpn, ce + lovasz weighted by median frequency':dict(name='fpn', class_weights='median_freq'),
        'unet-scratch':dict(name='unet-scratch', encoder=None), 'dpt on vit_tiny_patch16_224, random weights':dict(name='dpt', encoder='vit_tiny_patch16_224', random=True),
        'deeplabv3-resnet101, random weights':dict(name='deeplabv3-resnet101', encoder=None)},
}

def parse():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True, help='a data set that open_dataset knows')
    p.add_argument('--split', required=True, help='a split file')
    p.add_argument('--weights', default='auto', help="ImageNet weights of the encoder: 'auto' or a file")
    p.add_argument('--epochs', type=int, default=10, help='the frozen one included')
    p.add_argument('--bs', type=int, default=4, help='photos per batch')
    p.add_argument('--size', default='128x192', help='height x width in pixels')
    p.add_argument('--seeds', default='0,1')
    p.add_argument('--only', nargs='*', default=list(LINES), help="groups to run, or 'group:line'")
    p.add_argument('--out', default=str(Path(__file__).parent/'results'))
    p.add_argument('--line', help=argparse.SUPPRESS)
    a = p.parse_args()
    a.size = tuple(int(s) for s in a.size.split('x'))
    return a

def settings(a): return dict(data=Path(a.data).resolve().name, split=Path(a.split).name, weights=Path(a.weights).name, epochs=a.epochs, bs=a.bs, size=list(a.size))
def wanted(a):
    for g,lines in LINES.items():
        for name in lines:
            if g in a.only or f'{g}:{name}' in a.only: yield g,name

def learner(dls, spec, a):
    from drone_seg.train.learner import unet_learner
    spec = BASE | spec
    name,encoder,net = spec.pop('name'),spec.pop('encoder'),spec.pop('net')
    weights = None if encoder is None or spec.pop('random', False) else a.weights
    if name=='unet': return unet_learner(dls, encoder, weights=weights, net=net if 'decoder' in net else dict(block='plain') | net, **spec)
    from drone_seg.train.learner import seg_learner
    return seg_learner(dls, name, encoder, weights=weights, net=net, **spec)

def rare(data, split):
    "Scored classes with less than 1 % of the labelled pixels of the training photos"
    import numpy as np
    n = np.zeros(256, np.int64)
    for stem in split.train: n += np.bincount(data.classes.encode(np.asarray(data[stem][1])).ravel(), minlength=256)
    n = n[:data.classes.n]
    return [c for c,k in zip(data.classes.scored_names, n) if k<.01*n.sum()]

def run_line(a):
    import numpy as np, torch
    from fastai.torch_core import set_seed
    torch.set_num_threads(1)
    from drone_seg.data.datasets import open_dataset
    group,name,seed = json.loads(a.line)
    data = open_dataset(a.data)
    split = data.use_split(a.split)
    set_seed(seed)
    dls = data.dataloaders(split, size=a.size, bs=a.bs, num_workers=0, seed=seed, device='cpu')
    for _ in dls.train: pass # The first pass fills the cache of resized photos; reading is no part of the comparison
    set_seed(seed)
    learn = learner(dls, LINES[group][name], a)
    cpu = time.process_time()
    learn.fit_one_cycle(a.epochs, learn.lr) if learn.model.weights_report is None else learn.fine_tune(a.epochs-1)
    cpu = time.process_time()-cpu
    s = score(learn.model, data, split, a)
    few = rare(data, split)
    iou = dict(zip(data.classes.scored_names, [float(v) for v in s.iou]))
    return dict(group=group, name=name, seed=seed, settings=settings(a), miou=s.miou, rare=float(np.nanmean([iou[c] for c in few])), pixel_accuracy=s.pixel_accuracy, iou=iou,
        rare_classes=few, cpu_s=cpu, parameters=sum(p.numel() for p in learn.model.parameters()), best_epoch=learn.keep_best.best_epoch,
        photos=dict(train=len(split.train), valid=len(split.valid)), definition=s.definition, bf16=fast_bf16())

TITLES = dict(loss='Losses (U-Net on the same encoder)', decoder='Options of the U-Net (ce + lovasz)', net='Networks on the same encoder (ce + lovasz)')

def table(rows, a):
    mean = lambda l: sum(l)/len(l)
    others,rows = [r for r in rows if r['settings']!=settings(a)],[r for r in rows if r['settings']==settings(a)]
    r = rows[0]
    head = ['', 'mIoU', 'each seed', 'mIoU of rare classes', 'pixel accuracy', 'M parameters', 'CPU s']
    few = sorted(r['rare_classes'])
    out = [f"`python benchmarks/choices.py --data FOLDER --split benchmarks/{settings(a)['split']}`\n",
           f"{settings(a)['data']}, split {settings(a)['split']}: {r['photos']['train']} photos to train, {r['photos']['valid']} to score at their own size; {BASE['encoder']}, "
           f"{a.size[0]}x{a.size[1]}, batch {a.bs}, {a.epochs} epochs, one thread, {'bfloat16' if r['bf16'] else 'float32'}. Seeds differ by what the column shows: a difference smaller than that is none. "
           f"Rare: {', '.join(few)} (under 1 % of the training pixels).\n"]
    base = [o for o in rows if (o['group'],o['name'])==('loss','ce + lovasz')]
    for g in LINES:
        mine = {}
        for o in rows:
            if o['group']==g: mine.setdefault(o['name'], []).append(o)
        if not mine: continue
        if g!='loss' and base: mine['U-Net with plain blocks, 256-128-64-32 to stride 2'] = base
        out += [f'## {TITLES[g]}\n', ' | '.join(head), ' | '.join(['---']*len(head))]
        for name,l in sorted(mine.items(), key=lambda o: -mean([r['miou'] for r in o[1]])):
            out.append(' | '.join([name, f"{mean([o['miou'] for o in l]):.3f}", ' '.join(f"{o['miou']:.3f}" for o in sorted(l, key=lambda o: o['seed'])), f"{mean([o['rare'] for o in l]):.3f}",
                f"{mean([o['pixel_accuracy'] for o in l]):.3f}", f"{l[0]['parameters']/1e6:.2f}", f"{mean([o['cpu_s'] for o in l]):.0f}"]))
        out.append('')
    for o in others:
        s = o['settings']
        out.append(f"At {s['size'][0]}x{s['size'][1]}, batch {s['bs']}, {s['epochs']} epochs: {o['name']}, mIoU {o['miou']:.3f}, rare {o['rare']:.3f}, pixel accuracy {o['pixel_accuracy']:.3f}, {o['cpu_s']:.0f} CPU s.\n")
    lacking = [n for g,lines in LINES.items() for n in lines if not any((o['group'],o['name'])==(g,n) for o in rows)]
    out.append(f"Not run: {', '.join(lacking)}." if lacking else "What began with random weights lacks ImageNet: compare it with its like only.")
    return '\n'.join(out)+'\n'

def main():
    a = parse()
    if a.line:
        print('RESULT '+json.dumps(run_line(a)), flush=True)
        return
    out = Path(a.out)/'choices.json'
    rows = json.loads(out.read_text()) if out.exists() else []
    done = {(r['group'],r['name'],r['seed']) for r in rows if r['settings']==settings(a)}
    for seed in map(int, a.seeds.split(',')):
        for group,name in wanted(a):
            if (group,name,seed) in done: continue
            env = dict(os.environ, OMP_NUM_THREADS='1', NO_ALBUMENTATIONS_UPDATE='1')
            run = subprocess.run([sys.executable, __file__, *sys.argv[1:], '--line', json.dumps([group, name, seed])], env=env, capture_output=True, text=True)
            found = [l for l in run.stdout.splitlines() if l.startswith('RESULT ')]
            if not found: print(f'{group}: {name}, seed {seed} FAILED: {(run.stderr.strip().splitlines() or [""])[-1]}', flush=True); continue
            row = json.loads(found[0][7:])
            rows = json.loads(out.read_text()) if out.exists() else rows # Another run may have written meanwhile
            rows.append(row)
            out.write_text(json.dumps(rows, indent=1))
            print(f"{group}: {name}, seed {seed}: mIoU {row['miou']:.3f}, rare {row['rare']:.3f}, {row['cpu_s']:.0f} CPU s", flush=True)
    if rows: (Path(a.out)/'choices.md').write_text(table(rows, a))

if __name__=='__main__': main()
