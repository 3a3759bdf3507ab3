"Places: matching against known geometry, grouping against hand-worked cases, the cache against everything that can happen to a file"
import json, os, shutil, threading, warnings
from itertools import combinations
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image
from drone_seg.fields import DatasetError, ImageError
from drone_seg.data.landmarks import pair_up, find_landmarks, match_landmarks, read_grey
from drone_seg.data.overlap import read_position, near_positions, learn_dictionary, sum_up, nearest_pairs, find_links
from drone_seg.data.overlap import neighbours_of_neighbours
from drone_seg.data import places as places_page
from drone_seg.data.places import *
from drone_seg.data.places import group_links
from drone_seg.data.tiles import Tiles, read_box, cut_blocks, find_tiles

REAL = Path(__file__).parents[2]/'shared/data/semantic_drone_dataset/original_images'
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the Semantic Drone photos in {REAL}")

def ground(seed, size=900):
    rng = np.random.default_rng(seed)
    g = sum(cv2.resize(rng.normal(size=(size//s, size//s)).astype(np.float32), (size,size), interpolation=cv2.INTER_CUBIC) for s in (6, 20, 60))
    return (128+28*g).clip(0, 255).astype(np.uint8)

def view(g, x, y, turn=0, scale=1, size=(200,300)):
    M = cv2.getRotationMatrix2D((x,y), turn, scale)
    M[:,2] += size[1]/2-x, size[0]/2-y
    return cv2.warpAffine(g, M, size[::-1], flags=cv2.INTER_AREA),M

@pytest.fixture(scope='module')
def drawn(tmp_path_factory): # Three overlapping views of each of four grounds
    folder = tmp_path_factory.mktemp('views')
    for g in range(4):
        for i in range(3): Image.fromarray(view(ground(g), 420+50*i, 430+30*i, 65*i)[0]).convert('RGB').save(folder/f'{"dbca"[g]}{i}.jpg', quality=92)
    return folder

@pytest.fixture
def photos(drawn, tmp_path): # of its own, to be spoilt
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    return [(p.stem, p) for p in sorted(tmp_path.glob('*.jpg'))]

FOUR = [[f'{c}{i}' for i in range(3)] for c in 'abcd']

# --- landmarks and matches

@pytest.mark.parametrize('turn', [0, 37, 90, 180, 271])
@pytest.mark.parametrize('scale', [.7, 1, 1.4])
def test_inliers_lie_where_the_true_transform_puts_them(turn, scale):
    g = ground(3)
    (a,A),(b,B) = view(g, 430, 430),view(g, 470, 450, turn, scale)
    m = match_landmarks(find_landmarks(a), find_landmarks(b))
    assert m.inliers>=20 and m.spread>.05
    to3 = lambda M: np.vstack([M, [0,0,1]])
    true = np.c_[m.a, np.ones(len(m.a))] @ (to3(B)@np.linalg.inv(to3(A))).T
    assert np.median(np.linalg.norm(true[:,:2]-m.b, axis=1))<1.5

def test_pair_up_equals_the_obvious_double_loop():
    rng = np.random.default_rng(0)
    wa = rng.normal(size=(40,16)); wb = np.concatenate([wa[5:30]+.05*rng.normal(size=(25,16)), rng.normal(size=(20,16))])
    wa,wb = [w/np.linalg.norm(w, axis=1, keepdims=True) for w in (wa, wb)]
    slow = []
    for i,a in enumerate(wa):
        d = [np.linalg.norm(a-b) for b in wb]
        j = int(np.argmin(d))
        if int(np.argmin([np.linalg.norm(wb[j]-x) for x in wa]))==i and d[j]<.75*sorted(d)[1]: slow.append((i, j))
    assert len(slow)>15 and list(zip(*map(list, pair_up(wa, wb))))==slow

def test_mirrored_ground_is_not_the_same_ground():
    a = view(ground(1), 430, 430)[0]
    assert match_landmarks(find_landmarks(a), find_landmarks(np.ascontiguousarray(a[:,::-1]))).inliers<12

@pytest.mark.parametrize('grey', [np.zeros((60,90), np.uint8), np.full((1,1), 7, np.uint8), np.tile(np.uint8([0,255]), (64,32))])
def test_photos_without_landmarks_match_nothing(grey):
    marks = find_landmarks(grey)
    assert match_landmarks(marks, marks).inliers<8 or marks.points.shape[0]>=8
    assert np.isfinite(sum_up(marks, learn_dictionary([marks]))).all()

def test_a_travelling_marker_links_no_places(tmp_path):
    rng = np.random.default_rng(5)
    marker = cv2.resize(rng.integers(0, 2, (8,8), dtype=np.uint8)*255, (56,56), interpolation=cv2.INTER_NEAREST)
    for g in range(3):
        im = 90+view(ground(g+20), 430, 430, size=(500,750))[0]//5
        im[50+90*g:106+90*g,80*g+60:80*g+116] = marker
        Image.fromarray(im).convert('RGB').save(tmp_path/f'{g}.png')
    items = [(p.stem, p) for p in sorted(tmp_path.glob('*.png'))]
    assert match_landmarks(*[find_landmarks(read_grey(p)) for _,p in items[:2]]).inliers>=15   # the marker itself is found
    assert not find_places(items, min_inliers=15, progress=False).links
    assert any(inliers>=15 and spread<.01 for *_,inliers,spread in find_links([p for _,p in items], progress=False))

# --- reading

def test_large_photos_are_read_reduced_and_tall_ones_upright(tmp_path):
    Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (1000,8))).save(tmp_path/'wide.jpg')
    assert read_grey(tmp_path/'wide.jpg').shape==(375,768)
    exif = Image.Exif(); exif[0x0112] = 6
    Image.new('RGB', (2000,1000)).save(tmp_path/'tall.jpg', exif=exif)
    assert read_grey(tmp_path/'tall.jpg').shape==(768,384)
    Image.new('L', (30,20)).save(tmp_path/'small.png')
    assert read_grey(tmp_path/'small.png').shape==(20,30)
    Image.new('RGB', (5000,2)).save(tmp_path/'thin.png')
    assert read_grey(tmp_path/'thin.png').shape==(1,768)

def gps_photo(path, lat, lon):
    exif = Image.Exif()
    dms = lambda v: (abs(v)//1, abs(v)%1*60//1, abs(v)*60%1*60)
    exif.get_ifd(0x8825).update({1: 'N' if lat>=0 else 'S', 2: dms(lat), 3: 'E' if lon>=0 else 'W', 4: dms(lon)})
    Image.new('RGB', (64,48)).save(path, exif=exif)

def test_positions(tmp_path):
    gps_photo(tmp_path/'a.jpg', 47.5, -122.25)
    gps_photo(tmp_path/'b.jpg', 47.501, -122.25)
    gps_photo(tmp_path/'s.jpg', -33.125, 18.25)
    a,b,s = [read_position(tmp_path/f'{n}.jpg') for n in 'abs']
    assert np.allclose([a, b, s], [(47.5,-122.25), (47.501,-122.25), (-33.125,18.25)])
    gps_photo(tmp_path/'zero.jpg', 0, 0)
    Image.new('RGB', (8,8)).save(tmp_path/'none.jpg'); (tmp_path/'text.jpg').write_text('no')
    assert [read_position(tmp_path/f'{n}.jpg') for n in ('zero','none','text','absent')]==[None]*4

def test_photos_near_each_other_are_tried():
    spots = [(47,-122), (47.00004,-122), (47,-122.01), None, (47.00005,-122.01), (47.0001,-122)]
    assert near_positions(spots, 1)>={(0,1), (2,4)} and not any(3 in p for p in near_positions(spots, 3))
    assert near_positions([None, (1,1)], 5)==near_positions([], 5)==set()
    assert near_positions([(1,1)]*3, 2)=={(0,1), (0,2), (1,2)}
    assert near_positions([(89.9,0), (89.9,180), (88,0), (88.1,0)], 1)=={(0,1), (2,3)}     # across the pole

# --- preselection

@pytest.mark.parametrize('n,k', [(1,5), (2,1), (30,4), (600,3), (7,6), (7,40)])
def test_nearest_pairs_equal_sorting(n, k):
    v = np.random.default_rng(n).normal(size=(n,8)); v /= np.linalg.norm(v, axis=1, keepdims=True)
    slow = set()
    for i in range(n):
        order = sorted((j for j in range(n) if j!=i), key=lambda j: -v[i]@v[j])
        slow |= {(min(i, j), max(i, j)) for j in order[:k]}
    assert nearest_pairs(v, k)==slow

def test_the_second_round_tries_neighbours_of_neighbours():
    found = [(0,1,50,.2), (1,2,40,.2), (2,3,30,.2), (3,4,9,.2), (0,5,90,.001)]
    assert neighbours_of_neighbours(found, {(0,1), (1,2), (2,3)}, 9)=={(0,2), (1,3)}
    assert neighbours_of_neighbours(found, {(0,1), (1,2), (2,3), (0,2)}, 9)=={(1,3)}

# --- grouping

def test_places_without_dividing_are_the_connected_parts():
    rng = np.random.default_rng(0)
    stems = [f'{i:02}' for i in range(40)]
    links = [(stems[i], stems[j], int(rng.integers(20, 200))) for i,j in rng.integers(0, 40, (25,2)) if i!=j]
    parts = {s: {s} for s in stems}
    for a,b,_ in links:
        if parts[a] is not parts[b]:
            parts[a] |= parts[b]
            for s in parts[b]: parts[s] = parts[a]
    slow = sorted({tuple(sorted(p)) for p in parts.values()}, key=lambda p: (-len(p), p[0]))
    place = group_links(stems, links, largest=1.)
    assert [sorted(s for s in stems if place[s]==i) for i in range(len(slow))]==[list(p) for p in slow]

def test_grouping_does_not_depend_on_order():
    rng = np.random.default_rng(1)
    stems = [f'{i:03}' for i in range(60)]
    links = [(a, b, int(rng.integers(20, 99))) for a,b in combinations(stems, 2) if rng.random()<(.5 if int(a)//15==int(b)//15 else .01)]
    want = group_links(stems, links)
    assert max(want.values())>=3
    for _ in range(4):
        shuffled = [links[i] if rng.random()<.5 else (links[i][1], links[i][0], links[i][2]) for i in rng.permutation(len(links))]
        assert group_links(list(rng.permutation(stems)), shuffled)==want

def test_a_chain_is_divided_and_a_clique_is_not():
    stems = [f'{i:02}' for i in range(40)]
    chain = [(a, b, 50) for a,b in zip(stems, stems[1:])]
    sizes = np.bincount(list(group_links(stems, chain, largest=.3).values()))
    assert sizes.max()<=12 and len(sizes)<=10
    assert set(group_links(stems, [(a, b, 50) for a,b in combinations(stems, 2)], largest=.1).values())=={0}

def test_known_groups_stay_together_and_join_what_they_touch():
    stems = list('abcdefgh')
    groups = dict(a=1, h=1, b='x', c='x')
    place = group_links(stems, [('h','g',30)], groups)
    assert place['a']==place['h']==place['g'] and place['b']==place['c']!=place['a'] and len(set(place.values()))==5
    chain = [(a, b, 50) for a,b in zip(stems, stems[1:])]
    assert group_links(stems, chain, dict.fromkeys(stems, 'one flight'), largest=.1)==dict.fromkeys(stems, 0)

# --- leakage

def test_leakage_by_hand():
    links = [('a','x',90), ('b','x',40), ('a','y',25), ('y','z',99), ('a','b',70)]
    alone = Places({}, links)
    l = leakage('ab', 'xyz', alone)
    assert (l.n,l.m,l.share)==(2, 3, 2/3) and l.pairs==[('x','a',90), ('x','b',40), ('y','a',25)]
    assert leakage([], 'xyz', alone).n==0 and leakage('ab', [], alone).share==0
    places = Places(dict.fromkeys('abxyz', 0), links, dict(b='flight', z='flight'))
    assert leakage('ab', 'xyz', places).pairs[-1]==('z','b',0) and leakage('ab', 'xyz', places).n==3

def test_leakage_refuses_photos_it_knows_nothing_about():
    with pytest.raises(DatasetError, match="'q' is not among the 2"): leakage('a', 'q', Places(dict(a=0, b=1), []))
    with pytest.raises(DatasetError, match="'b' is in training and in validation"): leakage('ab', 'bc', Places({}, []))

# --- the whole way

def test_find_places(photos):
    places = find_places(photos, progress=False)
    assert places.groups()==FOUR and len(places)==4 and not places.cut()
    assert places.links==sorted(places.links, key=lambda l: -l[2]) and all(n>=20 and a<b for a,b,n in places.links)
    assert leakage([s for g in FOUR[1:] for s in g], FOUR[0], places).n==0
    assert leakage([g[0] for g in FOUR], [g[1] for g in FOUR], places).n==4

def test_result_does_not_depend_on_order_or_thread(photos):
    got = []
    t = threading.Thread(target=lambda: got.append(find_places(photos[::-1], progress=False)))
    t.start(); t.join()
    assert got[0]==find_places(photos, progress=False)

def test_opencv_threads_are_left_as_they_were(photos, tmp_path):
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        find_places(photos[:2], progress=False)
        assert cv2.getNumThreads()==3
        (tmp_path/'bad.jpg').write_bytes(b'x')
        with pytest.raises(ImageError): find_places([*photos[:2], ('bad', tmp_path/'bad.jpg')], progress=False)
        assert cv2.getNumThreads()==3
    finally: cv2.setNumThreads(before)

def test_few_photos(photos):
    assert find_places([], progress=False).groups()==[]
    assert find_places(photos[:1], progress=False).groups()==[['a0']]
    assert repr(find_places([], progress=False)).startswith('0 photos')

def test_identical_and_blank_photos(tmp_path):
    im = Image.fromarray(view(ground(0), 430, 430)[0])
    for n in ('a','b'): im.save(tmp_path/f'{n}.png')
    for n in ('c','d'): Image.new('L', (300,200), 90).save(tmp_path/f'{n}.png')
    assert find_places([(p.stem, p) for p in tmp_path.glob('*.png')], progress=False).groups()==[['a','b'], ['c'], ['d']]

def test_groups_are_merged_with_links(photos):
    places = find_places(photos, groups=dict(a0='flight', b2='flight', elsewhere='flight'), progress=False)
    assert places.groups()==[FOUR[0]+FOUR[1], FOUR[2], FOUR[3]] and places.known==dict(a0='flight', b2='flight')

def test_errors_name_the_photo(photos, tmp_path):
    cut = tmp_path/'cut short.jpg'
    cut.write_bytes(photos[0][1].read_bytes()[:3000])
    with pytest.raises(ImageError, match='cut short.jpg'): find_places([*photos, ('cut', cut)], progress=False)
    with pytest.raises(DatasetError, match='gone.jpg: no such photo'): find_places([*photos, ('gone', tmp_path/'gone.jpg')], progress=False)
    with pytest.raises(DatasetError, match="two photos are called 'a0'"): find_places([*photos, ('a0', photos[3][1])], progress=False)

# --- the cache

@pytest.fixture
def cached(photos, tmp_path, monkeypatch): # (items, cache file, its places, function that says how often matching ran)
    photos,calls,find = photos[:6],[],find_links # two places
    monkeypatch.setattr(places_page, 'find_links', lambda *a: calls.append(1) or find(*a))
    cache = tmp_path/'sub'/'places.json'
    return photos,cache,find_places(photos, cache=cache, progress=False),lambda: len(calls)

def test_cache_is_used(cached):
    items,cache,places,runs = cached
    assert find_places(items, cache=cache)==places and runs()==1
    assert len(find_places(items, cache=cache, min_inliers=10**6).links)==0 and runs()==1
    assert [p.name for p in cache.parent.iterdir()]==['places.json']

def test_cache_notices_changed_photos(cached):
    items,cache,places,runs = cached
    os.utime(items[0][1], ns=(1, 1))
    assert find_places(items, cache=cache, progress=False)==places and runs()==2
    find_places(items[1:], cache=cache, progress=False); assert runs()==3
    items[5][1].write_bytes(items[0][1].read_bytes())
    assert find_places(items, cache=cache, progress=False).groups()!=places.groups() and runs()==4

@pytest.mark.parametrize('damage', [
    lambda t: b'', lambda t: t[:len(t)//2], lambda t: b'\x00\xff'+t, lambda t: b'[]', lambda t: b'{"key": 1}', lambda t: b'null', lambda t: b'['*100000,
    lambda t: t.replace(b'"pairs": [["a0", "a1", ', b'"pairs": [["a0", "a1", 9'),
    lambda t: json.dumps(json.loads(t)|dict(pairs=[])).encode()])
def test_damaged_cache_is_never_trusted(cached, damage):
    items,cache,places,runs = cached
    bad = damage(cache.read_bytes())
    assert bad!=cache.read_bytes()
    cache.write_bytes(bad)
    with pytest.warns(UserWarning, match='cannot be used'): assert find_places(items, cache=cache, progress=False)==places
    assert runs()==2 and find_places(items, cache=cache)==places and runs()==2

def test_cache_that_cannot_be_written_costs_nothing_but_time(photos, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('in the way')
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        find_places(photos[:3], cache=tmp_path/'file'/'places.json', progress=False)
    assert 'could not be saved' in str(w[-1].message)
    (tmp_path/'folder.json').mkdir()
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        find_places(photos[:3], cache=tmp_path/'folder.json', progress=False)
    assert len(w)==2 and sorted(f.name for f in tmp_path.iterdir() if f.suffix!='.jpg')==['file','folder.json']

def test_cache_notices_a_photo_replaced_with_its_size_and_time_kept(cached):
    items,cache,places,runs = cached
    f = items[0][1]; st = f.stat(); b = f.read_bytes()
    f.write_bytes(b[:-9] + bytes(5) + b[-4:]); os.utime(f, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert f.stat().st_size==st.st_size and f.stat().st_mtime_ns==st.st_mtime_ns
    find_places(items, cache=cache, progress=False); assert runs()==2

def test_full_disk_leaves_the_old_cache(cached, monkeypatch):
    items,cache,places,runs = cached
    old = cache.read_bytes()
    def full(*a, **k): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'replace', full)
    with pytest.warns(UserWarning, match='No space left'): find_places(items[1:], cache=cache, progress=False)
    assert cache.read_bytes()==old and [p.name for p in cache.parent.iterdir()]==['places.json']

# --- pictures

def test_pictures(photos):
    places = find_places(photos, progress=False)
    assert show_place_photos(places, photos, rows=2, cols=3, width=60).size==(192,96)
    assert show_place_photos(Places({}, []), []).size[0]>0

# --- real photos

@real
def test_real_views_of_known_overlap():
    "Two views of each of 40 real photos, turned, scaled and relit: linked where they share ground, never with a mirrored view of another photo"
    rng = np.random.default_rng(0)
    hits,firsts,mirrored = [],[],[]
    for p in sorted(REAL.glob('*.jpg'))[::8][:40]:
        g = read_grey(p)
        turn,scale = rng.uniform(0, 360),rng.uniform(.8, 1.3)
        a,b = view(g, 350, 250)[0],view(g, 410, 262, turn, scale)[0]
        b = np.clip(rng.uniform(.7, 1.3)*255*(b/255)**rng.uniform(.8, 1.25), 0, 255).astype(np.uint8)
        la,lb = find_landmarks(a),find_landmarks(b)
        m = match_landmarks(la, lb)
        hits.append(m.inliers>=20 and m.spread>=.01)
        firsts.append(la); mirrored.append(find_landmarks(np.ascontiguousarray(a[:,::-1])))
    false = [(m.inliers>=20 and m.spread>=.01) for i,j in combinations(range(len(firsts)), 2) for m in [match_landmarks(firsts[i], mirrored[j])]]
    assert np.mean(hits)>=.9 and sum(false)==0

@real
def test_real_photos_leak_under_a_random_split():
    paths = sorted(REAL.glob('*.jpg'))[:100]
    items = [(p.stem, p) for p in paths]
    places = find_places(items, progress=False)
    stems = list(places.place)
    valid = set(np.random.default_rng(0).permutation(stems)[:20])
    assert leakage(set(stems)-valid, valid, places).share>.5
    whole = set()
    for g in places.groups()[1:]:
        if len(whole)<20: whole |= set(g)
    assert leakage(set(stems)-whole, whole, places).share<=.1

# --- tiles of one map

def blank(folder, names, size=(16,16)):
    for n in names:
        (folder/n).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', size[::-1]).save(folder/f'{n}.png')
    return [(n, folder/f'{n}.png') for n in names]

def slow_near(corners, side): # {name: (x, y)} -> {names of two tiles that touch or overlap: share}
    res = {}
    for (p,(x,y)),(q,(u,v)) in combinations(sorted(corners.items()), 2):
        w,h = (side-abs(a-b) for a,b in ((x, u), (y, v)))
        if w>=0 and h>=0: res[p,q] = w*h/side**2
    return res

WAYS = ['18_{X}_{Y}', '18/{X}/{Y}', 'z18_x{X}_y{Y}', 'ortho_r{y:03}_c{x:03}', 'R{y}C{x}', 'field-row{y}-col{x}', 'x={x},y={y}', 'map2_x{x}_y{y}_rgb', 'tile_{y}_{x}', 'tile_{x}x{y}',
        'scene_{px}_{py}', 'P0001__1.0__{px}___{py}', 'P0002_{px}_{qx}_{py}_{qy}', 'box_{px}_{py}_{qx}_{qy}', 'slice_{px}_{py}_16_16', 'm_{px}_{py}_patch', 'dop_tile_{kx}_{ky}']

@pytest.mark.parametrize('way', WAYS)
def test_neighbours_by_name(tmp_path, way):
    at = {way.format(x=x, y=y, X=140012+x, Y=87345+y, px=16*x, py=16*y, qx=16*x+16, qy=16*y+16, kx=346000+500*x, ky=5700000+500*y): (x, y) for x in range(5) for y in range(4) if (x, y)!=(2, 2)}
    tiles = find_tiles(blank(tmp_path, at))
    assert {(a, b): s for a,b,s in tiles.near}==slow_near(at, 1)
    assert len(tiles.how)==1 and len(tiles)==19 and '19 tiles of 1 map, by ' in repr(tiles)

@pytest.mark.parametrize('stride', [16, 30, 48, 64])
def test_offsets_in_pixels_tell_overlap(tmp_path, stride):
    at = {f'ortho_{x}_{y}': (x, y) for x in range(0, 5*stride, stride) for y in range(0, 4*stride, stride)}
    got,want = {(a, b): s for a,b,s in find_tiles(blank(tmp_path, at, (64,64))).near},slow_near(at, 64)
    assert got.keys()==want.keys() and all(abs(got[p]-want[p])<1e-3 for p in want)

@pytest.mark.parametrize('name', ['ortho_{x}_{y}', 'ortho_{y}_{x}', 'y{y}_x{x}'])
def test_oblong_tiles_are_neighbours_edge_to_edge_only(tmp_path, name):
    names = {name.format(x=96*i, y=64*j): (i, j) for i in range(4) for j in range(5)}
    assert {(a, b): s for a,b,s in find_tiles(blank(tmp_path, names, (64,96))).near}==slow_near(names, 1)

def test_two_zooms_of_a_web_map_overlap(tmp_path):
    near = find_tiles(blank(tmp_path, ['18_140012_87344', '17_70006_43672', '17_70009_43672'])).near
    assert near==[('17_70006_43672', '18_140012_87344', 1.)]

@pytest.mark.parametrize('names', [[f'DJI_{i:04}' for i in range(1, 49)], [f'DJI_2023061512{i:04}_{i:04}_V' for i in range(48)], [f'{i:03}' for i in range(48)], [f'img{i}' for i in range(20)],
    [f'seq{s}_{f:06}' for s in range(6) for f in range(8)], [f'2023_{m:02}_{d:02}' for m in range(1, 7) for d in range(1, 9)], [f'flight{s}/{f:03}' for s in range(6) for f in range(8)], ['r1_c1_a', 'r1_c2_b'], [f'clip_{s}_{f}_80_80' for s in range(4) for f in range(8)], [f'{a}{f}' for a in 'ABCD' for f in range(8)]])
def test_ordinary_photos_are_no_tiles(tmp_path, names):
    items = blank(tmp_path, names)
    assert not len(find_tiles(items))       # nothing to be seen in them
    rng = np.random.default_rng(0)
    for _,p in items: Image.fromarray(cv2.resize(rng.integers(0, 255, (20,20,3), dtype=np.uint8), (80,80), interpolation=cv2.INTER_CUBIC)).save(p)
    assert not len(find_tiles(items))

def cut_ground(folder, name, rows=4, cols=5, order=None):
    g,cells = ground(2, 100*max(rows, cols)),[(y, x) for y in range(rows) for x in range(cols)]
    for k,(y,x) in enumerate(cells):
        v,u = cells[order[k]] if order is not None else (y, x)
        Image.fromarray(g[100*v:100*v+100,100*u:100*u+100]).convert('RGB').save(folder/f'{name.format(y=y, x=x, i=y*cols+x+1, j=x*rows+y, a="ABCD"[y])}.jpg', quality=90)
    return [(p.stem, p) for p in sorted(folder.glob('*.jpg'))]

@pytest.mark.parametrize('name', ['img_{y}_{x}', 'image_part_{i:03}', '{i}', 'down_{j}', 'sheet {a}{x}'])
def test_pictures_that_go_on_in_each_other_are_tiles(tmp_path, name):
    at = {name.format(y=y, x=x, i=y*5+x+1, j=x*4+y, a='ABCD'[y]): (x, y) for y in range(4) for x in range(5)}
    assert {(a, b): s for a,b,s in find_tiles(cut_ground(tmp_path, name)).near}==slow_near(at, 1)

@pytest.mark.parametrize('name', ['img_{y}_{x}', 'image_part_{i:03}', 'tile_{y}_{x}', '{a}{x}'])
def test_pictures_that_do_not_are_none(tmp_path, name):
    assert not len(find_tiles(cut_ground(tmp_path, name, order=np.random.default_rng(1).permutation(20))))

def geotiff(path, x, y, m=.5, size=(20,30), epsg=32633):
    from PIL.TiffImagePlugin import ImageFileDirectory_v2
    tags = ImageFileDirectory_v2()
    tags[33550],tags[33922],tags[34735] = (m, m, 0.),(0., 0., 0., float(x), float(y), 0.),(1,1,0,1,3072,0,1,epsg)
    Image.new('RGB', size[::-1]).save(path, tiffinfo=tags)

def test_neighbours_by_position(tmp_path):
    "15 m by 10 m each: an edge shared, a corner shared, a tenth shared, a gap of a metre, another projection; names say nothing"
    for n,x,y in (('q', 0, 0), ('w', 15, 0), ('e', 30, 10), ('r', 0, -9), ('t', -16, 0)): geotiff(tmp_path/f'{n}.tif', 5e5+x, 5e6+y)
    geotiff(tmp_path/'other.tif', 5e5+15, 5e6, epsg=32634)
    tiles = find_tiles((p.stem, p) for p in tmp_path.glob('*.tif'))
    assert {(a, b): s for a,b,s in tiles.near}=={('q','w'): 0, ('e','w'): 0, ('q','r'): .1, ('r','w'): 0}
    assert 'their position on the ground' in repr(tiles) and 't' not in tiles.box and 'other' not in tiles.box

def test_boxes_are_those_of_rasterio(tmp_path):
    rasterio = pytest.importorskip('rasterio')
    from rasterio.transform import Affine
    for k,(turn,driver,end) in enumerate([(0,'GTiff','tif'), (30,'GTiff','tif'), (0,'PNG','png'), (30,'PNG','png')]):
        f = tmp_path/f'{k}.{end}'
        t = Affine.translation(5e5, 5e6) @ Affine.rotation(turn) @ Affine.scale(.2, -.3)
        with rasterio.open(f, 'w', driver=driver, width=50, height=40, count=3, dtype='uint8', crs='EPSG:32633', transform=t) as o: o.write(np.zeros((3,40,50), np.uint8))
        corners = np.array([(t.a*i+t.b*j+t.c, t.d*i+t.e*j+t.f) for i in (0,50) for j in (0,40)])
        assert np.allclose(read_box(f)[1], [*corners.min(0), *corners.max(0)])

@pytest.mark.parametrize('text', ['', 'nonsense', '1\n2', '.5\n0\n0\n-.5\nnan\n0', '0\n0\n0\n0\n0\n0'])
def test_a_world_file_that_says_nothing(tmp_path, text):
    Image.new('RGB', (9,9)).save(tmp_path/'a.jpg'); (tmp_path/'a.jgw').write_text(text)
    assert read_box(tmp_path/'a.jpg') is None

@pytest.mark.parametrize('shape', [(8,6), (16,12), (40,3), (1,30)])
def test_blocks_are_whole_and_hang_together(shape):
    import networkx as nx
    cells = [(x, y) for x in range(shape[0]) for y in range(shape[1])]
    box = {f'{x}_{y}': (0, x, y, x+1, y+1) for x,y in cells}
    near = [(*p, s) for p,s in slow_near({s: b[1:3] for s,b in box.items()}, 1).items()]
    blocks = cut_blocks(Tiles(box, near, ['x']), len(cells)/10)
    assert blocks.keys()==box.keys() and len(set(blocks.values()))==10
    for b in set(blocks.values()):
        members = [s for s in box if blocks[s]==b]
        assert len(members)<=max(1.7*len(cells)/10, 2)
        sub = nx.Graph([(p, q) for p,q,_ in near if p in members and q in members]); sub.add_nodes_from(members)
        assert nx.is_connected(sub)
    assert len(set(cut_blocks(Tiles(box, near, ['x']), len(cells)/2).values()))==1     # a small map is one place

def test_tiles_are_places_in_blocks(tmp_path):
    places = find_places(blank(tmp_path, [f'18_{140000+x}_{87000+y}' for x in range(8) for y in range(6)]), progress=False)
    assert len(places)==10 and '48 tiles of 1 map, by zoom, x and y in their names' in repr(places)

def test_leakage_tells_touch_from_overlap():
    near = [('a','v',0.), ('a','w',.3), ('b','x',0.), ('x','y',.5)]
    leak = leakage('ab', 'vwxyz', Places(dict.fromkeys('abvwxyz', 0), [], {}, Tiles({}, near, [])))
    assert (leak.n, leak.touch, leak.pairs)==(1, 2, [('w','a',0)])
    assert str(leak)=='1 of 5 validation photos overlap a training photo, 2 touch one as tiles of one map'

@real
def test_real_photos_are_no_tiles_and_real_tiles_are():
    assert not len(find_tiles((p.stem, p) for p in REAL.iterdir()))
    dubai = REAL.parents[1]/'dubai'
    if not dubai.is_dir(): pytest.skip(f'needs the tiles in {dubai}')
    tiles = find_tiles((f'{p.parts[-3]}/{p.stem}', p) for p in dubai.glob('Tile */images/*.jpg'))
    assert len(tiles)==72 and tiles.how==['a running number, 3 to a row in their names']*8
    want = {k+1: {i+1 for i in range(9) if i!=k and abs(i//3-k//3)<2 and abs(i%3-k%3)<2} for k in range(9)}
    got = {k: set() for k in range(1, 10)}
    for a,b,_ in tiles.near:
        if a.startswith('Tile 5/'): a,b = int(a[-3:]),int(b[-3:]); got[a].add(b); got[b].add(a)
    assert got==want
