"Crops are what the photos show, wherever they lie; draws give the shares that are reported; rare classes are favoured on the training side only"
import os, random
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from drone_seg.fields import *
from drone_seg.classes import *
from drone_seg.data.crops import *
from drone_seg.data.tiled import CELL, cut_photos, open_tiles, read_crop, tile_file
from drone_seg.data.pair import *
from drone_seg.data.datasets import *
from drone_seg.photo.images import *
from drone_seg.data.splits import *
from drone_seg.scenes.scene import draw_scene, write_scenes

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drawn')/'scenes'
    write_scenes(folder, 5, size=(333,517))
    return folder

@pytest.fixture
def data(drawn): return open_dataset(drawn)

def write_set(path, pairs, names, save=save_image):
    for d in ('images','masks'): (path/d).mkdir(parents=True)
    classes = ClassTable(names)
    for k,(image,ids) in enumerate(pairs):
        save(image, path/'images'/f'{k}.jpg'); save_mask(ids, classes, path/'masks'/f'{k}.png')
    return open_dataset(path, classes)

def tile_files(): return len(list((Path(os.environ['DRONE_SEG_CACHE'])/'tiles').rglob('*.tiles')))

def boxes(h, w, n, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        ch,cw = rng.integers(1, h+1),rng.integers(1, w+1)
        yield int(rng.integers(0, h-ch+1)),int(rng.integers(0, w-cw+1)),int(ch),int(cw)
    yield 0,0,h,w

def test_crops_anywhere(data):
    for p in data.items[:2]:
        image,ids = data[p.stem]
        for y,x,h,w in boxes(333, 517, 40):
            im,m = read_crop(p, y, x, h, w)
            assert (m==ids[y:y+h,x:x+w]).all()
            assert np.sqrt(((im.astype(float) - image[y:y+h,x:x+w])**2).mean())<2

@pytest.mark.parametrize('save', [lambda im, f: Image.fromarray(im).save(f, quality=75), lambda im, f: Image.fromarray(im).save(f, quality=96, subsampling=0),
                                  lambda im, f: Image.fromarray(im).save(f, format='PNG'), lambda im, f: Image.fromarray(im).convert('L').save(f)])
def test_little_is_lost(tmp_path, save):
    data = write_set(tmp_path/'set', [draw_scene(1, (300,400))], [f'c{i}' for i in range(12)], save)
    im,_ = read_crop(data.items[0], 0, 0, 300, 400)
    png = data.items[0].image.read_bytes()[:4]==b'\x89PNG' # has no quantisation to keep to
    assert np.sqrt(((im.astype(float) - data[0][0])**2).mean())<(4 if png else 1.5)

def test_turned_photos(tmp_path):
    exif = Image.Exif(); exif[0x0112] = 6
    image,ids = draw_scene(1, (300,400))
    data = write_set(tmp_path/'set', [(image, np.rot90(ids, -1).copy())], [f'c{i}' for i in range(12)], lambda im, f: Image.fromarray(im).save(f, exif=exif, quality=95))
    im,m = read_crop(data.items[0], 100, 50, 200, 130)
    assert (m==data[0][1][100:300,50:180]).all() and abs(im.astype(int) - data[0][0][100:300,50:180]).mean()<2

def test_counts_by_brute_force(data):
    ids = data[1][1]
    n = open_tiles(data.items[1]).counts(data.classes.ids)
    assert n.shape==(-(-333//CELL), -(-517//CELL), len(data.classes))
    for i in range(n.shape[0]):
        for j in range(n.shape[1]):
            part = ids[i*CELL:(i+1)*CELL,j*CELL:(j+1)*CELL]
            assert [int((part==k).sum()) for k in data.classes.ids]==n[i,j].tolist()

def test_reading_a_crop_decodes_no_photo(data, monkeypatch):
    cut_photos(data.items)
    def never(*a, **k): raise AssertionError('decoded a photo')
    monkeypatch.setattr('drone_seg.data.pair.open_photo', never); monkeypatch.setattr('drone_seg.data.pair.read_mask', never)
    read_crop(data.items[0], 10, 10, 100, 100); cut_photos(data.items)

def flip_byte(f): b = bytearray(f.read_bytes()); b[len(b)//2] ^= 255; f.write_bytes(b)
@pytest.mark.parametrize('damage', [lambda f: f.unlink(), lambda f: f.write_bytes(b''), lambda f: f.write_bytes(f.read_bytes()[:30]), lambda f: f.write_bytes(f.read_bytes()[:-1]), flip_byte])
def test_damaged_files(data, damage):
    cut_photos(data.items)
    f = tile_file(data.items[0])
    damage(f); os.utime(f, ns=(1, 1)) if f.exists() else None
    for _ in range(2):
        im,m = read_crop(data.items[0], 0, 0, 333, 517)
        assert (m==data[0][1]).all() and abs(im.astype(int) - data[0][0]).mean()<2
    cut_photos(data.items)
    assert f.exists() and tile_files()==5

def test_a_replaced_photo(drawn, tmp_path):
    write_scenes(tmp_path/'own', 2, size=(100,150))
    data = open_dataset(tmp_path/'own')
    cut_photos(data.items)
    save_image(255-data[0][0], data.items[0].image)
    im,_ = read_crop(data.items[0], 0, 0, 100, 150)
    assert abs(im.astype(int) - data[0][0]).mean()<2 and tile_files()==2

def test_no_room_for_tiles(data, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('x')
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'file'/'below'))
    im,m = read_crop(data.items[0], 5, 6, 50, 60)
    assert (m==data[0][1][5:55,6:66]).all() and (im==data[0][0][5:55,6:66]).all()
    with pytest.raises(FileError, match='cannot be written'): cut_photos(data.items)

@pytest.fixture
def corner(tmp_path):
    "Class 1 fills an eighth of one of four photos, class 2 nothing, void a stripe"
    pairs = [(np.full((512,768,3), 90, np.uint8), np.zeros((512,768), np.uint8)) for _ in range(4)]
    pairs[2][1][:256,:192] = 1
    for _,m in pairs: m[:,700:704] = 3
    data = write_set(tmp_path/'corner', pairs, ['ground','rare','never','unlabeled'])
    return DroneDataset(data.path, [Pair(p.stem, p.image, p.mask) for p in data.items], ClassTable(['ground','rare','never','unlabeled'], void=['unlabeled']), name='corner')

def seen(picker, data, n, seed=1):
    random.seed(seed)
    res = np.zeros(data.classes.n)
    for _ in range(n):
        p,y,x = picker.draw()
        m = data.classes.encode(read_crop(data.items[p], y, x, *picker.size)[1])
        res += np.bincount(m[m!=IGNORE], minlength=data.classes.n)
    return res/res.sum()

@pytest.mark.parametrize('favour, low, high', [(None, .02, .06), ({'rare': .3}, .26, .34), ({'rare': .15}, .11, .19), ('rare', .11, .21)])
def test_target_shares_are_met(corner, favour, low, high):
    picker = CropPicker(corner.items, corner.classes, 128, favour)
    assert picker.natural[1]==pytest.approx(256*192/(4*512*764)) and picker.target.sum()==pytest.approx(1)
    got = picker.measure(1500)
    assert low<got[1]<high and got[2]==0
    assert abs(seen(picker, corner, 500) - got).max()<.05  # what was counted is what the masks show
    assert 'rare' in picker.report(50).index

def test_draws_lie_inside(data):
    picker = CropPicker(data.items, data.classes, (100,200), 'rare')
    random.seed(0)
    for p,y,x in (picker.draw() for _ in range(300)): assert 0<=y<=233 and 0<=x<=317 and 0<=p<5

def test_uniform_draws_reach_all(data):
    picker = CropPicker(data.items, data.classes, (300,500))
    random.seed(0)
    d = [picker.draw() for _ in range(3000)]
    assert {p for p,*_ in d}==set(range(5)) and {y for _,y,_ in d}>={0,33} and {x for *_,x in d}>={0,17}

@pytest.mark.parametrize('favour, says', [({'zebra': .1}, 'no scored class'), ({'never': .1}, 'does not occur'), ({'rare': 1.5}, 'add up to 1.5'), ('more', "favour='more'")])
def test_bad_targets(corner, favour, says):
    with pytest.raises(DroneSegError, match=says): CropPicker(corner.items, corner.classes, 128, favour)

def test_small_photos_are_filled_up_with_void(data):
    im,m = fixed_crops(data.items, data.classes, (400,300), 1)[0]
    assert im.shape==(400,300,3) and (m[333:]==IGNORE).all() and (im[333:]==120).all() and (m[:333]!=IGNORE).any()

def test_fixed_crops_are_spread(data):
    c = fixed_crops(data.items, data.classes, 100, 100)
    assert len(c)==5*15 and len(fixed_crops(data.items, data.classes, 100, 4))==20
    assert {(y,x) for p,y,x in c.places if p==0}>={(0,0),(233,0),(0,417),(233,417)}

def test_loaders_of_crops(data):
    split = data.split(by='random', seed=1, valid=.4)
    make = lambda w, seed=4: data.crop_dataloaders(split, size=(64,96), bs=4, per_photo=4, augment='nadir', favour='rare', num_workers=w, seed=seed)
    a,b = make(0),make(2)
    assert len(a.train.dataset)==12 and len(a.valid.dataset)==8 and a.photo_size==(64,96)
    for _ in range(2): # epochs
        one,two = list(a.train),list(b.train)
        for (x,y),(xx,yy) in zip(one, two, strict=True): assert torch.equal(x, xx) and torch.equal(y, yy)
        last = one
    x,y = next(iter(a.train))
    assert not torch.equal(x, last[0][0]) and x.shape==(4,3,64,96) and x.max()<=1
    assert set(y.unique().tolist())<={*range(data.classes.n), IGNORE}
    v = [torch.cat([x for x,_ in dls.valid]) for dls in (a, b, make(0, seed=None))]
    assert torch.equal(v[0], v[1]) and torch.equal(v[0], v[2])
    a.show_batch(max_n=2)

def test_crops_are_not_shrunk(data):
    split = data.split(by='random', seed=1, valid=.4)
    dls = data.crop_dataloaders(split, size=64, bs=1, augment=None)
    y = dls.valid.one_batch()[1][0].numpy()
    ids = data.classes.encode(data[split.valid[0]][1])
    p,top,left = dls.valid.dataset.places[0]
    assert (y==ids[top:top+64,left:left+64]).all()
    half = data.crop_dataloaders(split, size=64, bs=1, scale=.5, augment=None)
    assert half.photo_size==(128,128) and half.valid.one_batch()[1].shape==(1,64,64)

def test_rare_items(data):
    check = data.check()
    name = data.classes.scored_names[-1]
    has = [s for s,n in zip(check.stems, check.counts[:,data.classes.id_of(name)]) if n]
    parts = rare_items(data, data.stems[:3], [name])
    assert len(parts)==5*len(set(has) & set(data.stems[:3])) and {p.stem for p in parts}<=set(data.stems[:3])
    assert [p.stem for p in rare_items(data, data.stems, [name])][::5]==has
    assert not rare_items(data, data.stems, [])

@pytest.mark.parametrize('cache', [True, False])
def test_rare_items_train_and_never_judge(data, cache):
    split = Split(data.stems[:3], data.stems[3:])
    extra = rare_items(data, split.train, data.classes.scored_names[:2])
    dls = data.dataloaders(split, size=(48,72), bs=3, extra=extra, augment=None, cache=cache, resize='squish')
    assert len(dls.train_ds)==3+len(extra) and len(dls.valid_ds)==2
    x,y = dls.train.new(shuffle=False, drop_last=False, bs=100).one_batch()
    assert (y[3].numpy()==resize_mask(data.classes.encode(data[extra[0].stem][1][:round(333*.5),:round(517*.5)].copy()), (48,72))).all()
    with pytest.raises(DatasetError, match='do not train'): data.dataloaders(split, size=48, extra=rare_items(data, split.valid, data.classes.scored_names[:2]))
