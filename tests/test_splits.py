"Splits: whole places, balanced classes, the same everywhere; what they achieve and what leaks counted against slow versions"
import json, os, subprocess, sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from drone_seg import cli
from drone_seg.classes import ClassTable
from drone_seg.data import deal, splits
from drone_seg.fields import DatasetError
from drone_seg.data.check import Check
from drone_seg.data.datasets import open_dataset, DroneDataset
from drone_seg.data.pair import Pair
from drone_seg.data.places import Places
from drone_seg.data.splits import *
from drone_seg.data.splits import class_deviation, achieved, standard_split
from drone_seg.data.deal import Units, amounts_of, improve, rooms_of, stratify, thirds
from drone_seg.data.groups import Groups, balance_groups, leaking, pick_groups, tied_groups
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene, write_scenes

REAL = Path(__file__).parents[2]/'shared'/'data'
ALONE = ['random','class','pixels']
PLACES = ['place','place+class','place+pixels']
SEQUENCES = ['sequence','sequence+class','sequence+pixels']

@pytest.fixture(scope='module')
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp('views')/'scenes'
    write_scenes(folder, 24, size=(192,288), places=8)
    return folder

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

@pytest.fixture
def known(views, monkeypatch):
    "The drawn views, whose places are found once for all tests"
    monkeypatch.setenv('DRONE_SEG_CACHE', str(views.parent/'cache'))
    return views

@pytest.fixture
def quick(monkeypatch):
    "Searches that end soon: for what must hold of any answer, the best or not"
    monkeypatch.setattr(splits, 'balance_groups', partial(balance_groups, starts=2, tries=300))
    monkeypatch.setattr('drone_seg.data.deal.improve', partial(improve, tries=300))

ground = lambda stems: {s.split('_')[0] for s in stems}

def test_drawn_grounds_stay_on_one_side(known):
    data = open_dataset(known)
    for seed in range(3):
        sp = data.split(by='place', valid=.25, seed=seed, progress=False)
        assert sorted(sp.train+sp.valid)==data.stems
        assert not ground(sp.train) & ground(sp.valid)
        assert len(sp.valid)==6 # two whole grounds are a quarter of eight

def test_same_seed_same_split_other_seed_other_split(known):
    data = open_dataset(known)
    for by in ('place','random'): assert data.split(by=by, progress=False)==data.split(by=by, progress=False)
    assert data.split(by='random', seed=0).valid!=data.split(by='random', seed=1).valid

def test_random_split_has_its_share(views):
    data = open_dataset(views)
    for v in (.1,.25,.5): assert len(data.split(by='random', valid=v, progress=False).valid)==round(v*24)

def test_leaking_against_a_slow_version():
    rng = np.random.default_rng(0)
    for _ in range(20):
        links,inside = rng.integers(0, 30, (40,2)),rng.random(30)<.3
        slow = sum(any((a==i and not inside[b]) or (b==i and not inside[a]) for a,b in links) for i in range(30) if inside[i])
        assert leaking(links, inside)==pytest.approx(slow/max(inside.sum(), 1))

def test_every_class_on_both_sides_where_it_can_be():
    rng = np.random.default_rng(0)
    groups = np.split(np.arange(40), 10)
    counts = np.zeros((40,5), int); counts[:,0] = 100
    for c in range(1, 5): counts[rng.choice(10, 2, replace=False)*4,c] = 10       # each rare class on two places only
    for seed in range(5):
        side = Groups(groups, counts).of_photos(pick_groups(Groups(groups, counts), .3, seed))
        va,tr = np.flatnonzero(side==1),np.flatnonzero(side==0)
        assert (counts[va].sum(0)>0).all() and (counts[tr].sum(0)>0).all()
        assert 10<=len(va)<=14

def test_missing_classes_are_said(views, tmp_path):
    data = open_dataset(views); check = data.check(progress=False)
    check.counts[:,data.classes.id_of('car')] = 0
    assert 'car' in achieved(Split(data.stems[:4], data.stems[4:]), check)['classes without a validation pixel']

@pytest.mark.parametrize('text,says', [('{', 'not JSON'), ('[]', 'lists'), ('{"train": ["a"]}', 'lists'), ('{"train": ["a"], "valid": []}', 'no valid photos'), ('{"train": ["a"], "valid": ["a"]}', 'both sides')])
def test_bad_split_files(tmp_path, text, says):
    (tmp_path/'s.json').write_text(text)
    with pytest.raises(DatasetError, match=says): Split.load(tmp_path/'s.json')

