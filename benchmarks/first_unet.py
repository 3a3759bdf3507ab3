"""A plain U-Net, fastai's DynamicUnet, `unet_learner` and `seg_learner` on the same photos, split, encoder weights, size, batch, epochs and precision.

    python benchmarks/first_unet.py --data FOLDER [--weights FILE] [--epochs 15] [--only a,b,c,d] [--out benchmarks/results]

All see the same batches (flips). Each line runs in a process of its own on one thread, so peak memory and processor time are its own; a line that is already in
the results with the same settings is not run again (--again does). Time is processor time, which other programs on the machine do not change.
"""
import argparse, json, os, platform, resource, subprocess, sys, time
from pathlib import Path

LINES = dict(a='smp.Unet, cross-entropy, AdamW 1e-3, one-cycle',
             b='fastai DynamicUnet, cross-entropy, AdamW 1e-3, one-cycle',
             c='drone_seg unet_learner with its defaults',
             d='drone_seg seg_learner with its defaults')

def parse():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True, help='a data set that open_dataset knows')
    p.add_argument('--weights', default='auto', help="ImageNet weights of the encoder: 'auto' or a file")
    p.add_argument('--arch', default='tf_efficientnet_lite0', help='timm name of the encoder of all')
    p.add_argument('--epochs', type=int, default=15)
    p.add_argument('--bs', type=int, default=4, help='photos per batch')
    p.add_argument('--size', default='256x384', help='height x width in pixels')
    p.add_argument('--seed', type=int, default=0, help='of the split, the order and the weights of the decoder')
    p.add_argument('--split', help='a split file; a split by place (a fifth for validation) if not given')
    p.add_argument('--only', default='a,b,c,d', help='lines to run')
    p.add_argument('--again', action='store_true', help='run lines that have results, too')
    p.add_argument('--out', default=str(Path(__file__).parent/'results'))
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--masks', help='folder for the predicted masks of the validation photos, one below it for each line; drone_seg evaluate judges them')
    p.add_argument('--line', help=argparse.SUPPRESS)
    a = p.parse_args()
    a.size = tuple(int(s) for s in a.size.split('x'))
    return a

def settings(a): return {k:getattr(a, k) for k in ('arch','epochs','bs','size','seed','threads')} | dict(
    data=Path(a.data).resolve().name, weights=Path(a.weights).name, split=Path(a.split).name if a.split else f'place, 0.2, seed {a.seed}')

# --- the three lines -------------------------------------------------------------------------------------------------------------

def flips():
    import albumentations as A
    return A.Compose([A.HorizontalFlip(p=.5)])

def encoder_state(a):
    "ImageNet weights by timm's names"
    from drone_seg.models.zoo import create_model
    return create_model('unet', a.arch, 2, a.weights).encoder.state_dict()

def plain_unet(a, n):
    import segmentation_models_pytorch as smp
    net = smp.Unet(f'tu-{a.arch}', encoder_weights=None, classes=n)
    net.encoder.model.load_state_dict(encoder_state(a))
    return net

def dynamic_unet(a, n):
    "fastai's own, on the stem and the stages of the encoder as top-level children, where it looks for skips"
    import timm
    from torch import nn
    from fastai.vision.models.unet import DynamicUnet
    pyramid = timm.create_model(a.arch, features_only=True)
    pyramid.load_state_dict(encoder_state(a))
    stages = list(pyramid.blocks) if hasattr(pyramid, 'blocks') else None
    if stages is None: raise SystemExit(f'(b) knows the layout of EfficientNet-like encoders only, not of {a.arch}')
    return DynamicUnet(nn.Sequential(pyramid.conv_stem, pyramid.bn1, *stages), n, a.size)

def train_plain(net, dls, a):
    "The usual loop: AdamW 1e-3, one-cycle, cross-entropy without void; yields processor seconds of each epoch"
    import torch, torch.nn.functional as F
    cl = dict(memory_format=torch.channels_last)
    net = net.to(**cl).train()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-3, total_steps=a.epochs*len(dls.train))
    for epoch in range(a.epochs):
        t,total = time.process_time(),0.
        for x,y in dls.train:
            x,y = x.as_subclass(torch.Tensor).contiguous(**cl),y.as_subclass(torch.Tensor).long()
            with torch.autocast('cpu', torch.bfloat16, enabled=fast_bf16()): logits = net(x)
            loss = F.cross_entropy(logits.float(), y, ignore_index=255)
            loss.backward(); opt.step(); sched.step(); opt.zero_grad()
            total += loss.item()
        yield time.process_time()-t, total/len(dls.train)

