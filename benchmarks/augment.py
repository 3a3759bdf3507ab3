"""Which augmentation serves a short training: the same one with each preset, under one split by place.

    python benchmarks/augment.py DATA [--split FILE] [--presets flips,nadir] [--epochs 10] [--size 128x192] [--weights FILE]
"""
import argparse, time, warnings
warnings.filterwarnings('ignore')
import torch
from fastai.torch_core import set_seed
from drone_seg.all import *

def train(data, split, preset, a):
    "mIoU and pixel accuracy at the photos' own size, and processor seconds"
    set_seed(a.seed)
    dls = data.dataloaders(split, size=tuple(int(v) for v in a.size.split('x')), bs=4, augment=preset, seed=a.seed, num_workers=0, device='cpu')
    learn,t = unet_learner(dls, 'tf_efficientnet_lite0', weights=a.weights),time.process_time()
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(a.epochs-1)
    t = time.process_time()-t
    s = as_bundle(learn).evaluate(data, split.valid, progress=False)
    return s.miou,s.pixel_accuracy,t

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('data'); p.add_argument('--split'); p.add_argument('--presets', default='flips,nadir'); p.add_argument('--weights', default='auto')
    p.add_argument('--epochs', type=int, default=10); p.add_argument('--size', default='128x192'); p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    torch.set_num_threads(1)
    data = open_dataset(a.data)
    split = data.use_split(a.split) if a.split else data.split(by='place', progress=False)
    print(f"{data.name}, {len(split.train)} / {len(split.valid)} photos by place, {a.size}, {a.epochs} epochs, seed {a.seed}\n\n| preset | mIoU | pixel accuracy | CPU s |\n|---|---:|---:|---:|", flush=True)
    for preset in a.presets.split(','): print('| {} | {:.4f} | {:.4f} | {:.0f} |'.format(preset, *train(data, split, preset, a)), flush=True)

if __name__=='__main__': main()
