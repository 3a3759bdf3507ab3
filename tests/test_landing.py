"80_use.ground to 80d_use.landing: circles against brute force and hand-worked masks; reasons, outputs, presets"
import json, math
from dataclasses import replace
import numpy as np, pytest
from typer.testing import CliRunner
from drone_seg.fields import *
from drone_seg.classes import *
from drone_seg.photo.gsd import *
from drone_seg.use.ground import *
from drone_seg.use.ground import describe_presets, sort_classes
from drone_seg.use.circles import free_radius, pick_circles, ground_form
from drone_seg.use.sheet import ADVICE
from drone_seg.use.landing import *
from drone_seg.predict.predict import Prediction
from drone_seg.data.records import RECORDS
from drone_seg.scenes.scene import SCENE_CLASSES

TABLE = ClassTable(['void','grass','path','tree','person'], void=['void'])
LAWN = Preset('lawn', ('grass',), ('path',), 0., 0.)
GRASS,PATH,TREE,PERSON = 1,2,3,4

def zones(ids, radius, preset=LAWN, gsd=1., **kw): return landing_zones(np.asarray(ids, np.uint8), preset, gsd, radius, TABLE, **kw)
def lawn(*shape): return np.full(shape, GRASS, np.uint8)

def slow_radius(risk, clearance=0): # pixel by pixel, as the page words it
    H,W = risk.shape
    rim = [(y,x) for y in range(-1, H+1) for x in (-1,W)] + [(y,x) for x in range(W) for y in (-1,H)]
    blocked = np.array([*map(tuple, np.argwhere(risk!=LANDABLE)), *rim])
    bad,res = np.argwhere(risk==FORBIDDEN),np.zeros((H,W))
    for y in range(H):
        for x in range(W):
            res[y,x] = min(math.hypot(y-v, x-u) for v,u in blocked)-.5
            if clearance and len(bad): res[y,x] = min(res[y,x], min(math.hypot(y-v, x-u) for v,u in bad)-.5-clearance)
    return res

def patchy(seed, shape=(17,23)):
    g = np.random.default_rng(seed)
    return np.where(g.random(shape)<.04, g.integers(1, 4, shape), 0).astype(np.uint8)

@pytest.mark.parametrize('clearance', [0, 1.7])
def test_free_radius_is_brute_force(clearance):
    for seed in range(8):
        risk = patchy(seed)
        assert np.allclose(free_radius(risk, clearance), slow_radius(risk, clearance), atol=1e-4)
    assert np.allclose(free_radius(np.zeros((1,9), np.uint8)), .5) and (free_radius(np.full((3,3), FORBIDDEN, np.uint8))<=0).all()

def test_greedy_is_brute_force():
    "Each circle is the largest that is left when no two may overlap"
    for seed in range(6):
        risk = patchy(seed, (25,31))
        full = slow_radius(risk)
        got,taken = pick_circles(free_radius(risk), 1.4, 6),[]
        assert got
        for y,x,r in got:
            left = full.copy()
            for v,u,s in taken:
                left = np.minimum(left, np.hypot(*(np.indices(left.shape)-np.array([v,u])[:,None,None]))-s)
            assert r==pytest.approx(left.max(), abs=1e-3) and left[y,x]==pytest.approx(r, abs=1e-3)
            taken.append((y,x,r))
        if len(got)<6:
            left = np.min([full]+[np.hypot(*(np.indices(full.shape)-np.array([v,u])[:,None,None]))-s for v,u,s in taken], 0)
            assert left.max()<1.4+1e-3

def test_lawn_with_trees_by_hand():
    "21 x 21 pixels, the left column trees: 20 columns are left, so the circle has half of them less half a pixel: 9.5"
    ids = lawn(21,21); ids[:,0] = TREE
    z = zones(ids, 2)[0]
    assert z.col==10 and z.radius==pytest.approx(9.5) and z.clearance==pytest.approx(0)
    # with 3 m kept from trees: column 12 is 12-.5-3 = 8.5 from what they forbid, and 21-12-.5 = 8.5 from the right edge
    z = zones(ids, 2, clearance=3)[0]
    assert z.col==12 and z.radius==pytest.approx(8.5) and z.clearance==pytest.approx(3)
    # a path may touch: no clearance is kept from it
    ids[ids==TREE] = PATH
    z = zones(ids, 2, clearance=3)[0]
    assert z.radius==pytest.approx(9.5) and z.clearance is None

