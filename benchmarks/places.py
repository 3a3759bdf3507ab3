"""How well and how fast `find_places` works on real photos.

    python benchmarks/places.py FOLDER_OF_PHOTOS [crops] [mirror] [missed] [growth] [leak]

crops   overlapping views cut from known positions of photos of different places: links found by true overlap, false links
mirror  each photo against all others mirrored: same textures, no common ground, so each link is false
missed  links that comparing all pairs finds and the preselection does not try
growth  seconds at 80, 160, ... photos
leak    random splits (20 % validation, 5 seeds) and the places themselves
"""
import sys, tempfile, time
from pathlib import Path
import numpy as np, cv2
from PIL import Image
from drone_seg.photo.photo_file import read_image
from drone_seg.data.landmarks import find_landmarks, match_landmarks, read_grey
from drone_seg.data.overlap import learn_dictionary, sum_up, nearest_pairs, find_links
from drone_seg.data.overlap import match_all, neighbours_of_neighbours, one_thread_each
from drone_seg.data.places import *

SIZE = 192,288 # Height and width of a cut view: a seventh of the pixels of a 512x768 photo

def corners(x, y, turn, scale): # Of the ground that a view shows, in pixels of the photo
    h,w = SIZE
    return cv2.boxPoints(((x, y), (w/scale, h/scale), -turn)).astype(np.float32)

def draw_place(rng, shape, turn, scale): # Where a view can be taken without leaving the photo; None if nowhere
    for _ in range(200):
        x,y = rng.uniform(0, shape[1]),rng.uniform(0, shape[0])
        c = corners(x, y, turn, scale)
        if (c>=0).all() and (c[:,0]<shape[1]).all() and (c[:,1]<shape[0]).all(): return x,y
    return None

def cut(photo, x, y, turn, scale):
    h,w = SIZE
    M = cv2.getRotationMatrix2D((x, y), turn, scale)
    M[:,2] += w/2-x, h/2-y
    return cv2.warpAffine(photo, M, (w,h), flags=cv2.INTER_AREA if scale<1 else cv2.INTER_CUBIC)

def relight(rng, im): # Exposure and gamma
    return (255*np.clip(rng.uniform(.6, 1.4)*(im/255.)**rng.uniform(.7, 1.4), 0, 1)).astype(np.uint8)

def other_hour(rng, im): # Warm or cold light, and the shadow of something beside the picture
    warm = rng.uniform(-.25, .25)
    shade = np.ones(im.shape[:2], np.float32)
    pts = rng.uniform(-.2, 1.2, (3,2))*(im.shape[1], im.shape[0])
    cv2.fillPoly(shade, [pts.astype(int)], rng.uniform(.4, .7))
    return np.clip(im*cv2.GaussianBlur(shade, (0,0), 2)[...,None]*(1+warm, 1, 1-warm), 0, 255).astype(np.uint8)

def jpeg(im): return cv2.imdecode(cv2.imencode('.jpg', im, [cv2.IMWRITE_JPEG_QUALITY, 88])[1], 1)

def overlap(ca, cb): # Common ground as a share of the smaller view's
    return cv2.intersectConvexConvex(ca, cb)[0]/min(cv2.contourArea(ca), cv2.contourArea(cb))

WAYS = dict(turn=(1,0,0,0), scale=(0,1,0,0), light=(0,0,1,0), hour=(0,0,0,1), all=(1,1,1,1))

def make_view(rng, photo, way):
    turn,scale,light,hour = WAYS[way]
    pose = (rng.uniform(0, 360) if turn else 0, np.exp(rng.uniform(np.log(.7), np.log(1.4))) if scale else 1)
    at = draw_place(rng, photo.shape, *pose)
    if at is None: return None
    im = cut(photo, *at, *pose)
    if light: im = relight(rng, im)
    if hour: im = other_hour(rng, im)
    return jpeg(im), corners(*at, *pose)

