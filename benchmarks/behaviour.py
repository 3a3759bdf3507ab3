"""What the library does, as a file of facts: written before a rebuild, compared after it.

    python benchmarks/behaviour.py --out before.json [--data ../shared/data/semantic_drone_dataset]
    python benchmarks/behaviour.py --out after.json --against before.json
    python benchmarks/behaviour.py --only help,names --out benchmarks/results/behaviour.json

The first two on one machine, with one set of packages: hashes of weights and masks rest on the processor and on torch.
Help texts and names rest on neither; benchmarks/results/behaviour.json holds them. Without the photos of DATA (the
Semantic Drone Dataset) what needs them is left out, and that is said.

Only what stays when modules move is used: the command line, and names of `drone_seg.all`. One thread; float32 also
where bfloat16 is quicker: until November 2026 a stopwatch chose between the two wherever no type was named."""
import argparse, difflib, hashlib, json, os, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path

RUNNER = 'drone_seg.export.run_onnx' # the module that runs an exported file; the one path that may move
PLAIN = dict(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', COLUMNS='100', HF_HUB_OFFLINE='1', NO_ALBUMENTATIONS_UPDATE='1')
FLOAT32 = 'torch.cpu._is_avx512_bf16_supported = lambda: False' # what the library asks about the processor
COMMAND = f"import sys, torch; {FLOAT32}; from drone_seg.cli import main; sys.argv[0] = 'drone_seg'; sys.exit(main())"
HELP = "import sys; from drone_seg.cli import main; sys.argv[0] = 'drone_seg'; sys.exit(main())"
SHORT = '--epochs 2 --set freeze_epochs=0 --set batch=4 --split random --size'.split()


# Running and reading

def run(*words, cwd=None):
    "What a program prints; stops with its last words where it fails"
    words = [str(w) for w in words]
    env = os.environ | PLAIN
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=cwd, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(words[-6:])} ended with {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout

def command(*words):
    "A call of `drone_seg`"
    print('   drone_seg', *words, file=sys.stderr)
    return run('-c', COMMAND, *words)

def sha(data):
    return hashlib.sha256(data).hexdigest()[:16]

def ids_of(path):
    "Hash of the ids in a mask, however the file is packed"
    import numpy as np
    from PIL import Image
    with Image.open(path) as im:
        ids = np.array(im)
    return f"{sha(ids.tobytes())} {ids.shape[0]}x{ids.shape[1]}"

def masks_of(folder):
    return {p.name: ids_of(p) for p in sorted(folder.rglob('*.png'))}

def scores_of(path):
    "Numbers and lists of numbers in a scores.json, whatever words are beside them"
    found = json.loads(path.read_text())
    return {k: v for k, v in found.items() if k=='per_class' or isinstance(v, (int, float))}

def weights_of(run_folder):
    "Hash of all tensors, in the order of their names"
    from safetensors.numpy import load_file
    state = load_file(run_folder/'weights.safetensors')
    total = hashlib.sha256()
    for name in sorted(state):
        total.update(state[name].tobytes())
    return dict(tensors=len(state), sha256=total.hexdigest()[:16])

def copy_photos(data, names, to):
    "A small data set of some photos of the Semantic Drone Dataset"
    for folder in 'original_images', 'label_images_semantic':
        (to/folder).mkdir(parents=True)
        for path in sorted((data/folder).iterdir()):
            if path.stem in names:
                shutil.copy(path, to/folder)
    shutil.copy(data/'class_dict_seg.csv', to)
    return to


# Facts. Each is given the temporary folder and the photos, and answers what JSON can hold

def help(tmp, data):
    "Help text of each command"
    top = run('-c', HELP, '--help')
    names = re.findall(r'^  ([a-z-]+)  ', top.split('Commands:')[1], re.M)
    texts = {name: run('-c', HELP, name, '--help').splitlines() for name in names}
    return {'drone_seg': top.splitlines()} | texts

def names(tmp, data):
    "Public names"
    code = "import types, drone_seg.all as a\n" \
           "for n, o in sorted(vars(a).items()):\n" \
           "    if n[0]!='_' and not isinstance(o, types.ModuleType): print(n)"
    return run('-c', code).split()

def demo(tmp, data):
    "Scores and masks of the demo, so small that its three minutes are enough; `epochs` says whether they were"
    command('demo', '--out', tmp/'demo', '--scenes', '32', '--epochs', '2')
    about = json.loads((tmp/'demo'/'bundle'/'bundle.json').read_text())
    return dict(epochs=about['training']['epochs'], weights=weights_of(tmp/'demo'/'bundle'),
                scores=scores_of(tmp/'demo'/'bundle'/'scores.json'), scenes=masks_of(tmp/'demo'/'scenes'/'masks'),
                large=ids_of(tmp/'demo'/'large'/'mask.png'))

def scenes_again(tmp, data):
    "Masks of drawn scenes by the bundle of the demo"
    command('predict', tmp/'demo'/'bundle', tmp/'demo'/'scenes'/'images', '--dtype', 'fp32', '--out', tmp/'again')
    return masks_of(tmp/'again'/'masks')

def training_best(tmp, data):
    "Weights of a short training by `best`"
    command('train', tmp/'demo'/'scenes', '--recipe', 'best', *SHORT, '96x144', '--out', tmp/'best')
    return dict(weights=weights_of(tmp/'best'), scores=scores_of(tmp/'best'/'scores.json'))

def training_fastai_unet(tmp, data):
    "Weights of a short training by `fastai-unet`, from random weights"
    words = '--recipe', 'fastai-unet', '--weights', 'none', '--set', 'final_epochs=0'
    command('train', tmp/'demo'/'scenes', *words, *SHORT, '64x96', '--out', tmp/'fastai')
    return dict(weights=weights_of(tmp/'fastai'), scores=scores_of(tmp/'fastai'/'scores.json'))

def geotiff(tmp, data):
    "Map and polygons of a drawn orthophoto"
    code = "import sys\nfrom drone_seg.all import draw_scene\nimport rasterio\n" \
           "image = draw_scene(7, size=(420,560), gsd=.08)[0]\n" \
           "place = rasterio.Affine(.08, 0, 500000, 0, -.08, 5200000)\n" \
           "size = dict(width=560, height=420, count=3, dtype='uint8')\n" \
           "with rasterio.open(sys.argv[1], 'w', driver='GTiff', crs='EPSG:32633', transform=place, **size) as f:\n" \
           "    f.write(image.transpose(2, 0, 1))"
    run('-c', code, tmp/'ortho.tif')
    words = '--polygons', tmp/'map.geojson', '--min-area', '1 m2', '--dtype', 'fp32'
    command('map', tmp/'demo'/'bundle', tmp/'ortho.tif', '--out', tmp/'map.tif', *words)
    bands = {p.name: read_tif(p) for p in sorted(tmp.glob('map*.tif'))}
    found = json.loads((tmp/'map.geojson').read_text())['features']
    areas = [dict(f['properties'], sha256=sha(json.dumps(f['geometry']).encode())) for f in found]
    return dict(maps=bands, polygons=areas)

def read_tif(path):
    import rasterio
    with rasterio.open(path) as f:
        return dict(crs=str(f.crs), transform=list(f.transform)[:6], bands=f.count, sha256=sha(f.read().tobytes()))

def real(tmp, data):
    "A model of 24 real photos, its masks of ten others and their scores"
    stems = sorted(p.stem for p in (data/'original_images').iterdir())
    known = copy_photos(data, set(stems[:24]), tmp/'known')
    new = copy_photos(data, set(stems[100:110]), tmp/'new')
    command('train', known, '--recipe', 'fast', *SHORT, '128x192', '--out', tmp/'real')
    command('predict', tmp/'real', new/'original_images', '--dtype', 'fp32', '--out', tmp/'masks')
    command('evaluate', tmp/'real', new, '--photos', 'all', '--out', tmp/'new.json')
    return dict(weights=weights_of(tmp/'real'), masks=masks_of(tmp/'masks'/'masks'), scores=scores_of(tmp/'new.json'))

def real_with_options(tmp, data):
    "The same photos asked four times, smoothed, freed of specks, with blanks and confidence"
    words = '--tta flips --smooth 2 --specks 50 --abstain .3 --maps --dtype fp32'.split()
    command('predict', tmp/'real', tmp/'new'/'original_images', *words, '--out', tmp/'options')
    return {p.name: masks_of(p) for p in sorted((tmp/'options').iterdir()) if p.is_dir() and p.name!='overlays'}

def onnx(tmp, data):
    "Masks of two real photos by the exported file"
    command('export', tmp/'real', '--to', 'onnx', '--out', tmp/'model.onnx')
    photos = sorted((tmp/'new'/'original_images').iterdir())[:2]
    run('-m', RUNNER, tmp/'model.onnx', *photos, '--out', tmp/'onnx', '--threads', '1')
    return masks_of(tmp/'onnx')

def landing(tmp, data):
    "Landing zones of five real photos"
    words = '--landable paved-area,grass --gsd .03 --radius .5 --clearance .2 --confidence .4'.split()
    res = {}
    for photo in sorted((tmp/'new'/'original_images').iterdir())[:5]:
        command('land', tmp/'real', photo, *words, '--out', tmp/'landing')
        text = (tmp/'landing'/f'{photo.stem}.zones.json').read_text()
        res[photo.name] = json.loads(text.replace(str(tmp), ''))
    return res

def about():
    "What these facts rest on; not compared"
    code = "import torch; print(torch.__version__, torch.backends.cpu.get_cpu_capability())"
    git = subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, cwd=Path(__file__).parent)
    torch_version, processor = run('-c', code).split()
    return dict(commit=git.stdout.strip(), torch=torch_version, processor=processor)

