"""What feeding a network costs, against the ways others do it. Gates are ratios within one run; the exit code is 1 if one is missed.

    python benchmarks/feeding.py [DATA] [photo] [pair] [colors] [augment] [loader] [n=12]

DATA    a data set whose photos are enlarged to 6000x4000 in a temporary folder (drawn scenes if left out)
photo   a 6000x4000 JPEG to 768x512                       gate: at most 1.2 x cv2 REDUCED_COLOR_4 + area, with the cache file written
pair    a cached 768x512 photo and mask; a 512 crop       gate: at most 5 ms for the pair
colors  a 24-Mpx colour mask to ids, 24 classes           gate: at most 10 memcpys of the RGB array, with a tolerance at most twice that
augment 512x512 photo and mask, one core                  gate: at least 200 images/s for the default and for nadir
loader  images/s of an epoch, two workers, from the cache and as crops, against fastai's usual path from the originals

Milliseconds of CPU time of this process on one thread, medians; `loader` is wall time, with the load of the machine beside it.
"""
import os
for k in ('OMP_NUM_THREADS','NO_ALBUMENTATIONS_UPDATE'): os.environ.setdefault(k, '1')
import random, sys, tempfile, time, warnings
from pathlib import Path
import numpy as np, cv2, torch
from PIL import Image
from drone_seg.all import *
from drone_seg.data.augment import AUGMENTATIONS, Augment, ResizeItem, takes_crops
from drone_seg.data.cache import Small
from drone_seg.data.tiled import cut_photos, read_crop, tile_file

warnings.filterwarnings('ignore')
cv2.setNumThreads(1); torch.set_num_threads(1)
MISSED = []

def ms(f, n=7):
    f(); res = []
    for _ in range(n):
        t = time.process_time(); f(); res.append(time.process_time()-t)
    return 1000*float(np.median(res))

def say(name, v, unit='ms'): print(f"  {name:52} {v:9.2f} {unit}", flush=True); return v
def gate(name, got, limit, at_most=True):
    ok = got<=limit if at_most else got>=limit
    print(f"  gate: {name}: {got:.2f} ({'at most' if at_most else 'at least'} {limit:.2f}) {'holds' if ok else 'MISSED'}", flush=True)
    if not ok: MISSED.append(name)

def enlarge(folder, data, n):
    "The first n photos and masks of `data` at 6000x4000, with the grain that enlarging takes away"
    for d in ('images','masks'): (folder/d).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k,s in enumerate(data.stems[:n]):
        im,ids = data[s]
        grain = rng.normal(0, 4, (1000,1500,1)).astype(np.float32)
        big = np.clip(cv2.resize(im, (6000,4000), interpolation=cv2.INTER_CUBIC) + np.tile(grain, (4,4,1)), 0, 255).astype(np.uint8)
        Image.fromarray(big).save(folder/'images'/f'{k:03}.jpg', quality=92)
        save_mask(cv2.resize(ids, (6000,4000), interpolation=cv2.INTER_NEAREST), data.classes, folder/'masks'/f'{k:03}.png')
    return open_dataset(folder, data.classes)

def photo(big):
    f,size = big.items[0].image,(512,768)
    print(f"photo: {f.stat().st_size/1e6:.1f} MB, 6000x4000 to 768x512")
    from fastai.vision.all import PILImage
    area = lambda a: cv2.resize(a, (768,512), interpolation=cv2.INTER_AREA)
    def draft():
        im = Image.open(f); im.draft('RGB', (768,512)); return im.resize((768,512), Image.BOX)
    say('Pillow, whole, BOX', ms(lambda: Image.open(f).convert('RGB').resize((768,512), Image.BOX), 3))
    say('fastai PILImage, whole, bilinear', ms(lambda: PILImage.create(f).resize((768,512), Image.BILINEAR), 3))
    say('cv2, whole, area', ms(lambda: area(cv2.imread(str(f))), 3))
    say('Pillow draft, BOX', ms(draft))
    peer = say('cv2 REDUCED_COLOR_4, area', ms(lambda: area(cv2.imread(str(f), cv2.IMREAD_REDUCED_COLOR_4))))
    small,p = Small(size=size),big.items[0]
    say('drone_seg', ms(lambda: small.image(p)))
    own = say('drone_seg, and the file written', ms(lambda: small.write(p, 'image')))
    say('drone_seg, mask (PNG of 24 Mpx)', ms(lambda: small.ids(p), 3))
    gate('filling the cache, times cv2 REDUCED_COLOR_4 + area', own/peer, 1.2)

