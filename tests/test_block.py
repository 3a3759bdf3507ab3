"Batches are what the files say: right sizes, right numbers, photo and mask drawn together, workers drawn apart"
import csv, os, pickle, random, shutil, subprocess, sys, warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
import albumentations as A
from drone_seg.fields import *
from drone_seg.classes import *
from drone_seg.data.augment import *
from drone_seg.data.augment import draw_once
from drone_seg.data import block
from drone_seg.data.block import *
from drone_seg.data.loader import picture_of
from drone_seg.data.datasets import *
from drone_seg.photo.images import *
from drone_seg.scenes.scene import write_scenes

@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drawn')/'scenes'
    write_scenes(folder, 12, size=(96,144))
    return folder

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

@pytest.fixture
def data(drawn): return open_dataset(drawn)
@pytest.fixture
def split(data): return data.split(by='random', valid=.25)

def test_validation_batches_by_hand(data, split):
    dls = data.dataloaders(split, size=(48,72), bs=2)
    xs,ys = (torch.cat(t) for t in zip(*[(x.cpu(), y.cpu()) for x,y in dls.valid]))
    for k,s in enumerate(split.valid):
        image,ids = data[s]
        assert torch.equal(xs[k], torch.tensor(resize_image(image, (48,72))).permute(2,0,1)/255)
        assert (ys[k].numpy()==resize_mask(data.classes.encode(ids), (48,72))).all()

def test_what_loaders_carry(data, split):
    dls = data.dataloaders(split, size=64, bs=4)
    for dl in (dls.train, dls.valid, dls.valid.new(bs=1), dls.test_dl(data.items[:2])):
        assert dl.classes is data.classes and dl.size==(64,96) and dl.split==split and dl.photo_size==(96,144)

def test_loaders_know_the_pixels_of_the_training_photos_only(data, split):
    want = np.array([np.bincount(data.classes.encode(data[s][1]).reshape(-1), minlength=256)[:data.classes.n] for s in split.train])
    for dls in (data.dataloaders(split, size=64, bs=4), data.crop_dataloaders(split, size=32, bs=4, progress=False)):
        assert (dls.pixel_counts==want).all()

def test_no_augmentation_is_a_plain_resize(data, split):
    dls = data.dataloaders(split, size=(48,72), bs=9, augment=None)
    x,y = dls.train.one_batch()
    want = {resize_image(data[s][0], (48,72)).tobytes() for s in split.train}
    assert all((im*255).round().byte().permute(1,2,0).numpy().tobytes() in want for im in x.cpu())

def test_training_items_change_and_repeat_with_a_seed(data, split):
    def batch(seed): return data.dataloaders(split, size=(48,72), bs=4, augment='nadir', seed=seed).train.one_batch()[0].cpu()
    assert torch.equal(batch(1), batch(1)) and not torch.equal(batch(1), batch(2))

def test_workers_draw_apart(data, split):
    "Two workers with one state would make the same draw of a photo; here all photos are the same photo"
    dls = drone_block(data, split, (48,72), 'nadir').dataloaders([data.pair(split.train[0])]*8 + [data.pair(split.valid[0])], bs=4, num_workers=2)
    xs = torch.cat([x.cpu() for x,_ in dls.train])
    assert len({x.numpy().tobytes() for x in xs})==len(xs)==8

@pytest.mark.parametrize('augment', ['nadir', 'flips', A.Rotate(45, p=1, fill_mask=IGNORE), A.Compose([A.HorizontalFlip(p=1)])])
def test_masks_hold_classes_or_void(data, split, augment):
    dls = data.dataloaders(split, size=(48,72), bs=4, augment=augment)
    for x,y in dls.train:
        assert x.shape[1:]==(3,48,72) and y.shape[1:]==(48,72)
        assert set(y.unique().tolist())<={*range(data.classes.n), IGNORE}