FACTS = [help, names, demo, scenes_again, training_best, training_fastai_unet, geotiff]
WITH_PHOTOS = [real, real_with_options, onnx, landing]


# Comparing

def is_text(value):
    return isinstance(value, list) and all(isinstance(line, str) for line in value)

def differences(before, after, at=''):
    "A line for each value that is not the same; numbers without tolerance"
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(k for k in after if k not in before)]:
            where = f'{at}/{key}'
            if key not in after:
                yield f"{where}: gone"
            elif key not in before:
                yield f"{where}: new"
            else:
                yield from differences(before[key], after[key], where)
    elif is_text(before) and is_text(after):
        lines = difflib.unified_diff(before, after, n=0, lineterm='')
        yield from (f"{at}: {line}" for line in lines if not line.startswith(('---', '+++', '@@')))
    elif isinstance(before, list) and isinstance(after, list) and len(before)==len(after):
        for i, pair in enumerate(zip(before, after)):
            yield from differences(*pair, f'{at}/{i}')
    elif before!=after:
        yield f"{at}: {before!r}\n{' '*len(at)}  {after!r}"

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--out', type=Path, default=Path('behaviour.json'), help="file to write")
    p.add_argument('--data', type=Path, default=Path('../shared/data/semantic_drone_dataset'), help="real photos")
    p.add_argument('--only', help="facts, with commas between them; some need demo or real before them")
    p.add_argument('--against', type=Path, help="an earlier file, to compare with; exit code 1 where they differ")
    args = p.parse_args()
    facts = FACTS+WITH_PHOTOS
    if not (args.data/'original_images').is_dir():
        facts = FACTS
        print(f"{args.data}: no photos there, so {', '.join(f.__name__ for f in WITH_PHOTOS)} are left out")
    if args.only:
        facts = [f for f in facts if f.__name__ in args.only.split(',')]
    res = dict(about=about())
    with tempfile.TemporaryDirectory() as tmp:
        for fact in facts:
            start = time.perf_counter()
            res[fact.__name__] = fact(Path(tmp), args.data.resolve())
            print(f"{fact.__name__}: {fact.__doc__.lower()}; {time.perf_counter()-start:.0f} s", flush=True)
            args.out.write_text(json.dumps(res, indent=1)+'\n', encoding='utf-8')
    if args.against is None:
        return
    before = json.loads(args.against.read_text(encoding='utf-8'))
    asked = {k: v for k, v in before.items() if k in res or not args.only}
    found = list(differences(asked | dict(about=res['about']), res))
    print(*found, f"{len(found)} differences from {args.against}", sep='\n')
    sys.exit(bool(found))

if __name__=='__main__': main()