def pair(big):
    print("pair: photo and mask at 768x512; a 512x512 crop of 24 Mpx")
    from fastai.vision.all import PILImage, PILMask
    p = big.items[0]
    kept = Small(size=(512,768), keep=True)
    kept.fill([p], progress=False)
    say('fastai from the originals, whole, resized', ms(lambda: (PILImage.create(p.image).resize((768,512), 2), PILMask.create(p.mask).resize((768,512), 0)), 3))
    jpg,png = kept.folder/'x.jpg',kept.folder/'x.png'
    Image.fromarray(kept.image(p)).save(jpg, quality=92); save_mask(kept.ids(p), big.classes, png)
    say('Pillow, JPEG and PNG of 768x512', ms(lambda: (np.asarray(Image.open(jpg)), np.asarray(Image.open(png))), 30))
    own = say('drone_seg, cache', ms(lambda: (kept.image(p), kept.ids(p)), 30))
    gate('a cached pair, ms', own, 5)
    t = time.process_time()
    cut_photos([p], progress=False)
    say('drone_seg, cutting a photo into tiles, once', 1000*(time.process_time()-t))
    print(f"  tiles {tile_file(p).stat().st_size/1e6:.1f} MB, photo and mask {(p.image.stat().st_size + p.mask.stat().st_size)/1e6:.1f} MB, unpacked 96 MB")
    rng = np.random.default_rng(0)
    whole = say('a crop by decoding the whole (cv2, and the PNG)', ms(lambda: (cv2.imread(str(p.image))[:512,:512], np.asarray(Image.open(p.mask))[:512,:512]), 3))
    crop = say('drone_seg, a crop from tiles', ms(lambda: read_crop(p, int(rng.integers(3488)), int(rng.integers(5488)), 512, 512), 30))
    print(f"  a crop is {whole/crop:.0f} times as fast as the whole")

def colors(big):
    print("colors: 4000x6000 RGB to ids, 24 classes")
    rng = np.random.default_rng(0)
    table = ClassTable([f'c{i}' for i in range(24)])
    ids = np.kron(rng.integers(0, 24, (40,60)).astype(np.uint8), np.ones((100,100), np.uint8))
    rgb,out = table.to_colors(ids),np.zeros((4000,6000), np.uint8)
    copy = np.empty_like(rgb)
    def naive():
        for i,c in zip(table.ids, table.colors): out[(rgb==c).all(-1)] = i
    def in_range():
        for i,c in zip(table.ids, table.colors): out[cv2.inRange(rgb, c.astype(float), c.astype(float))>0] = i
    lut = np.zeros(1<<24, np.uint8)
    lut[(table.colors.astype(int) @ [65536, 256, 1])] = table.ids
    mem = say('memcpy of the RGB array', ms(lambda: np.copyto(copy, rgb), 15))
    say('naive, one comparison per class', ms(naive, 1))
    small = rgb[:1000]
    say('np.unique(axis=0), a quarter of the rows, times 4', 4*ms(lambda: np.unique(small.reshape(-1, 3), axis=0, return_inverse=True), 1))
    say('cv2.inRange per class', ms(in_range, 3))
    say('24-bit table in numpy', ms(lambda: lut[(rgb[...,0].astype(np.uint32)<<16) | (rgb[...,1].astype(np.uint32)<<8) | rgb[...,2]], 3))
    assert (table.from_colors(rgb)==ids).all()
    own = say('drone_seg from_colors', ms(lambda: table.from_colors(rgb)))
    tol = say('drone_seg from_colors, tol=4', ms(lambda: table.from_colors(rgb, tol=4)))
    gate('from_colors in memcpys', own/mem, 10); gate('from_colors with a tolerance in memcpys', tol/mem, 20)

