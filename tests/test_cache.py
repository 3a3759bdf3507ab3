"The cache gives what the originals give, whatever happened to its files, its disk or the photos"
import os, sys, threading
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
import drone_seg.data.cache as cache_page
from drone_seg.fields import *
from drone_seg.classes import *
from drone_seg.data.cache import Small
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

def small(size=SIZE, **kwargs): return Small(size=size, keep=True, **kwargs)
def filled(data, size=SIZE):
    "A cache that holds all photos and masks"
    kept = small(size)
    kept.fill(data.items, progress=False)
    return kept

def originals(p, size):
    "Photo and mask at a size, from whole originals"
    return resize_image(p.photo(), size),resize_mask(p.ids(), size)

def same(kept, data):
    for p in data.items:
        again = Small(size=kept.size)
        assert (kept.image(p)==again.image(p)).all() and (kept.ids(p)==again.ids(p)).all(), p

def files(kept): return sorted(kept.folder.rglob('*.npy'))

def test_what_is_cached_by_hand(data):
    kept = filled(data)
    for p in data.items:
        image,ids = originals(p, SIZE)
        assert (kept.image(p)==image).all() and (kept.ids(p)==ids).all()
        assert set(np.unique(ids))<=set(np.unique(data[p.stem][1]))
    assert len(files(kept))==12

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
    data,kept = open_dataset(tmp_path, classes),small((100,100), cover=True)
    plain,turned = (data.pair(s) for s in ('a','turned'))
    assert kept.image(plain).shape==(100,150,3) and kept.image(turned).shape==(150,100,3)
    for p in (plain, turned):
        got = kept.image(p)
        assert abs(got.astype(int) - resize_image(read_image(p.image), got.shape[:2])).mean()<1.5
    assert (kept.ids(turned)[:75]==0).all() and (kept.ids(turned)[75:]==1).all()

@pytest.mark.parametrize('damage', [lambda f: f.unlink(), lambda f: f.write_bytes(b''), lambda f: f.write_bytes(f.read_bytes()[:60]), lambda f: f.write_bytes(f.read_bytes()[:-1]),
                                    lambda f: f.write_bytes(b'\x00'*f.stat().st_size), lambda f: np.save(open(f, 'wb'), np.zeros(3))])
def test_damaged_files_are_made_again(data, damage):
    prep = filled(data)
    for f in files(prep): damage(f)
    same(prep, data)
    for f in files(prep): damage(f)
    same(filled(data), data)
    assert len(files(prep))==12

def test_saving_does_not_look_through_the_whole_cache(data):
    "Older files of the same photo are looked for among few, however many photos there are"
    prep = filled(data)
    names = {prep.file_of(p, w).parent for p in data.items for w in ('image','mask')}
    assert all(d.parent==prep.folder and len(d.name)==2 for d in names) and len(names)>5

