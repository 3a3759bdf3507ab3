"Splits: whole places, the same everywhere, and what leaks counted against a slow version"
import json
import numpy as np, pytest
from drone_seg.data.datasets import open_dataset, DatasetError
from drone_seg.data.splits import *
from drone_seg.data.splits import _leaking, _pick_groups
from drone_seg.scenes import write_scenes

@pytest.fixture(scope='module')
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp('views')/'scenes'
    write_scenes(folder, 24, size=(192,288), places=8)
    return folder

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

ground = lambda stems: {s.split('_')[0] for s in stems}

def test_drawn_grounds_stay_on_one_side(views):
    data = open_dataset(views)
    for seed in range(3):
        sp = data.split(by='place', valid=.25, seed=seed, progress=False)
        assert sorted(sp.train+sp.valid)==data.stems
        assert not ground(sp.train) & ground(sp.valid)
        assert len(sp.valid)==6 # two whole grounds are a quarter of eight

def test_same_seed_same_split_other_seed_other_split(views):
    data = open_dataset(views)
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
        assert _leaking(links, inside)==pytest.approx(slow/max(inside.sum(), 1))

def test_every_class_on_both_sides_where_it_can_be():
    rng = np.random.default_rng(0)
    groups = np.split(np.arange(40), 10)
    counts = np.zeros((40,5), int); counts[:,0] = 100
    for c in range(1, 5): counts[rng.choice(10, 2, replace=False)*4,c] = 10       # each rare class on two places only
    for seed in range(5):
        pick = _pick_groups(groups, counts, np.zeros((0,2), int), .3, seed)
        va = np.concatenate([groups[k] for k in pick]); tr = np.setdiff1d(np.arange(40), va)
        assert (counts[va].sum(0)>0).all() and (counts[tr].sum(0)>0).all()
        assert 10<=len(va)<=14

def test_missing_classes_are_said(views, tmp_path):
    data = open_dataset(views); check = data.check(progress=False)
    check.counts[:,data.classes.id_of('car')] = 0
    from drone_seg.data.splits import _achieved
    assert 'car' in _achieved(Split(data.stems[:4], data.stems[4:]), check)['classes without a validation pixel']

@pytest.mark.parametrize('text,says', [('{', 'not JSON'), ('[]', 'lists'), ('{"train": ["a"]}', 'lists'), ('{"train": ["a"], "valid": []}', 'no valid photos'), ('{"train": ["a"], "valid": ["a"]}', 'both sides')])
def test_bad_split_files(tmp_path, text, says):
    (tmp_path/'s.json').write_text(text)
    with pytest.raises(SplitError, match=says): Split.load(tmp_path/'s.json')

def test_a_split_of_other_photos_is_refused(views):
    with pytest.raises(SplitError, match='2 of 2 photos'): open_dataset(views).use_split(dict(train=['x'], valid=['y']))

@pytest.mark.parametrize('valid', [0, 1, -.2, 1.5])
def test_shares_out_of_range(views, valid):
    with pytest.raises(SplitError, match=f'valid={valid}'): open_dataset(views).split(by='random', valid=valid)

def test_a_bad_photo_is_named_before_the_split(views, tmp_path):
    import shutil
    folder = shutil.copytree(views, tmp_path/'s')
    f = sorted((folder/'images').iterdir())[3]; f.write_bytes(b'no photo')
    with pytest.raises(DatasetError, match=f.name): open_dataset(folder).split(by='random')
