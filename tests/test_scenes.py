"""Drawn scenes: the same for the same seed, masks that fit their photos, class shares as in life, folders that survive interruption"""
import json, math, os, subprocess, sys, zlib
import cv2, numpy as np, pytest
from PIL import Image
from drone_seg.scenes import scene as scenes
from drone_seg.scenes.canvas import Canvas, choose_light, material_id, paint_things
from drone_seg.scenes.crowns import cast_body
from drone_seg.scenes.lots import Thing
from drone_seg.scenes.shapes import Spot, box
from drone_seg.scenes.town import Dice
from drone_seg.classes import ClassTable
from drone_seg.fields import DroneSegError
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene, draw_views, write_scenes

ID = {n:i for i,n in zip(SCENE_CLASSES.ids, SCENE_CLASSES.names)}

@pytest.fixture(scope='module')
def some(): return [draw_scene(s) for s in range(100, 140)]

def crc(*arrays): return [zlib.crc32(a.tobytes()) for a in arrays]

# ---- the same again

@pytest.mark.parametrize('env', [{}, dict(NPY_DISABLE_CPU_FEATURES='X86_V3 X86_V4'), dict(OPENCV_CPU_DISABLE='AVX512-SKX,AVX2,FMA3,AVX')], ids=['plain','numpy without SIMD','opencv without AVX'])
def test_same_in_another_process_and_on_a_smaller_processor(env):
    code = "import zlib; from drone_seg.scenes.scene import *; a,v=draw_scene(5),draw_views(5,2)[1]; print(*[zlib.crc32(x.tobytes()) for x in (*a,*v)])"
    out = subprocess.run([sys.executable, '-c', code], env={**os.environ, **env, 'PYTHONHASHSEED':'3'}, capture_output=True, text=True, check=True).stdout
    assert [int(v) for v in out.split()[-4:]] == crc(*draw_scene(5), *draw_views(5, 2)[1])

def test_drawing_touches_no_global_random_state():
    np.random.seed(0); a = np.random.rand()
    np.random.seed(0); draw_scene(1, (64,64)); assert np.random.rand()==a

def test_seeds_differ():
    assert len({tuple(crc(*draw_scene(s, (64,96)))) for s in range(20)})==20

@pytest.mark.parametrize('size', [(16,16), (101,67), (33,400), [64,64]])
@pytest.mark.parametrize('gsd', [.01, .08, .5, 1.])
def test_any_size_and_scale(size, gsd):
    image,mask = draw_scene(3, size, gsd)
    assert image.shape==(*size, 3) and mask.shape==tuple(size) and image.dtype==mask.dtype==np.uint8
    assert set(np.unique(mask)) <= set(SCENE_CLASSES.ids)

# ---- what a scene shows

def test_class_shares_are_like_life(some):
    n = np.array([np.bincount(m.ravel(), minlength=len(SCENE_CLASSES)) for _,m in some])
    share = dict(zip(SCENE_CLASSES.names, n.sum(0)/n.sum()))
    assert all(v>0 for v in share.values())
    assert .0005 < share['person'] < .01 < share['car'] < share['grass']
    assert .003 < share['unlabeled'] < .02
    void = n[:,ID['unlabeled']]/n[0].sum()
    assert void.max()<.04
    assert ((n>0).sum(1)>=6).mean()>.9 # nearly every scene has most classes

def test_photos_are_neither_dark_nor_blown_out(some):
    for image,_ in some:
        assert 55 < image.mean() < 190 and (image>250).mean()<.1 and (image<8).mean()<.15

def test_colours_fit_the_classes(some):
    mean = {n: np.mean([i[m==k].mean(0) for i,m in some if (m==k).sum()>200], axis=0) for n,k in ID.items() if n not in ('unlabeled','person')}
    r,g,b = mean['water']; assert b>r+30
    for n in ('grass','tree'): r,g,b = mean[n]; assert g>r and g>b
    assert mean['tree'].sum() < mean['grass'].sum()
    r,g,b = mean['dirt']; assert r>g>b
    r,g,b = mean['paved']; assert max(r, g, b)-min(r, g, b)<25
    names = ['paved','grass','dirt','roof','tree','water']
    for i,a in enumerate(names):
        for c in names[:i]: assert np.abs(mean[a]-mean[c]).max()>8, (a, c)