def test_metres_by_hand():
    "The same lawn at 5 cm: all lengths are a twentieth; the middle is 0,0, right and up are positive"
    ids = lawn(21,41); ids[:,20] = TREE
    found = zones(ids, .2, gsd=.05, n=2)
    assert {(z.row, z.col) for z in found}=={(9,9), (9,30)} # 20 columns and 21 rows each: of the centres alike, the first in reading order
    for z in found:
        assert z.x==pytest.approx((z.col-20)*.05) and z.y==pytest.approx((10-z.row)*.05) and z.radius==pytest.approx(9.5*.05)
        assert z.distance==pytest.approx(math.hypot(z.x, z.y)) and z.shares=={'grass':1.}
    right = zones(ids, .2, gsd=.05, n=2, drone=(10,40))
    assert right[0].col>20 and right[1].col<20 # the drone is on the right: all else equal, that side is first

def test_no_zone_holds_what_it_may_not():
    rng = np.random.default_rng(0)
    for seed in range(6):
        ids = rng.choice([GRASS]*60+[PATH,TREE,0], (60,80)).astype(np.uint8)
        sure = rng.integers(100, 256, ids.shape).astype(np.uint8); sure[rng.random(ids.shape)>.02] = 255
        for z in zones(ids, 2, clearance=1, confidence=sure, min_confidence=.8, n=9):
            d = np.hypot(*(np.indices(ids.shape)-np.array([z.row,z.col])[:,None,None]))
            assert (ids[d<=z.radius]==GRASS).all() and (sure[d<=z.radius]>=204).all() and not (ids[d<z.radius+1]==TREE).any()
            assert z.min_confidence==pytest.approx(sure[d<=z.radius].min()/255) and z.confidence==pytest.approx(sure[d<=z.radius].mean()/255)
            assert 0<=z.row-z.radius+.5+1e-6 and z.row+z.radius-.5<=59+1e-6

def test_doubt_takes_ground_away_and_gives_none_back():
    ids = np.array([[GRASS,TREE,PATH,0]], np.uint8)
    unsure = np.zeros((1,4), np.uint8)
    assert risk_map(ids, TABLE, LAWN).tolist()==[[LANDABLE,FORBIDDEN,AVOID,UNKNOWN]]
    assert risk_map(ids, TABLE, LAWN, unsure, .5).tolist()==[[UNKNOWN,FORBIDDEN,AVOID,UNKNOWN]]
    assert risk_map(np.array([[99]], np.uint8), TABLE, LAWN).tolist()==[[UNKNOWN]] # an id outside the table

def test_several_confidences_count_by_their_least():
    ids,a,b = lawn(21,21),np.full((21,21), 255, np.uint8),np.full((21,21), 255, np.uint8)
    a[:,:5],b[:,-5:] = 10,10
    z = zones(ids, 2, confidence=[a,b], min_confidence=.5)[0]
    assert z.radius==pytest.approx(5.5) and z.col==10

# Centres are centres of pixels, so a lawn of an even width n holds a circle of (n-1)/2
@pytest.mark.parametrize('make, kw, says', [
    (lambda: np.full((40,40), TREE), {}, 'no landable ground was seen (grass); the photo shows tree 100%'),
    (lambda: lawn(5,40), {}, 'the widest circle on landable ground has a radius of 2.50 m; 3 m are needed'),
    (lambda: np.concatenate([lawn(8,40), np.full((1,40), TREE)]), dict(clearance=4), 'the widest circle 4 m away from what is forbidden has a radius of 1.50 m (3.50 m without that distance)'),
    (lambda: lawn(40,40), dict(min_confidence=.9, confidence=np.pad(np.full((40,4), 255, np.uint8), ((0,0), (0,36)))), 'the widest circle where the model is 90% sure has a radius of 1.50 m (19.50 m without that condition)'),
    (lambda: lawn(40,40), dict(surface=np.indices((40,40))[0]*1.), 'level and smooth enough has a radius of 0 m')])
