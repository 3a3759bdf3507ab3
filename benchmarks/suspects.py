"""Faults planted into masks, and how many of them the first places of a list show: ours beside cleanlab's, on the same predictions.

    pip install --target LIB --no-deps cleanlab termcolor    (AGPL-3.0; only this program uses it)
    PYTHONPATH=LIB python benchmarks/suspects.py FOLDER --work WORK [--folds 3] [--budget 900] [--out benchmarks/results/suspects.md]

FOLDER is a copy of the Semantic Drone Dataset (or any data set whose masks are single-channel ids)."""
import argparse, json, os, shutil
from pathlib import Path
import numpy as np
from scipy import ndimage
from drone_seg.all import *

KINDS = dict(class_='a region given another class', missed='a region left as what surrounds it', shifted='a mask shifted', swapped="a photo with another's mask")

def regions_of(ids, classes, least, most): # connected regions of one class with a share of the photo in these bounds
    res = []
    for i in np.unique(ids):
        if i in classes.void or i not in classes.ids: continue
        label,n = ndimage.label(ids==i)
        size = np.bincount(label.reshape(-1), minlength=n+1)/ids.size
        res += [label==k for k in range(1, n+1) if least<=size[k]<=most]
    return res

def around(ids, region, classes): # the class that most of a region's rim has
    rim = ndimage.binary_dilation(region, iterations=3) & ~region
    n = np.bincount(ids[rim], minlength=256)
    n[[i for i in range(256) if i not in classes.ids or i in classes.void]] = 0
    n[ids[region][0]] = 0
    return int(n.argmax()) if n.any() else None

def change(kind, ids, classes, rng, other): # a mask with a fault; None where this photo has no room for it
    if kind=='swapped': return other
    if kind=='shifted':
        far,turn = rng.uniform(.03, .06)*ids.shape[1],rng.uniform(0, 2*np.pi)
        dy,dx = round(far*np.sin(turn)),round(far*np.cos(turn))
        return np.pad(ids, [(abs(dy),)*2, (abs(dx),)*2], mode='edge')[abs(dy)-dy:, abs(dx)-dx:][:ids.shape[0], :ids.shape[1]]
    found = regions_of(ids, classes, .003, .08 if kind=='class_' else .05)
    if not found: return None
    region = found[rng.integers(len(found))]
    was = int(ids[region][0])
    if kind=='missed': new = around(ids, region, classes)
    else: new = rng.choice([classes.ids[r] for r in classes.scored if classes.ids[r]!=was])
    if new is None: return None
    res = ids.copy()
    res[region] = new
    return res

def plant(data, seed=0, each=dict(class_=30, missed=30, shifted=15, swapped=15)):
    "stem -> (kind, mask with the fault)"
    rng = np.random.default_rng(seed)
    place = data.places(progress=False).place
    stems,res = [str(s) for s in rng.permutation(data.stems)],{}
    for kind,n in each.items():
        have = 0
        while have<n and stems:
            s = stems.pop()
            strangers = [o for o in data.stems if place[o]!=place[s]]
            ids = data.read_ids(s)
            new = change(kind, ids, data.classes, rng, data.read_ids(str(rng.choice(strangers))) if kind=='swapped' else None)
            if new is None or new.shape!=ids.shape or (new!=ids).mean()<.003: continue
            res[s] = kind,new
            have += 1
    return res

def copy_with(data, faults, folder): # the data set with these masks
    root = data.path
    folder.mkdir(parents=True)
    for f in root.iterdir():
        if f.is_file(): shutil.copyfile(f, folder/f.name)
    images,masks = data.items[0].image.parent,data.items[0].mask.parent
    os.symlink(images, folder/images.relative_to(root))
    shutil.copytree(masks, folder/masks.relative_to(root), copy_function=shutil.copyfile)
    from PIL import Image
    for s,(_,ids) in faults.items(): Image.fromarray(ids).save(folder/data.pair(s).mask.relative_to(root))
    return folder
