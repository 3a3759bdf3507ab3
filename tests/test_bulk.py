"Many files: nothing lost, nothing done twice, nothing overwritten, one bad file stops nothing, memory flat"
import csv, errno, gc, io, json, os, shutil, signal, struct, sys, threading, time, weakref
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
import cv2, numpy as np, pytest, torch
from PIL import Image
from torch import nn
import drone_seg.photo.images as images
import drone_seg.predict.folder as folder
import drone_seg.predict.ledger as ledger
import drone_seg.predict.video as video
from drone_seg.photo.photo_file import read_image
from drone_seg.photo.images import save_mask
from drone_seg.fields import FileError, PredictError
from drone_seg.files import replacing
from drone_seg.models.bundle import Bundle
from drone_seg.predict.cluster import as_here, predict_ray
from drone_seg.predict.folder import *
from drone_seg.predict.ledger import list_photos, fingerprint, Ledger
from drone_seg.predict.predict import Predictor
from drone_seg.predict.video import *
from drone_seg.predict.video import vote_frames, vote_ids
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene

cv2.setNumThreads(1) # a forked process has no threads of its parent's, and would wait for them

unix = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
linux = pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='needs /proc')

def make_model(size=(48,72), seed=0):
    "One convolution with drawn weights: its masks are anything but uniform"
    g = torch.Generator().manual_seed(seed)
    net = nn.Conv2d(3, SCENE_CLASSES.n, 3, padding=1)
    for p in net.parameters(): p.data = torch.randn(p.shape, generator=g)
    return Bundle(net.eval(), SCENE_CLASSES, size, device='cpu')

@pytest.fixture
def model(): return make_model()

def save(path, image, **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **kw)

@pytest.fixture
def flight(tmp_path):
    for k in range(6): save(tmp_path/'flight'/('a' if k<3 else 'b/c')/f'{k}.jpg', draw_scene(k, size=(60,90))[0])
    return tmp_path/'flight'

def files(folder): return {f.relative_to(folder).as_posix():f.read_bytes() for f in sorted(folder.rglob('*')) if f.is_file()}
def masks(out): return files(out/'masks')


PLAIN = Predictor.predict
def patched(monkeypatch, predict): monkeypatch.setattr(Predictor, 'predict', predict)


# Right results

def odd_photos(folder):
    "Each kind of photo that has broken somebody's program"
    im = draw_scene(5, size=(40,60))[0]
    save(folder/'one.png', im[:1,:1]); save(folder/'row.png', np.ascontiguousarray(np.tile(im[:10], (1,500,1)))) # 30000x10
    save(folder/'grey.png', im[...,0]); save(folder/'alpha.png', np.dstack([im, im[...,:1]]))
    Image.fromarray(im[...,0].astype(np.uint16)*257).save(folder/'deep.png')
    Image.fromarray(im).convert('CMYK').save(folder/'cmyk.jpg')
    ex = Image.Exif(); ex[0x0112] = 6
    Image.fromarray(im).save(folder/'turned.jpg', exif=ex)
    return 7

def test_odd_photos_give_the_masks_of_predict(model, tmp_path):
    (tmp_path/'p').mkdir(); n = odd_photos(tmp_path/'p')
    rep = predict_folder(model, tmp_path/'p', tmp_path/'o', progress=False)
    assert len(rep.written)==n-2 and set(rep.bad)=={'grey.png','deep.png'} # a model of colours
    assert all('save it as RGB' in why for why in rep.bad.values())
    for f in (tmp_path/'p'/name for name in rep.written):
        got = np.asarray(Image.open(tmp_path/'o'/'masks'/f'{f.stem}.png'))
        assert got.shape==read_image(f).shape[:2] and (got==model.predict(f).ids).all(), f.name
    assert Image.open(tmp_path/'o'/'masks'/'turned.png').size==(40,60)

def test_summary_is_what_the_masks_say(model, flight, tmp_path):
    rep = predict_folder(model, flight, tmp_path/'o', progress=False)
    rows = list(csv.DictReader(open(rep.summary, encoding='utf-8')))
    assert [r['photo'] for r in rows]==sorted(r['photo'] for r in rows) and len(rows)==6
    for r in rows:
        ids = np.asarray(Image.open((tmp_path/'o'/'masks'/r['photo']).with_suffix('.png')))
        assert (int(r['height']),int(r['width']))==ids.shape and float(r['seconds'])>=0 and r['problem']==''
        for row in SCENE_CLASSES.scored: assert float(r[SCENE_CLASSES.names[row]])==pytest.approx((ids==SCENE_CLASSES.ids[row]).mean(), abs=1e-6)

def test_options_reach_the_model(model, flight, tmp_path):
    predict_folder(model, flight, tmp_path/'o', overlays=False, progress=False, scale=.5)
    assert not (tmp_path/'o'/'overlays').exists()
    for n,b in masks(tmp_path/'o').items():
        assert (np.asarray(Image.open(io.BytesIO(b)))==model.predict((flight/n).with_suffix('.jpg'), scale=.5).ids).all()

def test_a_list_of_photos_and_a_single_one(model, flight, tmp_path):
    predict_folder(model, [flight/'a'/'0.jpg', flight/'b'/'c'/'4.jpg'], tmp_path/'o', progress=False)
    assert list(masks(tmp_path/'o'))==['a/0.png','b/c/4.png']
    predict_folder(model, flight/'a'/'1.jpg', tmp_path/'p', progress=False)
    assert list(masks(tmp_path/'p'))==['1.png']