def test_photo_and_mask_never_part(data):
    "A marker that is in the photo and in the mask must be at the same place after any draw"
    image,mask = np.zeros((200,300,3), np.uint8),np.zeros((200,300), np.uint8)
    image[60:100,180:240] = 255; mask[60:100,180:240] = 7
    moves,seen = A.Compose([t for t in nadir((100,150)) if isinstance(t, A.DualTransform)]),0
    random.seed(0)
    for _ in range(60):
        im,m = draw_once(moves, image, mask)
        a,b = im[...,0]>127,m==7
        if b.sum()>100: seen += 1; assert (a&b).sum()/(a|b).sum()>.9
    assert seen>20

def test_bad_sizes_and_batches(data, split):
    with pytest.raises(DroneSegError, match='32 pixels or more'): data.dataloaders(split, size=16)
    with pytest.raises(DroneSegError, match="size='64x'; "): data.dataloaders(split, size='64x')
    with pytest.raises(DroneSegError, match='bs=0'): data.dataloaders(split, bs=0)
    with pytest.raises(DroneSegError, match="augment='zenith'"): data.dataloaders(split, augment='zenith')
    assert data.dataloaders(split, size=48, bs=500).train.one_batch()[0].shape[0]==9

def test_pictures(data, split):
    dls = data.dataloaders(split, size=(48,72), bs=2)
    dls.show_batch(max_n=2)
    x,y = dls.valid.one_batch()
    pic = picture_of(x, [y,y], data.classes, 2)
    assert pic.height>2*160 and pic.width>4*240
    assert dls.photo_shape is None
    assert data.dataloaders(split, size=(48,48), bs=2, resize='squish').photo_shape==(96,144)==data[0][1].shape
    squeezed = picture_of(x, [y,y], data.classes, 2, shape=(480,480))          # photos were square: rows of 160 x 160
    assert pic.width-squeezed.width==4*80


# Workers, order, seeds

def batches(dl): return [(x.cpu(), y.cpu()) for x,y in dl]
def equal(a, b): return len(a)==len(b) and all(torch.equal(x, xx) and torch.equal(y, yy) for (x,y),(xx,yy) in zip(a, b))

@pytest.mark.parametrize('cache', [False, True])
def test_order_and_draws_repeat_with_any_number_of_workers(data, split, cache):
    make = lambda w, seed=7: data.dataloaders(split, size=(48,72), bs=2, augment='nadir', seed=seed, num_workers=w, cache=cache, batch_tfms=[BatchAugment(rotate=5)])
    a,b = make(0),make(2)
    first = batches(a.train)
    random.seed(1); random.random()                                # what else draws does not matter
    assert equal(first, batches(b.train))
    second = batches(a.train)
    assert equal(second, batches(b.train)) and not equal(first, second)  # each epoch is another one
    assert not equal(first, batches(make(0, 8).train))
    assert equal(batches(a.valid), batches(b.valid))

def test_a_seed_leaves_python_alone(data, split):
    dls = data.dataloaders(split, size=48, bs=2, seed=1)
    random.seed(3); want = random.random(); random.seed(3)
    dls.train.one_batch()
    assert random.random()==want

def test_all_can_be_pickled(data, split):
    block = drone_block(data, split, 48, 'nadir', [BatchAugment()])
    dls = data.dataloaders(split, size=48, bs=2, augment='oblique')
    crops = data.crop_dataloaders(split, size=48, bs=2, favour='rare')
    for o in (data, split, block, dls.train, dls.valid, crops.train, crops.valid): pickle.loads(pickle.dumps(o))

def test_a_worker_where_processes_start_afresh(drawn, tmp_path):
    "As on Windows and macOS: what goes to a worker is pickled, and the script is read again"
    script = tmp_path/'train.py'
    script.write_text(f"""
import multiprocessing, torch
from drone_seg.data import block
from drone_seg.data.block import *
from drone_seg.data.datasets import open_dataset
if __name__=='__main__':
    multiprocessing.set_start_method('spawn')
    data = open_dataset({str(drawn)!r})
    split = data.split(by='random', valid=.25)
    one,two = (data.dataloaders(split, size=(48,72), bs=3, augment='nadir', seed=2, num_workers=w) for w in (0, 1))
    for (x,y),(xx,yy) in zip(one.train, two.train, strict=True): assert torch.equal(x, xx) and torch.equal(y, yy)
    print('same')
""")
    r = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[1])
    assert r.stdout.strip()=='same', r.stderr[-2000:]