def test_nearest_mean_colour_beats_the_commonest_class(some):
    "Colour alone says something about the class, but by far not all: a scene is neither noise nor a colouring book"
    sm = [(cv2.GaussianBlur(i, (0,0), 2).astype(float), m) for i,m in some]
    names = ['paved','grass','dirt','roof','tree','water']
    means = np.array([np.concatenate([i[m==ID[n]] for i,m in sm[:20]]).mean(0) for n in names])
    hits,top,n = 0,0,0
    for i,m in sm[20:]:
        keep = np.isin(m, [ID[k] for k in names])
        near = np.array([ID[k] for k in names])[((i[keep][:,None]-means)**2).sum(-1).argmin(1)]
        hits += (near==m[keep]).sum(); top += (m[keep]==ID['paved']).sum(); n += keep.sum()
    assert 1.1*top/n < hits/n < .9

# ---- masks are exact

def edge_strength(image, mask, dy, dx):
    "Mean brightness step across the class edges of the mask shifted by (dy, dx)"
    g = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    step = np.hypot(cv2.Sobel(g, cv2.CV_32F, 1, 0), cv2.Sobel(g, cv2.CV_32F, 0, 1)).sum(-1)
    e = cv2.dilate(mask, np.ones((2,2), np.uint8)) != cv2.erode(mask, np.ones((2,2), np.uint8))
    return np.roll(step, (-dy, -dx), (0, 1))[8:-8,8:-8][e[8:-8,8:-8]].mean()

@pytest.mark.parametrize('pairs', [lambda: [draw_scene(s, border=0) for s in range(6)], lambda: draw_views(2, 6, border=0)], ids=['scenes','views'])
def test_edges_of_mask_lie_on_edges_of_photo(pairs):
    pairs = pairs()
    total = lambda dy,dx: sum(edge_strength(i, m, dy, dx) for i,m in pairs)
    here = total(0, 0)
    for dy,dx in ((3,0), (-3,0), (0,3), (0,-3)): assert here > 1.15*total(dy, dx)
    best = max(((dy,dx) for dy in range(-2, 3) for dx in range(-2, 3)), key=lambda o: total(*o))
    assert max(map(abs, best))<=1

@pytest.mark.parametrize('angle', [0., .4, 1.3])
def test_painted_shape_has_its_area(angle):
    c = Canvas.empty()
    car = Thing(kind='car', spot=Spot(80.3, 60.7, angle, .05), hu=2.1, hv=.9, van=False, rgb=(200,40,40), seed=1)
    paint_things(c, [car], 'car')
    r = .45
    assert c.made_of('car').sum()*.05**2 == pytest.approx(4*2.1*.9 - (4-math.pi)*r*r, rel=.02)
    before = Canvas.empty().img
    assert ((c.img!=before).any(-1) >= c.made_of('car')).all() # all of the mask was painted

def test_photo_is_antialiased_and_mask_is_not():
    c = Canvas.empty()
    where,u,v = Spot(80, 60, .3, .05).patch(2, 2, c.shape)
    c.img[:] = 0
    c.paint(where, box(u, v, 1.5, 1.), (200,200,200), 'car')
    levels = np.unique(c.img[...,0])
    assert len(levels)>10 and set(np.unique(c.mat)) <= {material_id('mown'), material_id('car')}
    assert (c.img[...,0].sum()/200)*.05**2 == pytest.approx(6., rel=.01) # partial pixels add up to the true area
    assert ((c.img[...,0]>=99) == c.made_of('car')).mean()>.999 # half covered is covered

