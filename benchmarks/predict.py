"""Masks of large photos: this package, MONAI's sliding window, a naive loop without overlap and one pass over the whole photo.

    python benchmarks/predict.py BUNDLE DATA [--mpx 24] [--large 400] [--photos 40] [--dtype bf16] [--parts compare,tidy,scores,large] > benchmarks/results/predict.md

BUNDLE is a run folder of `drone_seg train`, DATA the data set it was trained on. MONAI is compared if it can be imported: `pip install --no-deps monai` will do.
Every way runs in a process of its own, one thread, with the same network in the same type and memory layout and windows of 512x512 with a quarter overlap. Seconds are process CPU time of
the prediction alone; memory is the peak of the whole process: libraries, network, photo (3 bytes per pixel), mask and all. Photos are enlarged from DATA.
Agreement is the share of pixels with the id that one pass over the whole photo gives, within 16 pixels of a window's edge of that way, and elsewhere.

Gates (SPEED.md, tiled prediction): at most 1.15 x windows x the time of one window; ids of the band bit-identical to a full float32 buffer; never slower than MONAI; 400 Mpx within 3 GB in all."""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ[k] = '1'
import argparse, json, subprocess, sys, tempfile, time, warnings
warnings.filterwarnings('ignore')
from dataclasses import replace
from pathlib import Path
import cv2, numpy as np, torch
from drone_seg.models.bundle import load_bundle
from drone_seg.predict.look import choose_dtype, run_net
from drone_seg.predict.photo import read_mapped
from drone_seg.predict.stream import ALIGN
from drone_seg.predict.windows import axis_weights, cover_size

torch.set_num_threads(1); cv2.setNumThreads(1)
WINDOW,OVERLAP,EDGE = (512,512),.25,16

def peak(): # GB; not ru_maxrss, which a child process takes over from its parent
    return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])*1024/1e9

def large_photo(data, mpx):
    "A photo of the data set, enlarged to 3:2"
    from drone_seg.data.datasets import open_dataset # loads fastai: not in the process that is measured at 400 Mpx
    h = round((mpx*1e6/1.5)**.5)
    return cv2.resize(open_dataset(data)[open_dataset(data).stems[0]][0], (round(1.5*h), h), interpolation=cv2.INTER_CUBIC)

def predictor(net, dtype): # what every peer is given
    amp = choose_dtype(torch.device('cpu'), dtype)
    def f(x):
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=amp is not None): return net(x.contiguous(memory_format=torch.channels_last)).float()
    return f

def as_input(image): return torch.from_numpy(image).permute(2, 0, 1)[None].float()/255
def decode(bundle, logits): return bundle.classes.decode(logits[0].argmax(0).byte().numpy())

# The ways; each gets (bundle, image, dtype) and answers (H, W) ids

def ours(b, image, dtype): return replace(b, size=WINDOW, scale=1., sides=None, squish=False).predict(image, overlap=OVERLAP, dtype=dtype).ids

