"Opening and checking folders: tiny ones of the true layouts, and the real photos where they are at hand"
import os, shutil
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from drone_seg.classes import *
from drone_seg.records import RECORDS
from drone_seg.data.images import *
from drone_seg.data.datasets import *
from drone_seg.data.splits import Split

REAL = Path(__file__).parents[2]/'shared'/'data'
real = pytest.mark.skipif(not REAL.is_dir(), reason='the real photos are not beside this checkout (licences)')

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

def write(path, a): path.parent.mkdir(parents=True, exist_ok=True); Image.fromarray(a).save(path)

def photo_and_ids(classes, seed, size=(24,36)):
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.choice(classes.ids, (4,6)), np.ones((size[0]//4, size[1]//6))).astype(np.uint8)
    return rng.integers(0, 255, (*size,3)).astype(np.uint8), ids

def semantic_drone_original(root, n=3):
    "training_set/images/*.jpg, training_set/gt/semantic/label_images/*.png in colours, class_dict.csv"
    c = RECORDS['semantic_drone'].classes; t = root/'semantic_drone_dataset'/'training_set'
    for i in range(n):
        im,ids = photo_and_ids(c, i)
        write(t/'images'/f'{i:03}.jpg', im); write(t/'gt'/'semantic'/'label_images'/f'{i:03}.png', c.to_colors(ids))
    return n

def semantic_drone_widespread(root, n=3):
    "dataset/semantic_drone_dataset/original_images and label_images_semantic (ids), class_dict_seg.csv and colour masks above"
    c = RECORDS['semantic_drone'].classes; t = root/'dataset'/'semantic_drone_dataset'
    for i in range(n):
        im,ids = photo_and_ids(c, i)
        write(t/'original_images'/f'{i:03}.jpg', im); write(t/'label_images_semantic'/f'{i:03}.png', ids)
        write(root/'RGB_color_image_masks'/'RGB_color_image_masks'/f'{i:03}.png', c.to_colors(ids))
    (root/'class_dict_seg.csv').write_text('name, r, g, b\nunlabeled, 0, 0, 0\n')
    return n

def dubai(root, n=4):
    "Tile N/images/*.jpg and Tile N/masks/*.png; the same names in each tile, masks off by a pixel"
    c = RECORDS['dubai'].classes
    for i in range(n):
        im,ids = photo_and_ids(c, i)
        write(root/f'Tile {i%2+1}'/'images'/f'image_part_00{i//2}.jpg', im); write(root/f'Tile {i%2+1}'/'masks'/f'image_part_00{i//2}.png', c.to_colors(ids[:-1] if i==3 else ids))
    return n

@pytest.mark.parametrize('make,name,kind', [(semantic_drone_original,'semantic_drone','colors'), (semantic_drone_widespread,'semantic_drone','ids'), (dubai,'dubai','colors')])
def test_true_layouts(tmp_path, make, name, kind):
    n = make(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name,data.kind,len(data))==(name,kind,n)
    assert not data.check(progress=False).problems
    for i in range(n):
        image,ids = data[i]
        assert image.shape[:2]==ids.shape and set(np.unique(ids))<=set(data.classes.ids)
    assert len(set(data.stems))==n

def test_the_truth_is_read_pixel_by_pixel(tmp_path):
    semantic_drone_original(tmp_path)
    data = open_dataset(tmp_path)
    for i in range(3): assert (data[i][1]==photo_and_ids(data.classes, i)[1]).all()

def plain(root, n=3, table='name,r,g,b\nvoid,0,0,0\nroad,128,64,128\ngrass,0,102,0\n', ims='images', ms='masks'):
    for i in range(n):
        im,ids = photo_and_ids(ClassTable(['a','b','c']), i)
        write(root/ims/f'p{i}.jpg', im); write(root/ms/f'p{i}.png', ids)
    if table: (root/'classes.csv').write_text(table)
    return root

def test_plain_folder_and_lonely_files(tmp_path):
    plain(tmp_path)
    (tmp_path/'masks'/'p1.png').unlink(); (tmp_path/'images'/'.hidden.jpg').write_text('')
    data = open_dataset(tmp_path)
    assert data.stems==['p0','p2'] and [f.name for f in data.lonely]==['p1.jpg'] and 'p1.jpg' in repr(data)

def test_classes_given_in_code(tmp_path):
    plain(tmp_path, table=None)
    with pytest.raises(DatasetError, match='no class table'): open_dataset(tmp_path)
    assert open_dataset(tmp_path, classes=['void','road','grass']).classes.scored_names==['road','grass']

def test_two_data_sets_are_not_guessed(tmp_path):
    plain(tmp_path/'a'); plain(tmp_path/'b')
    with pytest.raises(DatasetError, match='2 data sets found: a, b'): open_dataset(tmp_path)

@pytest.mark.parametrize('make,says', [(lambda p: shutil.rmtree(p/'masks'), 'no folder of masks'), (lambda p: [f.rename(f.with_name('x'+f.name)) for f in (p/'masks').iterdir()], 'has a mask of the same name'),
    (lambda p: shutil.rmtree(p), 'no such folder'), (lambda p: (shutil.rmtree(p), p.mkdir()), 'no data set found')])
def test_what_is_no_data_set(tmp_path, make, says):
    make(plain(tmp_path/'d'))
    with pytest.raises(DatasetError, match=says): open_dataset(tmp_path/'d')

def test_mixed_masks(tmp_path):
    plain(tmp_path)
    data = open_dataset(tmp_path); c = data.classes
    write(data.items[1].mask, c.to_colors(data[1][1]))
    with pytest.raises(DatasetError, match='some masks hold ids'): open_dataset(tmp_path)

def test_check_counts_pixel_by_pixel_and_remembers(tmp_path):
    plain(tmp_path); data = open_dataset(tmp_path)
    found = data.check(progress=False)
    for i in range(3): assert found.counts[i].tolist()==[(data[i][1]==k).sum() for k in range(256)]
    labelled = sum((data[i][1]>0).sum() for i in range(3))
    assert found.shares()['road']==pytest.approx(sum((data[i][1]==1).sum() for i in range(3))/labelled)
    assert data.check(progress=False).counts.tolist()==found.counts.tolist()
    cached = list((tmp_path/'cache').rglob('*.npz')); assert len(cached)==1
    cached[0].write_bytes(b'half written')                                  # a damaged cache is read again, never trusted
    assert data.check(progress=False).counts.tolist()==found.counts.tolist()
    m = data[0][1].copy(); m[:] = 2; write(data.items[0].mask, m)           # a file that changed is read again
    assert data.check(progress=False).counts[0,2]==m.size

def test_check_finds_one_bad_file_among_good_ones(tmp_path):
    plain(tmp_path, 6); data = open_dataset(tmp_path)
    f = data.items[4].image; f.write_bytes(f.read_bytes()[:200])
    found = data.check(progress=False)
    assert [s for s,_ in found.problems]==['p4'] and len(found.stems)==5 and str(f) in found.problems[0][1]

def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    plain(tmp_path); (tmp_path/'blocked').write_text('')
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'blocked'))
    assert not open_dataset(tmp_path).check(progress=False).problems

@real
def test_the_real_semantic_drone_photos():
    data = open_dataset(REAL/'semantic_drone_dataset')
    found = data.check(progress=False)
    assert len(data)==310 and data.classes.n==22 and not found.problems
    assert found.photos()['dog']==13 and found.counts[:,23].sum()==0
    assert 1 > found.counts[:,0].sum()/found.counts.sum()*100 > .1          # void: thin borders
    file = ClassTable.from_file(REAL/'semantic_drone_dataset'/'class_dict_seg.csv')
    assert file.names==data.classes.names and (file.colors==data.classes.colors).all() and file.void==data.classes.void

@real
def test_the_real_dubai_photos():
    data = open_dataset(REAL/'dubai')
    assert len(data)==72 and not data.check(progress=False).problems
    def black(p):
        with Image.open(p.mask) as im: return (np.asarray(im.convert('RGB'))==0).all(-1)
    share = {p.stem: black(p).mean() for p in data.items}
    worst = max(share, key=share.get)
    assert share[worst]>.1                                                   # a mask with no class on part of it
    assert (data[worst][1][black(data.pair(worst))]==data.classes.void_id).all()
