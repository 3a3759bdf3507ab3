"""Maps: what the way from a photo to a GIS and back costs, and what it keeps.

    python benchmarks/maps.py RUN DATA [n]        round trip on n real photos (16)
    python benchmarks/maps.py memory [side ...]   seconds and peak memory on drawn orthophotos (5000 and 20000 pixels a side)

RUN   a bundle that does not need to know its metres per pixel
DATA  a data set; its photos are written as GeoTIFFs in an invented place (UTM zone 40 north, 25 cm per pixel), since photos have none

Round trip: photo -> GeoTIFF -> `predict_geotiff` -> `find_polygons` -> GeoPackage -> rasterised again -> compared with the mask, with outlines as they are,
smoothed, and freed of specks. Memory: each step in a process of its own, with a network of one 1x1 convolution, so that what is measured is the way and not the network.
Such a network changes its mind from pixel to pixel, as no real one does, so polygons are made of the scenes' true masks and of that noisy map; for small sides only,
since their memory grows with the map.
"""
import os
for k in ('OMP_NUM_THREADS','NO_ALBUMENTATIONS_UPDATE'): os.environ.setdefault(k, '1')
import subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np, torch
import geopandas, rasterio
from rasterio import Affine
from rasterio.features import rasterize
from rasterio.windows import Window
from torch import nn
from drone_seg.all import *
from drone_seg.predict.scale import training_scale

GSD = .25 # Metres, stated, not known
PLACE = Affine(GSD, 0, 326000, 0, -GSD, 2789000)

def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])/1024

def write_tif(path, image):
    with rasterio.open(path, 'w', driver='GTiff', count=3, height=image.shape[0], width=image.shape[1], dtype='uint8', crs='EPSG:32640', transform=PLACE, photometric='RGB') as ds: ds.write(image.transpose(2, 0, 1))
    return path

def trip(mask, folder, min_area, simplify):
    "Seconds, polygons, bytes of both files, share of equal pixels, mean difference of class areas in percent of the map"
    t = time.process_time()
    found = find_polygons(mask, min_area=min_area, simplify=simplify)
    for f in (folder/'p.gpkg', folder/'p.geojson'): save_polygons(found, f)
    t = time.process_time()-t
    back = geopandas.read_file(folder/'p.gpkg')
    with rasterio.open(mask) as ds: ids,void = ds.read(1),int(ds.nodata)
    again = rasterize(zip(back.geometry, back.class_id), ids.shape, fill=void, transform=PLACE, dtype='uint8')
    n,m = (np.bincount(a.reshape(-1), minlength=256) for a in (ids, again))
    covered = back.geometry.area.sum()/GSD**2/(ids!=void).sum()-1
    overlap = back.geometry.area.sum()-back.geometry.union_all().area
    return [t, len(back), (folder/'p.gpkg').stat().st_size, (folder/'p.geojson').stat().st_size, (ids==again).mean(), abs(n-m).sum()/2/ids.size, abs(covered), overlap/GSD**2]

