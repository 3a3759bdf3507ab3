"The cache gives what the originals give, whatever happened to its files, its disk or the photos"
import json, os, sys, threading
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
import drone_seg.data.cache as cache_page
from drone_seg.fields import *
from drone_seg.classes import *
from drone_seg.data.block import *
from drone_seg.data.cache import *
from drone_seg.data.pair import *
from drone_seg.data.datasets import *
from drone_seg.photo.photo_file import *
from drone_seg.photo.images import *
from drone_seg.scenes.scene import write_scenes

SIZE = (48,72)
REAL = Path(__file__).resolve().parents[2]/'shared'/'data'/'semantic_drone_dataset'

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

@pytest.fixture
def data(tmp_path):
    write_scenes(tmp_path/'scenes', 6, size=(96,144))
    return open_dataset(tmp_path/'scenes')

def same(prep, data, size=SIZE):
    for p in data.items:
        assert (prep.read_photo(p)==photo_at(data, p, size)).all() and (prep.read_ids(p)==ids_at(data, p, size)).all(), p

def files(prep): return sorted(prep.folder.rglob('*.npy'))

def test_what_is_cached_by_hand(data):
    prep = data.prepare(size=SIZE)
    for p in data.items:
        image,ids = data[p.stem]
        assert (prep[p.stem][0]==resize_image(image, SIZE)).all() and (prep[p.stem][1]==resize_mask(ids, SIZE)).all()
        assert set(np.unique(prep[p.stem][1]))<=set(np.unique(ids))
    assert sum(f.stat().st_size for f in files(prep))==cache_size(data, size=SIZE)

def test_large_jpegs_are_decoded_reduced_and_look_the_same(tmp_path):
    rng = np.random.default_rng(0)
    photo = np.asarray(Image.fromarray(rng.integers(0, 255, (40,60,3), dtype=np.uint8)).resize((1200,800), Image.BICUBIC))
    for d in ('images','masks'): (tmp_path/d).mkdir()
    save_image(photo, tmp_path/'images'/'a.jpg')
    exif = Image.Exif(); exif[0x0112] = 6
    Image.fromarray(photo).save(tmp_path/'images'/'turned.jpg', exif=exif, quality=92)
    classes = ClassTable(['a','b'])
    save_mask(np.zeros((800,1200), np.uint8), classes, tmp_path/'masks'/'a.png')
    save_mask(np.pad(np.zeros((600,800), np.uint8), ((0,600),(0,0)), constant_values=1), classes, tmp_path/'masks'/'turned.png')
    prep = open_dataset(tmp_path, classes).prepare(at_least=(100,100))
    assert prep['a'][0].shape==(100,150,3) and prep['turned'][0].shape==(150,100,3)
    for s in ('a','turned'):
        full = resize_image(read_image(tmp_path/'images'/f'{s}.jpg'), prep[s][0].shape[:2])
        assert abs(prep[s][0].astype(int) - full).mean()<1.5
    assert (prep['turned'][1][:75]==0).all() and (prep['turned'][1][75:]==1).all()

@pytest.mark.parametrize('damage', [lambda f: f.unlink(), lambda f: f.write_bytes(b''), lambda f: f.write_bytes(f.read_bytes()[:60]), lambda f: f.write_bytes(f.read_bytes()[:-1]),
                                    lambda f: f.write_bytes(b'\x00'*f.stat().st_size), lambda f: np.save(open(f, 'wb'), np.zeros(3))])
def test_damaged_files_are_made_again(data, damage):
    prep = data.prepare(size=SIZE)
    for f in files(prep): damage(f)
    same(prep, data)
    for f in files(prep): damage(f)
    same(data.prepare(size=SIZE), data)
    assert len(files(prep))==12

def test_saving_does_not_look_through_the_whole_cache(data):
    "Older files of the same photo are looked for among few, however many photos there are"
    prep = data.prepare(size=SIZE)
    names = {prep.file_of(Pair(str(k), data.items[0].image, Path(f'{k}.png')), 'image').parent for k in range(3)} | {prep.file_of(Pair('', p.image, p.mask), w).parent for p in data.items for w in ('image','mask')}
    assert all(d.parent==prep.folder and len(d.name)==2 for d in names) and len(names)>5