def test_distances():
    u,v = np.meshgrid(np.linspace(-3, 3, 61), np.linspace(-2, 2, 41))
    d = box(u, v, 2, 1, .3)
    for a,b,want in ((0,0,1.), (2,0,0.), (0,1,0.), (3,0,-1.), (0,-2,-1.)):
        assert d[(np.abs(u-a)+np.abs(v-b)).argmin()//61, (np.abs(u-a)+np.abs(v-b)).argmin()%61] == pytest.approx(want, abs=1e-6)

# ---- void lines

def slow_void(mask, height):
    "Pixel by pixel: void where one of the four neighbours stands higher"
    res,(h,w) = mask.copy(),mask.shape
    for y in range(h):
        for x in range(w):
            near = [mask[b,a] for b,a in ((y-1,x), (y+1,x), (y,x-1), (y,x+1)) if 0<=b<h and 0<=a<w]
            if max(height.get(int(n), 0) for n in near) > height.get(int(mask[y,x]), 0): res[y,x] = ID['unlabeled']
    return res

def test_void_lines_against_slow_version():
    height = {ID[n]:k for k,n in enumerate(('water','roof','car','person','tree'), 1)}
    for s in range(3):
        bare,lined = (draw_scene(s, (80,120), .2, border=b)[1] for b in (0, 1))
        assert (bare!=ID['unlabeled']).all()
        np.testing.assert_array_equal(lined, slow_void(bare, height))
        np.testing.assert_array_equal(draw_scene(s, (80,120), .2, border=2)[1][lined==0], 0)

def test_a_person_keeps_all_pixels():
    for s in range(6):
        bare,lined = (draw_scene(s, border=b)[1] for b in (0, 1))
        lost = ((bare==ID['person'])&(lined!=ID['person'])).sum()
        assert lost <= .1*(bare==ID['person']).sum() + 2 # only under the edge of a crown

# ---- light

def test_light_never_changes_the_mask():
    pairs = [draw_scene(9, light=l) for l in ('noon','morning','evening','overcast')]
    for _,m in pairs[1:]: np.testing.assert_array_equal(m, pairs[0][1])
    assert len({tuple(crc(i)) for i,_ in pairs})==4

@pytest.mark.parametrize('seed', range(4))
def test_shadows_fall_away_from_the_sun(seed):
    c = Canvas.empty(size=(400,400))
    light = c.light = choose_light(Dice(seed), 'morning')
    layer,spot = c.layer(),Spot(200, 200, .7, .05)
    cast_body(c, layer, spot, [(a, b, z) for a in (-.1, .1) for b in (-.1, .1) for z in (0, 3)])
    y,x = np.nonzero(layer>128)
    mid = np.array([x.mean()-199.5, y.mean()-199.5])*.05
    want = -np.array(light.to_sun)*3/math.tan(light.height)/2
    np.testing.assert_allclose(mid, want, atol=.08)

# ---- one ground, seen in several ways

@pytest.mark.parametrize('seed', [1, 6])
def test_a_large_scene_is_the_small_one_with_more_around(seed):
    small,large = draw_scene(seed)[1],draw_scene(seed, (640,768))[1]
    assert (large[192:-192,192:-192]==small).mean()>.97

def test_a_finer_scene_shows_the_same_ground_larger():
    coarse,fine = draw_scene(6, (128,192), .16, border=0)[1],draw_scene(6, (256,384), .08, border=0)[1]
    assert (cv2.resize(coarse, (384,256), interpolation=cv2.INTER_NEAREST)==fine).mean()>.93

def test_a_large_scene_has_every_class():
    image,mask = draw_scene(1, (1536,2048))
    assert image.shape==(1536,2048,3) and len(np.unique(mask))==len(SCENE_CLASSES)

def inliers(a, b):
    "Matched features that agree on one homography: the way to find photos that see the same ground"
    orb = cv2.ORB_create(1500)
    (ka,da),(kb,db) = (orb.detectAndCompute(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), None) for i in (a, b))
    m = [p for p,q in cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(da, db, k=2) if p.distance<.75*q.distance]
    if len(m)<8: return 0
    _,ok = cv2.findHomography(np.float32([ka[p.queryIdx].pt for p in m]), np.float32([kb[p.trainIdx].pt for p in m]), cv2.RANSAC, 3.)
    return 0 if ok is None else int(ok.sum())

def test_views_of_a_place_overlap_and_places_do_not():
    cv2.setRNGSeed(0)
    a,b = ([i for i,_ in draw_views(s, 4)] for s in (0, 1))
    assert min(inliers(a[0], a[1]), inliers(a[0], a[2]), inliers(b[0], b[1])) > 30
    assert max(inliers(p, q) for p in a for q in b) < 15

def test_views_are_inside_the_painted_ground():
    for n in (1, 2, 5, 9):
        views = draw_views(n, n, (64,96), .1)
        assert len(views)==n and all(i.shape==(64,96,3) and m.shape==(64,96) for i,m in views)

# ---- on disk

def stamps(folder): return {p.name: p.stat().st_mtime_ns for d in ('images','masks') for p in (folder/d).iterdir()}

def test_folder_layout(tmp_path):
    f = write_scenes(tmp_path/'a'/'b', 3, size=(48,64), gsd=.2, seed=5)
    assert ClassTable.from_csv(f/'classes.csv')==SCENE_CLASSES
    for k in range(3):
        image,mask = draw_scene(5+k, (48,64), .2)
        p = Image.open(f/'masks'/f's000{k}.png')
        assert p.mode=='P' and p.getpalette()[:27]==SCENE_CLASSES.colors.ravel().tolist()
        np.testing.assert_array_equal(np.array(p), mask)
        j = np.array(Image.open(f/'images'/f's000{k}.jpg')).astype(int)
        assert np.abs(j-image).mean()<4

def test_second_run_writes_nothing_and_more_adds(tmp_path):
    write_scenes(tmp_path/'s', 2, size=(32,48), gsd=.2); old = stamps(tmp_path/'s')
    write_scenes(tmp_path/'s', 2, size=(32,48), gsd=.2); assert stamps(tmp_path/'s')==old
    write_scenes(tmp_path/'s', 4, size=(32,48), gsd=.2); new = stamps(tmp_path/'s')
    assert len(new)==8 and all(new[k]==v for k,v in old.items())