def round_trip(run, data, n=16):
    model,data = load_bundle(run),open_dataset(data)
    ways = [('edges of pixels', 0, 0), ('smoothed by 1 px', 0, 1), ('smoothed by 2 px', 0, 2), ('from 10 m2, smoothed by 1 px', '10 m2', 1)]
    rows,seconds,sizes,pixels,same = {w[0]:[] for w in ways},[],[],[],[]
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        for stem in data.stems[::max(1, len(data)//n)][:n]:
            image = data[stem][0]
            tif = write_tif(tmp/'photo.tif', image)
            scale = training_scale(image.shape[:2], model.size, model.scale)
            t = time.process_time()
            made = predict_geotiff(model, tif, tmp/'mask.tif', scale=scale, dtype='fp32')
            seconds.append(time.process_time()-t); pixels.append(image.shape[0]*image.shape[1])
            with rasterio.open(made.mask) as ds:
                assert ds.transform==PLACE and ds.shape==image.shape[:2]
                same.append((ds.read(1)==model.predict(image, scale=scale, dtype='fp32').ids).mean())
            sizes.append([made.mask.stat().st_size, made.confidence.stat().st_size])
            for name,area,simplify in ways: rows[name].append(trip(made.mask, tmp, area, simplify))
    mp = sum(pixels)/1e6
    print(f"{len(pixels)} photos, {mp:.1f} Mpx, {GSD*100:.0f} cm per pixel (invented); on the same grid as the photo, {np.average(same, weights=pixels):.4%} of pixels have the id that `predict` gives the photo, at worst {min(same):.4%}: GDAL and OpenCV round a reduced picture differently")
    print(f"predict_geotiff: {sum(seconds)/mp:.2f} s of CPU per Mpx, network and all; mask {np.sum(sizes, 0)[0]/mp/1e3:.0f} kB per Mpx, confidence {np.sum(sizes, 0)[1]/mp/1e3:.0f} kB per Mpx")
    print(f"\n| outlines | polygons | s of CPU per Mpx | GeoPackage, kB per Mpx | GeoJSON, kB per Mpx | equal pixels | class areas off, of the map | covered area off | overlap, px |\n|---|---|---|---|---|---|---|---|---|")
    for name,r in rows.items():
        r = np.array(r); w = np.array(pixels)/sum(pixels)
        print(f"| {name} | {r[:,1].sum():.0f} | {r[:,0].sum()/mp:.2f} | {r[:,2].sum()/mp/1e3:.0f} | {r[:,3].sum()/mp/1e3:.0f} | {(r[:,4]*w).sum():.4%} | {(r[:,5]*w).sum():.4%} | {r[:,6].max():.1e} | {r[:,7].max():.1e} |")

def draw_ortho(path, side):
    "A mosaic of drawn scenes with an empty corner, and its true mask, in blocks"
    scenes,masks = zip(*[draw_scene(k, size=(500,500)) for k in range(4)])
    scenes,masks = [np.kron(s, np.ones((2,2,1), np.uint8)) for s in scenes],[np.kron(m, np.ones((2,2), np.uint8)) for m in masks]
    with rasterio.open(path.with_name('truth.tif'), 'w', driver='GTiff', count=1, height=side, width=side, dtype='uint8', crs='EPSG:32640', transform=PLACE, tiled=True, compress='DEFLATE', nodata=SCENE_CLASSES.void_id) as ds:
        for y in range(0, side, 1000):
            for x in range(0, side, 1000): ds.write(masks[(x//1000*7+y//1000*3)%4], 1, window=Window(x, y, 1000, 1000))
    with rasterio.open(path, 'w', driver='GTiff', count=4, height=side, width=side, dtype='uint8', crs='EPSG:32640', transform=PLACE, tiled=True, blockxsize=512, blockysize=512, compress='DEFLATE', zlevel=1, photometric='RGB', alpha='YES', bigtiff='IF_SAFER') as ds:
        for y in range(0, side, 1000):
            for x in range(0, side, 1000):
                im = scenes[(x//1000*7+y//1000*3)%4]
                alpha = np.full((1000,1000), 0 if x+y<side//4 else 255, np.uint8)
                ds.write(np.concatenate([im.transpose(2, 0, 1), alpha[None]]), window=Window(x, y, 1000, 1000))

def tiny_model(window=256):
    image,truth = draw_scene(0, size=(500,500))
    c = SCENE_CLASSES
    m = torch.tensor(np.array([image[truth==c.ids[r]].mean(0)/255 if (truth==c.ids[r]).any() else np.full(3, 9.) for r in c.scored]), dtype=torch.float32)
    net = nn.Conv2d(3, c.n, 1)
    net.weight.data,net.bias.data = 80*m[...,None,None],-40*(m**2).sum(1)
    return Bundle(net.eval(), c, (window,window), gsd=GSD, device='cpu')

def one(side, folder, what):
    "One measurement, in a process of its own"
    torch.set_num_threads(1)
    if what=='draw': draw_ortho(folder/'o.tif', side); return
    base,t,c = peak(),time.perf_counter(),time.process_time()
    if what=='map':
        made = predict_geotiff(tiny_model(), folder/'o.tif', folder/'m.tif', dtype='fp32')
        print(f"| {side} | map | {time.perf_counter()-t:.0f} | {time.process_time()-c:.0f} | {base:.0f} | {peak():.0f} | mask {made.mask.stat().st_size/1e6:.0f} MB, confidence {made.confidence.stat().st_size/1e6:.0f} MB, orthophoto {(folder/'o.tif').stat().st_size/1e6:.0f} MB |", flush=True)
    else:
        mask = folder/('m.tif' if what=='noisy' else 'truth.tif')
        found = find_polygons(mask, SCENE_CLASSES, min_area='4 m2')
        save_polygons(found, folder/'p.gpkg')
        print(f"| {side} | polygons from 4 m2, {'of that map' if what=='noisy' else 'of the true mask'} | {time.perf_counter()-t:.0f} | {time.process_time()-c:.0f} | {base:.0f} | {peak():.0f} | {len(found)} polygons, GeoPackage {(folder/'p.gpkg').stat().st_size/1e6:.0f} MB |", flush=True)

def memory(sides):
    print(f"| side, px | what | s | s of CPU | MB before | MB at most | |\n|---|---|---|---|---|---|---|", flush=True)
    for side in sides:
        with tempfile.TemporaryDirectory() as tmp:
            for what in ('draw','map',*['polygons','noisy']*(side<=5000)): subprocess.run([sys.executable, __file__, 'one', str(side), tmp, what], check=True)

def main():
    a = sys.argv[1:]
    if a[0]=='one': one(int(a[1]), Path(a[2]), a[3])
    elif a[0]=='memory': memory([int(s) for s in a[1:]] or [5000, 20000])
    else: torch.set_num_threads(1); round_trip(*a[:2], *map(int, a[2:]))

if __name__=='__main__': main()