def test_none_says_why(make, kw, says):
    found = zones(make(), 3, **kw)
    assert not len(found) and says in found.why and found.title.startswith('NO LANDING ZONE')
    assert json.loads(found.to_json())['why_none']==found.why and json.loads(found.to_geojson(*PLACE))['features']==[]
    assert found.picture(side=200).width>200 and ADVICE in repr(found)

def test_surface_against_a_plane_fit():
    rng = np.random.default_rng(0)
    z = np.cumsum(rng.normal(size=(30,40)), 0)*.05 + 400 # metres above the sea
    slope,rough = ground_form(z, .1, .5)
    for r,c in rng.integers(5, 25, (12,2)):
        y,x = np.mgrid[-5:6,-5:6]*.1
        a = np.c_[y.ravel(), x.ravel(), np.ones(121)]
        fit,*_ = np.linalg.lstsq(a, z[r-5:r+6,c-5:c+6].ravel(), rcond=None)
        assert slope[r,c]==pytest.approx(math.degrees(math.atan(math.hypot(*fit[:2]))), rel=1e-6)
        assert rough[r,c]==pytest.approx(np.sqrt(((a@fit-z[r-5:r+6,c-5:c+6].ravel())**2).mean()), rel=1e-5)
    z[10,10] = np.nan
    assert np.isinf(ground_form(z, .1, .5)[0][5:16,5:16]).all() and np.isfinite(ground_form(z, .1, .5)[0][16,16])

def test_zone_keeps_to_the_level_part():
    "The right half rises by 45 degrees: the zone lies on the left, is level all over, and says so"
    z = np.maximum(np.indices((41,81))[1]-40., 0)
    found = zones(lawn(41,81), 5, surface=z, n=1)[0]
    assert found.col+found.radius<=45 and found.slope<=10 and found.roughness<=.05
    tight = zones(lawn(41,41), 5, surface=np.hypot(*(np.indices((41,41))-20.)).clip(9)-9, n=1)[0] # a bowl, level in its middle only
    assert tight.radius==pytest.approx(5) and tight.roughness<=.05 and (tight.row, tight.col)==(20,20)
    with pytest.raises(DroneSegError, match='heights in metres'): zones(lawn(9,9), 2, surface=np.zeros((3,3)))

def test_rank_follows_the_stated_formula():
    ids = lawn(80,160); ids[:,80] = TREE; ids[30,30] = PERSON
    sure = np.full(ids.shape, 250, np.uint8); sure[:,81:] = 210
    found = zones(ids, 4, confidence=sure, n=6)
    far = math.hypot(79/2, 159/2)
    for z in found:
        t = dict(clearance=1-4/(z.radius+z.clearance), confidence=z.confidence, size=1-4/z.radius, distance=1-z.distance/far)
        assert z.score==pytest.approx(.35*t['clearance']+.3*t['confidence']+.2*t['size']+.15*t['distance'], abs=1e-6)
    assert [z.rank for z in found]==[*range(1, len(found)+1)] and [z.score for z in found]==sorted((z.score for z in found), reverse=True)

PLACE = ((1e-6, 0, 15, 0, -1e-6, 47), 'EPSG:4326')
KEEP = dict(clearance=1, min_confidence=.8)

def sure_of(ids, sure=240, **kw):
    "A prediction as a calibrated model makes it"
    return Prediction(np.asarray(ids, np.uint8), TABLE, None, confidence=np.full(np.shape(ids), sure, np.uint8), **{'measure':'max', 'calibrated':True, **kw})

def test_green_is_earned():
    "A lawn of 41 x 41 m: the widest circle has 20.5 m"
    green = landing_zones(sure_of(lawn(41,41)), LAWN, 1., 10, **KEEP)[0]
    assert green.grade=='green' and green.doubts==() and green.room==20.5
    assert landing_zones(sure_of(lawn(41,41)), LAWN, 1., 13, **KEEP)[0].grade=='green' # 20.5 is more than 1.5 times 13
    assert landing_zones(sure_of(lawn(41,41)), LAWN, 1., 14, **KEEP)[0].grade=='amber'

def odd_pixel(value, at=(20,20), **kw):
    pred = sure_of(lawn(41,41), **kw)
    pred.confidence[at] = value
    return pred