def swap(f, make):
    "Write other content into `f`, of the same length and with its time kept"
    st,new = f.stat(),make(f.with_name(f'new{f.suffix}'))
    b = new.read_bytes(); new.unlink()
    assert len(b)<=st.st_size
    f.write_bytes(b + b'\0'*(st.st_size-len(b))); os.utime(f, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert (f.stat().st_size, f.stat().st_mtime_ns)==(st.st_size, st.st_mtime_ns)

def test_a_photo_replaced_with_its_size_and_time_kept(data):
    from drone_seg.data.crops import TileStore
    prep,store,p = data.prepare(size=SIZE),TileStore(data),data.items[0]
    store.crop(p, 0, 0, 96, 144)
    places = data.places(progress=False)
    def grey(f): save_image(np.full((96,144,3), 99, np.uint8), f); return f
    swap(p.image, grey)
    assert abs(prep[p.stem][0].astype(int)-99).max()<3 and len(files(prep))==12
    assert abs(store.crop(p, 0, 0, 96, 144)[0].astype(int)-99).max()<9
    from drone_seg.data.splits import places_file
    assert not places_file(data).exists()

def test_a_replaced_photo_is_read_anew_and_its_old_file_goes(data):
    prep = data.prepare(size=SIZE)
    save_image(255-data[0][0], data.items[0].image)
    ids = data[1][1]; save_mask(np.where(ids==1, 2, ids), data.classes, data.items[1].mask)
    same(prep, data); assert len(files(prep))==12

def test_another_reading_is_another_cache(data):
    prep = data.prepare(size=SIZE)
    data.reader.tol = 3
    assert data.prepare(size=SIZE).folder!=prep.folder!=data.prepare(size=64).folder
    before = data.prepare(size=SIZE).folder
    data = data.relabel({'ground': [data.classes.scored_names[0]]}, rest='other')
    assert data.prepare(size=SIZE).folder!=before

def test_goes_on_where_it_stopped(data, monkeypatch):
    made,real = [],PreparedDataset._make
    def make(self, p, what):
        if len(made)==7: made.append(None); raise KeyboardInterrupt
        made.append(p.stem); return real(self, p, what)
    monkeypatch.setattr(PreparedDataset, '_make', make)
    with pytest.raises(KeyboardInterrupt): data.prepare(size=SIZE, workers=1)
    done = len(files(PreparedDataset(data, size=SIZE)))
    assert 7<=done<12 and not [f for f in files(PreparedDataset(data, size=SIZE)) if f.suffix!='.npy']
    n = len(made)
    same(data.prepare(size=SIZE), data)
    assert len(made)-n==12-done

def test_two_at_once(data):
    jobs = [threading.Thread(target=data.prepare, kwargs=dict(size=SIZE)) for _ in range(3)]
    for j in jobs: j.start()
    for j in jobs: j.join()
    prep = data.prepare(size=SIZE)
    same(prep, data); assert len(files(prep))==12

@pytest.mark.skipif(sys.platform=='win32', reason="no limits on files there")
def test_full_disk(data, tmp_path, program):
    "A limit on the size of files stands in for the full disk: writing fails in the middle of a file"
    first = data.prepare(size=(480,720), stems=data.stems[:2])
    code = f"""
import resource, signal
from drone_seg.data.datasets import open_dataset
from drone_seg.data.cache import *
from drone_seg.fields import FileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
data = open_dataset({str(data.path)!r})
try: data.prepare(size=(480,720), workers=1)
except FileError as e: print('says', e)
prep = PreparedDataset(data, size=(480,720))
assert all((prep.read_photo(p)==photo_at(data, p, (480,720))).all() for p in data.items)
print('right')
"""
    r = program(code)
    assert 'says' in r.stdout and 'the next call goes on from there' in r.stdout and 'right' in r.stdout, r.stderr
    assert {f.suffix for f in files(first)}=={'.npy'} and len([f for f in files(first) if '.image' in f.name])==2
    same(data.prepare(size=(480,720)), data, (480,720))

def test_no_room(data, monkeypatch):
    monkeypatch.setattr(cache_page.shutil, 'disk_usage', lambda d: type('U', (), dict(free=1000)))
    with pytest.raises(FileError, match='needs 0 MB.*set DRONE_SEG_CACHE'): data.prepare(size=SIZE)

def test_loaders_go_on_without_a_cache_that_cannot_be(data, tmp_path, monkeypatch):
    split = data.split(by='random', seed=1)
    monkeypatch.setattr('drone_seg.data.block._worth_it', lambda *a: True)
    (tmp_path/'file').write_text('x')
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'file'/'below'))
    with pytest.warns(UserWarning, match='going on without a cache'): dls = data.dataloaders(split, size=SIZE, bs=2)
    assert dls.one_batch()[0].shape==(2,3,*SIZE)
    with pytest.raises(FileError): data.dataloaders(split, size=SIZE, bs=2, cache=True)