def far_apart(paths, n): # At most n photos without any common landmarks to speak of, so of different places
    found = find_links(paths, False)
    bad = {frozenset(p[:2]) for p in found if p[2]>=10}
    keep = []
    for i in np.random.default_rng(0).permutation(len(paths)):
        if all(frozenset((i, j)) not in bad for j in keep): keep.append(int(i))
    return [paths[i] for i in keep[:n]]

def crops(paths, thresholds=(10,15,20,30)):
    paths = far_apart(paths, 60)
    print(f"crops: views of {SIZE[1]}x{SIZE[0]} px from {len(paths)} photos of different places; share of pairs linked, by common ground of the smaller view")
    with one_thread_each():
        for way in WAYS:
            rng,rows,firsts,mirrored = np.random.default_rng(1),[],[],[]
            for p in paths:
                photo = cv2.cvtColor(read_image(p), cv2.COLOR_RGB2BGR)
                views = [v for v in (make_view(rng, photo, way) for _ in range(6)) if v]
                marks = [find_landmarks(cv2.cvtColor(v[0], cv2.COLOR_BGR2GRAY)) for v in views]
                firsts += marks[:1]
                mirrored += [find_landmarks(np.ascontiguousarray(cv2.cvtColor(v[0], cv2.COLOR_BGR2GRAY)[:,::-1])) for v in views[:1]]
                for i in range(len(views)):
                    for j in range(i):
                        m = match_landmarks(marks[i], marks[j])
                        rows.append((overlap(views[i][1], views[j][1]), m.inliers if m.spread>=.01 else 0))
            rows,false = np.array(rows),[]
            for i in range(len(firsts)):
                for j in range(i):
                    m = match_landmarks(firsts[i], mirrored[j])
                    false.append(m.inliers if m.spread>=.01 else 0)
            for t in thresholds:
                parts = [f"{lo:.0%}-{hi:.0%}: {(s[:,1]>=t).mean():.3f} of {len(s)}" for lo,hi in ((.1,.3),(.3,.5),(.5,.8),(.8,1.01)) for s in [rows[(rows[:,0]>=lo)&(rows[:,0]<hi)]]]
                s = rows[rows[:,0]>=.3]
                print(f"  {way:6} >={t:2} inliers  >=30%: {(s[:,1]>=t).mean():.3f} of {len(s)}  ({'  '.join(parts)})  no overlap, same photo: {(rows[rows[:,0]==0,1]>=t).sum()} of {(rows[:,0]==0).sum()}  mirrored views of other photos: {(np.array(false)>=t).sum()} of {len(false)}", flush=True)
    whole_way(paths)

def whole_way(paths): # Preselection, matching and grouping on a folder of views
    rng = np.random.default_rng(2)
    with tempfile.TemporaryDirectory() as tmp:
        items,ground = [],{}
        for p in paths:
            photo = cv2.cvtColor(read_image(p), cv2.COLOR_RGB2BGR)
            for i in range(5):
                v = make_view(rng, photo, 'all')
                if v is None: continue
                stem = f'{p.stem}_{i}'
                Image.fromarray(v[0][...,::-1]).save(f'{tmp}/{stem}.png')
                items.append((stem, f'{tmp}/{stem}.png')); ground[stem] = v[1]
        places = find_places(items, progress=False)
        linked = {frozenset(l[:2]) for l in places.links}
        true = [(a, b) for a in ground for b in ground if a<b and a.split('_')[0]==b.split('_')[0] and overlap(ground[a], ground[b])>=.3]
        false = [l for l in places.links if l[0].split('_')[0]!=l[1].split('_')[0]]
        same = sum(places.place[a]==places.place[b] for a,b in true)
        print(f"  whole way, {len(items)} views: {sum(frozenset(t) in linked for t in true)} of {len(true)} pairs with >=30 % linked, {same} in one place; {len(false)} of {len(places.links)} links between views of different photos: {false} (same name before _ is same photo; the photos themselves may still share ground: look)")