def swap(f, make):
    "Write other content into `f`, of the same length and with its time kept"
    st,new = f.stat(),make(f.with_name(f'new{f.suffix}'))
    b = new.read_bytes(); new.unlink()
    assert len(b)<=st.st_size
    f.write_bytes(b + b'\0'*(st.st_size-len(b))); os.utime(f, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert (f.stat().st_size, f.stat().st_mtime_ns)==(st.st_size, st.st_mtime_ns)

def test_a_photo_replaced_with_its_size_and_time_kept(data):
    from drone_seg.data.tiled import read_crop
    prep,p = filled(data),data.items[0]
    read_crop(p, 0, 0, 96, 144)
    places = data.places(progress=False)
    def grey(f): save_image(np.full((96,144,3), 99, np.uint8), f); return f
    swap(p.image, grey)
    assert abs(prep.image(p).astype(int)-99).max()<3 and len(files(prep))==12
    assert abs(read_crop(p, 0, 0, 96, 144)[0].astype(int)-99).max()<9
    from drone_seg.data.splits import places_file
    assert not places_file(data).exists()

def test_a_replaced_photo_is_read_anew_and_its_old_file_goes(data):
    prep = filled(data)
    save_image(255-data[0][0], data.items[0].image)
    ids = data[1][1]; save_mask(np.where(ids==1, 2, ids), data.classes, data.items[1].mask)
    same(prep, data); assert len(files(prep))==12

def test_another_reading_is_another_file(data):
    def files_of(d): return {small().file_of(p, w) for p in d.items for w in ('image','mask')}
    merged = data.relabel({'ground': [data.classes.scored_names[0]]}, rest='other')
    ways = [files_of(d) for d in (data, data.with_readers(tol=3), data.with_readers(void_border=True), merged)]
    assert len(set.union(*ways))==4*12 and small().folder!=small((64,64)).folder!=small((64,64), cover=True).folder

def test_goes_on_where_it_stopped(data, monkeypatch):
    made,real = [],Small.make
    def make(self, p, what):
        if len(made)==7: made.append(None); raise KeyboardInterrupt
        made.append(p.stem); return real(self, p, what)
    monkeypatch.setattr(Small, 'make', make)
    with pytest.raises(KeyboardInterrupt): filled(data)
    done = len(files(small()))
    assert 7<=done<12 and {f.suffix for f in small().folder.rglob('*') if f.is_file()}=={'.npy'}
    n = len(made)
    filled(data)
    assert len(made)-n==12-done

def test_two_at_once(data):
    jobs = [threading.Thread(target=filled, args=(data,)) for _ in range(3)]
    for j in jobs: j.start()
    for j in jobs: j.join()
    prep = filled(data)
    same(prep, data); assert len(files(prep))==12

@pytest.mark.skipif(sys.platform=='win32', reason="no limits on files there")
def test_full_disk(data, tmp_path, program):
    "A limit on the size of files stands in for the full disk: writing fails in the middle of a file"
    first = small((480,720))
    first.fill(data.items[:2], progress=False)
    code = f"""
import resource, signal
from drone_seg.data.datasets import open_dataset
from drone_seg.data.cache import Small
from drone_seg.fields import FileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
data,kept = open_dataset({str(data.path)!r}),Small(size=(480,720), keep=True)
try: kept.fill(data.items)
except FileError as e: print('says', e)
assert all((kept.image(p)==Small(size=(480,720)).image(p)).all() for p in data.items)
print('right')
"""
    r = program(code)
    assert 'says' in r.stdout and 'the next call goes on from there' in r.stdout and 'right' in r.stdout, r.stderr
    assert {f.suffix for f in files(first)}=={'.npy'} and len([f for f in files(first) if '.image' in f.name])==2
    same(filled(data, (480,720)), data)

def test_no_room(data, monkeypatch):
    monkeypatch.setattr(cache_page.shutil, 'disk_usage', lambda d: type('U', (), dict(free=1000)))
    with pytest.raises(FileError, match='needs 0 MB.*set DRONE_SEG_CACHE'): filled(data)

def test_loaders_go_on_without_a_cache_that_cannot_be(data, tmp_path, monkeypatch):
    split = data.split(by='random', seed=1)
    monkeypatch.setattr('drone_seg.data.block.worth_it', lambda *a: True)
    (tmp_path/'file').write_text('x')
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'file'/'below'))
    with pytest.warns(UserWarning, match='going on without a cache'): dls = data.dataloaders(split, size=SIZE, bs=2)
    assert dls.one_batch()[0].shape==(2,3,*SIZE)
    with pytest.raises(FileError): data.dataloaders(split, size=SIZE, bs=2, cache=True)

def test_a_lost_original_is_named(data):
    prep = filled(data)
    data.items[0].image.unlink()
    with pytest.raises(ImageError, match='no such file'): prep.image(data.items[0])

@pytest.mark.parametrize('augment', ['flips','nadir'])
def test_the_same_batches_with_and_without(data, augment):
    split = data.split(by='random', seed=1)
    one,two = (data.dataloaders(split, size=SIZE, bs=2, augment=augment, seed=3, cache=c) for c in (True, False))
    for a,b in ((one.train, two.train), (one.valid, two.valid)):
        for (x,y),(xx,yy) in zip(a, b, strict=True): assert torch.equal(x, xx) and torch.equal(y, yy)

def test_what_is_cached_by_itself(data):
    from drone_seg.data.block import photo_frame, worth_it
    def worth(photo, size): return worth_it(photo_frame([photo], size))
    assert worth((4000,6000), (512,768)) and not worth((512,768), 64) and not worth((1200,1800), (900,1200))
    data.dataloaders(data.split(by='random', seed=1), size=SIZE, bs=2)
    assert not (Path(os.environ['DRONE_SEG_CACHE'])/'photos').exists()

def test_parts_of_photos(data):
    part = replace(data.items[2], box=(.5, .25, .5, .5))
    kept = small()
    kept.fill([part], progress=False)
    assert (kept.ids(part)==resize_mask(np.ascontiguousarray(data[2][1][48:,36:108]), SIZE)).all()
    piece = np.ascontiguousarray(data[2][0][48:,36:108])
    assert abs(kept.image(part).astype(int) - resize_image(piece, SIZE)).max()<=1
    assert len(files(kept))==2

def test_masks_off_by_a_pixel(data):
    p = data.with_readers(slack=1).items[0]
    save_mask(data[0][1][:-1], data.classes, p.mask)
    assert (filled(data.with_readers(slack=1)).ids(p)==resize_mask(resize_mask(read_mask(p.mask, data.classes), (96,144)), SIZE)).all()

@pytest.mark.skipif(not REAL.is_dir(), reason="the Semantic Drone photos are not here")
def test_real_photos():
    for p in open_dataset(REAL).items[:5]:
        kept,(image,ids) = small((128,192)),originals(p, (128,192))
        assert (kept.ids(p)==ids).all() and abs(kept.image(p).astype(int) - image).mean()<2