SAFE = lambda: sure_of(lawn(41,41))
@pytest.mark.parametrize('make, kw, says', [
    (SAFE, dict(clearance=0), 'the clearance asked for is 0 m'), (SAFE, dict(clearance=.1), 'the clearance asked for is 0.1 m'),
    (SAFE, dict(min_confidence=0), 'no least confidence was asked for'),
    (lambda: Prediction(lawn(41,41), TABLE, None), dict(min_confidence=0), 'was not measured'),
    (lambda: sure_of(lawn(41,41), calibrated=False), {}, 'never calibrated'),
    (lambda: sure_of(lawn(41,41), measure='entropy'), {}, "'entropy', which is no probability"), (lambda: sure_of(lawn(41,41), measure='disagreement'), {}, 'no probability'),
    (lambda: sure_of(lawn(41,41), tidied=True), {}, 'smoothed or freed of specks'),
    (lambda: sure_of(lawn(41,41), light='hazier than'), {}, 'hazier than those the model learnt from'),
    (SAFE, dict(gsd=Gsd(1, guess=True)), 'an assumption'), (SAFE, dict(gsd=Gsd(1, notes=['height above the place of take-off'])), 'place of take-off'), (SAFE, dict(gsd=Gsd(1, spread=.08)), '8% off')])
def test_what_holds_for_all_zones_is_named_everywhere(make, kw, says):
    found = landing_zones(make(), LAWN, **{'gsd':1., 'radius':10, **KEEP, **kw})
    assert len(found) and {z.grade for z in found}=={'amber'}
    assert sum(says in d for d in found.doubts)==1 and len(found.doubts)==1+('was not measured' in says)
    assert says in repr(found) and says in found.banner and 'none green' in found.banner
    for text in (found.to_json(), found.to_geojson(*PLACE)):
        d = json.loads(text)
        zones = [f['properties'] for f in d['features']] if 'features' in d else d['zones']
        assert d['green']==0 and all(any(says in t for t in (*d['doubts'],)) and any(says in t for t in z['doubts']) for z in zones)

def within(thing):
    "A lawn of 33 x 33 m with something around it: 16.5 m from its middle"
    ids = np.full((61,61), thing)
    ids[14:47,14:47] = GRASS
    return sure_of(ids)

@pytest.mark.parametrize('make, kw, says', [
    (lambda: odd_pixel(200), dict(min_confidence=.5), 'its least sure pixel is 78.4% sure'), # 200/255; the mean is .94
    (lambda: within(TREE), dict(clearance=4), 'forbidden ground is 16.50 m from its centre, below 21'),
    (lambda: within(PATH), dict(clearance=8), 'not landable, or the photo\'s edge, is 16.50 m from its centre, below 18'), (lambda: within(0), dict(clearance=8), 'is 16.50 m from its centre, below 18'),
    (SAFE, dict(clearance=11), "photo's edge, is 20.50 m"), (SAFE, dict(radius=15), 'its radius is 20.50 m, below 22.5')])
def test_what_is_wrong_with_one_zone_is_named(make, kw, says):
    found = landing_zones(make(), LAWN, 1., **{'radius':10, **KEEP, **kw})
    z = found[0]
    assert found.doubts==[] and z.grade=='amber' and any(says in d for d in z.doubts)
    assert says in repr(found) and says in found.banner and any(says in d for d in json.loads(found.to_json())['zones'][0]['doubts'])

def test_green_zones_hold_what_they_promise():
    "Judged pixel by pixel: as far as the clearance reaches nothing but landable ground of which the model is sure, and it lies in the photo"
    rng,seen = np.random.default_rng(0),0
    for _ in range(8):
        ids = rng.choice([GRASS]*1200+[PATH,TREE,PERSON,0], (80,100)).astype(np.uint8)
        sure = np.where(rng.random(ids.shape)<.001, 150, 250).astype(np.uint8)
        pred = Prediction(ids, TABLE, None, confidence=sure, measure='max', calibrated=True)
        for z in landing_zones(pred, LAWN, 1., 3, clearance=2, min_confidence=.8, n=9):
            if z.grade!='green': continue
            seen += 1
            d = np.hypot(*(np.indices(ids.shape)-np.array([z.row,z.col])[:,None,None]))
            assert (ids[d<5]==GRASS).all() and not np.isin(ids[d<1.5*5], (TREE,PERSON)).any() and (sure[d<=z.radius]>=204).all() and z.radius>=4.5
            assert min(z.row, z.col, 79-z.row, 99-z.col)+.5>=5
    assert seen>=3