def fast_bf16():
    from drone_seg.models.memory import has_fast_bf16
    return has_fast_bf16()

class Normalised:
    "(a) and (b) get the backbone's normalisation, too"
    def __new__(cls, net, stats):
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = net
                for k,v in zip(('mean','std'), stats): self.register_buffer(k, torch.tensor(v).view(1,-1,1,1))
            def forward(self, x): return self.net((x-self.mean)/self.std)
        return Net()

def train_ours(dls, a):
    from fastai.callback.core import Callback
    from drone_seg.train.learner import seg_learner, unet_learner
    class Clock(Callback):
        "Processor seconds of training in each epoch, and of validation"
        order = -100
        def __init__(self): self.train_s,self.valid_s = [],[]
        def before_train(self): self.t = time.process_time()
        def before_validate(self): self.train_s.append(time.process_time()-self.t); self.t = time.process_time()
        def after_epoch(self): self.valid_s.append(time.process_time()-self.t)
    class Last(Callback):
        "The weights of the last epoch, before those of the best are loaded: (a) and (b) are scored at theirs"
        order = 60
        def after_fit(self): self.state = {k:v.detach().clone() for k,v in self.model.state_dict().items()}
    clock,last = Clock(),Last()
    cbs = [clock, last]
    learn = unet_learner(dls, a.arch, weights=a.weights, cbs=cbs) if a.line=='c' else seg_learner(dls, encoder=a.arch, weights=a.weights, cbs=cbs)
    learn.fine_tune(a.epochs-1)
    return learn, clock, last

# --- scoring -----------------------------------------------------------------------------------------------------------------------

def score(net, data, split, a):
    "One confusion matrix per validation photo, at the photo's own size: logits are resized, ids never"
    import numpy as np, torch, torch.nn.functional as F
    from drone_seg.scores.confusion import Confusion
    from drone_seg.photo.images import resize_image, save_mask
    net.eval()
    conf = Confusion(data.classes.n, data.classes.scored_names)
    with torch.no_grad():
        for stem in split.valid:
            image,mask = data[stem]
            x = torch.from_numpy(np.array(resize_image(np.asarray(image), a.size))).permute(2,0,1)[None].float()/255
            with torch.autocast('cpu', torch.bfloat16, enabled=fast_bf16()): logits = net(x.contiguous(memory_format=torch.channels_last))
            logits = F.interpolate(logits.float(), size=np.asarray(mask).shape, mode='bilinear', align_corners=False)
            answer = logits.argmax(1).to(torch.uint8)
            if a.masks: save_mask(data.classes.decode(answer[0].numpy()), data.classes, Path(a.masks)/a.line/f'{stem}.png')
            conf.add(answer, torch.from_numpy(np.ascontiguousarray(data.classes.encode(np.asarray(mask))))[None])
    return conf.scores()

# --- one line, in its own process ----------------------------------------------------------------------------------------------------