def augment(big):
    from fastai.vision.all import PILImage
    print("augment: photo and mask to 512x512, images/s on one core")
    im,ids = big[0]
    im,ids = resize_image(im, (768,768)),resize_mask(ids, (768,768))
    half = resize_image(im, (512,512)),resize_mask(ids, (512,512))
    rate = {}
    for name in AUGMENTATIONS:
        turn,last = Augment(as_augmentation(name, 512)),ResizeItem(512)
        random.seed(0)
        src = [PILImage.create(a) for a in ((im, ids) if takes_crops(name) else half)]
        t = [ms(lambda: last(turn(src, split_idx=0)), 1) for _ in range(60)]
        rate[name] = say(f'drone_seg {name}', 1000/np.mean(t), 'images/s')
    x,y = torch.rand(8, 3, 512, 512),torch.zeros(8, 512, 512, dtype=torch.uint8)
    say('drone_seg BatchAugment, float batch of 8', 8000/ms(lambda: BatchAugment(rotate=10)((x, y), split_idx=0), 3), 'images/s')
    from fastai.vision.all import Pipeline, TensorImage, TensorMask, aug_transforms
    tfms = Pipeline(aug_transforms(flip_vert=True), split_idx=0)
    say('fastai aug_transforms, batch of 8', 8000/ms(lambda: tfms((TensorImage(x), TensorMask(y.long()))), 3), 'images/s')
    from torchvision import tv_tensors
    from torchvision.transforms import v2
    tv = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.RandomResizedCrop(512, (.4, 1)), v2.ColorJitter(.25, .25, .25, .025)])
    a,b = tv_tensors.Image(torch.tensor(im).permute(2, 0, 1)),tv_tensors.Mask(torch.tensor(ids))
    say('torchvision v2, about nadir', 1000/ms(lambda: tv(a, b), 15), 'images/s')
    gate('default augmentation (flips), images/s', rate['flips'], 200, False); gate('nadir, images/s', rate['nadir'], 200, False)

def epoch(dl):
    list(dl) # workers and file cache warm
    t = time.perf_counter()
    n = sum(len(x) for x,_ in dl)
    return n/(time.perf_counter()-t)

def loader(big):
    n = len(big)
    print(f"loader: {n} photos of 6000x4000 to 512x768, batches of 4, two workers, wall time; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    from fastai.vision.all import DataBlock, ImageBlock, MaskBlock, Resize, ResizeMethod
    split = Split(big.stems[:-2], big.stems[-2:])
    kw = dict(size=(512,768), bs=4, num_workers=2, seed=0)
    usual = DataBlock((ImageBlock, MaskBlock), get_x=lambda p: p.image, get_y=lambda p: p.mask, splitter=lambda o: (list(range(n-2)), [n-2, n-1]), item_tfms=Resize((512,768), ResizeMethod.Squish))
    slow = say("fastai's usual path from the originals", epoch(usual.dataloaders(big.items, bs=4, num_workers=2).train.new(drop_last=False)), 'images/s')
    say('drone_seg without a cache', epoch(big.dataloaders(split, cache=False, **kw).train.new(drop_last=False)), 'images/s')
    t = time.perf_counter(); dls = big.dataloaders(split, cache=True, **kw); t = time.perf_counter()-t
    fast = say(f'drone_seg from the cache (filled in {t:.1f} s)', epoch(many(dls)), 'images/s')
    crops = big.crop_dataloaders(split, size=512, bs=4, num_workers=2, per_photo=16, favour='rare', seed=0, progress=False)
    say('drone_seg 512 crops of the full photos', epoch(crops.train), 'crops/s')
    print(f"  from the cache {fast/slow:.0f} times the usual path; load {os.getloadavg()[0]:.1f}")

def many(dls, k=20):
    "The training loader over its photos k times, so that the start of the workers does not count"
    ds = dls.train.dataset
    class Many(torch.utils.data.Dataset):
        n_inp,split_idx = 1,0
        def __len__(self): return k*len(ds)
        def __getitem__(self, i): return ds[i%len(ds)]
    return dls.train.new(Many(), drop_last=False)

if __name__=='__main__':
    args = sys.argv[1:]
    n = next((int(a[2:]) for a in args if a.startswith('n=')), 12)
    parts = [a for a in args if a in ('photo','pair','colors','augment','loader')] or ['photo','pair','colors','augment','loader']
    where = next((a for a in args if a not in parts and not a.startswith('n=')), None)
    with tempfile.TemporaryDirectory() as tmp:
        os.environ['DRONE_SEG_CACHE'] = f'{tmp}/cache'
        if where is None: write_scenes(f'{tmp}/scenes', n, size=(512,768))
        data = open_dataset(where or f'{tmp}/scenes')
        big = enlarge(Path(tmp)/'big', data, n if 'loader' in parts else 1)
        for part in parts: globals()[part](big)
    print('all gates hold' if not MISSED else f"missed: {'; '.join(MISSED)}")
    sys.exit(bool(MISSED))