def test_a_lost_original_is_named(data):
    prep = data.prepare(size=SIZE)
    data.items[0].image.unlink()
    with pytest.raises(ImageError, match='no such file'): prep[0]

@pytest.mark.parametrize('augment', ['flips','nadir'])
def test_the_same_batches_with_and_without(data, augment):
    split = data.split(by='random', seed=1)
    one,two = (data.dataloaders(split, size=SIZE, bs=2, augment=augment, seed=3, cache=c) for c in (True, False))
    for a,b in ((one.train, two.train), (one.valid, two.valid)):
        for (x,y),(xx,yy) in zip(a, b, strict=True): assert torch.equal(x, xx) and torch.equal(y, yy)

def test_what_is_cached_by_itself(data):
    from drone_seg.data.block import _worth_it, photo_frame
    def worth(photo, size): return _worth_it(photo_frame([photo], size))
    assert worth((4000,6000), (512,768)) and not worth((512,768), 64) and not worth((1200,1800), (900,1200))
    data.dataloaders(data.split(by='random', seed=1), size=SIZE, bs=2)
    assert not (Path(os.environ['DRONE_SEG_CACHE'])/'photos').exists()

def test_metres_per_pixel(data):
    data.gsd = .08
    prep = data.prepare(gsd=.16)
    assert prep[0][0].shape==(48,72,3) and prep.gsd==.16 and data.prepare(gsd=.01)[0][0].shape==(96,144,3)
    assert data.prepare(gsd=.01).gsd==.08                                # photos are not enlarged
    data.gsd = None
    with pytest.raises(FileError, match='dataset.json'): data.prepare(gsd=.16)
    with pytest.raises(FileError, match='one of size='): data.prepare()

def test_a_prepared_data_set_is_a_data_set(data):
    prep = data.prepare(at_least=SIZE)
    dls = prep.dataloaders(prep.split(by='random', seed=1), size=(32,48), bs=2)
    assert dls.photo_size==(96,144) and dls.one_batch()[0].shape==(2,3,32,48)
    assert prep.fingerprint()==data.fingerprint() and len(prep)==6

def test_parts_of_photos(data):
    p = data.items[2]
    part = PhotoPart(p.stem, p.image, p.mask, (.5, .25, .5, .5))
    prep = data.prepare(size=SIZE, stems=[part])
    assert (prep.read_ids(part)==resize_mask(data[2][1][48:,36:108], SIZE)).all()
    assert abs(prep.read_photo(part).astype(int) - resize_image(np.ascontiguousarray(data[2][0][48:,36:108]), SIZE)).max()<=1
    assert len(files(prep))==2

def test_masks_off_by_a_pixel(data):
    data.reader.slack = 1
    p = data.items[0]
    save_mask(data[0][1][:-1], data.classes, p.mask)
    assert (data.prepare(size=SIZE).read_ids(p)==resize_mask(resize_mask(read_mask(p.mask, data.classes), (96,144)), SIZE)).all()

@pytest.mark.skipif(not REAL.is_dir(), reason="the Semantic Drone photos are not here")
def test_real_photos():
    data = open_dataset(REAL)
    prep = data.prepare(size=(128,192), stems=data.stems[:5])
    for s in data.stems[:5]:
        assert (prep[s][1]==resize_mask(data[s][1], (128,192))).all()
        assert abs(prep[s][0].astype(int) - resize_image(data[s][0], (128,192))).mean()<2

@pytest.mark.parametrize('asked', [dict(size='abc'), dict(size=(1,2,3)), dict(size=(64,None)), dict(size=64.5), dict(at_least='ab'), dict(size=(64,)), dict(size=(64,'b')), dict(gsd='fine')])
def test_sizes_that_are_none(data, asked):
    data.gsd = .05
    with pytest.raises(FileError, match=f'{next(iter(asked))}='): data.prepare(**asked)
