"Counts along borders against loops over pixels and the original algorithms, with and without void"
import json, math
import cv2, numpy as np, pytest, torch
from drone_seg.scores.boundary import Boundary, BoundaryScores, border_band, boundary_measures, count_boundary, _edge, _near
from drone_seg.fields import MaskError, DroneSegError
from drone_seg.classes import IGNORE
from drone_seg.scores.confusion import Confusion

def blobs(n=5, shape=(30,41), seed=0, void=.15):
    "Patchy truth with void patches, and a prediction shifted and speckled"
    rng = np.random.default_rng(seed)
    small = lambda high,cell: np.kron(rng.integers(0, high, (shape[0]//cell+1,shape[1]//cell+1)), np.ones((cell,cell), int))[:shape[0],:shape[1]].astype(np.uint8)
    t = small(n, 7)
    p = np.roll(t, (1,2), (0,1))
    p = np.where(rng.random(shape)<.03, rng.integers(0, n, shape), p).astype(np.uint8)
    t[small(100, 5)<100*void] = IGNORE
    return p,t

def slowly_band(ids, valid, d):
    H,W = ids.shape
    res = np.zeros((H,W), bool)
    for y,x in np.ndindex(H, W):
        for v in range(y-d, y+d+1):
            for u in range(x-d, x+d+1):
                if not (0<=v<H and 0<=u<W): res[y,x] = True
                elif valid[v,u] and ids[v,u]!=ids[y,x]: res[y,x] = True
    return res & valid

def slowly_edge(ids, valid, c):
    H,W = ids.shape
    return {(y,x) for y,x in np.ndindex(H, W) for v,u in ((y,x+1),(y+1,x),(y+1,x+1))
            if v<H and u<W and valid[y,x] and valid[v,u] and (ids[y,x]==c)!=(ids[v,u]==c)}

def slowly(p, t, n, d, r):
    valid = t!=IGNORE
    a,b = slowly_band(t, valid, d),slowly_band(p, valid, d)
    res = np.zeros((7,n), int)
    for c in range(n):
        A,B = a & (t==c),b & (p==c)
        ea,eb = slowly_edge(t, valid, c),slowly_edge(p, valid, c)
        met = lambda one,other: sum(any((y-v)**2+(x-u)**2<=r*r for v,u in other) for y,x in one)
        res[:,c] = (A&B).sum(),A.sum(),B.sum(),len(ea),met(ea, eb),len(eb),met(eb, ea)
    return res

@pytest.mark.parametrize('seed,d,r,void', [(0,1,1,0), (1,2,3,0), (2,1,2,.15), (3,3,1,.3), (4,6,5,.2)])
def test_equals_loops_over_pixels(seed, d, r, void):
    p,t = blobs(seed=seed, void=void)
    np.testing.assert_array_equal(count_boundary(p, t, 5, d, r), slowly(p, t, 5, d, r))

def original_band(mask, ratio=.02):
    "The algorithm of boundary-iou-api: pad by one pixel of nothing, erode by 3x3 as often as the width says, take the rest"
    h,w = mask.shape
    times = max(1, int(round(ratio*np.sqrt(h**2+w**2))))
    padded = np.zeros((h+2,w+2), np.uint8); padded[1:-1,1:-1] = mask
    return mask-cv2.erode(padded, np.ones((3,3), np.uint8), iterations=times)[1:-1,1:-1]

@pytest.mark.parametrize('ratio', [.01, .02, .05, .3])
def test_boundary_iou_equals_the_original_algorithm(ratio):
    p,t = blobs(shape=(90,120), void=0)
    iou = Boundary(5, width=ratio).add(p, t).scores().by_class['iou']
    for c in range(5):
        a,b = original_band((t==c).astype(np.uint8), ratio),original_band((p==c).astype(np.uint8), ratio)
        assert math.isclose(iou[c], (a&b).sum()/(a|b).sum(), abs_tol=1e-12)

def original_f(p, t, bound_th):
    "The algorithm of DAVIS for one class, with its shifted maps"
    def edges(seg):
        e,s,se = (np.zeros_like(seg) for _ in range(3))
        e[:,:-1],s[:-1],se[:-1,:-1] = seg[:,1:],seg[1:],seg[1:,1:]
        b = (seg^e)|(seg^s)|(seg^se)
        b[-1],b[:,-1] = seg[-1]^e[-1],seg[:,-1]^s[:,-1]
        b[-1,-1] = 0
        return b
    r = int(bound_th if bound_th>=1 else np.ceil(bound_th*np.linalg.norm(p.shape)))
    y,x = np.ogrid[-r:r+1,-r:r+1]
    disk = (x*x+y*y<=r*r).astype(np.uint8)
    a,b = edges(p),edges(t)
    P = (a & (cv2.dilate(b.astype(np.uint8), disk)>0)).sum()/a.sum()
    R = (b & (cv2.dilate(a.astype(np.uint8), disk)>0)).sum()/b.sum()
    return 2*P*R/(P+R) if P+R else 0

@pytest.mark.parametrize('tolerance', [1, 3, .008, .02])
def test_boundary_f_equals_the_original_algorithm(tolerance):
    p,t = blobs(shape=(90,120), void=0)
    f = Boundary(5, tolerance=tolerance).add(p, t).scores().by_class['f']
    for c in range(5): assert math.isclose(f[c], original_f(p==c, t==c, tolerance), abs_tol=1e-12)

@pytest.mark.parametrize('r', [1, 7, 24])
def test_distances_and_discs_say_the_same(r):
    edge = (np.random.default_rng(0).random((80,130))<.002).astype(np.uint8)
    far = cv2.distanceTransform(1-edge, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)<=r+1e-3
    np.testing.assert_array_equal(_near(edge, r)>0, far)
    ys,xs = np.nonzero(edge)
    y,x = np.ogrid[:80,:130]
    for R in (r,30): np.testing.assert_array_equal(_near(edge, R)>0, ((y[...,None]-ys)**2+(x[...,None]-xs)**2<=R*R).any(-1))

@pytest.mark.parametrize('width,tolerance', [(.02,.0075), (5,30)])
def test_right_where_there_is_truth_is_one(width, tolerance):
    for seed in range(4):
        p,t = blobs(seed=seed, void=.4)
        s = Boundary(5, width=width, tolerance=tolerance).add(np.where(t==IGNORE, p, t), t).scores()
        assert s.boundary_iou==1 and s.boundary_f==1 and s.void_pixels==(t==IGNORE).sum()

def test_what_is_said_on_void_changes_nothing():
    p,t = blobs(void=.3)
    other = np.where(t==IGNORE, (p+1)%5, p)
    np.testing.assert_array_equal(count_boundary(p, t, 5), count_boundary(other, t, 5))

def test_naive_borders_along_void_are_what_we_avoid():
    "One class cut in two by void has no border but the frame; eroding its mask finds one"
    t = np.zeros((40,60), np.uint8); t[:,25:35] = IGNORE
    band = border_band(np.where(t==IGNORE, 0, t+1).astype(np.uint8), 3)
    assert not band[10:30,5:-5].any() and original_band((t==0).astype(np.uint8), 3/np.hypot(40, 60))[20,24]==1
    assert count_boundary(np.zeros_like(t), t, 1)[3:].sum()==0

def test_set_wide_and_per_image():
    pairs = [blobs(seed=i) for i in range(4)]
    p,t = (np.stack(o) for o in zip(*pairs))
    whole,parts = Boundary(5, list('abcde')).add(p, t),Boundary(5, list('abcde'))
    for a,b in pairs[:2]: parts.add(a, b)
    parts.merge(Boundary(5, list('abcde')).add(torch.from_numpy(p[2:]).long(), torch.from_numpy(t[2:])))
    np.testing.assert_array_equal(whole.counts, parts.counts)
    assert whole.void_pixels==parts.void_pixels and len(parts)==4
    s = whole.scores()
    by_hand = [slowly(a, b, 5, 1, 1) for a,b in pairs] # .02 and .0075 of a diagonal of 51 pixels
    np.testing.assert_allclose(s.by_class['iou'], (lambda c: c[0]/(c[1]+c[2]-c[0]))(sum(by_hand)))
    np.testing.assert_allclose(s.per_image('iou'), [c[0]/(c[1]+c[2]-c[0]) for c in by_hand])
    assert math.isclose(s.without('a').boundary_f, s.by_class['f'][1:].mean())
    with pytest.raises(DroneSegError, match='same settings'): whole.merge(Boundary(5, list('abcde'), width=3))

def test_absent_classes_and_photos_of_one_class():
    t = np.zeros((20,30), np.uint8)
    counts = count_boundary(t, t, 3)
    for empty,value in (('nan',math.nan),(0,0),(1,1)):
        s = BoundaryScores(counts[None], empty=empty)
        np.testing.assert_array_equal(s.by_class['f'], [value]*3)           # no border anywhere
        np.testing.assert_array_equal(s.by_class['iou'], [1,value,value])   # the frame is one for class 0
    false_alarm = t.copy(); false_alarm[5:9,5:9] = 1
    m = boundary_measures(count_boundary(false_alarm, t, 3))
    assert m['iou'][1]==0 and m['f'][1]==0 and math.isnan(m['f'][2])

def test_json_tables_and_refusals():
    p,t = blobs(n=3)
    s = Boundary(4, ['a','b|c','d','e']).add(p, t).scores()
    d = json.loads(json.dumps(s.to_dict(), allow_nan=False))
    assert d['per_class'][3]['iou'] is None and d['width']==.02 and '0.02 of the diagonal' in d['definition']
    assert len(repr(s).splitlines())==7 and 'boundary IoU' in repr(s)
    with pytest.raises(MaskError, match='class 9'): count_boundary(p+9-p, t, 3)
    with pytest.raises(DroneSegError, match='shape'): count_boundary(p[:5], t, 3)
    with pytest.raises(DroneSegError, match='no width'): count_boundary(p, t, 3, tolerance=-1)
    assert Boundary(3).scores().to_dict()['boundary_iou'] is None

def test_add_returns_the_collector_and_measures_have_names():
    t = torch.zeros(1,8,8, dtype=torch.long); t[:,:,4:] = 1
    a = Boundary(2, width=2).add(t, t)
    assert len(a)==1 and a.scores().boundary_iou==1
    for f in a.scores().mean,a.scores().per_image:
        with pytest.raises(DroneSegError, match="no 'miou' of each class; there are iou"): f('miou')
    with pytest.raises(DroneSegError, match='is no width'): Boundary(2, tolerance=0)
