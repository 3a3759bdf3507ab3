"23a_scores.regions, 25_scores.photos, 71_runs.evaluate: regions and borders against loops, tables against scikit-learn, what is kept and read again"
import json
import numpy as np, pytest
from scipy import ndimage, stats
from sklearn.metrics import accuracy_score, jaccard_score
from drone_seg.classes import IGNORE
from drone_seg.fields import DroneSegError
from drone_seg.scores.confusion import Confusion
from drone_seg.scores.photos import PhotoScores, load_scores
from drone_seg.scores.regions import CRUMB, METRES, SHARES, count_regions, near_border

def drawn(seed, n=4, shape=(40,60), coarse=5):
    "Patches of classes with some void, and an answer that is partly right"
    rng = np.random.default_rng(seed)
    small = rng.integers(0, n, (shape[0]//coarse, shape[1]//coarse))
    truth = np.kron(small, np.ones((coarse,coarse))).astype(np.uint8)
    speckled = rng.random(shape)<.05
    truth[speckled] = rng.integers(0, n, speckled.sum())
    truth[:3,:20] = IGNORE
    answer = np.where(rng.random(shape)<.7, np.where(truth==IGNORE, 0, truth), rng.integers(0, n, shape)).astype(np.uint8)
    return answer,truth

def slow_regions(pred, truth, n, gsd):
    "One region after the other"
    res = np.zeros((n,3,4), int)
    limits = [a/gsd**2 for a in METRES] if gsd else [s*truth.size for s in SHARES]
    for c in range(n):
        label,k = ndimage.label(truth==c)
        for r in range(1, k+1):
            inside = label==r
            area,hit = inside.sum(),(pred[inside]==c).sum()
            if area<limits[0]*CRUMB: continue
            size = sum(area>=o for o in limits)
            res[c,size] += 1,hit>=area/2,area,hit
    return res

@pytest.mark.parametrize('gsd', [None,.2])
@pytest.mark.parametrize('seed', range(3))
def test_regions_are_those_of_scipy(seed, gsd):
    answer,truth = drawn(seed)
    np.testing.assert_array_equal(count_regions(answer, truth, 4, gsd), slow_regions(answer, truth, 4, gsd))

def test_near_borders_by_loops():
    _,truth = drawn(3, shape=(30,40))
    d = int(np.ceil(.05*np.hypot(30, 40)))
    near = near_border(truth, .05)
    for y in range(30):
        for x in range(40):
            there = truth[max(0, y-d):y+d+1, max(0, x-d):x+d+1]
            assert near[y,x]==(truth[y,x]!=IGNORE and len(set(there[there!=IGNORE]))>1)

def made(places=None, photos=9, n=4):
    pairs,count = [drawn(i) for i in range(photos)],Confusion(n, list('abcd'))
    near,regions = [],[]
    for answer,truth in pairs:
        count.add(answer, truth)
        near.append(Confusion(n).add(answer, np.where(near_border(truth, .03), truth, IGNORE)).matrices[0])
        regions.append(count_regions(answer, truth, n))
    about = dict(stems=[f's{i}' for i in range(photos)], places=places, near=np.array(near), regions=np.array(regions))
    return pairs,PhotoScores(count.matrices, count.names, count.void_pixels, **about)

def test_tables_are_what_scikit_learn_says():
    pairs,s = made(list('aaabbbccc'))
    def flat(some): return np.concatenate([t[t!=IGNORE] for _,t in some]),np.concatenate([a[t!=IGNORE] for a,t in some])
    def iou(some): return jaccard_score(*flat(some), average=None, labels=range(4))
    classes,places,photos = s.of_classes(),s.of_places(),s.of_photos()
    np.testing.assert_allclose([i.value for i in classes.iou], iou(pairs))
    assert s.intervals()['miou'].value==pytest.approx(iou(pairs).mean())
    for k,p in enumerate('abc'):
        assert places.miou[p]==pytest.approx(iou(pairs[3*k:3*k+3]).mean()) and places.photos[p]==3
        assert places.right[p]==pytest.approx(accuracy_score(*flat(pairs[3*k:3*k+3])))
    assert photos.miou['s4']==pytest.approx(iou(pairs[4:5]).mean()) and photos.place['s4']=='b'
    assert photos.miou.is_monotonic_increasing and places.miou.is_monotonic_increasing

def test_near_and_inside_make_the_whole():
    pairs,s = made()
    near,inside = s.of_borders().itertuples()
    masks = [near_border(t, .03) for _,t in pairs]
    right = np.concatenate([(a==t)[m] for (a,t),m in zip(pairs, masks)])
    assert near.right.value==pytest.approx(right.mean())
    assert near.share*near.right.value+inside.share*inside.right.value==pytest.approx(s.pixel_accuracy)

def test_an_interval_of_a_share_is_that_of_a_ratio():
    _,s = made(list('aaabbbccc'))
    found = s.of_sizes('c').found
    n,hit = (s.regions[:,2,:,k].reshape(3,3,3).sum(1) for k in (0,1)) # places, sizes
    for k,i in enumerate(found):
        if not n[:,k].sum(): assert np.isnan(i.value); continue
        assert i.value==pytest.approx(hit[:,k].sum()/n[:,k].sum())
        without = (hit[:,k].sum()-hit[:,k])/(n[:,k].sum()-n[:,k])
        error = np.sqrt(2/3*((without-without.mean())**2).sum())
        assert i.low==pytest.approx(max(0, i.value-stats.t.ppf(.975, 2)*error)) and i.groups==3

def test_what_is_kept_says_the_same(tmp_path):
    _,s = made(list('aaabbbccc'))
    s.save(tmp_path/'c.npz')
    assert load_scores(tmp_path/'c.npz').to_dict()==s.to_dict()==json.loads(json.dumps(s.to_dict(), allow_nan=False))
    assert [f.name for f in tmp_path.iterdir()]==['c.npz']
    with np.load(tmp_path/'c.npz') as z: d = dict(z)
    np.savez(tmp_path/'less.npz', **{k: d[k] for k in ('matrices','stems','names')}) # as of before
    less = load_scores(tmp_path/'less.npz')
    assert less.miou==s.miou and less.over=='photo'
    for ask in less.of_sizes,less.of_borders:
        with pytest.raises(DroneSegError, match='drone_seg evaluate counts them'): ask()
    np.savez(tmp_path/'odd.npz', **d | dict(places=np.array(['a'])))
    with pytest.raises(DroneSegError, match='places of 1 photos, matrices of 9'): load_scores(tmp_path/'odd.npz')

def test_doubts_and_words_of_odd_scores():
    assert made(list('aaaabbbbb'))[1].doubts()[0].startswith('judged on 2 places only')
    assert not made()[1].doubts()
    nothing = PhotoScores(np.zeros((1,2,2)), ['a','b'], stems=['s'])
    assert 'No interval can be given on 1 photo, as no places are known' in repr(nothing) and not nothing.taken_for()
    assert json.dumps(nothing.to_dict(), allow_nan=False)
    named = PhotoScores([[[1,9],[0,9]]]*6, ['<b>"x"</b>','日本'], stems=list('abcdef'))
    assert named.taken_for(1)==['<b>"x"</b>: 10% of its pixels are found, 90% taken for 日本']
    assert 'With other' not in repr(named.without('日本')) # the intervals are of all classes
