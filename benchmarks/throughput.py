"""Photos per second in training: the loader alone, the step alone, and both together, ours and that of fastai's own loop on the same encoder.

    python benchmarks/throughput.py --data FOLDER --split benchmarks/semantic_drone_310.json [--encoder resnet34] [--size 256x384] [--batch 8] [--device cuda]

fastai's loop is the one of its segmentation lesson: photos read from their files and resized, aug_transforms, `unet_learner`, on a card `to_fp16`. Ours has its cache filled before
(the seconds are given). On a card: clock time, loader workers as they come, each library's fastest precision. On a CPU: one thread, no workers, and processor time, which other
programs do not change. The gap between step and both is the loader's fault. Weights are random: they cost the same.
"""
import argparse, os, time
from pathlib import Path
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')

def parse():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True, help='a data set that open_dataset knows')
    p.add_argument('--split', required=True, help='a split file')
    p.add_argument('--encoder', default='resnet34', help='known to timm and to torchvision')
    p.add_argument('--size', default='256x384', help='height x width in pixels')
    p.add_argument('--batch', type=int, default=8)
    p.add_argument('--device', default='cpu')
    p.add_argument('--seconds', type=float, default=20, help='of each measurement, after three batches')
    p.add_argument('--compile', action='store_true', help='ours once more with torch.compile')
    p.add_argument('--out', default=str(Path(__file__).parent/'results'/'throughput.md'))
    a = p.parse_args()
    a.size = tuple(int(s) for s in a.size.split('x'))
    return a

class Rate:
    "Counts photos from the fourth batch on; `add` says when the seconds are over"
    def __init__(self, a):
        import torch
        self.a,self.batches,self.photos = a,0,0
        self.cuda = torch.device(a.device).type=='cuda'
    def now(self):
        import torch
        if self.cuda: torch.cuda.synchronize()
        return time.perf_counter() if self.cuda else time.process_time()
    def add(self, n):
        self.batches += 1
        if self.batches==3: self.start = self.soon = self.now()
        if self.batches>3:
            self.photos += n
            if not self.cuda or self.batches%10==0: self.soon = self.now() # waiting for the card at each batch would slow it down
        return self.batches>4 and self.soon-self.start>self.a.seconds
    @property
    def per_second(self): return self.photos/(self.now()-self.start)

def loader(dls, a):
    rate = Rate(a)
    while True:
        for b in dls.train:
            if rate.add(len(b[0])): return rate.per_second

def training(learn, a, fixed=None):
    "Photos per second of `learn.fit`, with one batch again and again if `fixed`"
    from fastai.callback.core import Callback, CancelFitException, CancelValidException
    rate = Rate(a)
    class Count(Callback):
        order = 100
        def after_batch(self):
            if rate.add(len(self.x)): raise CancelFitException
        def before_validate(self): raise CancelValidException
    if fixed is not None:
        def again(): [learn.one_batch(k, fixed) for k in range(10**6)]
        learn.n_iter,learn.all_batches = 10**6,again
    with learn.no_bar(), learn.no_logging(), learn.added_cbs(Count()): learn.fit(1000)
    vars(learn).pop('all_batches', None)
    return rate.per_second

def ours(a, name):
    from drone_seg.data.datasets import open_dataset
    from drone_seg.train.learner import seg_learner
    data = open_dataset(a.data)
    more = {} if a.device!='cpu' else dict(num_workers=0)
    dls = data.dataloaders(data.use_split(a.split), a.size, a.batch, 'flips', device=a.device, **more)
    t = time.perf_counter()
    for _ in dls.train: pass # fills the cache
    filled = time.perf_counter()-t
    return seg_learner(dls, name, a.encoder, None, metrics=[], keep=None),filled

def fastais(a, data):
    import torchvision
    from fastai.vision.all import CrossEntropyLossFlat, DataBlock, ImageBlock, MaskBlock, Normalize, Resize, ResizeMethod, aug_transforms, imagenet_stats, unet_learner
    split = data.use_split(a.split)
    side = {s:v for v,stems in ((False, split.train), (True, split.valid)) for s in stems}
    items = [data.pair(s) for s in side]
    n = int(max(data.classes.ids))+1
    block = DataBlock((ImageBlock, MaskBlock(list(range(n)))), get_x=lambda p: p.image, get_y=lambda p: p.mask, splitter=lambda o: ([k for k,p in enumerate(o) if not side[p.stem]], [k for k,p in enumerate(o) if side[p.stem]]),
                      item_tfms=Resize(a.size, ResizeMethod.Squish), batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)])
    more = {} if a.device!='cpu' else dict(num_workers=0)
    learn = unet_learner(block.dataloaders(items, bs=a.batch, device=a.device, **more), getattr(torchvision.models, a.encoder), n_out=n, pretrained=False, loss_func=CrossEntropyLossFlat(axis=1))
    return learn.to_fp16() if Rate(a).cuda else learn

def measured(name, learn, a, note=''):
    row = (name, loader(learn.dls, a), training(learn, a, learn.dls.one_batch()), training(learn, a), note)
    print('{}: loader {:.1f}, step {:.1f}, both {:.1f} photos/s{}'.format(*row), flush=True)
    return row

def table(rows, a, side):
    import torch
    card = torch.cuda.get_device_name() if rows and Rate(a).cuda else 'one thread of a CPU, processor time'
    out = [f"`python benchmarks/throughput.py --data FOLDER --split benchmarks/{Path(a.split).name} --encoder {a.encoder} --size {a.size[0]}x{a.size[1]} --batch {a.batch} --device {a.device}{' --compile' if a.compile else ''}`\n",
           f"{card}; {a.encoder}, {a.size[0]}x{a.size[1]}, batch {a.batch}; photos of {Path(a.data).resolve().name}, {'x'.join(map(str, side))}, per second.\n", 'training | loader alone | step alone | both | both, times fastai', '---|---:|---:|---:|---:']
    return '\n'.join(out+[f"{r[0]}{r[4]} | {r[1]:.1f} | {r[2]:.1f} | {r[3]:.1f} | {r[3]/rows[0][3]:.1f}" for r in rows])+'\n'

def main():
    a = parse()
    if a.device=='cpu': os.environ['OMP_NUM_THREADS'] = '1'
    import torch
    if a.device=='cpu': torch.set_num_threads(1)
    from drone_seg.data.datasets import open_dataset
    from drone_seg.photo.photo_file import image_size
    data = open_dataset(a.data)
    rows = [measured('fastai unet_learner', fastais(a, data), a, '' if a.device!='cpu' else ', float32')]
    for name in ('unet', 'fpn'):
        for c in (False, True)[:1+a.compile]:
            learn,filled = ours(a, name)
            if c: learn.compile()
            rows.append(measured(f"drone_seg {name}{', compiled' if c else ''}", learn, a, f", {str(learn.amp or 'fp32').removeprefix('torch.')}, cache filled in {filled:.1f} s"))
    Path(a.out).write_text(table(rows, a, image_size(data.items[0].image)))

if __name__=='__main__': main()