def test_a_split_of_other_photos_is_refused(views):
    with pytest.raises(DatasetError, match='2 of 2 photos'): open_dataset(views).use_split(dict(train=['x'], valid=['y']))

@pytest.mark.parametrize('valid', [0, 1, -.2, 1.5])
def test_shares_out_of_range(views, valid):
    with pytest.raises(DatasetError, match=f'valid={valid}'): open_dataset(views).split(by='random', valid=valid)

def test_a_bad_photo_is_named_before_the_split(views, tmp_path):
    import shutil
    folder = shutil.copytree(views, tmp_path/'s')
    f = sorted((folder/'images').iterdir())[3]; f.write_bytes(b'no photo')
    with pytest.raises(DatasetError, match=f.name): open_dataset(folder).split(by='random')


# Balanced photos

def slow_stratify(labels, room, rng):
    "Sechidis et al. 2011, word by word, with lists and loops; whole photos, a full side takes no more"
    n,L,total = len(labels),len(labels[0]),sum(room)
    free,side,room = [int(i) for i in rng.permutation(n)],{},list(room)
    want = [[r/total*sum(row[l] for row in labels) for l in range(L)] for r in room]
    while free:
        left = {l: sum(labels[i][l] for i in free) for l in range(L)}
        left = {l:v for l,v in left.items() if v}
        rarest = min(left, key=lambda l: (left[l], l)) if left else None
        for i in [i for i in free if rarest is None or labels[i][rarest]]:
            sides = [j for j in range(len(room)) if room[j]]
            most = max(room[j] if rarest is None else want[j][rarest] for j in sides)
            sides = [j for j in sides if (room[j] if rarest is None else want[j][rarest])==most]
            j = next(j for j in sides if room[j]==max(room[j] for j in sides))
            side[i] = j; room[j] -= 1; free.remove(i)
            for l in range(L): want[j][l] -= labels[i][l]
    return [side[i] for i in range(n)]

@pytest.mark.parametrize('seed', range(12))
def test_stratify_against_a_slow_version(seed):
    rng = np.random.default_rng(seed)
    n,L = int(rng.integers(2, 60)),int(rng.integers(1, 8))
    labels = (rng.random((n,L))<rng.random(L)*.5).astype(int)
    room = rng.multinomial(n, rng.dirichlet(np.ones(rng.integers(2, 5))))
    got = stratify(labels, room, np.random.default_rng(seed))
    assert got.tolist()==slow_stratify(labels.tolist(), room.tolist(), np.random.default_rng(seed))
    assert np.bincount(got, minlength=len(room)).tolist()==room.tolist()