def test_the_banner_tells_the_least_sure_pixel():
    found = landing_zones(odd_pixel(153), LAWN, 1., 10, **{**KEEP, 'min_confidence':.5})
    assert found[0].confidence>.9 and 'least sure pixel 60%' in found.banner and '94%' not in found.banner

def test_the_banner_is_green_only_if_the_best_zone_is():
    from drone_seg.use.sheet import BANNERS
    for pred,grade in ((SAFE(), 'green'), (sure_of(lawn(41,41), calibrated=False), 'amber'), (sure_of(np.full((41,41), TREE)), 'none')):
        found = landing_zones(pred, LAWN, 1., 10, **KEEP)
        assert found.picture(side=300).getpixel((0,0))==BANNERS[grade]

def test_presets_of_ones_own_are_strict():
    for preset in (Preset('mine', ('grass',)), dict(landable=['grass'])): assert (as_preset(preset).clearance, as_preset(preset).confidence)==(2., .9)
    with pytest.raises(DroneSegError, match="confidence='max'"): zones(lawn(41,41), 4, dict(landable=['grass']))
    ids = lawn(41,41); ids[:,0] = TREE
    assert zones(ids, 4, dict(landable=['grass']), min_confidence=0)[0].clearance>=2-1e-6

def test_a_preset_that_does_not_fit_names_what_is_missing():
    with pytest.raises(DroneSegError) as e: landing_zones(lawn(9,9), 'strict', 1., 3, SCENE_CLASSES)
    assert all(repr(n) in str(e.value) for n in ('gravel','ar-marker','rocks','vegetation')) and 'presets that fit: scenes' in str(e.value) and 'paved\'?' not in str(e.value)
    assert fitting_presets(RECORDS['semantic_drone'].classes)[0]=='strict' and fitting_presets(TABLE)==[]
    with pytest.raises(DroneSegError, match="no class 'gras' among road; no preset fits these classes: name the landable ones yourself, of these$"):
        sort_classes(dict(landable=['gras']), ClassTable(['road']))
    text = describe_presets(RECORDS['floodnet'].classes)
    assert 'floodnet fits: lands on Grass' in text and 'scenes does not fit: no class grass, dirt, tree' in text

def test_a_guess_out_of_tags_is_refused(tmp_path):
    from PIL import Image
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 24
    Image.new('RGB', (60,40)).save(tmp_path/'a.jpg', exif=exif, xmp=b'<a Camera:AboveGroundAltitude="30" Camera:Pitch="0"/>')
    pred = Prediction(lawn(40,60), TABLE, tmp_path/'a.jpg')
    for gsd in (None, photo_gsd(tmp_path/'a.jpg')):
        with pytest.raises(DroneSegError, match='are a guess .*nothing shows it.* give gsd'): landing_zones(pred, LAWN, gsd, 2.)
    assert len(landing_zones(pred, LAWN, Gsd(.5, guess=True), 2.))

def test_an_assumption_is_said_everywhere():
    found = zones(lawn(41,41), 4, gsd=Gsd(1, 'heights of 5 to 30 m', guess=True))
    assert 'ASSUMED' in repr(found) and any('assumption' in n for n in found.notes) and any('assumption' in d for d in found.doubts)
    for text in (found.to_json(), found.to_geojson(*PLACE)): assert json.loads(text)['gsd']['guess'] is True

def test_the_advice_is_in_every_output(monkeypatch):
    import drone_seg.use.sheet as L
    found,seen = zones(lawn(41,41), 4),[]
    monkeypatch.setattr(L, '_strip', lambda w,text,*a,real=L._strip: (seen.append(text), real(w, text, *a))[1])
    found.picture(side=300)
    assert any(ADVICE in t for t in seen) and found.banner in seen and ADVICE in repr(found)
    assert json.loads(found.to_json())['advice']==json.loads(found.to_geojson(*PLACE))['advice']==ADVICE

def shoelace(ring):
    (x,y),(u,v) = np.array(ring[:-1]).T,np.array(ring[1:]).T
    return float((x*v-u*y).sum()/2)

