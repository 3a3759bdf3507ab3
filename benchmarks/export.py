"""One network in every form that `drone_seg export` writes: size of the file, time per window, mIoU on real photos. On CPU, one thread.

    nice -n 10 python benchmarks/export.py BUNDLE DATA [--photos 32] [--calibrate 48] [--split benchmarks/semantic_drone_310.json] [--out benchmarks/results/export]

BUNDLE is a run folder of `drone_seg train`, DATA the data set it was trained on. Scored are validation photos of the run, evenly chosen, at their own size, with `drone_seg/export/run_onnx.py`'s windows
for every form, so that only the network differs. Eight bits are measured on training photos. Milliseconds are process CPU time for one window of the training size, the median of 9 after 2 to warm up:
on a busy machine the time of others is none of ours. Agreement is the share of pixels with the class that torch gives in fp32.
Below the table, `run_onnx.py` from file to mask (its own resizing, windows and blending) against `Bundle.predict` in fp32: eight of the photos as they are, and one enlarged to 24 million pixels."""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ[k] = '1'
import argparse, json, platform, statistics, tempfile, time, warnings
warnings.filterwarnings('ignore')
from importlib.metadata import version
from pathlib import Path
import numpy as np, torch
from drone_seg.scores.confusion import Confusion
from drone_seg.data.datasets import open_dataset
from drone_seg.photo.photo_file import read_image
from drone_seg.export.write import *
from drone_seg.export.write import describe_export
from drone_seg.models.bundle import load_bundle
from drone_seg.export.run_onnx import OnnxModel, predict_numbers

torch.set_num_threads(1)

def torch_ask(net, dtype=None):
    net = net.eval().to(memory_format=torch.channels_last)
    def ask(x):
        with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, enabled=dtype is not None): return net(torch.from_numpy(x).contiguous(memory_format=torch.channels_last)).float().numpy()
    return ask

def program_ask(path):
    m = torch.export.load(path).module()
    def ask(x):
        with torch.inference_mode(): return m(torch.from_numpy(x)).numpy()
    return ask