def test_workers_end_rather_than_hang(data, split):
    assert data.dataloaders(split, size=48, bs=2, num_workers=2).train.fake_l.timeout>0

def broken(image, mask):
    if torch.utils.data.get_worker_info() is not None: raise DroneSegError('this photo is broken')
    return image,mask
def test_what_goes_wrong_in_a_worker_is_said(data, split):
    dls = data.dataloaders(split, size=48, bs=2, num_workers=2, augment=broken)
    with pytest.raises(DroneSegError, match='this photo is broken'): next(iter(dls.train))

def test_transforms_of_batches_reach_training_batches_only(data, split):
    plain,aug = (data.dataloaders(split, size=(48,72), bs=3, augment=None, seed=1, batch_tfms=b) for b in ((), [BatchAugment(scale=(.5,.5))]))
    assert equal(batches(plain.valid), batches(aug.valid))
    (x,y),(xx,yy) = plain.train.one_batch(),aug.train.one_batch()
    assert float((yy==IGNORE).float().mean())>.5 and not torch.equal(x, xx)


# Factories

def test_factories_agree(data, drawn, tmp_path):
    split = data.split(by='random', valid=.25)
    with open(drawn/'pairs.csv', 'w', newline='') as f:
        out = csv.writer(f); out.writerow(['image','mask','side'])
        for s in data.stems: out.writerow([f'images/{s}.jpg', f'masks/{s}.png', 'valid' if s in split.valid else 'train'])
    kw = dict(size=(48,72), bs=4, seed=1)
    want = batches(data.dataloaders(split, **kw).train)
    made = [DroneDataLoaders.from_dataset(drawn, split, **kw), DroneDataLoaders.from_dataset(data, vars(split), **kw),
            DroneDataLoaders.from_folders(drawn/'images', drawn/'masks', data.classes, split=split, **kw),
            DroneDataLoaders.from_csv(drawn/'pairs.csv', data.classes, valid_col='side', **kw)]
    (drawn/'pairs.csv').unlink()
    for dls in made:
        assert type(dls) is DroneDataLoaders and dls.classes==data.classes and len(dls.valid.split.valid)==3
        assert equal(batches(dls.train), want)

def test_from_df(data, drawn):
    pandas = pytest.importorskip('pandas')
    df = pandas.DataFrame(dict(image=[str(p.image) for p in data.items], mask=[str(p.mask) for p in data.items], is_valid=[k<3 for k in range(12)]))
    dls = DroneDataLoaders.from_df(df, data.classes, valid_col='is_valid', size=(48,72), bs=4)
    assert len(dls.valid_ds)==3 and dls.one_batch()[0].shape==(4,3,48,72)

def test_bad_tables(data, drawn):
    row = dict(image=str(data.items[0].image), mask=str(data.items[0].mask))
    for rows,says in (([row, row], 'occur more than once'), ([{**row, 'mask':'no.png'}], 'row 1: no.png'), ([{'a':1}], "no columns image and mask; it has a"), ([], 'it has nothing'), ([{**row, 'mask':float('nan')}], 'no line has both')):
        with pytest.raises(DatasetError, match=says): DroneDataLoaders.from_df(rows, data.classes, drawn)
    with pytest.raises(DatasetError, match="no column 'side'"): DroneDataLoaders.from_df([row], data.classes, drawn, valid_col='side')
    with pytest.raises(DatasetError, match="row 1: side is 'perhaps'"): DroneDataLoaders.from_df([{**row, 'side':'perhaps'}], data.classes, drawn, valid_col='side')
    with pytest.raises(DatasetError, match="all photos are on one side"): DroneDataLoaders.from_df([{**row, 'side':0}], data.classes, drawn, valid_col='side')
    with pytest.raises(DatasetError, match='cannot be read'): DroneDataLoaders.from_csv(drawn/'none.csv', data.classes)
    with pytest.raises(DatasetError, match='no such folder'): DroneDataLoaders.from_folders(drawn/'pictures', drawn/'masks', data.classes)