@pytest.mark.parametrize('transform', [(1e-6, 0, 15, 0, -1e-6, 47), (0, 1e-6, 15, 1e-6, 0, 47)])
def test_geojson_circles(transform):
    ids = lawn(41,61); ids[:,30] = TREE
    found = zones(ids, 4)
    d = json.loads(found.to_geojson(transform=transform, crs='EPSG:4326'))
    assert d['type']=='FeatureCollection' and d['coordinates'].startswith('longitude')
    for z,f in zip(found, d['features']):
        ring = f['geometry']['coordinates'][0]
        assert ring[0]==ring[-1] and f['properties']['rank']==z.rank
        unit = 1e-6
        assert shoelace(ring)==pytest.approx(math.pi*(z.radius*unit)**2, rel=.01) # anticlockwise: above 0

def test_geojson_in_metres_of_utm():
    pytest.importorskip('rasterio')
    found = zones(lawn(21,21), 4)
    d = json.loads(found.to_geojson(transform=(1, 0, 5e5-10.5, 0, -1, 10.5), crs='EPSG:32633')) # its middle on the equator, 15 degrees east
    ring = np.array(d['features'][0]['geometry']['coordinates'][0][:-1])
    assert np.allclose(ring.mean(0), (15, 0), atol=1e-7)
    assert np.ptp(ring[:,0])/2*111_320==pytest.approx(10.5, rel=.01) # a degree of the equator

def test_a_photo_of_another_size_is_not_stretched(tmp_path):
    found = replace(zones(lawn(41,61), 4), photo=np.zeros((20,61,3), np.uint8))
    with pytest.raises(DroneSegError, match='photo is 61x20, its mask 61x41; predict it again'): found.save(tmp_path/'a.png')
    assert not list(tmp_path.iterdir())

def test_files(tmp_path):
    found = zones(lawn(41,61), 4)
    files = found.save(tmp_path/'a.b.png')
    assert [f.name for f in files]==['a.b.png','a.b.zones.json'] and all(f.stat().st_size for f in files) and len(list(tmp_path.iterdir()))==2 # pixels are no GeoJSON
    assert json.loads(files[1].read_text())['coordinates'].startswith('pixels')
    assert [f.name for f in found.save(tmp_path/'c.png', *PLACE)]==['c.png','c.zones.json','c.geojson']
    assert json.loads(files[1].read_text())['asked']==dict(radius_m=4, clearance_m=0., min_confidence=0., drone_row_col=[20.,30.])
    for given in ({}, dict(crs='EPSG:4326'), dict(transform=PLACE[0])):
        with pytest.raises(DroneSegError, match='both'): found.to_geojson(**given)

def test_presets_fit_their_data_sets():
    homes = {'mobile-landing':'semantic_drone', 'ground':'semantic_drone', 'strict':'semantic_drone', 'floodnet':'floodnet', 'harvey25':'harvey25', 'scenes':None}
    assert set(homes)==set(PRESETS)
    for name,home in homes.items():
        table = SCENE_CLASSES if home is None else RECORDS[home].classes
        got = sort_classes(name, table)
        assert sorted(sum(got.values(), []))==sorted(table.scored_names)
        never = {'person','dog','car','vehicle','bicycle','water','pool','swimming-pool','power-lines','water-body','boat','tree','obstacle','fence'} | (set() if name in ('mobile-landing','ground') else {'paved-area','paved','road','roof'})
        if name!='mobile-landing': assert not {n.lower() for n in got['landable']} & never
        assert not {n.lower() for n in got['landable']+got['avoid']} & {'person','dog','car','vehicle','bicycle','water','pool','power-lines','boat'}
    assert set(sort_classes('mobile-landing', RECORDS['semantic_drone'].classes)['landable'])=={'grass','gravel','paved-area','dirt','roof'}

@pytest.mark.parametrize('kw, says', [
    (dict(preset=dict(landable=['gras'])), "did you mean 'grass'"), (dict(preset=dict(landable=[])), 'no landable class'), (dict(preset=dict(landable='grass')), 'list of class names'),
    (dict(preset=dict(landable=['grass'], avoid=['grass'])), 'one or the other'), (dict(preset=dict(landable=['zebra'])), 'fits these classes'), (dict(preset='nonsense'), 'no preset'), (dict(preset='nowhere.json'), 'not a preset'),
    (dict(radius=0), 'above 0'), (dict(radius=float('nan')), 'radius'), (dict(radius=1.9), 'below 2 pixels'), (dict(radius=True), 'radius'), (dict(clearance=-1), '0 or more'), (dict(min_confidence=2), '1 at most'),
    (dict(min_confidence=.5), "confidence='max'"), (dict(confidence=np.zeros((3,3), np.uint8)), 'confidence of shape'), (dict(confidence=np.zeros((9,9))), 'uint8'), (dict(n=0), '1 or more'), (dict(drone=(1,)), 'row, column'), (dict(gsd=0), 'metres per pixel'), (dict(gsd=40), 'metres per pixel')])
