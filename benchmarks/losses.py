"""Losses forward + backward at 4 x 22 x 256 x 384 and 4 x 22 x 512 x 512 with void, one thread, process CPU time, against PyTorch and segmentation_models_pytorch.

    python benchmarks/losses.py            # times, then how close the cheap Lovász variants are to the sorted one
    python benchmarks/losses.py --quick    # without the slow peers"""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[k] = '1'
import statistics, sys, time, warnings
warnings.filterwarnings('ignore')
import cv2, torch, torch.nn.functional as F
from drone_seg.classes import IGNORE
from drone_seg.train.losses import Lovasz, seg_loss

torch.set_num_threads(1); cv2.setNumThreads(1)
C,SIZES = 22,((4,256,384),(4,512,512))

def scene(sharpness, size=(8,256,384), seed=0):
    "Patchy truth with classes from 30 % down to 0.02 % of the pixels and void; logits that are right most of the time"
    g,(b,h,w) = torch.Generator().manual_seed(seed),size
    share = torch.logspace(0, -3.2, C)
    small = torch.multinomial(share, b*(h//8)*(w//8), replacement=True, generator=g).view(b, h//8, w//8)
    t = small.repeat_interleave(8, 1).repeat_interleave(8, 2)
    z = sharpness*(torch.randn(b,C,h,w, generator=g)+2*F.one_hot(t, C).movedim(-1, 1)*(torch.rand(b,1,h,w, generator=g)<.8))
    t[:,:20] = IGNORE
    return z,t.to(torch.uint8)

def ms(f, runs=5):
    f(); took = []
    for _ in range(runs):
        start = time.process_time(); f(); took.append(time.process_time()-start)
    return statistics.median(took)*1e3

MINE = ['ce', 'ce(label_smoothing=.1)', 'focal', 'ohem', 'dice', 'dice(log=True)', 'jaccard', 'jaccard(per_image=True, absent=count)', 'tversky', 'tversky(gamma=.75)', 'lovasz', 'boundary',
        'ce + dice', 'focal + 40*dice', 'ce + lovasz', 'ce + boundary', 'ce + dice + lovasz + boundary']

def peers(): # name -> (loss of logits and int64 target, runs)
    res = {'F.cross_entropy(logits.float())':(lambda x,t: F.cross_entropy(x.float(), t, ignore_index=IGNORE), 5)}
    if '--quick' in sys.argv: return res
    import segmentation_models_pytorch as smp
    for name,runs in dict(DiceLoss=3, JaccardLoss=3, TverskyLoss=3, FocalLoss=1, LovaszLoss=1).items():
        loss = getattr(smp.losses, name)(mode='multiclass', ignore_index=IGNORE)
        res[f'smp {name}'] = (lambda x,t,f=loss: f(x.float(), t), runs)
    return res | {'drone_seg Lovasz(bins=None)':(lambda x,t,f=Lovasz(None): f(x, t), 1)}

def times():
    batches = {}
    for size in SIZES:
        z,t = scene(2, size)
        batches[f'{size[1]}x{size[2]} float32'] = z,t
        batches[f'{size[1]}x{size[2]} bfloat16 channels_last'] = z.bfloat16().contiguous(memory_format=torch.channels_last),t
    print('| ms, forward + backward | '+' | '.join(batches)+' |\n|---|'+'---:|'*len(batches))
    for name,(loss,runs) in {**{f'drone_seg `{o}`':(seg_loss(o),3) for o in MINE}, **peers()}.items():
        row = []
        for x,t in batches.values():
            x,t = x.detach().requires_grad_(),t if name.startswith('drone_seg') else t.long()
            row.append(ms(lambda: torch.autograd.grad(loss(x, t), x), runs))
        print(f'| {name} | '+' | '.join(f'{v:.0f}' for v in row)+' |', flush=True)

def on_subset(z, t, k): # Sorted Lovász on k labelled pixels, one from each of k equal parts of them
    where = (t.view(-1)!=IGNORE).nonzero()[:,0]
    pick = where[((torch.arange(k)+torch.rand(k))*len(where)/k).long()]
    rows = z.movedim(1, -1).reshape(-1, z.shape[1])[pick]
    return Lovasz(None)(rows.T[None,:,None], t.view(-1)[pick][None,None])

def closeness():
    print('\n| Lovász, against sorting every pixel of 8 x 256 x 384 | sharpness of the logits | value off | gradient off | that of the rarest class | ms |\n|---|---:|---:|---:|---:|---:|')
    for sharp in 1,4:
        z,t = scene(sharp)
        z.requires_grad_()
        rare = (t==C-1)[:,None].expand_as(z)
        def look(f):
            start = time.process_time(); v = f(); g, = torch.autograd.grad(v, z)
            return v.item(),g,(time.process_time()-start)*1e3
        v0,g0,took = look(lambda: Lovasz(None)(z, t))
        print(f'| sorted, all pixels | {sharp} | {v0:.5f} itself | | | {took:.0f} |')
        ways = {f'{b} bins, all pixels':lambda b=b: Lovasz(b)(z, t) for b in (64,256,1024,4096)} | {f'{k} pixels of {t.numel()}':lambda k=k: on_subset(z, t, k) for k in (16384,65536,262144)}
        for name,f in ways.items():
            v,g,took = look(f)
            off = lambda m=None: ((g-g0) if m is None else (g-g0)[m]).norm()/(g0 if m is None else g0[m]).norm()
            print(f'| {name} | {sharp} | {v-v0:.5f} | {off():.1%} | {off(rare):.1%} | {took:.0f} |', flush=True)

times()
if '--quick' not in sys.argv: closeness()