def test_tables_and_folders_have_the_stems_of_open_dataset(data, drawn, tmp_path):
    table = tmp_path/'pairs.csv'
    with open(table, 'w', newline='') as f:
        out = csv.writer(f); out.writerow(['Image',' mask','split'])
        for k,p in enumerate(data.items): out.writerow([p.image, p.mask, ('valid','test','train')[min(k, 2)]])
    opened = open_dataset(table, data.classes)
    kw = dict(size=48, bs=4)
    one,two,three = (DroneDataLoaders.from_csv(table, data.classes, valid_col='Split', **kw), DroneDataLoaders.from_csv(table, data.classes, split=opened.official, **kw),
                     DroneDataLoaders.from_folders(drawn/'images', drawn/'masks', data.classes, split=opened.official, **kw))
    for dls in (one, two, three):
        got = dls.valid.split
        assert (got.train, got.valid, got.test)==tuple(opened.official[k] for k in ('train','valid','test')) and got.test==[data.stems[1]]

def test_what_is_left_out_is_said(data, drawn, tmp_path):
    shutil.copytree(drawn, tmp_path/'s')
    shutil.copy(data.items[0].mask, tmp_path/'s'/'images'/f'{data.stems[0]}.png'); (tmp_path/'s'/'masks'/f'{data.stems[1]}.png').unlink()
    kw = dict(split='random', size=48, bs=4)
    with pytest.warns(UserWarning, match='1 files have no partner.*only the first is used'): DroneDataLoaders.from_folders(tmp_path/'s'/'images', tmp_path/'s'/'masks', data.classes, **kw)
    rows = [dict(image=p.image, mask=p.mask if k else None) for k,p in enumerate(data.items)]
    with pytest.warns(UserWarning, match=f'1 files have no partner.*{data.stems[0]}'): DroneDataLoaders.from_df(rows, data.classes, **kw)

def test_bad_crops(data, split):
    with pytest.raises(DroneSegError, match='scale=0'): data.crop_dataloaders(split, size=48, scale=0)
    with pytest.raises(DroneSegError, match='per_photo=0; it is a whole number'): data.crop_dataloaders(split, size=48, per_photo=0)

@pytest.mark.parametrize('free,asked,given', [(2**30, 3, 3), (0, 3, 0), (300_000, 3, 2), (130_000, 3, 0), (170_000, 3, 1), (0, 0, 0)])
def test_workers_fit_into_shared_memory(data, split, monkeypatch, free, asked, given):
    "A batch of two photos of 96x64 has 49152 bytes; a worker has two of them under way, and one is in use"
    real = os.statvfs
    monkeypatch.setattr(os, 'statvfs', lambda p: SimpleNamespace(f_bavail=free/512, f_frsize=512) if p=='/dev/shm' else real(p))
    for make in (data.dataloaders, partial(data.crop_dataloaders, progress=False)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            dls = make(split, size=(64,96), bs=2, num_workers=asked)
        said = [str(w.message) for w in said if '/dev/shm' in str(w.message)]
        assert dls.train.fake_l.num_workers==dls.valid.fake_l.num_workers==given and len(dls.train.one_batch()[1])==2
        assert len(said)==(given<asked) and all(f'num_workers={given} instead of {asked}' in s for s in said)

def test_a_batch_can_be_looked_at_beside_workers(data, split):
    dls = data.dataloaders(split, size=(64,96), bs=2, num_workers=1)
    for dl in dls:
        assert dl.one_batch()[1].shape==(2,64,96) and dl.fake_l.timeout>0 and dl.fake_l.num_workers==1

def test_a_batch_takes_four_bytes_a_pixel_between_processes(data, split):
    dls = data.dataloaders(split, size=(64,96), bs=2)
    x,y = dls.train.create_batch([dls.train.do_item(i) for i in range(2)])
    assert x.nbytes+y.nbytes==4*2*64*96

def test_no_shared_memory_is_no_limit(monkeypatch):
    def gone(p): raise FileNotFoundError(p)
    monkeypatch.setattr(os, 'statvfs', gone)
    assert block.workers(5, 9, 8, (4096,4096))==5
