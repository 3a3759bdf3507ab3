"""What `predict_folder` costs against the sum of its parts: reading, predicting, writing.

    python benchmarks/bulk.py RUN [DATA] [n=8] [side=6000] [workers]

RUN      a bundle; DATA a data set whose photos are enlarged to 6000x4000 in a temporary folder (drawn scenes if left out)
n, side  how many photos, and their longer side in pixels
workers  also the same by Ray with two workers, if it is installed

Seconds on the clock, beside it the seconds of CPU of this process and the load of the machine. Each part is measured by itself, one photo after the other,
then the folder as a whole. The floor is the slowest part: no order of work is quicker while that part is done by one thread.
"""
import os
for k in ('OMP_NUM_THREADS','NO_ALBUMENTATIONS_UPDATE'): os.environ.setdefault(k, '1')
import sys, tempfile, time
from pathlib import Path
import numpy as np, cv2, torch
from drone_seg.all import *
from drone_seg.predict.folder import read_one, write_one

def photos(data, folder, n, side):
    "n photos at side x 2/3 side, with the grain that enlarging takes away"
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 4, (side//6,side//4,1)).astype(np.float32)
    for k in range(n):
        im = data[data.stems[k*len(data)//n]][0] if data else draw_scene(k, size=(1000,1500))[0]
        big = cv2.resize(im, (side,side*2//3), interpolation=cv2.INTER_CUBIC)
        save_image(np.clip(big + np.tile(grain, (4,4,1))[:big.shape[0],:big.shape[1]], 0, 255).astype(np.uint8), folder/f'{k:03}.jpg')
    return sorted(folder.glob('*.jpg'))

def timed(what, f, n):
    if torch.cuda.is_available(): torch.cuda.synchronize()
    t,c = time.perf_counter(),time.process_time()
    res = f()
    if torch.cuda.is_available(): torch.cuda.synchronize()
    t,c = time.perf_counter()-t,time.process_time()-c
    print(f"  {what:44} {t/n:7.2f} s a photo  {c/n:7.2f} s CPU  {60*n/t:7.1f} photos a minute", flush=True)
    return t,res

def parts(model, fs, out, options):
    "Seconds of each part, one photo after the other"
    read,predict,write = [],[],[]
    def one(keep, f): t,c = time.perf_counter(),time.process_time(); r = f(); keep.append((time.perf_counter()-t, time.process_time()-c)); return r
    for f in fs:
        was,image = one(read, lambda: read_one(f, None))
        pred = one(predict, lambda: model.predict(image, **options))
        one(write, lambda: write_one(pred, f.name, was, 0, out, ['masks','overlays']))
    for what,keep in (('reading, and its hash',read), ('predicting',predict), ('writing mask and overlay, and their hashes',write)):
        t,c = (sum(v)/len(fs) for v in zip(*keep))
        print(f"  {what:44} {t:7.2f} s a photo  {c:7.2f} s CPU", flush=True)
    return [sum(t for t,_ in k) for k in (read, predict, write)]

def main():
    args = [a for a in sys.argv[1:] if '=' not in a and a!='workers']
    told = dict(a.split('=') for a in sys.argv[1:] if '=' in a)
    n,side = int(told.get('n', 8)),int(told.get('side', 6000))
    model,data = load_bundle(args[0]),open_dataset(args[1]) if len(args)>1 else None
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f'{os.cpu_count()} cores, {torch.get_num_threads()} thread for the network'
    options = dict(confidence='max')
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        fs = photos(data, tmp/'photos', n, side)
        print(f"{n} photos of {side}x{side*2//3}, {sum(f.stat().st_size for f in fs)/n/1e6:.1f} MB each; {model.size[1]}x{model.size[0]} windows; {where}; load {os.getloadavg()[0]:.1f}", flush=True)
        model.predict(read_image(fs[0]), **options)                      # opens what later photos find open
        each = parts(model, fs, tmp/'parts', options)
        whole,rep = timed('predict_folder', lambda: predict_folder(model, tmp/'photos', tmp/'out', progress=False), n)
        assert len(rep.written)==n
        again,_ = timed('the same again, nothing to do', lambda: predict_folder(model, tmp/'photos', tmp/'out', progress=False), n)
        same = all((tmp/'parts'/'masks'/f'{f.stem}.png').read_bytes()==(tmp/'out'/'masks'/f'{f.stem}.png').read_bytes() for f in fs)
        print(f"  sum of the parts {sum(each):.1f} s, slowest part {max(each):.1f} s, predict_folder {whole:.1f} s = {whole/sum(each):.2f} of the sum; the same masks: {same}; load {os.getloadavg()[0]:.1f}")
        if 'workers' in sys.argv: timed('predict_ray, two workers, their start included', lambda: predict_ray(model, tmp/'photos', tmp/'ray', workers=2, progress=False), n)

if __name__=='__main__': main()