def openvino_ask(path):
    import openvino as ov
    m = ov.Core().compile_model(path, 'CPU', {'INFERENCE_NUM_THREADS': 1, 'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda x: m(x)[0]

def forms(bundle, photos, d):
    "(name, file bytes, ask), one after the other"
    size = lambda *files: sum(Path(f).stat().st_size for f in files)
    weights = size(bundle.path/'weights.safetensors')
    yield 'torch fp32',weights,torch_ask(bundle.net)
    yield 'torch bf16',weights,torch_ask(bundle.net, 'bf16')
    full = export_onnx(bundle, d/'m.onnx'); print(full, flush=True)
    yield 'ONNX fp32',full.bytes,OnnxModel(full.path, 1).ask
    small = export_int8(bundle, d/'int8.onnx', photos); print(small, flush=True)
    yield 'ONNX int8',small.bytes,OnnxModel(small.path, 1).ask
    try: import openvino as ov
    except ImportError: print('openvino is not installed: left out')
    else:
        done = export_openvino(bundle, d/'m.xml'); print(done, flush=True)
        yield 'OpenVINO fp32',done.bytes,openvino_ask(done.path)
        ov.save_model(ov.convert_model(small.path), d/'int8.xml', compress_to_fp16=False) # the same eight bits
        yield 'OpenVINO int8',size(d/'int8.xml', d/'int8.bin'),openvino_ask(d/'int8.xml')
    done = export_program(bundle, d/'m.pt2'); print(done, flush=True)
    yield 'torch.export',done.bytes,program_ask(done.path)

def per_window(ask, x):
    def once():
        t = time.process_time(); ask(x)
        return time.process_time()-t
    return statistics.median([once() for _ in range(11)][2:])*1e3

def score(ask, about, photos, classes, first):
    "Confusion over all photos, and the share of pixels as in `first`"
    c,same,ids = Confusion(classes.n, classes.scored_names),[],[]
    for k,(im,truth) in enumerate(photos):
        ids.append(predict_numbers(ask, im, about))
        c.add(ids[-1], truth)
        if first: same.append(float((ids[-1]==first[k]).mean()))
    return c.scores().miou,float(np.mean(same)) if same else 1.,ids

def runner(bundle, path, photos):
    "Share of pixels in which the runner gives the mask of `Bundle.predict`"
    import cv2
    big = cv2.resize(photos[0][0], (6000,4000), interpolation=cv2.INTER_CUBIC)
    todo = [*((f'photo {i}', im, {}) for i,(im,_) in enumerate(photos[:8])), ('photo 0, every pixel', photos[0][0], dict(scale=1.)), ('24 Mpx', big, {}), ('24 Mpx, 36 windows', big, dict(scale=.3))]
    m = OnnxModel(path, 1)
    return {name: float((m.predict(im, **kw)==bundle.predict(im, dtype='fp32', **kw).ids).mean()) for name,im,kw in todo}

def page(r):
    base = r['rows'][0]
    out = ["# Export", "", f"`nice -n 10 python benchmarks/export.py BUNDLE DATA`; {r['network']} at {r['size'][1]}x{r['size'][0]}, {r['data']}, {r['photos']} validation photos of {r['of']} at their own size, "
           f"eight bits measured on {r['calibrate']} training photos; one thread of {r['cpu']}; {', '.join(f'{k} {v}' for k,v in r['versions'].items())}.", "",
           "| form | file, MB | ms per window | times as fast | mIoU | against torch fp32 | same class |", "|---|---|---|---|---|---|---|"]
    return '\n'.join(out + [f"| {o['form']} | {o['bytes']/2**20:.1f} | {o['ms']:.1f} | {base['ms']/o['ms']:.2f} | {o['miou']:.4f} | {o['miou']-base['miou']:+.4f} | {o['same']:.3%} |" for o in r['rows']]
        + ['', f"Masks of `run_onnx.py` against `Bundle.predict`, share of equal pixels: {', '.join(f'{k} {v:.4%}' for k,v in r['runner'].items())}."]*bool(r['runner'])) + '\n'

def main():
    p = argparse.ArgumentParser()
    p.add_argument('bundle'); p.add_argument('data')
    p.add_argument('--photos', type=int, default=32); p.add_argument('--calibrate', type=int, default=48)
    p.add_argument('--split', default=Path(__file__).parent/'semantic_drone_310.json'); p.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'export')
    o = p.parse_args()
    b,ds = load_bundle(o.bundle),open_dataset(o.data)
    split = json.loads(Path(o.split).read_text()) if o.split else b.split
    if set(split['valid']) & set(b.split['train']): raise SystemExit("photos of the split's validation side trained this run; pass --split '' for the run's own")
    valid,train = split['valid'],b.split['train']
    pick = lambda stems, n: [stems[round(i)] for i in np.linspace(0, len(stems)-1, min(n, len(stems)))]
    stems,seen = pick(valid, o.photos),[ds.pair(s).image for s in pick(train, o.calibrate)]
    photos = [(im, b.classes.encode(mask)) for im,mask in (ds[s] for s in stems)]
    about,rows,first,agree = describe_export(b),[],None,{}
    m = about['multiple']
    x = np.random.default_rng(0).random((1, 3, -(-b.size[0]//m)*m, -(-b.size[1]//m)*m), dtype=np.float32)
    with tempfile.TemporaryDirectory() as d:
        for name,size,ask in forms(b, seen, Path(d)):
            miou,same,ids = score(ask, about, photos, b.classes, first)
            first = first or ids
            if name=='ONNX fp32': agree = runner(b, Path(d)/'m.onnx', photos)
            rows.append(dict(form=name, bytes=size, ms=per_window(ask, x), miou=float(miou), same=same))
            print(rows[-1], flush=True)
            r = dict(network=about['network'], size=list(b.size), data=b.data, photos=len(stems), of=len(valid), calibrate=len(seen)-len(seen[2::5]), cpu=cpu(), versions={k: version(k) for k in ('torch','onnxruntime','openvino')}, stems=stems, rows=rows, runner=agree)
            o.out.with_suffix('.json').write_text(json.dumps(r, indent=1)); o.out.with_suffix('.md').write_text(page(r))

def cpu():
    try: return next(l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name'))
    except (OSError, StopIteration): return platform.processor()

if __name__=='__main__': main()