def test_bad_input_is_one_line(kw, says):
    with pytest.raises(DroneSegError, match=says) as e: zones(lawn(9,9), **{'radius':3, **kw})
    assert '\n' not in str(e.value)

def test_preset_from_a_file(tmp_path):
    (tmp_path/'mine.json').write_text(json.dumps(dict(landable=['grass'], avoid=['path'], clearance=2, confidence=.5)))
    p = as_preset(tmp_path/'mine.json')
    assert (p.name, p.landable, p.avoid, p.clearance, p.confidence)==('mine', ('grass',), ('path',), 2, .5)

def test_command(tmp_path, monkeypatch):
    "drone_seg land: files, the advice, errors in its own words"
    import torch, drone_seg.models.bundle as B
    from drone_seg.cli import app
    from PIL import Image
    class Green(torch.nn.Module): # grass all over
        def forward(self, x): return torch.cat([x[:,:1]*0-9, x[:,:1]*0+9, x[:,:1]*0-9, x[:,:1]*0-9], 1)
    bundle = B.Bundle(Green(), ClassTable(['dirt','grass','gravel','person']), (32,48))
    monkeypatch.setattr(B, 'load_bundle', lambda *_: bundle)
    monkeypatch.setattr('drone_seg.cli._classes', lambda run: bundle.classes)
    (tmp_path/'p.json').write_text('{"landable": ["grass"], "confidence": 0.8}')
    Image.new('RGB', (120,80), 'green').save(tmp_path/'x.jpg')
    args = ['land', 'run', str(tmp_path/'x.jpg'), '--preset', str(tmp_path/'p.json'), '--out', str(tmp_path/'out')]
    res = CliRunner().invoke(app, args+['--gsd', '.05', '--radius', '1'])
    assert res.exit_code==0 and ADVICE in res.output and 'never calibrated' in res.output and sorted(f.name for f in (tmp_path/'out').iterdir())==['x.png','x.zones.json']
    d = json.loads((tmp_path/'out'/'x.zones.json').read_text())
    assert d['zones'][0]['radius']==pytest.approx(39.5*.05) and d['gsd']['source']=='given' and d['zones'][0]['min_confidence']>.8 # 80 rows of 5 cm
    for more,says in (([], 'give height'), (['--gsd', '40'], 'gsd'), (['--gsd', '.05', '--height', '20'], 'give one of them'), (['--gsd', '.05', '--preset', 'strict'], 'no class'), (['--gsd', '.05', '--landable', 'grass'], 'give one of them'), (['--gsd', '.05', '--avoid', 'dirt'], 'goes with landable')):
        res = CliRunner().invoke(app, args+more)
        assert isinstance(res.exception, DroneSegError) and says in str(res.exception)

def test_command_without_a_file_of_a_preset(tmp_path, monkeypatch):
    import torch, drone_seg.models.bundle as B
    from drone_seg.cli import app
    from PIL import Image
    class Grass(torch.nn.Module):
        def forward(self, x): return torch.nn.functional.one_hot((x[:,0]*0+1).long(), 5).permute(0, 3, 1, 2)*20.
    bundle = B.Bundle(Grass(), ClassTable(['dirt','grass','tree','person','water']), (32,48))
    monkeypatch.setattr(B, 'load_bundle', lambda *_: bundle)
    monkeypatch.setattr('drone_seg.cli._classes', lambda run: bundle.classes)
    Image.new('RGB', (120,80), 'green').save(tmp_path/'x.jpg')
    def ask(*more): return CliRunner().invoke(app, ['land', 'run', str(tmp_path/'x.jpg'), '--gsd', '.1', '--radius', '1', '--out', str(tmp_path/'out'), *more])
    def asked():
        d = json.loads((tmp_path/'out'/'x.zones.json').read_text())
        return d['asked']['clearance_m'],d['asked']['min_confidence'],d['classes']['landable'],d['classes']['avoid'],d['green']
    assert 'scenes fits' in CliRunner().invoke(app, ['land', 'run']).output
    assert 'preset scenes, the most careful' in ask().output and asked()==(1, .6, ['grass','dirt'], ['tree'], 0)
    assert ask('--landable', 'grass,dirt', '--avoid', 'tree').exit_code==0 and asked()==(2, .9, ['grass','dirt'], ['tree'], 0)
    bundle.temperature = 1.
    assert ask('--landable', 'grass').exit_code==0 and asked()==(2, .9, ['grass'], [], 1)
    bundle.classes = ClassTable(['dirt','lawn','tree','person','water'])
    assert 'no preset fits this model; name classes as landable' in str(ask().exception)

