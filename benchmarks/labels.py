"""Exports of labelling tools: opening a COCO file of 10,000 photos, memory while its masks are drawn, and drawing outlines beside
pycocotools, cv2, Pillow and GDAL (rasterio). One thread; times are process CPU seconds, memory is the peak of a process of its own.

    python benchmarks/labels.py            # prints; the last run is in benchmarks/results/labels.md

Gates: 10,000 photos open in at most 10 s and 250 MB; drawing 2000 masks adds at most 30 MB; the drawn pixels are those of GDAL."""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ[k] = '1'
import json, re, subprocess, sys, tempfile, time
from pathlib import Path
import cv2, numpy as np
from PIL import Image, ImageDraw
from drone_seg.data.datasets import open_dataset
from drone_seg.data.labels import inside

SIZE = 750,1000 # height and width of the photos of the COCO file
GATES = dict(open=10., open_mb=250., memory=30.)

def outline(rng, size, r, n):
    "A star of `n` corners, at most `r` pixels from its middle"
    a,d = np.sort(rng.uniform(0, 2*np.pi, n)),r*rng.uniform(.5, 1, n)
    return np.stack([rng.uniform(0, size[1])+d*np.cos(a), rng.uniform(0, size[0])+d*np.sin(a)], 1)

def write_coco(root, n, each=10):
    "A COCO file of `n` photos, each with 10 outlines of 40 corners; the photos are names of one file"
    rng,images,anns = np.random.default_rng(0),[],[]
    (root/'images').mkdir(parents=True)
    first = root/'images/0.jpg'
    Image.new('RGB', SIZE[::-1], (90,120,80)).save(first)
    for k in range(n):
        if k: os.link(first, root/f'images/{k}.jpg')
        images.append(dict(id=k, file_name=f'{k}.jpg', height=SIZE[0], width=SIZE[1]))
        for _ in range(each):
            points = outline(rng, SIZE, 60, 40).round(2).ravel().tolist()
            anns.append(dict(id=len(anns), image_id=k, category_id=1+len(anns)%5, iscrowd=0, segmentation=[points]))
    cats = [dict(id=k, name=f'class {k}') for k in range(1, 6)]
    (root/'instances.json').write_text(json.dumps(dict(images=images, annotations=anns, categories=cats)))

def memory(what='VmRSS'): # MB: now, or with VmHWM the peak
    return int(re.search(rf'{what}:\s+(\d+)', Path('/proc/self/status').read_text())[1])/1024

def look(root, drawn):
    "In a process of its own: seconds and MB of opening, and MB and seconds of drawing some masks"
    before,start = memory(),time.process_time()
    data = open_dataset(root)
    opened = time.process_time()-start
    res = dict(photos=len(data), open=opened, open_mb=memory('VmHWM')-before, kept_mb=memory()-before)
    data.reader.mask(data.items[0], SIZE)
    held,most,took = memory(),0,0
    for p in data.items[:drawn]:
        start = time.process_time()
        data.reader.mask(p, SIZE)
        took += time.process_time()-start
        most = max(most, memory())
    print(json.dumps(res | dict(draw_mb=most-held, draw_ms=1e3*took/drawn)))

def opening():
    print("| photos | file, MB | opened, s | peak while opening, MB | kept, MB | drawing 2000 masks adds, MB | a mask of 1000x750, ms |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for n in (2500, 5000, 10_000):
        with tempfile.TemporaryDirectory() as tmp:
            root = Path(tmp)/'fields'
            write_coco(root, n)
            size = (root/'instances.json').stat().st_size/1e6
            out = subprocess.run([sys.executable, __file__, 'look', str(root), '2000'], capture_output=True, text=True, check=True)
            r = json.loads(out.stdout.splitlines()[-1])
        print(f"| {n} | {size:.0f} | {r['open']:.1f} | {r['open_mb']:.0f} | {r['kept_mb']:.0f} | {r['draw_mb']:.0f} | {r['draw_ms']:.1f} |", flush=True)
        rows.append(r)
    return rows

# Drawing

def ours(points, size):
    res = np.zeros(size, np.uint8)
    area,(x,y) = inside([points], size)
    res[y:y+area.shape[0], x:x+area.shape[1]] = area
    return res

def by_coco(points, size):
    from pycocotools import mask
    return mask.decode(mask.frPyObjects([points.ravel().tolist()], *size))[...,0]

def by_cv2(points, size):
    res = np.zeros(size, np.uint8)
    cv2.fillPoly(res, [np.round(points).astype(np.int32)], 1)
    return res

def by_pillow(points, size):
    res = Image.new('L', size[::-1])
    ImageDraw.Draw(res).polygon([tuple(p) for p in points], fill=1)
    return np.asarray(res)

def by_gdal(points, size):
    from rasterio.features import rasterize
    return rasterize([dict(type='Polygon', coordinates=[[*map(tuple, points), tuple(points[0])]])], size, dtype='uint8')

WAYS = {'drone_seg':ours, 'pycocotools':by_coco, 'cv2.fillPoly (whole pixels)':by_cv2, 'Pillow':by_pillow, 'GDAL (rasterio)':by_gdal}

def drawing():
    print("\n| outlines | way | ms each | pixels, beside GDAL | pixels that differ from GDAL |\n|---|---|---|---|---|")
    same = True
    for r,n,count in ((20,12,100), (200,60,60), (1400,2000,10)):
        rng = np.random.default_rng(r)
        rings = [outline(rng, (3000,4000), r, n) for _ in range(count)]
        truth = [by_gdal(p, (3000,4000)) for p in rings]
        total = sum(int(t.sum()) for t in truth)
        for name,f in WAYS.items():
            f(rings[0], (3000,4000))
            start = time.process_time()
            got = [f(p, (3000,4000)) for p in rings]
            ms = 1e3*(time.process_time()-start)/count
            area,off = sum(int(g.sum()) for g in got),sum(int((g!=t).sum()) for g,t in zip(got, truth))
            print(f"| {count} of {n} corners, up to {r} px | {name} | {ms:.2f} | {area/total:.4f} | {off} of {total} |", flush=True)
            if name=='drone_seg': same = same and off<=1e-6*total
    return same

if __name__=='__main__':
    if sys.argv[1:2]==['look']: look(sys.argv[2], int(sys.argv[3])); sys.exit()
    rows,same = opening(),drawing()
    held = [rows[-1]['open']<=GATES['open'], rows[-1]['open_mb']<=GATES['open_mb'], all(r['draw_mb']<=GATES['memory'] for r in rows), same]
    for what,ok in zip(('10,000 photos open in 10 s', 'and in 250 MB', 'drawing adds at most 30 MB', 'the pixels of GDAL'), held):
        print(f"\ngate: {what}: {'holds' if ok else 'does not hold'}")
    sys.exit(not all(held))