def test_interrupted_run_leaves_only_whole_files_and_is_finished_by_the_next(tmp_path, monkeypatch):
    whole = write_scenes(tmp_path/'whole', 4, size=(32,48), gsd=.2)
    seen,save = [],Image.Image.save
    def stop(im, path, *args, **kw):
        seen.append(path)
        save(im, path, *args, **kw)
        if len(seen)==6: # in the middle of a file
            path.write_bytes(path.read_bytes()[:99])
            raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(Image.Image, 'save', stop)
        with pytest.raises(KeyboardInterrupt): write_scenes(tmp_path/'cut', 4, size=(32,48), gsd=.2)
    assert len(seen)==6
    assert not [p for p in (tmp_path/'cut').rglob('*') if 'tmp' in p.name]
    write_scenes(tmp_path/'cut', 4, size=(32,48), gsd=.2)
    for p in whole.rglob('*'):
        if p.is_file(): assert (tmp_path/'cut'/p.relative_to(whole)).read_bytes()==p.read_bytes(), p

def test_places(tmp_path):
    f = write_scenes(tmp_path/'p', 7, size=(32,48), gsd=.2, places=3)
    assert sorted(p.stem for p in (f/'masks').iterdir()) == [f'p{a:03}_{b:02}' for a,n in enumerate((3,2,2)) for b in range(n)]
    old = stamps(f); write_scenes(f, 7, size=(32,48), gsd=.2, places=3); assert stamps(f)==old
    with pytest.raises(DroneSegError, match='n=8'): write_scenes(f, 8, size=(32,48), gsd=.2, places=3)

def test_scale_may_vary(tmp_path):
    f = write_scenes(tmp_path/'g', 2, size=(32,48), gsd=(.1, .3))
    assert json.loads((f/'scenes.json').read_text())['gsd']==[.1, .3]
    assert write_scenes(f, 2, size=(32,48), gsd=(.1, .3))==f

def test_an_older_drawing_is_drawn_anew(tmp_path, monkeypatch):
    f = write_scenes(tmp_path/'o', 1, size=(32,48), gsd=.2); old = stamps(f)
    monkeypatch.setattr(scenes, 'DRAWING', scenes.DRAWING+1)
    write_scenes(f, 1, size=(32,48), gsd=.2)
    assert all(stamps(f)[k]>v for k,v in old.items())

def test_progress_wraps(tmp_path):
    seen = []
    def bar(it):
        for i in it: seen.append(i); yield i
    write_scenes(tmp_path/'b', 3, size=(32,48), gsd=.2, progress=bar)
    assert seen==[0, 1, 2]

# ---- refusals

@pytest.mark.parametrize('kw,say', [(dict(seed=-1), 'seed=-1'), (dict(size=(8,99)), '16 pixels'), (dict(gsd=0), 'gsd=0'), (dict(gsd=3), 'gsd=3'),
    (dict(light='dusk'), 'overcast'), (dict(border=-1), 'border=-1')])
def test_scene_refusals(kw, say):
    with pytest.raises(DroneSegError, match=say) as e: draw_scene(**(dict(seed=0, size=(32,32)) | kw))
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('kw,say', [(dict(n=0), 'n=0'), (dict(n=3, places=4), 'places=4'), (dict(n=3, places=0), 'places=0'), (dict(n=1, gsd=(.1, 9)), 'gsd=9')])
def test_folder_refusals_write_nothing(tmp_path, kw, say):
    with pytest.raises(DroneSegError, match=say): write_scenes(tmp_path/'x', **kw)
    assert not (tmp_path/'x').exists()

def test_foreign_folders_stay_as_they_are(tmp_path):
    (tmp_path/'mine').mkdir(); (tmp_path/'mine'/'photo.jpg').write_bytes(b'mine')
    with pytest.raises(DroneSegError, match='is there already'): write_scenes(tmp_path/'mine', 1)
    assert [p.name for p in (tmp_path/'mine').iterdir()]==['photo.jpg']
    with pytest.raises(DroneSegError, match='is there already'): write_scenes(tmp_path/'mine'/'photo.jpg', 1)
    f = write_scenes(tmp_path/'s', 2, size=(32,48), gsd=.2); old = stamps(f)
    for kw,say in ((dict(seed=1), 'seed'), (dict(gsd=.3), 'gsd'), (dict(size=(32,32)), 'size'), (dict(places=2), 'places'), (dict(n=1), 'n=1')):
        with pytest.raises(DroneSegError, match=say): write_scenes(f, **(dict(n=2, size=(32,48), gsd=.2) | kw))
    assert stamps(f)==old
    (f/'scenes.json').write_text('{')
    with pytest.raises(DroneSegError, match='not JSON'): write_scenes(f, 2)