def full_buffer(b, image, dtype): # the same arithmetic in a float32 buffer of the whole photo
    cov = cover_size(image.shape[:2], WINDOW, OVERLAP, ALIGN)
    wy,wx = (torch.from_numpy(axis_weights(s, l)) for s,l in zip((cov.ys, cov.xs), WINDOW))
    res = torch.zeros(b.classes.n, *image.shape[:2])
    for k,(y,x) in enumerate(cov):
        l = run_net(b.net, [image[y:y+512, x:x+512]], torch.device('cpu'), choose_dtype(torch.device('cpu'), dtype))[0]
        res[:, y:y+512, x:x+512] += l*(wy[k//len(cov.xs)][:,None]*wx[k%len(cov.xs)])
    return decode(b, res[None])

def monai(b, image, dtype):
    from monai.inferers import sliding_window_inference
    return decode(b, sliding_window_inference(as_input(image), WINDOW, 1, predictor(b.net, dtype), overlap=OVERLAP, mode='gaussian'))

def naive(b, image, dtype): # windows side by side; the last ones flush with the border
    (H,W),f,res = image.shape[:2],predictor(b.net, dtype),np.zeros(image.shape[:2], np.uint8)
    for y in range(0, H, 512):
        for x in range(0, W, 512):
            y0,x0 = max(0, min(y, H-512)),max(0, min(x, W-512))
            res[y0:y0+512, x0:x0+512] = decode(b, f(as_input(image[y0:y0+512, x0:x0+512])))
    return res

def whole(b, image, dtype): # padded to what the network's pyramid divides
    (H,W),p = image.shape[:2],[-n%32 for n in image.shape[:2]]
    return decode(b, predictor(b.net, dtype)(as_input(np.pad(image, ((0, p[0]), (0, p[1]), (0, 0)), mode='reflect'))))[:H,:W]

WAYS = dict(ours=ours, full_buffer=full_buffer, monai=monai, naive=naive, whole=whole)
WORDS = dict(ours='drone_seg, row band', full_buffer='the same in a full buffer', monai='MONAI, Gaussian weights', naive='loop without overlap', whole='one pass over the whole photo')

def one(way, bundle, data, mpx, dtype, out): # in a process of its own
    b,image = load_bundle(bundle),read_mapped(data).image if Path(data).is_file() else large_photo(data, mpx)
    b.net.eval().to(memory_format=torch.channels_last)
    rng = np.random.default_rng(0)
    win = [rng.integers(0, 256, (*WINDOW, 3), dtype=np.uint8)]
    times = []
    for _ in range(4):
        since = time.process_time()
        run_net(b.net, win, torch.device('cpu'), choose_dtype(torch.device('cpu'), dtype))
        times.append(time.process_time()-since)
    before,start = peak(),time.process_time()
    ids = WAYS[way](b, image, dtype)
    took = time.process_time()-start
    np.save(out+'.npy', ids)
    Path(out+'.json').write_text(json.dumps(dict(seconds=took, before=before, peak=peak(), window=min(times[1:]), shape=image.shape)))

def apart(way, args, mpx, folder, data=None):
    "Run one way in its own process; its numbers, or None with the reason on stderr"
    out = f'{folder}/{way}'
    res = subprocess.run([sys.executable, __file__, args.bundle, data or args.data, '--one', way, '--mpx', str(mpx), '--dtype', args.dtype, '--out', out], stderr=subprocess.PIPE, text=True)
    if res.returncode: print(f"{way}: {(res.stderr.strip().splitlines() or ['killed, probably for memory'])[-1]}", file=sys.stderr); return None
    return json.loads(Path(out+'.json').read_text())

def near_edges(shape, starts): # (H, W) bool: within EDGE pixels of an inner edge of a window
    res = np.zeros(shape, bool)
    for axis,at in enumerate(starts):
        for s in at:
            for e in (s, s+512):
                if 0<e<shape[axis]: res[(slice(None),)*axis + (slice(max(0, e-EDGE), e+EDGE),)] = True
    return res

def compare(args):
    with tempfile.TemporaryDirectory() as d:
        ran = {w: r for w in WAYS if (r := apart(w, args, args.mpx, d))}
        ids = {w: np.load(f'{d}/{w}.npy', mmap_mode='r') for w in ran}
        H,W = ran['ours']['shape'][:2]
        cov = cover_size((H,W), WINDOW, OVERLAP, ALIGN)
        grid = {'naive': [sorted({max(0, min(s, l-512)) for s in range(0, l, 512)}) for l in (H,W)]}
        print(f"## {W}x{H}, {args.dtype}, {len(cov)} windows of 512x512\n\n| way | CPU s | peak GB | agrees near edges | elsewhere |\n|---|---|---|---|---|")
        for w,r in ran.items():
            near = near_edges((H,W), grid.get(w, (cov.ys, cov.xs)))
            same = np.equal(ids[w], ids['whole']) if 'whole' in ids else None
            share = f"{same[near].mean():.2%} | {same[~near].mean():.2%}" if same is not None else '? | ?'
            print(f"| {WORDS[w]} | {r['seconds']:.1f} | {r['peak']:.2f} | {share} |")
        r,n = ran['ours'],len(cov)
        print(f"\n- windows x one window: {n} x {r['window']*1e3:.0f} ms = {n*r['window']:.1f} s; ours takes {r['seconds']/(n*r['window']):.2f} of it (gate 1.15)")
        print(f"- ids of the band and of the full buffer are {'bit-identical' if 'full_buffer' in ids and np.array_equal(ids['ours'], ids['full_buffer']) else 'NOT THE SAME'}")
        if 'monai' in ran: print(f"- MONAI takes {ran['monai']['seconds']/r['seconds']:.2f} times our CPU time and {ran['monai']['peak']/r['peak']:.1f} times our memory")

def large(args):
    with tempfile.TemporaryDirectory() as d:
        cv2.imwrite(f'{d}/large.jpg', large_photo(args.data, args.large)[...,::-1])
        r = apart('ours', args, args.large, d, f'{d}/large.jpg')
        if r: print(f"\n## {r['shape'][1]}x{r['shape'][0]}\n\nA JPEG at its own scale, read by `read_mapped`: {r['seconds']:.0f} CPU s; {r['before']:.2f} GB at the peak while it is decoded, {r['peak']:.2f} GB in all (gate 3).")

def tidy(args): 
    "What smoothing and removing specks cost"
    from drone_seg.predict.tidy import remove_specks, smooth_ids
    b = load_bundle(args.bundle)
    ids = b.predict(large_photo(args.data, args.mpx), dtype=args.dtype).ids
    print(f"\n## Tidying a mask of {ids.shape[1]}x{ids.shape[0]} with {len(np.unique(ids))} classes in it\n\n| what | CPU s | pixels changed |\n|---|---|---|")
    for name,f in (('remove_specks(ids, 500)', lambda: remove_specks(ids, 500)), ('smooth_ids(ids, 3)', lambda: smooth_ids(ids, 3)), ('smooth_ids(ids, 10)', lambda: smooth_ids(ids, 10)), ('smooth_ids(ids, 30)', lambda: smooth_ids(ids, 30))):
        start = time.process_time(); res = f(); took = time.process_time()-start
        print(f"| {name} | {took:.2f} | {(res!=ids).mean():.2%} |", flush=True)

OPTIONS = [('plain, float32', dict(dtype='fp32')), ('plain, bf16', dict(dtype='bf16')), ("tta='mirror'", dict(tta='mirror')), ("tta='flips'", dict(tta='flips')), ("tta='d4'", dict(tta='d4')), ('tta=(.75, 1, 1.25)', dict(tta=(.75,1,1.25))),
    ("tta=('d4', .75, 1, 1.25)", dict(tta=('d4',.75,1,1.25))), ('smooth=2', dict(smooth=2)), ('smooth=5', dict(smooth=5)), ('specks=50', dict(specks=50)), ('specks=200', dict(specks=200)), ("tta='d4', smooth=2, specks=50", dict(tta='d4', smooth=2, specks=50)),
    ('abstain=.5', dict(abstain=.5)), ('abstain=.7', dict(abstain=.7)), ("abstain=.5, tta='d4'", dict(abstain=.5, tta='d4'))]

def scores(args):
    "mIoU on validation photos at their full size; abstaining leaves the pixels without an answer out"
    from drone_seg.scores.confusion import Confusion
    from drone_seg.data.datasets import open_dataset
    b,data = load_bundle(args.bundle),open_dataset(args.data)
    stems = [s for s in b.split.get('valid', []) if s in set(data.stems)][:args.photos] or data.stems[:args.photos]
    n,miou,plain = b.classes.n,{},None
    print(f"\n## What the options are worth\n\n{len(stems)} validation photos at {'x'.join(map(str, data[stems[0]][0].shape[1::-1]))}, model trained at {b.size[1]}x{b.size[0]}, {args.dtype} where not said.\n\n| options | mIoU | pixel accuracy | answered | CPU s per photo |\n|---|---|---|---|---|")
    for name,kw in OPTIONS:
        kw,count,all_,took = dict(dtype=args.dtype) | kw,Confusion(n, b.classes.scored_names),0,0.
        answered = 0
        for s in stems:
            image,truth = data[s]
            start = time.process_time(); p = b.predict(image, **kw); took += time.process_time()-start
            t,said = data.classes.encode(truth),b.classes.encode(p.ids)
            labelled,known = t!=255,said!=255
            answered += (labelled & known).sum(); all_ += labelled.sum()
            count.add(np.where(known, said, 0), np.where(known, t, 255))
        sc = count.scores()
        print(f"| {name} | {sc.miou:.3f} | {sc.pixel_accuracy:.3f} | {answered/all_:.1%} | {took/len(stems):.2f} |", flush=True)

if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('bundle'); p.add_argument('data')
    for k,v in dict(mpx=24., large=400., photos=40, dtype='bf16', parts='compare,tidy,scores,large', one='', out='').items(): p.add_argument(f'--{k}', type=type(v), default=v)
    args = p.parse_args()
    if args.one: one(args.one, args.bundle, args.data, args.mpx, args.dtype, args.out); sys.exit()
    print(f"# Prediction of large photos\n\n`python benchmarks/predict.py BUNDLE DATA --mpx {args.mpx:g} --large {args.large:g} --photos {args.photos} --dtype {args.dtype}`; torch {torch.__version__}, {load_bundle(args.bundle).net.config['encoder']} U-Net, one thread.\n", flush=True)
    for part in args.parts.split(','): globals()[part](args); sys.stdout.flush()