def run_line(a):
    import torch
    from fastai.torch_core import set_seed
    torch.set_num_threads(a.threads)
    from drone_seg.data.datasets import open_dataset
    from drone_seg.models.unet import create_encoder, encoder_stats
    data = open_dataset(a.data)
    split = data.use_split(a.split) if a.split else data.split(by='place', valid=.2, seed=a.seed)
    set_seed(a.seed)
    dls = data.dataloaders(split, size=a.size, bs=a.bs, augment=flips(), num_workers=0, seed=a.seed, device='cpu')
    for _ in dls.train: pass # The first pass fills the cache of resized photos; reading is no part of the comparison
    set_seed(a.seed)
    wall,cpu = time.time(),time.process_time()
    if a.line in 'cd':
        learn,clock,last = train_ours(dls, a)
        net,train_s = learn.model,clock.train_s
    else:
        net = Normalised(plain_unet(a, data.classes.n) if a.line=='a' else dynamic_unet(a, data.classes.n), encoder_stats(create_encoder(a.arch)))
        train_s = []
        for e,(s,loss) in enumerate(train_plain(net, dls, a)):
            train_s.append(s); print(f'{a.line} epoch {e}: loss {loss:.3f}, {s:.1f} s', flush=True)
    wall,cpu = time.time()-wall,time.process_time()-cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    s = score(net, data, split, a)
    more = {}
    if a.line in 'cd':
        net.load_state_dict(last.state)
        t = score(net, data, split, a)
        more = dict(last_epoch=dict(miou=t.miou, pixel_accuracy=t.pixel_accuracy, macro_dice=t.macro_dice), best_epoch=learn.keep_best.best_epoch)
    return more | dict(line=a.line, what=LINES[a.line], settings=settings(a), miou=s.miou, pixel_accuracy=s.pixel_accuracy, macro_dice=s.macro_dice,
        iou=dict(zip(data.classes.scored_names, [float(v) for v in s.iou])), cpu_s_per_epoch=sum(train_s)/len(train_s), cpu_s_all=cpu, wall_s=wall,
        parameters=sum(p.numel() for p in net.parameters()), peak_mb=peak/(1 if sys.platform=='darwin' else 1024)/(1024 if sys.platform=='darwin' else 1),
        photos=dict(train=len(split.train), valid=len(split.valid)), definition=s.definition, torch=torch.__version__, bf16=fast_bf16(), machine=platform.processor() or platform.machine())

# --- all lines and the table ---------------------------------------------------------------------------------------------------------

def table(rows):
    head = ['', 'network and recipe', 'mIoU', 'pixel accuracy', 'training, CPU s/epoch', 'all, CPU s', 'wall s', 'M parameters', 'peak MB']
    cells = [[r['line'], r['what'], f"{r['miou']:.4f}", f"{r['pixel_accuracy']:.4f}", f"{r['cpu_s_per_epoch']:.1f}", f"{r['cpu_s_all']:.0f}",
              f"{r['wall_s']:.0f}", f"{r['parameters']/1e6:.2f}", f"{r['peak_mb']:.0f}"] for r in rows]
    lines = [' | '.join(c) for c in [head, ['---']*len(head), *cells]]
    lasts = [f"{r['line']}: mIoU {r['last_epoch']['miou']:.4f}, pixel accuracy {r['last_epoch']['pixel_accuracy']:.4f}" for r in rows if 'last_epoch' in r]
    note = f"(c) and (d) keep the epoch of the best mIoU; at their last epochs, as (a) and (b) are scored, they have {'; '.join(lasts)}.\n" if lasts else ''
    r = rows[0]
    s = r['settings']
    where = (f"{s['data']}, split {s['split']}: {r['photos']['train']} photos to train, {r['photos']['valid']} to score; {s['arch']}, {s['size'][0]}x{s['size'][1]}, "
             f"batch {s['bs']}, {s['epochs']} epochs, {s['threads']} thread{'s'*(s['threads']!=1)}, {'bfloat16' if r['bf16'] else 'float32'}, channels_last. mIoU and accuracy: {r['definition']}")
    return '\n'.join(f'| {l} |' for l in lines) + f'\n\n{note}{where}\n'

def main():
    a = parse()
    if a.line: Path(a.out).write_text(json.dumps(run_line(a), indent=1)); return
    out = Path(a.out); out.mkdir(parents=True, exist_ok=True)
    known = out/'first_unet.json'
    rows = {r['line']:r for r in (json.loads(known.read_text()) if known.exists() else []) if r['settings']==json.loads(json.dumps(settings(a)))}
    for line in a.only.split(','):
        if line in rows and not a.again: continue
        tmp = out/f'first_unet_{line}.part'
        args = [sys.executable, __file__, *sys.argv[1:], '--line', line, '--out', str(tmp)]
        subprocess.run(args, check=True, env=os.environ | dict(OMP_NUM_THREADS=str(a.threads)))
        rows[line] = json.loads(tmp.read_text()); tmp.unlink()
    rows = [rows[l] for l in LINES if l in rows]
    known.write_text(json.dumps(rows, indent=1))
    (out/'first_unet.md').write_text(table(rows))
    print(table(rows))

if __name__=='__main__': main()