def test_output_inside_the_photos_is_not_an_input(model, flight):
    for _ in range(2): rep = predict_folder(model, flight, flight/'maps', progress=False)
    assert len(rep.skipped)==6 and not rep.written and len(masks(flight/'maps'))==6

def test_hidden_files_are_left_out(model, flight, tmp_path):
    shutil.copy(flight/'a'/'0.jpg', flight/'a'/'._0.jpg'); shutil.copytree(flight/'a', flight/'.thumbs')
    assert len(predict_folder(model, flight, tmp_path/'o', progress=False).written)==6


# Bad photos

def test_bad_photos_stop_nothing(model, flight, tmp_path):
    whole = (flight/'a'/'0.jpg').read_bytes()
    (flight/'a'/'cut.jpg').write_bytes(whole[:len(whole)//2]); (flight/'text.jpg').write_text('hello'); (flight/'empty.png').write_bytes(b'')
    os.symlink('nowhere.jpg', flight/'gone.jpg')
    rep = predict_folder(model, flight, tmp_path/'o', progress=False)
    assert len(rep.written)==6 and set(rep.bad)=={'a/cut.jpg','text.jpg','empty.png','gone.jpg'}
    for n,r in rep.bad.items(): assert str(flight/n) in r and len(r.splitlines())==1
    assert 'damaged' in rep.bad['a/cut.jpg'] and 'not an image' in rep.bad['text.jpg'] and '4 photos could not be used' in repr(rep)
    rows = {r['photo']:r for r in csv.DictReader(open(rep.summary, encoding='utf-8'))}
    assert len(rows)==10 and all(rows[n]['problem']==r and rows[n]['width']=='' for n,r in rep.bad.items())
    (flight/'text.jpg').write_bytes(whole)
    rep = predict_folder(model, flight, tmp_path/'o', progress=False)
    assert rep.written==['text.jpg'] and len(rep.bad)==3

def test_a_photo_the_model_refuses_stops_nothing(model, flight, tmp_path, monkeypatch):
    def predict(self, image):
        if (image.image==read_image(flight/'a'/'1.jpg')).all(): raise PredictError('the logits are NaN')
        return PLAIN(self, image)
    patched(monkeypatch, predict)
    rep = predict_folder(model, flight, tmp_path/'o', progress=False)
    assert list(rep.bad)==['a/1.jpg'] and 'a/1.jpg: the logits are NaN' in rep.bad['a/1.jpg'] and len(rep.written)==5

def test_a_mistake_in_code_is_not_called_a_bad_photo(model, flight, tmp_path):
    with pytest.raises(TypeError): predict_folder(model, flight, tmp_path/'o', progress=False, skale=1)


# A second run

def counted(model, monkeypatch):
    n = []
    patched(monkeypatch, lambda self, im: (n.append(1), PLAIN(self, im))[1])
    return n

def spoil_nothing(flight, out): pass
def cut_mask(flight, out): f = out/'masks'/'a'/'0.png'; f.write_bytes(f.read_bytes()[:-10])
def same_length_mask(flight, out):
    f = out/'masks'/'a'/'0.png'; b = bytearray(f.read_bytes()); b[-30] ^= 1; f.write_bytes(b)
def foreign_mask(flight, out): save_mask(np.ones((60,90), np.uint8), SCENE_CLASSES, out/'masks'/'a'/'0.png')
def no_mask(flight, out): (out/'masks'/'a'/'0.png').unlink()
def no_overlay(flight, out): (out/'overlays'/'a'/'0.jpg').unlink()
def other_photo(flight, out): save(flight/'a'/'0.jpg', draw_scene(77, size=(60,90))[0])
def touched(flight, out): os.utime(flight/'a'/'0.jpg', (5,5)); os.utime(out/'masks'/'a'/'0.png', (5,5))
def copied(flight, out):
    for d in (flight, out): shutil.copytree(d, d.with_name(d.name+'_')); shutil.rmtree(d); shutil.move(d.with_name(d.name+'_'), d)
def torn_ledger(flight, out): f = out/'ledger.jsonl'; f.write_bytes(f.read_bytes()[:-15])
def garbled_ledger(flight, out): f = out/'ledger.jsonl'; l = f.read_text().splitlines(); l[2] = '\x00\x00[3'; f.write_text('\n'.join(l)+'\n')

@pytest.mark.parametrize('spoil,again', [(spoil_nothing,0), (cut_mask,1), (same_length_mask,1), (foreign_mask,1), (no_mask,1), (no_overlay,1), (other_photo,1), (touched,0), (copied,0), (torn_ledger,1), (garbled_ledger,1)], ids=lambda v: getattr(v, '__name__', None))
def test_what_is_finished_is_checked(spoil, again, model, flight, tmp_path, monkeypatch):
    out = tmp_path/'o'
    predict_folder(model, flight, out, progress=False)
    want = masks(out)
    spoil(flight, out)
    n = counted(model, monkeypatch)
    rep = predict_folder(model, flight, out, progress=False)
    assert len(n)==again==len(rep.written) and len(rep.skipped)==6-again
    if spoil is not other_photo: assert masks(out)==want
    n.clear(); predict_folder(model, flight, out, progress=False)
    assert not n

def test_other_weights_options_or_wishes_do_it_again(model, flight, tmp_path):
    run = lambda m, **kw: len(predict_folder(m, flight, tmp_path/'o', progress=False, **kw).written)
    assert [run(model, overlays=False), run(model, overlays=False), run(model), run(model, overlays=False), run(model, bs=2)]==[6,0,6,0,0]
    assert [run(model, scale=.8), run(make_model(seed=1)), run(make_model(size=(50,72), seed=1)), run(make_model(size=(50,72), seed=1))]==[6,6,6,0]

def test_fingerprint_sees_what_changes_masks(model):
    from dataclasses import replace
    from drone_seg.classes import ClassTable
    others = [make_model(seed=1), replace(model, gsd=.1), replace(model, scale=.5), replace(model, size=(48,73)), replace(model, classes=ClassTable(SCENE_CLASSES.names, SCENE_CLASSES.colors[::-1], void=['unlabeled']))]
    assert len({fingerprint(m) for m in [model, *others]})==6 and fingerprint(make_model())==fingerprint(model)
    assert fingerprint(replace(model, data='x', scores=dict(miou=1)))==fingerprint(model)


# Inputs are never overwritten

def test_output_folders_that_would_cost_an_input(model, flight, tmp_path):
    before = files(flight)
    os.symlink(flight, tmp_path/'link'); (tmp_path/'o').mkdir(); os.symlink(flight, tmp_path/'o'/'masks')
    (tmp_path/'q').mkdir(); os.symlink(tmp_path, tmp_path/'q'/'back')
    for out in (flight, tmp_path/'link', tmp_path/'link'/'.', tmp_path/'o', tmp_path/'q'/'back'/'flight'):
        with pytest.raises(PredictError, match='give another output folder'): predict_folder(model, flight, out, progress=False)
    with pytest.raises(PredictError, match='give another output folder'): predict_folder(model, tmp_path/'link', flight, progress=False)
    assert files(flight)==before

def test_an_output_that_is_one_of_the_photos(model, tmp_path):
    "Photos are themselves in masks/ of the output folder, or below a link that leads there"
    save(tmp_path/'d'/'masks'/'x.png', draw_scene(0, size=(40,60))[0])
    was = files(tmp_path/'d')
    with pytest.raises(PredictError): predict_folder(model, tmp_path/'d'/'masks', tmp_path/'d', progress=False)
    with pytest.raises(PredictError): predict_folder(model, [tmp_path/'d'/'masks'/'x.png'], tmp_path/'d', progress=False)
    save(tmp_path/'e'/'sub'/'x.png', draw_scene(0, size=(40,60))[0]); (tmp_path/'f'/'masks').mkdir(parents=True)
    os.symlink(tmp_path/'e'/'sub', tmp_path/'f'/'masks'/'sub')
    with pytest.raises(PredictError, match='is one of the photos'): predict_folder(model, tmp_path/'e', tmp_path/'f', progress=False)
    assert files(tmp_path/'d')==was and len(files(tmp_path/'f'))==0

def test_masks_of_a_data_set_are_left_alone(model, flight, tmp_path):
    save_mask(np.ones((60,90), np.uint8), SCENE_CLASSES, tmp_path/'data'/'masks'/'0.png')
    was = files(tmp_path/'data')
    with pytest.raises(PredictError, match='not written by a run that is on record'): predict_folder(model, flight/'a', tmp_path/'data', progress=False)
    assert files(tmp_path/'data')==was

def test_masks_of_another_flight_are_left_alone(model, flight, tmp_path):
    predict_folder(model, flight/'a', tmp_path/'o', progress=False)
    save(tmp_path/'other'/'0.jpg', draw_scene(9, size=(60,90))[0]); was = masks(tmp_path/'o')
    with pytest.raises(PredictError, match='mask of another photo called 0.jpg'): predict_folder(model, tmp_path/'other', tmp_path/'o', progress=False)
    assert masks(tmp_path/'o')==was
    save(tmp_path/'third'/'z.jpg', draw_scene(9, size=(60,90))[0])
    rep = predict_folder(model, tmp_path/'third', tmp_path/'o', progress=False)      # other names: welcome, and the summary has both
    assert len(list(csv.DictReader(open(rep.summary))))==4

def test_outputs_that_cannot_be_written(model, flight, tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(FileError, match='give another output folder'): predict_folder(model, flight, tmp_path/'file'/'o', progress=False)
    with pytest.raises(FileError): predict_folder(model, flight, tmp_path/'file', progress=False)
    with pytest.raises(PredictError, match='no such photo or folder'): predict_folder(model, tmp_path/'gone', tmp_path/'o', progress=False)
    assert not (tmp_path/'o').exists()

@pytest.mark.parametrize('names', [('x.jpg','x.png'), ('s/x.jpg','s/x.tif')], ids=['top','below'])
def test_same_stem_twice(names, model, tmp_path):
    for n in names: save(tmp_path/'p'/n, np.zeros((8,8,3), np.uint8))
    with pytest.raises(PredictError, match='two photos are called'): predict_folder(model, tmp_path/'p', tmp_path/'o', progress=False)
    assert not (tmp_path/'o').exists()


# Disks that fill up, and kills

@pytest.mark.parametrize('where', ['masks','overlays','ledger'])
def test_a_full_disk_keeps_what_is_finished(where, model, flight, tmp_path, monkeypatch):
    out,n,full = tmp_path/'o',[],[True]
    def no_room():
        n.append(1)
        if full[0] and len(n)>=4: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    save_pil,opened = Image.Image.save,open
    def pil(self, f, *a, **kw):
        if f'/o/{where}/' in str(f): no_room()
        return save_pil(self, f, *a, **kw)
    def op(f, mode='r', *a, **kw):
        if where=='ledger' and 'a' in mode and str(f).endswith('ledger.jsonl'): no_room()
        return opened(f, mode, *a, **kw)
    monkeypatch.setattr(Image.Image, 'save', pil); monkeypatch.setattr(ledger, 'open', op, raising=False)
    with pytest.raises(FileError, match='No space left.*what is finished is kept') as e: predict_folder(model, flight, out, progress=False)
    assert str(out) in str(e.value) and len(str(e.value).splitlines())==1
    done = len(Ledger(out/'ledger.jsonl').entries)
    assert done>=2 and not list(out.rglob('*.tmp'))
    full[0] = False
    rep = predict_folder(model, flight, out, progress=False)
    assert len(rep.skipped)==done and len(rep.written)==6-done and len(masks(out))==6

def in_child(f):
    "Exit status of `f` in a forked process: negative if a signal ended it"
    pid = os.fork()
    if pid==0:
        signal.alarm(100) # a test that hangs is one that fails
        try: f(); os._exit(0)
        except BaseException as e: sys.stderr.write(f'{type(e).__name__}: {e}\n'); sys.stderr.flush(); os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@unix
@pytest.mark.parametrize('at', [1,3,6])
def test_kill_in_the_middle_of_writing(at, model, flight, tmp_path, monkeypatch):
    out,n,plain = tmp_path/'o',[],Image.Image.save
    def deadly(self, f, *a, **kw):
        n.append(1)
        if len(n)==2*at:
            Path(f).write_bytes(b'half a picture'); os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, f, *a, **kw)
    def child():
        Image.Image.save = deadly
        predict_folder(model, flight, out, progress=False)
    assert in_child(child)==-signal.SIGKILL
    left = list(out.rglob('.*.tmp'))
    assert left                                                        # the half picture
    done = Ledger(out/'ledger.jsonl').entries
    rep = predict_folder(model, flight, out, progress=False)
    assert set(rep.skipped)==set(done) and len(rep.written)+len(done)==6
    predict_folder(model, flight, tmp_path/'whole', progress=False)
    assert masks(out)==masks(tmp_path/'whole') and not list(out.rglob('.*.tmp'))

def test_interrupt_leaves_a_folder_that_goes_on(model, flight, tmp_path, monkeypatch):
    n = []
    def predict(self, im):
        n.append(1)
        if len(n)==4: raise KeyboardInterrupt
        return PLAIN(self, im)
    patched(monkeypatch, predict)
    with pytest.raises(KeyboardInterrupt): predict_folder(model, flight, tmp_path/'o', progress=False)
    rep = predict_folder(model, flight, tmp_path/'o', progress=False)
    assert len(rep.skipped)+len(rep.written)==6 and len(masks(tmp_path/'o'))==6 and len(n)<=4+6


# Overlap and memory

def test_reading_predicting_and_writing_overlap(model, tmp_path, monkeypatch):
    "Eight photos, 100 ms for each step: one after the other, the steps together take no longer than the whole; side by side, twice as long and more"
    for k in range(8): save(tmp_path/'p'/f'{k}.png', np.full((4,6,3), k, np.uint8))
    read,write = folder.as_photo,folder.write_one
    steps = []
    def slow(f):
        def timed(*a, **kw):
            t = time.perf_counter()
            try: time.sleep(.1); return f(*a, **kw)
            finally: steps.append(time.perf_counter()-t)
        return timed
    monkeypatch.setattr(folder, 'as_photo', slow(read)); monkeypatch.setattr(folder, 'write_one', slow(write))
    patched(monkeypatch, slow(lambda self, im: PLAIN(self, im)))
    t = time.perf_counter()
    rep = predict_folder(model, tmp_path/'p', tmp_path/'o', overlays=False, progress=False)
    assert len(rep.written)==8 and len(steps)==24 and sum(steps)>1.25*(time.perf_counter()-t)

@pytest.mark.parametrize('slow', ['read','predict','write'])
def test_photos_under_way_are_bounded(slow, model, tmp_path, monkeypatch):
    "Whichever step is the slowest, few photos are in memory at once"
    for k in range(30): save(tmp_path/'p'/f'{k}.png', np.zeros((50,60,3), np.uint8))
    alive,most = weakref.WeakSet(),[0]
    class Photo(np.ndarray): __hash__ = object.__hash__; __eq__ = object.__eq__
    read,write = folder.as_photo,folder.write_one
    def reading(f, kind):
        if slow=='read': time.sleep(.01)
        photo = read(f, kind)
        photo.image = photo.image.view(Photo)
        alive.add(photo.image); most[0] = max(most[0], len(alive))
        return photo
    def predict(self, im):
        if slow=='predict': time.sleep(.01)
        p = PLAIN(self, replace(im, image=np.asarray(im.image))); p.photo = im.image
        return p
    def writing(*a):
        if slow=='write': time.sleep(.02)
        return write(*a)
    monkeypatch.setattr(folder, 'as_photo', reading); monkeypatch.setattr(folder, 'write_one', writing); patched(monkeypatch, predict)
    monkeypatch.setattr(folder, '_AHEAD_BYTES', 5*50*60*4)
    rep = predict_folder(model, tmp_path/'p', tmp_path/'o', overlays=False, progress=False)
    assert len(rep.written)==30 and most[0]<=7, most[0]                # five by their bytes, one in hand, one just let go


# Votes

def slow_vote(maps, own):
    "The definition, a pixel at a time"
    res = np.empty_like(maps[0])
    for y,x in np.ndindex(res.shape):
        seen = [int(m[y,x]) for m in maps]
        most = max(seen.count(v) for v in seen)
        res[y,x] = seen[own] if seen.count(seen[own])==most else next(v for v in seen if seen.count(v)==most)
    return res

@pytest.mark.parametrize('k', [1,2,3,5,6])
def test_votes_are_counted(k):
    rng = np.random.default_rng(k)
    maps = [rng.integers(0, 4, (9,11)).astype(np.uint8)*60 for _ in range(k)]
    for own in range(k): assert (vote_ids(maps, own)==slow_vote(maps, own)).all()

@pytest.mark.parametrize('n', [0,1,2,3,4,5,9,12])
@pytest.mark.parametrize('k', [1,3,5,9])
def test_votes_at_both_ends(n, k):
    rng = np.random.default_rng(n)
    maps = [rng.integers(0, 3, (4,5)).astype(np.uint8) for _ in range(n)]
    got = list(vote_frames(((i, m) for i,m in enumerate(maps)), k))
    assert [i for i,_ in got]==list(range(n))
    for i,m in got:
        a = max(0, i-k//2)
        assert (m==slow_vote(maps[a:i+k//2+1], i-a)).all()

def test_a_vote_waits_no_longer_than_it_must():
    taken = []
    it = vote_frames(((taken.append(i) or i, np.zeros((2,2), np.uint8)) for i in range(20)), 5)
    for i in range(10): next(it); assert len(taken)==i+3

@pytest.mark.parametrize('k', [0,2,-1,257])
def test_votes_that_make_no_sense(k):
    with pytest.raises(PredictError, match=f'vote={k}; an odd number'): list(vote_frames([], k))


# Videos

try: import av
except ImportError: av = None
needs_av = pytest.mark.skipif(av is None, reason="PyAV is not installed: pip install -e '.[video]'")

def pictures(n, size=(48,64)):
    ground = draw_scene(3, size=(size[0], size[1]+4*n if n<100 else size[1]+400))[0]
    return (np.ascontiguousarray(ground[:, (4*i)%400:][:, :size[1]]) for i in range(n))

def film(path, n=12, size=(48,64), times=None, sound=True, frames=None, rate=25, options=None, **turn):
    "A small video with a tone, frames at `times` in milliseconds"
    with av.open(str(path), 'w') as box:
        s = box.add_stream('h264', rate=rate, options=options or {'crf':'10'})
        s.width,s.height,s.pix_fmt,s.codec_context.time_base = size[1],size[0],'yuv420p',Fraction(1, 1000)
        if turn: s.set_display_rotation(**turn)
        if sound: a = box.add_stream('aac', rate=16000); a.layout = 'mono'
        for i,im in enumerate(frames or pictures(n, size)):
            f = av.VideoFrame.from_ndarray(im, format='rgb24')
            f.pts,f.time_base = times[i] if times else 40*i,Fraction(1, 1000)
            box.mux(s.encode(f))
        box.mux(s.encode())
        if sound:
            f = av.AudioFrame.from_ndarray(np.sin(np.arange(640*n)/9)[None].astype(np.float32), format='fltp', layout='mono')
            f.rate,f.pts = 16000,0
            box.mux(a.encode(f)); box.mux(a.encode())
    return path

def packets(path, kind):
    with av.open(str(path)) as box: return [(float(p.pts*p.time_base), bytes(p)) for p in box.demux(getattr(box.streams, kind)) if p.dts is not None]

def frames_of(path):
    with av.open(str(path)) as box: return [(float(f.pts*f.time_base), f.to_ndarray(format='rgb24')) for f in box.decode(video=0)]

def table(path): return list(csv.DictReader(open(path, encoding='utf-8')))

@needs_av
@pytest.mark.parametrize('suffix', ['.mp4','.mkv','.mov'])
def test_frames_times_and_sound_are_kept(suffix, model, tmp_path):
    times = [int(v) for v in np.cumsum([40,12,90,40,41,40,400,5,40,40,33,33])]
    v = film(tmp_path/f'v{suffix}', times=times)
    rep = predict_video(model, v, tmp_path/f'o{suffix}', progress=False)
    assert rep.frames==12 and not rep.problems and not rep.broken
    t0,got = frames_of(v),frames_of(tmp_path/f'o{suffix}')
    assert [t for t,_ in got]==pytest.approx([t for t,_ in t0], abs=1.1e-3)
    assert [b for _,b in packets(v, 'audio')]==[b for _,b in packets(rep.video, 'audio')] and len(packets(v, 'audio'))>3
    assert [t for t,_ in packets(rep.video, 'audio')]==pytest.approx([t for t,_ in packets(v, 'audio')], abs=1.1e-3)
    assert [float(r['seconds']) for r in table(rep.table)]==pytest.approx([t for t,_ in t0], abs=1e-6)

@needs_av
def test_overlay_and_shares_are_those_of_predict(model, tmp_path):
    v = film(tmp_path/'v.mp4', sound=False)
    rep = predict_video(model, v, tmp_path/'o.mp4', progress=False)
    out,rows = frames_of(rep.video),table(rep.table)
    for i,(_,im) in enumerate(frames_of(v)):
        ids = model.predict(im).ids
        want = np.asarray(video.lay_over(im, ids, SCENE_CLASSES, numbers=False))
        got = out[i][1][:48, :64]
        assert np.abs(got.astype(int)-want).mean()<12                   # colours are stored at half the size
        for r in SCENE_CLASSES.scored: assert float(rows[i][SCENE_CLASSES.names[r]])==pytest.approx((ids==SCENE_CLASSES.ids[r]).mean(), abs=1e-6)
    legend = np.stack([im[:48, 64:] for _,im in out])
    assert legend.shape[2]>20 and np.abs(legend-legend[:1].astype(int)).mean()<3 # the same in every frame

@needs_av
@pytest.mark.parametrize('turn', [dict(degrees=d, hflip=h) for d in (0,90,180,270) for h in (False,True)], ids=str)
def test_a_turned_film_comes_out_upright(turn, model, tmp_path):
    "Where its player shows a corner of the film, there the overlay has it"
    if not hasattr(av.video.stream.VideoStream, 'set_display_rotation'): pytest.skip('this PyAV cannot write turned videos')
    mark = np.full((48,64,3), 128, np.uint8); mark[:16,:24] = 255; mark[-16:,:24] = 0     # white at top left, black below it
    v = film(tmp_path/'v.mp4', frames=[mark]*3, sound=False, **turn)
    with av.open(str(v)) as b:
        f = next(b.decode(video=0)); m = f.side_data.get('DISPLAYMATRIX')
    want = mark
    if m is not None: # the definition, a pixel at a time
        a,b_,_,c,d,*_ = (int(np.sign(o)) for o in np.frombuffer(m, np.int32))
        pts = {(a*x+c*y, b_*x+d*y):mark[y,x] for y in range(48) for x in range(64)}
        x0,y0 = min(x for x,_ in pts),min(y for _,y in pts)
        want = np.zeros((max(y for _,y in pts)-y0+1, max(x for x,_ in pts)-x0+1, 3), np.uint8)
        for (x,y),c_ in pts.items(): want[y-y0,x-x0] = c_
    rep = predict_video(model, v, tmp_path/'o.mp4', alpha=0, progress=False)
    h,w = want.shape[:2]
    got = frames_of(rep.video)[0][1][:h,:w]
    assert got.shape==want.shape and np.abs(got.astype(int)-want).mean()<6

@needs_av
def test_odd_sizes_and_colours(model, tmp_path):
    "A frame of 49x65 (Matroska holds it); flat colours keep their value"
    flat = np.full((64,96,3), (200,60,30), np.uint8)
    rep = predict_video(model, film(tmp_path/'v.mp4', frames=[flat]*3, size=(64,96), sound=False), tmp_path/'o.mkv', alpha=0, progress=False)
    src,got = frames_of(tmp_path/'v.mp4')[1][1],frames_of(rep.video)[1][1]
    assert np.abs(got[8:56,8:80].astype(int)-src[8:56,8:80]).max()<=4
    assert video._even(np.zeros((49,65,3), np.uint8)).shape==(50,66,3)

@needs_av
def test_the_vote_of_a_film(model, tmp_path):
    v = film(tmp_path/'v.mp4', sound=False)
    ids = [model.predict(im).ids for _,im in frames_of(v)]
    rows = table(predict_video(model, v, tmp_path/'o.mp4', vote=5, progress=False).table)
    assert len(rows)==12
    for i,r in enumerate(rows):
        a = max(0, i-2)
        m = slow_vote(ids[a:i+3], i-a)
        for k in SCENE_CLASSES.scored: assert float(r[SCENE_CLASSES.names[k]])==pytest.approx((m==SCENE_CLASSES.ids[k]).mean(), abs=1e-6)

@needs_av
@linux
def test_memory_of_a_film_is_flat(model, tmp_path, monkeypatch):
    "Frame 550 finds what frame 300 found, when the encoder has all it looks ahead at; kept, frames would be 29 MB more"
    v,seen = film(tmp_path/'v.mp4', n=550, size=(160,240), options={'preset':'ultrafast'}),[]
    class Fixed:
        ids,confidence = np.ones((160,240), np.uint8),None
    def predict(self, im):
        seen.append(int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/2**20)
        return Fixed
    patched(monkeypatch, predict)
    rep = predict_video(model, v, tmp_path/'o.mp4', vote=5, progress=False)
    assert rep.frames==550 and max(seen)-max(seen[:300])<12, (max(seen[:300]), max(seen))

@needs_av
def test_broken_frames_are_left_out_and_said(model, tmp_path):
    v = film(tmp_path/'v.mp4', n=60, sound=False, options={'g':'10', 'crf':'5', 'bf':'0'})
    b = bytearray(v.read_bytes()); at = b.find(b'mdat')
    for k in range(len(b)//3, len(b)//3+3000): b[k] = 0xff if k%2 else 0
    v.write_bytes(b)
    rep = predict_video(model, v, tmp_path/'o.mp4', progress=False)
    t = [t for t,_ in frames_of(rep.video)]
    assert 20<rep.frames<=60 and rep.broken and any('damaged frames' in p for p in rep.problems)
    assert len(t)==rep.frames==len(table(rep.table)) and t[-1]==pytest.approx(59*.04, abs=2e-3) # what is whole stays at its time

@needs_av
def test_a_film_that_breaks_off_is_said(model, tmp_path):
    v = film(tmp_path/'v.mkv', n=100, sound=False, options={'g':'10', 'crf':'5'})
    v.write_bytes(v.read_bytes()[:v.stat().st_size//2])
    rep = predict_video(model, v, tmp_path/'o.mp4', progress=False)
    assert 20<rep.frames<80 and any('is said to last 4.0 s' in p for p in rep.problems)

@needs_av
def test_what_is_no_film(model, tmp_path):
    def no_video(p):
        with av.open(str(p), 'w') as box:
            a = box.add_stream('aac', rate=16000); a.layout = 'mono'
            f = av.AudioFrame.from_ndarray(np.zeros((1,8000), np.float32), format='fltp', layout='mono'); f.rate,f.pts = 16000,0
            box.mux(a.encode(f)); box.mux(a.encode())
    (tmp_path/'text.mp4').write_text('hello'); (tmp_path/'empty.mp4').write_bytes(b'')
    film(tmp_path/'whole.mp4'); (tmp_path/'cut.mp4').write_bytes((tmp_path/'whole.mp4').read_bytes()[:2000])
    no_video(tmp_path/'sound.mp4'); save(tmp_path/'photo.jpg', np.zeros((8,8,3), np.uint8))
    for n,says in (('text.mp4','not a video'), ('empty.mp4','not a video'), ('cut.mp4','not a video'), ('sound.mp4','only sound'), ('photo.jpg','it is a photo'), ('gone.mp4','no such file')):
        with pytest.raises(PredictError, match=says) as e: predict_video(model, tmp_path/n, tmp_path/'o.mp4', progress=False)
        assert n in str(e.value) and len(str(e.value).splitlines())==1
    assert not (tmp_path/'o.mp4').exists() and not list(tmp_path.glob('.*'))

@needs_av
def test_the_film_itself_is_not_overwritten(model, tmp_path):
    v = film(tmp_path/'v.mp4', n=3); was = v.read_bytes()
    os.symlink(v, tmp_path/'link.mp4'); os.link(v, tmp_path/'hard.mp4')
    for o in (v, tmp_path/'link.mp4', tmp_path/'hard.mp4', tmp_path/'.'/'v.mp4'):
        with pytest.raises(FileError, match='would be written over'): predict_video(model, v, o, progress=False)
    with pytest.raises(PredictError, match='name it v.mp4'): predict_video(model, v, tmp_path/'v.avi', progress=False)
    assert v.read_bytes()==was

@needs_av
def test_an_unfinished_film_is_not_left_behind(model, tmp_path, monkeypatch):
    v,n = film(tmp_path/'v.mp4'),[]
    (tmp_path/'o.mp4').write_text('finished yesterday')
    def predict(self, im):
        n.append(1)
        if len(n)==5: raise KeyboardInterrupt
        return PLAIN(self, im)
    patched(monkeypatch, predict)
    with pytest.raises(KeyboardInterrupt): predict_video(model, v, tmp_path/'o.mp4', progress=False)
    assert (tmp_path/'o.mp4').read_text()=='finished yesterday' and sorted(f.name for f in tmp_path.iterdir())==['o.mp4','v.mp4']

@needs_av
@unix
def test_a_full_disk_under_a_film(model, tmp_path):
    "Files may have 5 kB in this process: what the system says then must come out as an error, not as a short film"
    import resource
    v = film(tmp_path/'v.mp4', n=40, options={'crf':'1'})
    def child():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(FileError, match=r'o\.mp4: cannot be written') as e: predict_video(model, v, tmp_path/'o'/'o.mp4', progress=False)
        assert len(str(e.value).splitlines())==1
    assert in_child(child)==0 and not list((tmp_path/'o').iterdir())

def test_extras_say_how_they_are_installed(model, flight, tmp_path, monkeypatch):
    for m in ('av','ray'): monkeypatch.setitem(sys.modules, m, None)
    with pytest.raises(PredictError, match=r"pip install .*\[video\]"): predict_video(model, 'v.mp4', tmp_path/'o.mp4')
    with pytest.raises(PredictError, match=r"pip install .*\[ray\]"): predict_ray(model, flight, tmp_path/'o')


# Ray

try: import ray, ray.data
except ImportError: ray = None
needs_ray = pytest.mark.skipif(ray is None, reason="Ray is not installed: pip install -e '.[ray]'")

@pytest.fixture(scope='module')
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR')
    yield
    ray.shutdown()

@needs_ray
def test_ray_writes_the_same_masks_though_a_worker_is_killed(cluster, model, flight, tmp_path):
    "Two workers, a photo that is cut short; one of the workers dies in the middle of its second photo, once"
    flag = tmp_path/'killed'
    def forward(self, x):
        self.done = getattr(self, 'done', 0)+1
        if self.done==2 and not flag.exists():
            flag.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return nn.Conv2d.forward(self, x)
    deadly = make_model()
    deadly.net.__class__ = type('Conv2d', (nn.Conv2d,), dict(forward=forward)) # a network of that name, so of one fingerprint
    (flight/'a'/'cut.jpg').write_bytes((flight/'a'/'0.jpg').read_bytes()[:600])
    dark = np.full((60,90,3), 90, np.uint8); dark[:,:30] = 0
    save(flight/'margin.png', dark)
    there,here = predict_ray(deadly, flight, tmp_path/'ray', workers=2, progress=False),predict_folder(model, flight, tmp_path/'o', progress=False)
    assert flag.exists() and int(flag.read_text())!=os.getpid() and not list((tmp_path/'ray').rglob('.*.tmp'))
    assert masks(tmp_path/'ray')==masks(tmp_path/'o') and files(tmp_path/'ray'/'overlays')==files(tmp_path/'o'/'overlays')
    assert there.bad.keys()==here.bad.keys()=={'a/cut.jpg'} and sorted(there.written)==here.written and len(here.written)==7
    assert any('margin.png: a part of it is black' in n for n in here.notes) and sorted(there.notes)==sorted(here.notes)
    drop = lambda f: [{k:v for k,v in r.items() if k!='seconds'} for r in csv.DictReader(open(f))]
    assert drop(there.summary)==drop(here.summary)
    assert len(predict_folder(model, flight, tmp_path/'ray', progress=False).skipped)==7               # one ledger for both ways

@needs_ray
def test_ray_stops_at_a_disk_that_cannot_be_written(cluster, model, flight, tmp_path):
    (tmp_path/'o').mkdir(); (tmp_path/'o'/'masks').write_text('a file where the folder should be')
    with pytest.raises(FileError, match='what is finished is kept'): predict_ray(model, flight, tmp_path/'o', progress=False)

@needs_ray
def test_no_cluster_at_the_address(model, flight, tmp_path, monkeypatch):
    def init(**kw): raise ConnectionError('nobody there')
    monkeypatch.setattr(ray, 'is_initialized', lambda: False); monkeypatch.setattr(ray, 'init', init)
    with pytest.raises(PredictError, match="address='10.0.0.1:6379': no Ray cluster answers"): predict_ray(model, flight, tmp_path/'o', address='10.0.0.1:6379', progress=False)


# Found by a reviewer

def test_other_output_folders_below_the_photos_are_no_photos(model, flight, tmp_path):
    predict_folder(model, flight, flight/'first', progress=False)
    rep = predict_folder(model, flight, flight/'x'/'second', progress=False)
    assert len(rep.written)==6 and len(predict_folder(model, flight, tmp_path/'o', progress=False).written)==6
    assert len(list_photos(flight/'first'/'overlays')[1])==6 # unless they are asked for

@pytest.mark.parametrize('line', ['{"photo": "a/0.jpg"}', '{"photo": "a/0.jpg", "job": "1", "root": "", "outputs": {}, "file": []}', '[1]', '7'])
def test_a_ledger_line_of_others(line, model, flight, tmp_path):
    (tmp_path/'o').mkdir(); (tmp_path/'o'/'ledger.jsonl').write_text(line+'\n')
    assert len(predict_folder(model, flight, tmp_path/'o', progress=False).written)==6

def test_an_older_mask_of_a_bad_photo_is_named(model, flight, tmp_path):
    predict_folder(model, flight, tmp_path/'o', progress=False)
    (flight/'a'/'0.jpg').write_text('spoilt'); (flight/'a'/'new.jpg').write_text('never good')
    rep = predict_folder(model, flight, tmp_path/'o', progress=False)
    assert rep.bad['a/0.jpg'].endswith('; its older mask is still in masks/') and 'its older' not in rep.bad['a/new.jpg']
    assert 'older mask' in rep.summary.read_text()

def test_a_photo_seen_far_too_small_is_said(flight, tmp_path):
    from dataclasses import replace
    m = replace(make_model((48,72)), photo_size=(60,90))
    save(tmp_path/'ortho'/'x.png', np.tile(draw_scene(0, size=(60,90))[0], (6,6,1)))
    rep = predict_folder(m, tmp_path/'ortho', tmp_path/'o', progress=False)
    row = next(csv.DictReader(open(rep.summary, encoding='utf-8')))
    assert float(row['scale'])==pytest.approx(48/360, rel=1e-3) and 'seen at scale 0.13, training 0.8' in repr(rep)
    assert not predict_folder(m, tmp_path/'ortho', tmp_path/'o', progress=False, scale=.1).notes # somebody wanted it so
    assert not predict_folder(m, flight, tmp_path/'p', progress=False).notes

def test_ray_workers_of_another_kind_compute_in_float32(model, flight, tmp_path, monkeypatch):
    from dataclasses import replace
    free = replace(model, device=None); monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    def dtype(gpus, **kw): return as_here(Predictor(free, **kw), gpus).dtype
    assert dtype(1)=='fp32' and dtype(1, dtype='bf16')=='bf16'
    for fast,name in ((True, 'bf16'), (False, 'fp32')):
        monkeypatch.setattr('drone_seg.predict.look.has_fast_bf16', lambda device: fast)
        assert dtype(0)==name and dtype(1, device='cpu')==name
    with pytest.raises(PredictError, match='given no card'): predict_ray(model, flight, tmp_path/'o', device='cuda', progress=False)

def test_a_device_that_is_none_is_said_shortly(model, flight, tmp_path):
    with pytest.raises(PredictError, match="device='nope'") as e: predict_folder(model, flight, tmp_path/'o', device='nope', progress=False)
    assert len(str(e.value))<120

def test_photos_that_are_not_read_are_counted(model, flight, tmp_path):
    for n in ('a/0.DNG','a/1.dng','b/x.HEIC','b/y.heic','b/z.cr2','.hidden.heic','a/notes.txt'): (flight/n).write_bytes(b'raw')
    rep = predict_folder(model, flight, tmp_path/'o', progress=False)
    said = 'photos of kinds that are not read are left out: 1 .cr2, 2 .dng, 2 .heic (2 of them beside another file of the same name); save them as JPEG or TIFF, such as x.HEIC'
    assert len(rep.written)==6 and rep.notes==[said] and said in repr(rep)
    (tmp_path/'phone').mkdir(); (tmp_path/'phone'/'1.heic').write_bytes(b'')
    with pytest.raises(PredictError, match='no photos in it.*left out: 1 .heic; save them as JPEG'): predict_folder(model, tmp_path/'phone', tmp_path/'p')
