"""Losses forward + backward at 8 x 22 x 256 x 384 with void, one thread, process CPU time, against PyTorch and segmentation_models_pytorch.

    python benchmarks/losses.py            # times, then how close the cheap Lovász variants are to the sorted one
    python benchmarks/losses.py --quick    # without the slow peers"""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[k] = '1'
import statistics, sys, time, warnings
warnings.filterwarnings('ignore')
import torch, torch.nn.functional as F
from drone_seg.classes import IGNORE
from drone_seg.train.losses import Lovasz, seg_loss

torch.set_num_threads(1)
B,C,H,W = 8,22,256,384

def scene(sharpness, seed=0):
    "Patchy truth with classes from 30 % down to 0.02 % of the pixels and void; logits that are right most of the time"
    g = torch.Generator().manual_seed(seed)
    share = torch.logspace(0, -3.2, C)
    small = torch.multinomial(share, B*(H//8)*(W//8), replacement=True, generator=g).view(B, H//8, W//8)
    t = small.repeat_interleave(8, 1).repeat_interleave(8, 2)
    z = sharpness*(torch.randn(B,C,H,W, generator=g)+2*F.one_hot(t, C).movedim(-1, 1)*(torch.rand(B,1,H,W, generator=g)<.8))
    t[:,:20] = IGNORE
    return z,t.to(torch.uint8)

def ms(f, runs=5):
    f(); took = []
    for _ in range(runs):
        start = time.process_time(); f(); took.append(time.process_time()-start)
    return statistics.median(took)*1e3

def times():
    z,t = scene(2)
    lt = t.long()
    layouts = {'contiguous float32':z, 'channels_last float32':z.contiguous(memory_format=torch.channels_last),
               'contiguous bfloat16':z.bfloat16(), 'channels_last bfloat16':z.bfloat16().contiguous(memory_format=torch.channels_last)}
    mine = {f'drone_seg {o!r}':(seg_loss(o),5) for o in ('ce', 'focal', 'dice', 'jaccard', 'lovasz', 'ce + dice', 'ce + lovasz', 'ce + dice + lovasz', 'ce(label_smoothing=.1)')}
    peers = {'F.cross_entropy(logits.float())':(lambda x,_: F.cross_entropy(x.float(), lt, ignore_index=IGNORE), 5)}
    if '--quick' not in sys.argv:
        import segmentation_models_pytorch as smp
        o = dict(mode='multiclass', ignore_index=IGNORE)
        peers |= {'smp DiceLoss':(lambda x,_,f=smp.losses.DiceLoss(**o): f(x.float(), lt), 3), 'smp FocalLoss':(lambda x,_,f=smp.losses.FocalLoss(**o): f(x.float(), lt), 1),
                  'smp LovaszLoss':(lambda x,_,f=smp.losses.LovaszLoss(**o): f(x.float(), lt), 1), 'drone_seg Lovasz(bins=None)':(Lovasz(None),1)}
    print(f"{'ms, forward + backward':<34}"+''.join(f'{k:>24}' for k in layouts))
    for name,(loss,runs) in {**mine, **peers}.items():
        row = []
        for x in layouts.values():
            if runs==1 and row: continue
            x = x.detach().requires_grad_()
            row.append(ms(lambda: torch.autograd.grad(loss(x, t), x), runs))
        print(f'{name:<34}'+''.join(f'{v:24.0f}' for v in row), flush=True)

def on_subset(z, t, k): # Sorted Lovász on k labelled pixels, one from each of k equal parts of them
    where = (t.view(-1)!=IGNORE).nonzero()[:,0]
    pick = where[((torch.arange(k)+torch.rand(k))*len(where)/k).long()]
    rows = z.movedim(1, -1).reshape(-1, z.shape[1])[pick]
    return Lovasz(None)(rows.T[None,:,None], t.view(-1)[pick][None,None])

def closeness():
    print(f"\n{'Lovász, against sorting every pixel':<36}{'sharpness':>10}{'value off':>12}{'gradient off':>14}{'rarest class':>14}{'ms':>8}")
    for sharp in 1,4:
        z,t = scene(sharp)
        z.requires_grad_()
        rare = (t==C-1)[:,None].expand_as(z)
        def look(f):
            start = time.process_time(); v = f(); g, = torch.autograd.grad(v, z)
            return v.item(),g,(time.process_time()-start)*1e3
        v0,g0,took = look(lambda: Lovasz(None)(z, t))
        print(f"{'sorted, all pixels':<36}{sharp:10}{v0:12.5f}{'':28}{took:8.0f}")
        ways = {f'{b} bins, all pixels':lambda b=b: Lovasz(b)(z, t) for b in (64,256,1024,4096)} | {f'{k} pixels of {t.numel()}':lambda k=k: on_subset(z, t, k) for k in (16384,65536,262144)}
        for name,f in ways.items():
            v,g,took = look(f)
            off = lambda m=None: ((g-g0) if m is None else (g-g0)[m]).norm()/(g0 if m is None else g0[m]).norm()
            print(f'{name:<36}{sharp:10}{v-v0:12.5f}{off():14.1%}{off(rare):14.1%}{took:8.0f}', flush=True)

times()
if '--quick' not in sys.argv: closeness()
