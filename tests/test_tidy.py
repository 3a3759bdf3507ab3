"61_predict.tidy: components and votes against slow, obvious versions"
import numpy as np, pytest
from scipy import ndimage
from drone_seg.fields import PredictError
from drone_seg.predict.tidy import *
from drone_seg.predict.tidy import to_pixels
from drone_seg.photo.connected import connected

def patchy(seed, shape, n=4, noise=.2):
    g = np.random.default_rng(seed)
    big = g.integers(0, n, (shape[0]//5+1, shape[1]//7+1)).repeat(5, 0).repeat(7, 1)[:shape[0],:shape[1]]
    return np.where(g.random(shape)<noise, g.integers(0, n, shape), big).astype(np.uint8)

def slow_components(ids): # a pass per id
    res,n = np.zeros(ids.shape, int),0
    for v in np.unique(ids):
        lab,k = ndimage.label(ids==v)
        res[lab>0] = lab[lab>0]+n; n += k
    return res

def slow_specks(ids, area, void=()): # pixel by pixel, as the page words it
    comp,ids = slow_components(ids),ids.copy()
    waits = {c for c in np.unique(comp) if (comp==c).sum()<area and ids[comp==c][0] not in void}
    while waits:
        found = {}
        for c in waits:
            votes = {}
            for y,x in zip(*np.nonzero(comp==c)):
                for j,i in ((y-1,x),(y+1,x),(y,x-1),(y,x+1)):
                    if 0<=j<ids.shape[0] and 0<=i<ids.shape[1] and comp[j,i]!=c and comp[j,i] not in waits and ids[j,i] not in void:
                        votes[int(ids[j,i])] = votes.get(int(ids[j,i]), 0)+1
            if votes: found[c] = min(votes, key=lambda v: (-votes[v], v))
        if not found: break
        for c,v in found.items(): ids[comp==c] = v
        waits -= set(found)
    return ids

def slow_vote(ids, radius, void=()):
    R,(H,W),res = int(radius),ids.shape,ids.copy()
    for y in range(H):
        for x in range(W):
            if ids[y,x] in void: continue
            votes = {}
            for d in range(-R, R+1):
                for e in range(-R, R+1):
                    if d*d+e*e>radius*radius or not (0<=y+d<H and 0<=x+e<W) or ids[y+d,x+e] in void: continue
                    votes[int(ids[y+d,x+e])] = votes.get(int(ids[y+d,x+e]), 0)+1
            most = max(votes.values())
            if votes.get(int(ids[y,x]), 0)<most: res[y,x] = min(v for v in votes if votes[v]==most)
    return res

@pytest.mark.parametrize('shape', [(1,1), (1,30), (30,1), (23,31), (600,9)]) # 600 rows are three strips
def test_components_are_those_of_scipy(shape):
    for seed in range(5):
        ids = patchy(seed, shape)
        v,n,c = connected(ids)
        assert n.sum()==ids.size and (np.repeat(v, n)==ids.ravel()).all()
        ours,want = np.repeat(c, n),slow_components(ids).ravel()
        pairs = np.unique(np.stack([ours, want]), axis=1)
        assert len(np.unique(pairs[0]))==len(np.unique(pairs[1]))==pairs.shape[1] # one to one

@pytest.mark.parametrize('void', [(), (0,)])
@pytest.mark.parametrize('shape,area', [((23,31),2), ((23,31),6), ((23,31),40), ((1,30),3), ((30,1),3), ((520,8),5), ((5,5),1000)])
def test_specks_go_as_the_page_says(shape, area, void):
    for seed in range(3):
        ids = patchy(seed, shape)
        got = remove_specks(ids, area, void)
        np.testing.assert_array_equal(got, slow_specks(ids, area, void))
        assert (got[np.isin(ids, void)]==ids[np.isin(ids, void)]).all() and not np.isin(got[~np.isin(ids, void)], void).any() # void neither shrinks nor grows
        np.testing.assert_array_equal(remove_specks(got, area, void), got)
        comp = slow_components(ids)
        if not void and max(np.bincount(comp.ravel()))>=area: assert min(np.bincount(slow_components(got).ravel())[1:])>=area

def test_what_waits_among_specks_is_filled_from_outside():
    ids = np.full((9,9), 5, np.uint8)
    ids[3:6,3:6] = [[1,2,1],[2,3,2],[1,2,1]] # the 3 in the middle touches specks only
    assert (remove_specks(ids, 4)==5).all()

def test_diagonal_neighbours_do_not_hang_together():
    ids = np.array([[1,2],[2,1]], np.uint8).repeat(2, 0).repeat(2, 1)
    assert len(np.unique(connected(ids)[2]))==4

@pytest.mark.parametrize('size,radius', [((17,23),1), ((17,23),2.5), ((9,9),20), ((1,12),3), ((12,1),3), ((260,6),2), ((6,520),2)]) # more than a block
def test_votes_are_those_of_a_slow_count(size, radius):
    for void in ((), (1,)):
        ids = patchy(1, size)
        got = smooth_ids(ids, radius, void)
        np.testing.assert_array_equal(got, slow_vote(ids, radius, void))
        assert set(np.unique(got))<=set(np.unique(ids)) and (got[ids==1]==1).all() | (void==())

def test_all_256_ids_vote():
    ids = np.arange(256, dtype=np.uint8).repeat(4).reshape(32, 32)
    np.testing.assert_array_equal(smooth_ids(ids, 1), slow_vote(ids, 1))
    np.testing.assert_array_equal(remove_specks(ids, 5), slow_specks(ids, 5))

def test_inputs_are_not_written_to():
    ids = patchy(0, (30,40)); before = ids.copy()
    smooth_ids(ids, 2); remove_specks(ids, 9)
    assert (ids==before).all()

@pytest.mark.parametrize('value,gsd,area,want', [(7, None, False, 7), ('7', None, True, 7), ('2.5 m', .1, False, 25), ('0.5m²', .1, True, 50), ('50 cm2', .01, True, 50), ('3px', None, True, 3), ('1e+2', None, True, 100), ('1e-2', None, False, .01)])
def test_units(value, gsd, area, want): assert to_pixels(value, gsd, area)==pytest.approx(want)

@pytest.mark.parametrize('value,gsd,area,say', [('1 m2', None, True, 'metres per pixel'), ('1 m2', .1, False, 'such as'), ('1 m', .1, True, 'such as'), ('-1', None, True, 'such as'),
    ('much', None, True, 'such as'), (True, None, True, 'such as'), (float('nan'), None, True, 'such as')])
def test_units_that_make_no_sense(value, gsd, area, say):
    with pytest.raises(PredictError, match=say) as e: to_pixels(value, gsd, area)
    assert '\n' not in str(e.value)

def test_masks_that_are_none():
    for f in (lambda a: smooth_ids(a, 1), lambda a: remove_specks(a, 4)):
        for bad in (np.zeros((3,3)), np.zeros((3,3,3), np.uint8)):
            with pytest.raises(PredictError, match='uint8'): f(bad)
    with pytest.raises(PredictError, match='radius'): smooth_ids(np.zeros((3,3), np.uint8), -1)