def test_a_prediction_knows_how_it_was_made():
    import torch
    from drone_seg.models.bundle import Bundle
    net = torch.nn.Conv2d(3, 4, 1)
    im = np.zeros((32,48,3), np.uint8)
    for temperature,kw,want in ((None, {}, (None, False, False)), (1.5, dict(confidence='max'), ('max', True, False)), (1.5, dict(confidence='margin', smooth=2), ('margin', True, True)), (None, dict(abstain=.1, specks=4), ('max', False, True))):
        p = Bundle(net, TABLE, (32,48), temperature=temperature).predict(im, dtype='fp32', **kw)
        assert (p.measure, p.calibrated, p.tidied)==want

def test_no_zone_where_the_file_has_no_data(tmp_path):
    from PIL import Image
    from drone_seg.predict.predict import Prediction
    rgba = np.full((60,100,4), 200, np.uint8)
    rgba[:,40:,3] = 0
    Image.fromarray(rgba).save(tmp_path/'a.png')
    found = landing_zones(Prediction(lawn(60, 100), TABLE, tmp_path/'a.png', 1.), LAWN, 1., 5, min_confidence=0)
    assert (found.risk[:,40:]==UNKNOWN).all() and len(found) and all(z.col+z.radius<=39.5+1e-4 and set(z.shares)=={'grass'} for z in found)
    rgba[...,3] = 0
    Image.fromarray(rgba).save(tmp_path/'a.png')
    assert 'void 100%' in landing_zones(Prediction(lawn(60, 100), TABLE, tmp_path/'a.png', 1.), LAWN, 1., 5, min_confidence=0).why

def test_the_photo_is_not_written_over(tmp_path):
    from PIL import Image
    from drone_seg.predict.predict import Prediction
    Image.new('RGB', (40,30), 'green').save(tmp_path/'a.png')
    before = (tmp_path/'a.png').read_bytes()
    found = landing_zones(Prediction(lawn(30, 40), TABLE, tmp_path/'a.png', 1.), LAWN, 1., 5)
    with pytest.raises(DroneSegError, match='would be written over'): found.save(tmp_path/'a.png')
    assert (tmp_path/'a.png').read_bytes()==before and len([*tmp_path.iterdir()])==1
    found.save(tmp_path/'b.png')

def test_unknown_ground_is_painted_grey():
    "What nobody knows never looks like bare photo"
    ids = lawn(100,200); ids[:,100:] = 0
    found = landing_zones(Prediction(ids, TABLE, np.full((100,200,3), 250, np.uint8)), LAWN, 1., 5, min_confidence=0)
    im = found.picture(side=200)
    assert all(abs(a-(.62*250+.38*b))<=4 for a,b in zip(im.getpixel((180,im.height//2)), (120,120,130)))

def test_a_circle_hides_no_scale_bar_and_a_picture_has_an_ending(tmp_path):
    "The README's picture had a zone over its bar; `save('landing')` wrote a PNG that no viewer opened"
    from PIL import Image
    from drone_seg.use.sheet import _left_is_free
    blank = Image.new('RGB', (320,240))
    assert _left_is_free(blank, 60, 13, []) and not _left_is_free(blank, 60, 13, [(25, 214, 25)]) # x, y, radius
    from drone_seg.photo.images import save_image
    save_image(blank, tmp_path/'landing')
    assert [f.name for f in tmp_path.iterdir()]==['landing.png']