def test_thirds_by_hand_and_by_sorting():
    rng = np.random.default_rng(0)
    n = rng.integers(0, 50, (40,4)); n[rng.random((40,4))<.4] = 0; n[:,3] = 0
    got = thirds(n).reshape(40, 3, 4)
    for c in range(4):
        order = sorted((i for i in range(40) if n[i,c]), key=lambda i: (-n[i,c], i))
        for r,i in enumerate(order): assert got[i,:,c].tolist()==[float(r*3//len(order)==t) for t in range(3)]
        assert got[:,:,c].sum()==len(order)

def test_weights_sum_to_one():
    n = np.random.default_rng(0).integers(0, 9, (30,5))
    for balance in ('class','pixels'):
        amounts,weights = amounts_of(n, balance)
        assert amounts.shape==(30,len(weights)) and weights.sum()==pytest.approx(1)

def slow_off(side, amounts, weights, has, sizes, shares):
    res = 0
    for j,share in enumerate(shares):
        at = [i for i in range(len(side)) if side[i]==j]
        for a in range(amounts.shape[1]): res += weights[a]*abs(sum(amounts[i,a] for i in at)/amounts[:,a].sum()-share)
        for c in range(has.shape[1]):
            if has[:,c].any() and not any(has[i,c] for i in at): res += 1 if j else 2
        res += 10*max(abs(sum(sizes[i] for i in at)/sizes.sum()-share)-.1*min(shares), 0)
    return res

@pytest.mark.parametrize('move', [False, True])
def test_improve_keeps_count_and_never_worsens(move):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        n = (rng.random((30,6))<.4)*rng.integers(1, 99, (30,6)); sizes = rng.integers(1, 9, 30) if move else np.ones(30)
        n[:,5] = 0
        amounts,weights = amounts_of(n, 'pixels')
        start = rng.integers(0, 3, 30)
        args = amounts,weights,n>0,sizes
        side,off = improve(start, Units(*args), (.5,.3,.2), rng, tries=500, move=move)
        assert off==pytest.approx(slow_off(side, *args, (.5,.3,.2)), abs=1e-8)
        assert off<=slow_off(start, *args, (.5,.3,.2))+1e-8
        if not move: assert np.bincount(side, minlength=3).tolist()==np.bincount(start, minlength=3).tolist()

def test_ties_against_a_slow_version():
    rng = np.random.default_rng(0)
    groups = np.array_split(rng.permutation(40), 9); home = {i:k for k,g in enumerate(groups) for i in g}
    links = rng.integers(0, 40, (30,2))
    ties = tied_groups(Groups(groups, np.zeros((40,1)), links), .5)
    for g in range(9):
        slow = {}
        for h in set(range(9))-{g}:
            photos = {i for a,b in links for i in (a,b) if {home[a],home[b]}=={g,h}}
            if photos: slow[h] = .5*len(photos)
        assert dict(zip(ties[g][0].tolist(), ties[g][1].tolist()))==slow
    assert tied_groups(Groups(groups, np.zeros((40,1)), np.array([groups[0][:2]])), .5) is None

def test_improve_counts_what_it_parts():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        groups,n = np.array_split(np.arange(60), 20),rng.integers(0, 9, (60,3))
        ties = tied_groups(Groups(groups, n, rng.integers(0, 60, (50,2))), .02)
        amounts,weights = amounts_of(n, 'class')
        units = np.array([amounts[g].sum(0) for g in groups]),weights,np.array([(n[g]>0).sum(0) for g in groups]),np.full(20, 3)
        side,off = improve(rng.integers(0, 3, 20), Units(*units, ties), (.5,.3,.2), rng, tries=400, move=True)
        parted = sum(c for g in range(20) for h,c in zip(*ties[g]) if g<h and side[g]!=side[h])
        assert off==pytest.approx(slow_off(side, *units, (.5,.3,.2)) + parted, abs=1e-8)

def test_linked_places_stay_together(monkeypatch):
    "Twenty places in ten pairs that overlap: no balance is worth cutting a pair in two sides; in folds few are cut (by chance 80 of 100 photos would leak)"
    links = [(10*k+i, 10*k+5+i) for k in range(10) for i in range(5)]
    for seed in range(2):
        data,_ = as_data(drawn_counts(seed, 100, 6), monkeypatch, np.arange(100)//5, links)
        for by in PLACES[1:]: assert data.leakage(data.split(by=by, seed=seed)).n==0
        assert sum(data.leakage(f).n for f in data.folds(5, by=by, seed=seed))<=30

def test_rooms_are_whole_and_near():
    for n in range(2, 60):
        for shares in [(.8,.2), (.7,.2,.1), (.25,)*4, (1/7,)*7]:
            rooms = rooms_of(shares, n)
            assert rooms.sum()==n and (abs(rooms-np.array(shares)*n)<1.001).all()
        assert np.ptp(rooms_of((.25,)*4, n))<=1

def drawn_counts(seed, photos=200, classes=12):
    "Pixels as real ones are: some classes in most photos, some in few, specks and whole photos"
    rng = np.random.default_rng(seed)
    n = np.exp(rng.normal(7, 2, (photos,classes))).astype(int)*(rng.random((photos,classes))<np.geomspace(.9, .04, classes))
    n[:2] += 1
    return n

def as_data(n, monkeypatch, place=None, links=(), sequence=None):
    "A data set without files that has these pixels of each class"
    stems = [f'{i:04}' for i in range(len(n))]
    counts = np.zeros((len(n),256), int); counts[:,:n.shape[1]] = n
    data = DroneDataset('nowhere', [Pair(s, None, None) for s in stems], ClassTable([f'c{c}' for c in range(n.shape[1])]))
    check = Check('drawn', data.classes, stems, counts)
    data.check = lambda **_: check
    data.places = lambda *a, **_: Places(dict(zip(stems, (int(p) for p in place))), [(stems[a], stems[b], 30) for a,b in links])
    data.sequence = sequence
    monkeypatch.setattr(splits, 'places_file', lambda data: Path('there is none'))
    return data,check

def test_deviation_by_hand(monkeypatch):
    data,check = as_data(np.array([[1,4],[1,0],[2,4],[4,0]]), monkeypatch)
    photos,pixels = class_deviation(Split(['0000','0001','0002'], ['0003']), check)
    assert photos==pytest.approx((0+.25)/2) and pixels==pytest.approx((.25+.25)/2)
    photos,_ = class_deviation(Split(['0000','0001'], ['0003'], test=['0002']), check)
    assert photos==pytest.approx((0+.25+0+.25)/4)

def test_balanced_splits_are_nearer_than_chance(monkeypatch):
    "Mean over seeds, on pixels drawn as real ones are"
    got = {by: [] for by in ALONE}
    for seed in range(10):
        data,check = as_data(drawn_counts(seed), monkeypatch)
        for by in ALONE:
            sp = data.split(by=by, seed=seed)
            assert len(sp.valid)==40
            got[by].append(class_deviation(sp, check))
    photos,pixels = ({by: np.mean([g[k] for g in v]) for by,v in got.items()} for k in (0,1))
    assert photos['class']<photos['random']/4 and pixels['pixels']<pixels['random']/4
    assert photos['pixels']<.75*photos['random']

def test_objects_of_every_size_on_both_sides(monkeypatch):
    "The medians of a class's pixels on the two sides are nearer by pixels than by class or by chance"
    apart = {by: [] for by in ALONE}
    for seed in range(10):
        data,check = as_data(drawn_counts(seed), monkeypatch)
        for by in ALONE:
            sp,n = data.split(by=by, seed=seed),_scored(check)
            row = {s:i for i,s in enumerate(check.stems)}
            tr,va = (n[[row[s] for s in side]] for side in (sp.train, sp.valid))
            apart[by] += [abs(np.log(np.median(tr[:,c][tr[:,c]>0])) - np.log(np.median(va[:,c][va[:,c]>0]))) for c in range(8)]
    assert np.mean(apart['pixels'])<.8*min(np.mean(apart['class']), np.mean(apart['random']))

def _scored(check): return check.counts[:,:check.classes.n]

def test_whole_places_balance_nearer_than_chance(monkeypatch):
    "Whole places, balanced by photos or by pixels, against whole places drawn by chance until they are a fifth"
    photos,pixels,chance = [],[],[]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        place = np.sort(rng.integers(0, 25, 200)); place = np.unique(place, return_inverse=True)[1]
        data,check = as_data(drawn_counts(seed), monkeypatch, place)
        photos.append(class_deviation(data.split(by='place+class', seed=seed), check)[0])
        pixels.append(class_deviation(data.split(by='place+pixels', seed=seed), check)[1])
        order,va = rng.permutation(place.max()+1),[]
        for g in order:
            if len(va)<36: va += np.flatnonzero(place==g).tolist()
        chance.append(class_deviation(Split([check.stems[i] for i in range(200) if i not in va], [check.stems[i] for i in va]), check))
    assert np.mean(photos)<.6*np.mean(chance, 0)[0] and np.mean(pixels)<.5*np.mean(chance, 0)[1]


# Every way: whole, the same everywhere

@pytest.mark.parametrize('seed', range(4))
def test_every_photo_once_and_no_group_cut(seed, monkeypatch, quick):
    rng = np.random.default_rng(seed)
    n,k = int(rng.integers(20, 90)),int(rng.integers(2, 6))
    place = np.unique(rng.integers(0, rng.integers(8, 30), n), return_inverse=True)[1]
    links = rng.integers(0, n, (20,2)); links = links[links[:,0]!=links[:,1]]
    data,check = as_data(drawn_counts(seed, n, 6), monkeypatch, place, links, lambda s: 'f' + s[-1])
    home = dict(zip(data.stems, place))
    for by in ALONE+PLACES+SEQUENCES:
        key = home.get if by.startswith('place') else data.sequence if by.startswith('sequence') else (lambda s: s)
        folds = data.folds(k, by=by, seed=seed)
        assert sorted(s for f in folds for s in f.valid)==data.stems
        for sp in [*folds, data.split(by=by, seed=seed, valid=.3), data.split(by=by, seed=seed, valid=.25, test=.25)]:
            assert sorted(sp.train+sp.valid+sp.test)==data.stems
            kinds = [{key(s) for s in side} for side in (sp.train, sp.valid, sp.test)]
            assert not (kinds[0] & kinds[1] | kinds[0] & kinds[2] | kinds[1] & kinds[2])
            assert json.loads(json.dumps(asdict(sp)))==asdict(sp)
        if by in ALONE: assert np.ptp([len(f.valid) for f in folds])<=1

PROGRAM = '''
import json, sys
from dataclasses import asdict
from functools import partial
from drone_seg.data import deal, groups, splits
splits.balance_groups,deal.improve = partial(groups.balance_groups, starts=2, tries=300),partial(deal.improve, tries=300)
from drone_seg.data.datasets import open_dataset
data = open_dataset(sys.argv[1]); data.sequence = lambda s: s.split('_')[0]
ways = sys.argv[2:]
print(json.dumps([asdict(data.split(by=by, valid=.25, test=.25, progress=False)) for by in ways] + [asdict(f) for by in ways for f in data.folds(3, by=by, progress=False)]))
'''

def test_the_same_in_every_process(known, tmp_path, quick):
    "Whatever the order of sets and dicts: here, where the hashes of words are drawn or 0, and where they are those of 1234"
    ways = ['place', 'place+pixels', 'sequence+class', *ALONE]
    data = open_dataset(known); data.sequence = lambda s: s.split('_')[0]
    here = [asdict(data.split(by=by, valid=.25, test=.25, progress=False)) for by in ways] + [asdict(f) for by in ways for f in data.folds(3, by=by, progress=False)]
    env = os.environ | dict(PYTHONHASHSEED='1234', DRONE_SEG_CACHE=str(tmp_path/'cache'))
    r = subprocess.run([sys.executable, '-c', PROGRAM, str(known), *ways], env=env, capture_output=True, text=True)
    assert r.returncode==0, r.stderr
    assert json.loads(r.stdout.splitlines()[-1])==json.loads(json.dumps(here))

def test_other_seed_other_split(views):
    data = open_dataset(views)
    for by in ALONE: assert len({tuple(data.split(by=by, seed=s, valid=.25, progress=False).valid) for s in range(4)})>1


# A third side, files, bundles

def test_old_split_files_still_load(tmp_path):
    (tmp_path/'s.json').write_text(json.dumps(dict(train=['b','a'], valid=['c'], by='place', seed=0, data='scenes', about={'places': '2'})))
    sp = Split.load(tmp_path/'s.json')
    assert (sp.train, sp.valid, sp.test)==(['a','b'], ['c'], [])

def test_a_test_side_is_saved_and_checked(tmp_path, views):
    data = open_dataset(views)
    sp = data.split(by='class', valid=.25, test=.25, progress=False)
    sp.save(tmp_path/'s.json')
    back = Split.load(tmp_path/'s.json')
    assert back==sp and back.about==sp.about and len(back.test)==6
    assert data.use_split(asdict(sp))==sp
    with pytest.raises(DatasetError, match='1 of 3 photos'): data.use_split(dict(train=[data.stems[0]], valid=[data.stems[1]], test=['x']))
    for a,b in (('train','test'), ('valid','test')):
        with pytest.raises(DatasetError, match='both sides'): Split(**{'train': ['a'], 'valid': ['b'], 'test': ['c']} | {b: ['a','b','c'][:2] if b!='test' else [dict(train='a', valid='b')[a]]})

def test_a_split_with_a_test_travels_with_the_bundle(known, tmp_path):
    from drone_seg.models.bundle import Bundle, load_bundle
    from drone_seg.models.unet import create_unet
    data = open_dataset(known)
    sp = data.split(by='place+pixels', valid=.25, test=.25, progress=False)
    Bundle(create_unet('mobilenetv3_small_050', data.classes.n), data.classes, (64,96), split=asdict(sp)).save(tmp_path/'b')
    assert data.use_split(load_bundle(tmp_path/'b').split)==sp


# Leakage

def test_leakage_against_a_slow_version(monkeypatch):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        links = [(a,b) for a,b in rng.integers(0, 60, (40,2)) if a!=b]
        data,check = as_data(drawn_counts(seed, 60, 4), monkeypatch, np.arange(60), links)
        sp = data.split(by='random', valid=.3, test=.2, seed=seed)
        for side,judge,seen in (('valid', sp.valid, sp.train), ('test', sp.test, sp.train+sp.valid)):
            got = data.leakage(sp, side)
            slow = {s for s in judge for a,b in links for t in seen if {s,t}=={data.stems[a], data.stems[b]}}
            assert (got.n,got.m)==(len(slow),len(judge)) and {p[0] for p in got.pairs}==slow
            assert all(p[1] in seen for p in got.pairs)
    with pytest.raises(DatasetError, match="side='train'"): data.leakage(sp, 'train')

def test_leakage_is_said_as_soon_as_places_are_known(views):
    data = open_dataset(views)
    before = data.split(by='random', progress=False)
    assert before.about['leakage'].startswith('not known')
    leak = data.leakage(before)
    after = data.split(by='random', progress=False)
    assert after==before and after.about['leakage']==str(leak)
    assert open_dataset(views).split(by='random', progress=False).about==after.about      # another object, the same cache
    (photo := data.items[0].image).touch()
    try: assert data.split(by='random', progress=False).about['leakage'].startswith('not known') # a photo was replaced: places are not known
    finally: photo.touch()

def test_leakage_by_sequence_costs_nothing(monkeypatch):
    data,_ = as_data(drawn_counts(0, 40, 4), monkeypatch, sequence=lambda s: int(s)//4)
    sp = data.split(by='random')
    slow = sum(any(int(t)//4==int(s)//4 for t in sp.train) for s in sp.valid)
    assert sp.about['leakage']==f'{slow} of 8 validation photos are of one sequence with a training photo'
    assert data.split(by='sequence').about['leakage'].startswith('0 of')

def test_sequences_join_places(views):
    data = open_dataset(views)
    data.sequence = lambda s: 'two' if s.split('_')[0] in ('p000','p001') else s.split('_')[0]
    place = data.places(progress=False).place
    assert len({place[s] for s in data.stems if s.startswith(('p000','p001'))})==1


# Given splits

def test_official(monkeypatch):
    data,_ = as_data(drawn_counts(0, 30, 4), monkeypatch)
    s = data.stems
    data.official = dict(train=s[:15], valid=s[15:20], test=s[20:25]+['hidden'])
    sp = data.split(by='official')
    assert (sp.train, sp.valid, sp.test, sp.by)==(s[:15], s[15:20], s[20:25], 'official')
    assert sp.about['test']=='1 of 6 official test photos have no mask here and are left out' and '5 photos' in sp.about['in no side']
    with pytest.raises(DatasetError, match='has no folds'): data.folds(3, by='official')
    with pytest.raises(DatasetError, match='leave test out'): data.split(by='official', test=.1)
    data.official = dict(train=s[:15], valid=s[15:20]+['gone'])
    with pytest.raises(DatasetError, match='1 of 6 valid.*gone'): data.split(by='official')
    data.official = dict(train=s[:15], valid=[], test=s[15:])
    with pytest.raises(DatasetError, match='no validation photos'): data.split(by='official')
    data.official = None
    with pytest.raises(DatasetError, match='no official split.*place, place\\+class'): data.split(by='official')

def semantic_drone(folder, stems):
    for d in ('original_images','label_images_semantic'): (folder/d).mkdir(parents=True)
    for i,s in enumerate(stems):
        Image.new('RGB', (12,8), (i%256,0,0)).save(folder/'original_images'/f'{s}.png'); Image.new('L', (12,8), 1+i%22).save(folder/'label_images_semantic'/f'{s}.png')
    return open_dataset(folder)

def test_the_standard_split(tmp_path):
    whole = Split.load(Path(splits.__file__).parent/'semantic_drone_places_v1.json')
    assert (len(whole.train), len(whole.valid), whole.test)==(310, 90, [])
    data = semantic_drone(tmp_path/'all', whole.train+whole.valid)
    sp = data.split(by='standard', progress=False)
    assert sp==whole and sp.by=='standard' and sp.about['version']=='places-v1' and 'class shares apart' in sp.about
    with pytest.raises(DatasetError, match='has no folds'): data.folds(by='standard')
    part = semantic_drone(tmp_path/'part', whole.train+whole.valid[2:])
    with pytest.raises(DatasetError, match=f"2 of 90 valid.*{whole.valid[0]}, {whole.valid[1]}; .*split by place"): part.split(by='standard', progress=False)

def test_the_standard_split_is_the_one_that_was_made():
    f = REAL/'semantic_drone_places_v1.json'
    if not f.exists(): pytest.skip('the split as it was made is not beside the repository')
    made,ours = json.loads(f.read_text()),Split.load(Path(splits.__file__).parent/f.name)
    assert sorted(made['train'])==ours.train and sorted(made['valid'])==ours.valid
    data = open_dataset(REAL/'semantic_drone_dataset')
    if len(data)<400:
        with pytest.raises(DatasetError, match='90 of 90 valid.*and 80 more'): standard_split(data)

def test_other_data_sets_have_no_standard_split(views):
    with pytest.raises(DatasetError, match='no standard split'): open_dataset(views).split(by='standard')


# Tiles of one map

def cut_map(folder, cols=8, rows=6, side=64, step=64, name='18_{X}_{Y}'):
    "Tiles of a drawn scene; edge to edge where step is side"
    photo,mask = draw_scene(3, size=((rows-1)*step+side, (cols-1)*step+side))
    for d in ('images','masks'): (folder/d).mkdir(parents=True)
    for x,y in np.ndindex(cols, rows):
        at,stem = np.s_[step*y:step*y+side,step*x:step*x+side],name.format(X=140012+x, Y=87345+y, px=step*x, py=step*y)
        Image.fromarray(photo[at]).save(folder/'images'/f'{stem}.png'); Image.fromarray(mask[at]).save(folder/'masks'/f'{stem}.png')
    return open_dataset(folder, classes=SCENE_CLASSES)

def slow_beside(one, other, reach=1): # tiles of `one` within `reach` of a tile of `other`
    at = lambda s: np.array(s.split('_')[-2:], dtype=int)
    return {a for a in one for b in other if abs(at(a)-at(b)).max()<=reach}

def test_tiles_are_split_in_blocks(tmp_path):
    data = cut_map(tmp_path/'map')
    for seed in (0,1):
        sp = data.split(seed=seed, progress=False)
        assert sorted(sp.train+sp.valid)==data.stems and 8<=len(sp.valid)<=12
        touch,beside = slow_beside(sp.valid, sp.train),slow_beside(sp.train, sp.valid)
        assert sp.about['leakage']==f"0 of {len(sp.valid)} validation photos overlap a training photo, {len(touch)} touch one as tiles of one map"
        assert sp.about['gap']==f"none: {len(beside)} training tiles touch another side; gap=True (--gap) leaves them out"
        assert sp.about['tiles']=='48 tiles of 1 map, by zoom, x and y in their names' and len(touch)<len(sp.valid)
        gap = data.split(seed=seed, gap=True, progress=False)
        assert gap.valid==sp.valid and gap.train==sorted(set(sp.train)-beside) and data.leakage(gap).touch==0
        assert f'{len(beside)} training tiles that touch another side are left out' in repr(gap)
    assert sorted(s for f in data.folds(4, progress=False) for s in f.valid)==data.stems

def test_a_gap_lies_between_all_sides(tmp_path):
    three = cut_map(tmp_path/'map', 20, 15, 32, 32).split(test=.2, gap=True, progress=False)
    assert not slow_beside(three.train, three.valid+three.test) and not slow_beside(three.valid, three.test)
    assert min(len(three.valid), len(three.test))>30 and ' validation tiles that touch another side' in three.about['gap']

def test_touching_is_said_of_every_split(tmp_path):
    data = cut_map(tmp_path/'map')
    sp = data.split(by='random', progress=False)
    assert sp.about['leakage'].startswith(f"0 of 10 validation photos overlap a training photo, {len(slow_beside(sp.valid, sp.train))} touch one") and 'not known' in sp.about['leakage']
    assert data.leakage(dict(train=sp.train, valid=sp.valid)).touch==len(slow_beside(sp.valid, sp.train))
    with pytest.raises(DatasetError, match="gap=True is for tiles split by place, but by='random'"): data.split(by='random', gap=True)

def test_tiles_that_overlap_never_judge_what_they_trained(tmp_path):
    data = cut_map(tmp_path/'map', 12, 8, 64, 32, 'ortho_{px}_{py}')
    for by in PLACES[:2]:
        sp = data.split(by=by, progress=False)
        assert not slow_beside(sp.valid, sp.train, 63) and slow_beside(sp.valid, sp.train, 64) # half of a tile each
        assert len(sp.train)>48 and 'training tiles that overlap another side are left out' in sp.about['gap']
    for f in data.folds(3, progress=False): assert data.leakage(f).n==0 or 'none: it would cost' in f.about['gap']

def test_a_gap_that_costs_too_much_is_not_left(tmp_path):
    data = cut_map(tmp_path/'map', 3, 3)
    sp = data.split(valid=.4, gap=True, progress=False)
    assert len(sp.train+sp.valid)==9 and sp.about['gap'].startswith('none: it would cost ')


# Bad input, command line

@pytest.mark.parametrize('call,says', [
    (lambda d: d.split(by='luck'), "by='luck' does not work.*no such way.*pixels, random"), (lambda d: d.split(by='place+luck'), 'no such way'), (lambda d: d.split(by='class+place'), 'no such way'),
    (lambda d: d.split(by=''), 'no such way'), (lambda d: d.split(by='sequence'), 'does not say which photos'),
    (lambda d: d.split(by='random', seed=-1), 'seed=-1'), (lambda d: d.split(by='random', seed=.5), 'seed=0.5'),
    (lambda d: d.split(by='random', test=.8), 'test=0.8'), (lambda d: d.split(by='random', test=-.1), 'test=-0.1'), (lambda d: d.split(by='class', test=.01), 'too few'),
    (lambda d: d.folds(1), 'k=1'), (lambda d: d.folds(2.5), 'k=2.5'), (lambda d: d.folds(50, by='random'), '24 photos are too few'), (lambda d: d.folds(9), '9 sides are wanted of 8 places')])
def test_bad_wishes(call, says, known):
    with pytest.raises(DatasetError, match=says) as e: call(open_dataset(known))
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('text', ['{"train": ["a"], "valid": ["b"], "test": 1}', '{"train": [1], "valid": ["b"]}', '{"train": ["a"], "valid": ["b"], "test": null}'])
def test_more_bad_split_files(tmp_path, text):
    (tmp_path/'s.json').write_text(text)
    with pytest.raises(DatasetError, match='lists'): Split.load(tmp_path/'s.json')

def test_photos_without_a_sequence_stand_alone(monkeypatch):
    data,_ = as_data(drawn_counts(0, 30, 4), monkeypatch, sequence=lambda s: 'film' if int(s)<6 else None)
    folds = data.folds(4, by='sequence')
    assert sorted(s for f in folds for s in f.valid)==data.stems
    assert [len({int(s)<6 for s in f.valid} & {True}) for f in folds].count(1)==1
    assert 'leakage' in data.split(by='random').about

def test_one_sequence_cannot_be_split(monkeypatch):
    data,_ = as_data(drawn_counts(0, 30, 4), monkeypatch, sequence=lambda s: 'one')
    with pytest.raises(DatasetError, match='are one sequence'): data.split(by='sequence')

def test_photos_without_any_class(monkeypatch, quick):
    data,_ = as_data(np.zeros((12,3), int), monkeypatch, np.arange(12)//2)
    for by in ALONE+PLACES: assert sorted(data.split(by=by, valid=.25).train + data.split(by=by, valid=.25).valid)==data.stems

def test_two_places_are_two_sides(monkeypatch):
    data,_ = as_data(drawn_counts(0, 30, 4), monkeypatch, [0]*29+[1])
    for by in PLACES: assert data.split(by=by).valid==[data.stems[29]]

def run(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, 'argv', ['drone_seg', *map(str, args)])
    try: cli.main(); code = 0
    except SystemExit as e: code = e.code or 0
    return code,*capsys.readouterr()

def test_command(known, tmp_path, monkeypatch, capsys):
    go = lambda *args: run(monkeypatch, capsys, 'split', known, *args, '--out', tmp_path/'s.json')
    code,out,_ = go('--by', 'place+pixels', '--valid', .25, '--test', .25)
    assert code==0 and len(Split.load(tmp_path/'s.json').test)==6 and 'leakage of the test: 0 of 6' in out
    code,out,_ = go('--by', 'random', '--leakage')
    assert code==0 and 'landmarks in common' in out
    code,out,_ = go('--folds', 4)
    folds = [Split.load(tmp_path/f's_{i}.json') for i in range(1, 5)]
    assert code==0 and sorted(s for f in folds for s in f.valid)==open_dataset(known).stems
    for args,says in ((('--folds', 3, '--test', .1), 'folds have neither test side nor gap'), (('--by', 'luck'), "by='luck'"), (('--by', 'standard'), 'no standard split')):
        code,_,err = go(*args)
        assert code==2 and says in err and len(err.strip().splitlines())==1


# What is said in words

def test_leakage_that_is_not_known_is_said(views):
    data = open_dataset(views)
    assert all(s.about['leakage']=='not known; data.leakage(split) looks for it' for s in (data.split(by='random'), data.split(by='class', test=.2), data.folds(3, by='pixels')[0]))
    data.places(progress=False)
    assert 'overlap a training photo' in data.split(by='random').about['leakage']

@pytest.mark.parametrize('sides', [dict(train=['a','b','a'], valid=['c']), dict(train=['a'], valid=['c','c']), dict(train=['a'], valid=['c'], test=['d','d'])])
def test_repeats_are_refused(sides):
    with pytest.raises(DatasetError, match='1 photos .*occur more than once, such as'): Split(**sides)

@pytest.mark.parametrize('split', [{'train':['a']}, {}, {'train':'a', 'valid':'b'}, {'train':[1], 'valid':[2]}, {'train':['a'], 'valid':None}, 5, None])
def test_splits_that_are_none(views, split):
    with pytest.raises(DatasetError, match="an object with the lists 'train' and 'valid'"): open_dataset(views).use_split(split)

def test_numbers_of_numpy(views):
    data = open_dataset(views)
    assert (data[np.int64(3)][0]==data[3][0]).all() and (data[np.int64(-1)][1]==data[-1][1]).all()