def mirror(paths, thresholds=(8,10,12,15,20,30)):
    with one_thread_each():
        greys = [read_grey(p) for p in paths]
        marks = [find_landmarks(g) for g in greys]
        turned = [find_landmarks(np.ascontiguousarray(g[:,::-1])) for g in greys]
        res = []
        for i in range(len(paths)):
            res += [(m.inliers, m.spread) for j in range(i) for m in [match_landmarks(marks[i], turned[j])]]
        res = np.array(res)
    print(f"mirror: false links of {len(res)} pairs:", ', '.join(f">={t}: {((res[:,0]>=t)&(res[:,1]>=.01)).sum()} ({(res[:,0]>=t).sum()} without the rule on spread)" for t in thresholds))

def thumbs(paths): # The weakest peer of the VLAD vector: 8x6 colours
    v = np.stack([cv2.resize(read_image(p, at_least=(96,128)), (8,6), interpolation=cv2.INTER_AREA).ravel()/255. for p in paths])
    v -= v.mean(1, keepdims=True)
    return v/np.linalg.norm(v, axis=1, keepdims=True)

def missed(paths, k=40):
    with one_thread_each():
        marks = [find_landmarks(read_grey(p)) for p in paths]
        pairs = {(i, j) for j in range(len(paths)) for i in range(j)}
        found = [f for f in match_all(marks, pairs) if f[3]>=.01]
        centres = learn_dictionary(marks)
        for name,vectors in (('VLAD', np.stack([sum_up(m, centres) for m in marks])), ('thumbnail', thumbs(paths))):
            tried = nearest_pairs(vectors, k)
            more = neighbours_of_neighbours([f for f in found if f[:2] in tried], tried, k//2)
            for t in (15,20,30):
                links = [f[:2] for f in found if f[2]>=t]
                print(f"missed: {name}, links of >={t} inliers: tried {np.mean([l in tried for l in links]):.4f} of {len(links)} in {len(tried)} pairs; with the second round {np.mean([l in tried or l in more for l in links]):.4f} in {len(tried)+len(more)}", flush=True)

def growth(paths):
    rng = np.random.default_rng(0)
    for n in [80*2**i for i in range(10) if 80*2**i<len(paths)]+[len(paths)]:
        some = [paths[i] for i in sorted(rng.permutation(len(paths))[:n])]
        t,c = time.perf_counter(),time.process_time()
        found = find_links(some, False)
        t,c = time.perf_counter()-t,time.process_time()-c
        print(f"growth: {n} photos: {t:.1f} s wall, {c:.1f} s CPU, {1000*c/n:.0f} ms CPU a photo", flush=True)

def leak(paths):
    items = [(p.stem, p) for p in paths]
    with tempfile.TemporaryDirectory() as tmp:
        places = find_places(items, cache=f'{tmp}/places.json', progress=False)
        print('leak:', places)
        stems = [s for s,_ in items]
        for t in (15,20,30):
            other = find_places(items, cache=f'{tmp}/places.json', min_inliers=t, progress=False)
            res = []
            for seed in range(5):
                valid = {stems[i] for i in np.random.default_rng(seed).permutation(len(stems))[:round(.2*len(stems))]}
                res.append(leakage(set(stems)-valid, valid, other))
            by_place = []
            for seed in range(20):
                valid = set()
                for g in np.random.default_rng(seed).permutation(np.array(places.groups(), dtype=object)):
                    if len(valid)+len(g)<=.22*len(stems): valid |= set(g)
                by_place.append(leakage(set(stems)-valid, valid, other).share)
            print(f"leak: links of >={t} inliers ({other!r}): random splits {[r.n for r in res]} of {res[0].m}, mean {np.mean([r.share for r in res]):.1%}; whole places: mean {np.mean(by_place):.1%}, worst of 20 {max(by_place):.1%}")

if __name__=='__main__':
    folder,*parts = sys.argv[1:]
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in ('.jpg','.jpeg','.png','.tif','.tiff'))
    for part in parts or ['crops','mirror','missed','growth','leak']: globals()[part](paths)
