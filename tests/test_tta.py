"62a_predict.look to 64_predict.predict: several looks and several networks against written-out versions; confidence by hand; speed; bad photos"
import io, math
from types import SimpleNamespace
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from torch import nn
from drone_seg.classes import ClassTable
from drone_seg.photo.photo_file import read_image
from drone_seg.photo.images import scaled_size
from drone_seg.fields import DroneSegError, ModelError, PredictError
from drone_seg.models.bundle import Bundle
from drone_seg.models.ensemble import Ensemble
from drone_seg.predict.confidence import MEASURES
from drone_seg.predict.look import turn, turn_back
from drone_seg.predict.looks import parse_tta
from drone_seg.predict.photo import read_mapped
from drone_seg.predict.stream import *
from drone_seg.predict.stream import View, _by_columns, align_rows
from drone_seg.predict.tidy import remove_specks, smooth_ids
from drone_seg.predict.windows import Rows, axis_weights, cover_size

torch.set_num_threads(1)
TABLE = ClassTable(['void','a','b','c','d'], ids=[0,7,9,200,3], void=[0])

@pytest.fixture(autouse=True)
def on_cpu(monkeypatch): monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)

def photo(h, w, seed=0): return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
def pixel_net(seed=0): torch.manual_seed(seed); return nn.Conv2d(3, 4, 1)
def deep_net(seed=0, c=4):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, c, 3, padding=1)).eval()
    net[-1].weight.data *= 20 # sure of itself, so that turned answers differ
    return net
class SameFromAllSides(nn.Module): # what it says of a turned picture is what it said, turned
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        k = torch.randn(4, 3, 5, 5)
        self.k = nn.Parameter(sum(turn(k, s) for s in range(8))/8)
    def forward(self, x): return 9*F.conv2d(x, self.k, padding=2)

def gather(stream, shape): # all blocks in one array
    res = seen = None
    for r,c,b in stream:
        if res is None: res,seen = torch.zeros(len(b), *shape),np.zeros(shape, int)
        res[:,r,c] = b; seen[r,c] += 1
    assert (seen==1).all()
    return res

# Symmetries

def test_the_eight_symmetries_are_those_of_a_square():
    x = torch.arange(12.).view(3, 4)
    want = [torch.rot90(f, k) for f in (x, x.flip(-1)) for k in range(4)]
    got = [turn(x, s) for s in range(8)]
    for w in want: assert sum(w.shape==g.shape and torch.equal(w, g) for g in got)==1
    for s in range(8): assert torch.equal(turn_back(turn(x, s), s), x) and torch.equal(turn(turn_back(x, s), s), x)

@pytest.mark.parametrize('tta', ['mirror','flips','d4'])
@pytest.mark.parametrize('shape', [(60,90), (90,60), (20,30), (16,200), (200,16)])
def test_a_network_that_sees_all_sides_alike_answers_as_without(tta, shape):
    b = Bundle(SameFromAllSides(), TABLE, size=(32,48), scale=1.)
    im = photo(*shape)
    plain,turned = (gather(Looker(b, dtype='fp32', tta=t)(im), shape) for t in (None, tta))
    assert torch.allclose(plain.softmax(0), turned.softmax(0), atol=1e-6)
    np.testing.assert_array_equal(b.predict(im, dtype='fp32', tta=tta).ids, b.predict(im, dtype='fp32').ids)
    assert b.predict(im, dtype='fp32', tta=tta, confidence='disagreement').confidence.min()==255

def by_hand(net, im, size, symmetries, T=1.): # windows, turned copies, mean of probabilities, blended in a full buffer
    H,W = im.shape[:2]
    cov = cover_size((H,W), size, align=32); (h,w),X = cov.window,torch.from_numpy(im).permute(2, 0, 1).float()/255
    wy,wx = (torch.from_numpy(axis_weights(s, l)) for s,l in ((cov.ys, h), (cov.xs, w)))
    out,differ = torch.zeros(4, H, W),torch.zeros(H, W)
    for k,(y,x) in enumerate(cov):
        ps = []
        for flip,quarter in symmetries:
            v = X[:, y:y+h, x:x+w]
            v = torch.rot90(v.flip(-1) if flip else v, quarter, (1, 2))
            with torch.no_grad(): p = (net(v[None])[0]/T).softmax(0)
            p = torch.rot90(p, -quarter, (1, 2))
            ps.append(p.flip(-1) if flip else p)
        ps = torch.stack(ps).double(); m = ps.mean(0)
        weight = wy[k//len(cov.xs)][:,None]*wx[k%len(cov.xs)]
        out[:, y:y+h, x:x+w] += weight*m.log().float()
        differ[y:y+h, x:x+w] += weight*((ps*(ps.log()-m.log())).sum(1).mean(0)).float() # mean Kullback-Leibler divergence from the mean
    return out,differ

D4 = [(f, q) for f in (0, 1) for q in range(4)]
@pytest.mark.parametrize('tta,members', [('mirror', [(0,0),(1,0)]), ('flips', [(0,0),(1,0),(0,2),(1,2)]), ('d4', D4)])
@pytest.mark.parametrize('T', [1., 2.5])
def test_flips_and_turns_agree_with_a_written_out_version(tta, members, T):
    net,im = deep_net(),photo(70, 100)
    b = Bundle(net, TABLE, size=(40,56), scale=1.); b.temperature = T
    got = gather(Looker(b, dtype='fp32', tta=tta, confidence='disagreement')(im), (70,100))
    want,differ = by_hand(net, im, (40,56), members, T)
    assert torch.allclose(got[:-1], want, atol=1e-5)
    assert torch.allclose(got[-1], differ, atol=1e-5) and differ.max()>.005
    p = b.predict(im, dtype='fp32', tta=tta, confidence='disagreement')
    np.testing.assert_allclose(p.confidence/255, 1-differ.numpy()/math.log(min(4, len(members))), atol=.003)

# Scales and ensembles

@pytest.mark.parametrize('shape', [(80,120), (120,80), (20,400), (400,20)])
def test_scales_are_averaged_at_the_photos_size(shape):
    net,im = deep_net(),photo(*shape)
    b = Bundle(net, TABLE, size=(32,48), scale=.8)
    got = gather(Looker(b, dtype='fp32', tta=(.5,1,1.5), confidence='disagreement')(im), shape)
    turned = _by_columns((32,48), scaled_size(shape, .4))
    def alone(s): # as seen by itself, in the direction of the first
        rows = View(Looker(b, dtype='fp32'), b, s, turned, SimpleNamespace(total=0, update=lambda n: 0)).rows(im)
        z = torch.cat([r.block.clone() for r in rows], 1)
        return z.transpose(1, 2) if turned else z
    ps = torch.stack([alone(.8*f).softmax(0) for f in (.5,1,1.5)])
    assert torch.allclose(got[:-1].exp(), ps.mean(0), atol=1e-5)
    m = ps.mean(0)
    assert torch.allclose(got[-1], (ps*(ps.log()-m.log())).sum(1).mean(0), atol=1e-5)

def test_ensembles_with_other_sizes_and_temperatures():
    im,nets = photo(90, 140),[deep_net(0), deep_net(1), pixel_net(2)]
    bs = [Bundle(n, TABLE, size=z, gsd=g) for n,z,g in zip(nets, ((32,48), (50,40), (64,64)), (.1, .05, .08))]
    for b,t in zip(bs, (1., 2., .5)): b.temperature = t
    e = Ensemble(bs)
    got = gather(Looker(e, gsd=.05, dtype='fp32', confidence='disagreement')(im), (90,140))
    ps = torch.stack([(gather(Looker(Bundle(n, TABLE, size=b.size, scale=.05/b.gsd))(im), (90,140))/b.temperature).softmax(0) for n,b in zip(nets, bs)])
    assert torch.allclose(got[:-1].exp(), ps.mean(0), atol=1e-5)
    p = e.predict(im, gsd=.05, dtype='fp32', confidence='disagreement')
    m = ps.mean(0); js = (ps*(ps.log()-m.log())).sum(1).mean(0)
    np.testing.assert_allclose(p.confidence/255, 1-js.numpy()/math.log(3), atol=.003)
    assert (p.ids==TABLE.decode(m.argmax(0).byte().numpy())).mean()>.999
    one = Ensemble([bs[0]])
    np.testing.assert_array_equal(one.predict(im, dtype='fp32').ids, bs[0].predict(im, dtype='fp32').ids)

def test_differences_within_and_between_add_up():
    "Two networks, each flipped: the channel is the mutual information among all four answers, where windows do not overlap"
    im,nets = photo(32, 48),[deep_net(0), deep_net(1)]
    e = Ensemble([Bundle(n, TABLE, size=(32,48), scale=1.) for n in nets])
    got = gather(Looker(e, dtype='fp32', tta='mirror', confidence='disagreement')(im), (32,48))
    x = torch.from_numpy(im).permute(2, 0, 1)[None].float()/255
    with torch.no_grad(): ps = torch.stack([p for n in nets for p in (n(x)[0].softmax(0), n(x.flip(-1))[0].flip(-1).softmax(0))])
    m = ps.mean(0)
    assert torch.allclose(got[:-1].exp(), m, atol=1e-5)
    assert torch.allclose(got[-1], (ps*(ps.log()-m.log())).sum(1).mean(0), atol=1e-5)

def test_an_ensemble_is_a_bundle_that_is_not_saved(tmp_path):
    a,b = (Bundle(pixel_net(i), TABLE, size=(32,48), gsd=.1, split=s) for i,s in enumerate((dict(train=['x'], valid=['y','z']), dict(train=['y'], valid=['z']))))
    e = Ensemble([a, b])
    assert isinstance(e, Bundle) and e.split==dict(train=['x','y'], valid=['z']) and e.gsd==.1
    with pytest.raises(ModelError, match='folders'): e.save(tmp_path)
    with pytest.raises(PredictError, match='no bundles'): Ensemble([])
    for names,ids,void in ((['void','a','b','d','c'], [0,7,9,200,3], [0]), (['void','a','b','c','d'], [0,7,9,200,4], [0]), (['void','a','b','c'], [0,7,9,200], [0])):
        with pytest.raises(PredictError, match='another class table') as err: Ensemble([a, Bundle(pixel_net(), ClassTable(names, ids=ids, void=void), size=(32,48))])
        assert '\n' not in str(err.value)
    with pytest.raises(ModelError, match='no such folder'): Ensemble([tmp_path/'gone'])
    c = Bundle(pixel_net(), TABLE, size=(32,48))
    with pytest.raises(PredictError, match='does not know'): Ensemble([a, c]).predict(photo(9, 9), gsd=.1)

@pytest.mark.parametrize('tta,want', [(None, ((0,), (1.,))), ('flips', ((0,1,2,3), (1.,))), (1.5, ((0,), (1.5,))), ((.5,1), ((0,), (.5,1.))), (['mirror',2], ((0,1), (2.,))), ('flips, .5', ((0,1,2,3), (.5,)))])
def test_what_tta_takes(tta, want): assert parse_tta(tta)==want
@pytest.mark.parametrize('tta', ['', 'all', 0, -1, float('nan'), 11, object(), ('d4','x')])
def test_what_tta_refuses(tta):
    with pytest.raises(PredictError, match='scales from'): parse_tta(tta)

@pytest.mark.parametrize('tta', [('flips','d4'), 'd4,d4', (1,1), '.5,0.50'])
def test_tta_that_pays_twice(tta):
    with pytest.raises(PredictError, match='each scale once'): parse_tta(tta)

def test_an_ensemble_of_one(tmp_path):
    b = Bundle(pixel_net(), TABLE, size=(32,48))
    assert len(Ensemble(b).bundles)==1
    with pytest.raises(ModelError, match='no such folder'): Ensemble(str(tmp_path/'gone'))

@pytest.mark.parametrize('options,say', [(dict(smooth=1001), '0 or more and 1000 at most'), (dict(overlap=1.5), 'overlap=1.5'), (dict(scale=1000), 'check the units'), (dict(gsd=80.), 'check the units'),
    (dict(abstain='0.5'), "abstain='0.5'"), (dict(scale='0.5'), "scale='0.5'"), (dict(gsd='0.5'), "gsd='0.5'")], ids=lambda v: str(v) if isinstance(v, dict) else None)
def test_options_that_can_never_work_are_refused_before_the_photo_is_read(options, say, tmp_path):
    with pytest.raises(DroneSegError, match=say): Bundle(pixel_net(), TABLE, size=(32,48), gsd=.05).predict(tmp_path/'gone.jpg', **options)

def test_streams_of_different_steps_are_aligned():
    x = torch.randn(3, 50, 7)
    def rows(step): return (Rows(s, x[:,s:s+step]) for s in range(0, 50, step))
    got = list(align_rows([rows(s) for s in (7, 10, 50)]))
    assert [s for s,_ in got]==sorted({*range(0, 50, 7), *range(0, 50, 10)})
    for s,bs in got: assert all(torch.equal(b, x[:,s:s+b.shape[1]]) for b in bs)

# Confidence

def test_measures_by_hand_and_against_softmax():
    p = torch.tensor([[.7,.2,.1], [1/3,1/3,1/3]]).T.log().view(3, 1, 2)
    assert torch.allclose(MEASURES['max'](p), torch.tensor([[.7,1/3]]))
    assert torch.allclose(MEASURES['margin'](p), torch.tensor([[.5,0]]), atol=1e-6)
    assert torch.allclose(MEASURES['entropy'](p), torch.tensor([[1+(.7*math.log(.7)+.2*math.log(.2)+.1*math.log(.1))/math.log(3),0]]), atol=1e-6)
    x = 5*torch.randn(6, 8, 9); q = x.softmax(0); top = q.topk(2, 0).values
    for name,want in dict(max=top[0], margin=top[0]-top[1], entropy=1+(q*q.log()).sum(0)/math.log(6)).items():
        assert torch.allclose(MEASURES[name](x), want, atol=1e-5), name
    for name in MEASURES: # nothing overflows, one class is sure
        assert torch.allclose(MEASURES[name](torch.tensor([[[1e4]],[[-1e4]]])), torch.ones(1, 1)) and MEASURES[name](torch.zeros(1, 2, 2)).eq(1).all()

@pytest.mark.parametrize('name', ['max','margin','entropy'])
@pytest.mark.parametrize('T', [1., 3.])
def test_confidence_is_a_byte_per_pixel_and_leaves_the_ids_alone(name, T):
    net,im = deep_net(),photo(70, 110)
    b = Bundle(net, TABLE, size=(32,48), scale=.7); b.temperature = T
    p = b.predict(im, confidence=name, dtype='fp32')
    want = MEASURES[name](gather(Looker(b, dtype='fp32')(im), (70,110))/T)
    assert p.confidence.dtype==np.uint8 and p.confidence.shape==(70,110)
    np.testing.assert_array_equal(p.confidence, (want.clamp(0, 1)*255).round().byte().numpy())
    np.testing.assert_array_equal(p.ids, b.predict(im, dtype='fp32').ids)
    assert b.predict(im).confidence is None and b.predict(im).abstained is None

def test_abstaining():
    im,b = photo(60, 80),Bundle(deep_net(), TABLE, size=(32,48), scale=1.)
    plain = b.predict(im, confidence='max', dtype='fp32')
    t = float(np.median(plain.confidence))/255
    p = b.predict(im, abstain=t, dtype='fp32')
    low = plain.confidence<round(255*t)
    assert 0<low.mean()<1
    np.testing.assert_array_equal(p.abstained, low); np.testing.assert_array_equal(p.ids, np.where(low, 0, plain.ids))
    m = b.predict(im, abstain=.2, confidence='margin', dtype='fp32')
    np.testing.assert_array_equal(m.abstained, b.predict(im, confidence='margin', dtype='fp32').confidence<51)
    assert (b.predict(im, abstain=0).ids==b.predict(im).ids).all() and not b.predict(im, abstain=0).abstained.any()
    for bad in (-.1, 1.1, float('nan'), 50):
        with pytest.raises(PredictError, match='0 to 1'): b.predict(im, abstain=bad)
    free = Bundle(pixel_net(), ClassTable(['a','b','c','d']), size=(32,48))
    with pytest.raises(PredictError, match='no void class'): free.predict(im, abstain=.5)
    for bad in ('min', 1, 'maximum'):
        with pytest.raises(PredictError, match='nearest are'): b.predict(im, confidence=bad)
    with pytest.raises(PredictError, match='more than one answer'): b.predict(im, confidence='disagreement')

def test_tidied_first_abstained_last():
    im,b = photo(60, 80),Bundle(deep_net(), TABLE, size=(32,48), scale=1., gsd=.1)
    plain = b.predict(im, gsd=.1, confidence='max', dtype='fp32')
    t = float(np.median(plain.confidence))/255
    got = b.predict(im, gsd=.1, smooth='20 cm', specks='0.3 m2', abstain=t, dtype='fp32')
    want = remove_specks(smooth_ids(plain.ids, 2, void=[0]), 30, [0])
    np.testing.assert_array_equal(got.ids, np.where(got.abstained, 0, want))
    for kw in (dict(smooth='20 cm'), dict(specks='1 m2')):
        with pytest.raises(ValueError, match='metres per pixel'): b.predict(im, **kw)

@pytest.mark.parametrize('v', [float('nan'), float('inf'), float('-inf')])
def test_logits_that_are_no_numbers_are_refused_when_averaged(v):
    class Bad(nn.Module):
        def forward(self, x): y = torch.zeros(len(x), 4, *x.shape[2:]); y[0,2,5,5] = v; return y
    b = Bundle(Bad(), TABLE, size=(32,48), scale=1.)
    for kw in (dict(tta='flips'), dict(tta=(.5,1)), {}):
        with pytest.raises(PredictError, match='NaN or infinite'): b.predict(photo(40, 50), dtype='fp32', **kw)

# Type and batch

def test_the_kind_of_device_decides_not_a_stopwatch(monkeypatch):
    import drone_seg.predict.look as t
    b,im = Bundle(deep_net(), TABLE, size=(32,48), scale=1.),photo(50, 70)
    for fast,name in ((True, 'bf16'), (False, 'fp32')):
        monkeypatch.setattr(t, 'has_fast_bf16', lambda device: fast)
        np.testing.assert_array_equal(b.predict(im).ids, b.predict(im, dtype=name).ids)
        stream = [block for *_,block in Looker(b)(im)]
        assert all(torch.equal(x, y) for x,y in zip(stream, [o for *_,o in Looker(b, dtype=name)(im)]))

def test_windows_are_counted_on_a_terminal_only(monkeypatch, capsys):
    import drone_seg.files as p
    monkeypatch.setattr(p, '_AFTER', 0)
    b,im = Bundle(pixel_net(), TABLE, size=(32,48), scale=1.),photo(60, 80)
    b.predict(im, progress=True, tta=('flips',.5,1))
    assert capsys.readouterr()==('','')
    monkeypatch.setattr(p.sys.stderr, 'isatty', lambda: True, raising=False)
    b.predict(im, progress=True, tta=('flips',.5,1))
    out,err = capsys.readouterr()
    assert out=='' and 'predicting' in err and 'windows' in err

# One photo, of any kind

def pillow(im, **kw):
    f = io.BytesIO(); im.save(f, **kw); return f.getvalue()

@pytest.mark.parametrize('kind', ['1x1','long','grey','LA','RGBA','palette','16 bit','16 bit grey','CMYK','1 bit','jpeg turned'])
def test_photos_of_every_kind_give_masks_of_their_size(kind, tmp_path):
    b = Bundle(pixel_net(), TABLE, size=(32,48))
    rgb = Image.fromarray(photo(20, 30)); grey = rgb.convert('L'); p = tmp_path/'p.png'
    flag = Image.Exif(); flag[0x0112] = 6
    want = (20,30)
    if kind=='1x1': Image.fromarray(photo(1, 1)).save(p); want = (1,1)
    elif kind=='long': Image.fromarray(photo(30000, 10)).save(p); want = (30000,10)
    elif kind=='grey': grey.save(p)
    elif kind=='LA': grey.convert('LA').save(p)
    elif kind=='RGBA': rgb.convert('RGBA').save(p)
    elif kind=='palette': rgb.quantize(16).save(p)
    elif kind=='16 bit':
        import cv2
        cv2.imwrite(str(p), photo(20, 30)[...,::-1].astype(np.uint16)*257)
    elif kind=='16 bit grey': Image.fromarray(np.asarray(grey).astype(np.uint16)*257).save(p)
    elif kind=='CMYK': p = tmp_path/'p.tif'; rgb.convert('CMYK').save(p)
    elif kind=='1 bit': grey.convert('1').save(p)
    elif kind=='jpeg turned': p = tmp_path/'p.jpg'; rgb.save(p, quality=100, subsampling=0, exif=flag); want = (30,20)
    before = p.read_bytes()
    model = b
    if kind in ('grey','LA','16 bit grey','1 bit'):
        with pytest.raises(PredictError, match='one band'): b.predict(p) # it may be infrared
        model = Bundle(b.net, TABLE, size=(32,48), photos=(1, None))
    got = model.predict(p)
    if kind in ('1x1','long'): assert b.predict(p, tta=(.1, 1, 10)[:2 if kind=='long' else 3]).ids.shape==want # nobody gave a scale, so none is refused
    assert got.ids.shape==want and set(np.unique(got.ids))<={7,9,200,3} and p.read_bytes()==before
    if kind in ('RGBA','16 bit'): np.testing.assert_array_equal(got.ids, b.predict(photo(20, 30)).ids) # what can be seen decides
    if kind in ('grey','16 bit grey','LA'): np.testing.assert_array_equal(got.ids, b.predict(np.asarray(grey)[...,None].repeat(3, 2)).ids)
    if kind=='jpeg turned':
        upright = np.rot90(np.asarray(Image.open(p)), -1)
        np.testing.assert_array_equal(got.ids, b.predict(np.ascontiguousarray(upright)).ids)

def test_files_that_are_no_photo_are_refused_in_one_line(tmp_path):
    b = Bundle(pixel_net(), TABLE, size=(32,48))
    noise = Image.fromarray(photo(200, 300))
    files = dict(text=(b'not a picture', 'not an image'), empty=(b'', 'not an image'), half_jpeg=(pillow(noise, format='JPEG')[:9000], 'damaged'), half_png=(pillow(noise, format='PNG')[:9000], 'damaged|cannot be read'),
                 half_tiff=(pillow(noise, format='TIFF')[:9000], 'damaged|not an image|cannot be read'), head=(pillow(noise, format='PNG')[:20], 'not an image|cannot be read|damaged'))
    for name,(data,say) in files.items():
        f = tmp_path/f'{name}.jpg'; f.write_bytes(data)
        with pytest.raises(ValueError, match=say) as e: b.predict(f)
        assert '\n' not in str(e.value) and str(f) in str(e.value), name
        assert f.read_bytes()==data
    with pytest.raises(ValueError, match='folder'): b.predict(tmp_path)
    with pytest.raises(ValueError, match='no such file'): b.predict(tmp_path/'gone.jpg')

@pytest.mark.parametrize('flag', range(1, 9))
def test_large_photos_are_mapped_upright(flag, tmp_path):
    rgb = Image.fromarray(photo(300, 40)); exif = Image.Exif(); exif[0x0112] = flag
    rgb.save(tmp_path/'p.png', exif=exif)
    np.testing.assert_array_equal(read_mapped(tmp_path/'p.png').image, read_image(tmp_path/'p.png'))

@pytest.mark.parametrize('mode', ['L','RGBA','P','CMYK','I;16'])
def test_large_photos_of_all_kinds(mode, tmp_path, monkeypatch):
    import drone_seg.predict.photo as t
    im = Image.fromarray(np.asarray(Image.fromarray(photo(300, 40)).convert('L')).astype(np.uint16)*200) if mode=='I;16' else Image.fromarray(photo(300, 40)).convert(mode)
    im.save(tmp_path/'p.tif')
    b = Bundle(pixel_net(), TABLE, size=(32,48), photos=(1,None) if mode in ('L','I;16') else None)
    want = b.predict(tmp_path/'p.tif').ids
    monkeypatch.setattr(t, 'LARGE', 1000)
    np.testing.assert_array_equal(b.predict(tmp_path/'p.tif').ids, want)

def test_no_room_for_a_large_photo(tmp_path, monkeypatch):
    import drone_seg.predict.photo as t
    Image.fromarray(photo(30, 40)).save(tmp_path/'p.png')
    class Full:
        def __enter__(self): return self
        def __exit__(self, *a): pass
        def write(self, b): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(t.tempfile, 'TemporaryFile', Full)
    with pytest.raises(PredictError, match='TMPDIR') as e: read_mapped(tmp_path/'p.png')
    assert '\n' not in str(e.value)

def test_arrays_mapped_from_a_file(tmp_path):
    im = photo(120, 90); np.save(tmp_path/'p.npy', im)
    b = Bundle(deep_net(), TABLE, size=(32,48))
    for kw in (dict(scale=1), dict(scale=.5), {}): np.testing.assert_array_equal(b.predict(np.load(tmp_path/'p.npy', mmap_mode='r'), dtype='fp32', **kw).ids, b.predict(im, dtype='fp32', **kw).ids)

# Memory

FRESH = '''
import numpy as np, torch
from torch import nn
from drone_seg.classes import ClassTable
from drone_seg.models.bundle import Bundle
torch.set_num_threads(1)
b = Bundle(nn.Conv2d(3, 24, 1), ClassTable([f'c{i}' for i in range(25)], void=['c24']), size=(64,96), scale=1.)
def memory(what): return int(next(l for l in open('/proc/self/status') if l.startswith(what)).split()[1])/1024
peak,file_mb = (lambda: memory('VmHWM')),(lambda: memory('RssFile')) # ru_maxrss starts with that of the parent process
b.predict(np.zeros((64,96,3), np.uint8), tta=('flips',.5,1), confidence='disagreement', smooth=2, specks=5)
'''

@pytest.mark.skipif(not __import__('os').path.exists('/proc/self/status'), reason='reads /proc')
def test_looks_scales_confidence_and_tidying_stay_in_bands(program):
    mb = float(program(f'''{FRESH}
im = np.random.default_rng(0).integers(0, 256, (1500,2000,3), dtype=np.uint8)
before = peak()
b.predict(im, tta=('mirror',.5,1), confidence='disagreement', abstain=.5, smooth=2)
print(peak()-before)
''').stdout)
    assert mb<24*1500*2000*4/2**20/2, f'{mb:.0f} MB' # half of one float32 per class and pixel; two bands and some blocks are about 70

@pytest.mark.skipif(not __import__('os').path.exists('/proc/self/status'), reason='reads /proc')
def test_a_mapped_photo_does_not_stay_in_memory(tmp_path, program):
    np.save(tmp_path/'p.npy', np.ones((6000,2000,3), np.uint8)) # 34 MB
    mb = float(program(f'''{FRESH}
im = np.load({str(tmp_path/'p.npy')!r}, mmap_mode='r')
before = file_mb()
Bundle(b.net, b.classes, size=(512,768), scale=1.).predict(im)
print(file_mb()-before)
''').stdout)
    assert mb<17, f'{mb:.0f} MB of 34'

def test_an_ensemble_is_scored_as_a_bundle_is(tmp_path):
    from drone_seg.data.datasets import open_dataset
    from drone_seg.scenes.scene import write_scenes
    write_scenes(tmp_path/'s', 2, size=(48,64), gsd=.1)
    data = open_dataset(tmp_path/'s')
    nets = [nn.Conv2d(3, data.classes.n, 1) for _ in range(2)]
    a,b = (Bundle(n, data.classes, size=(32,48), split=dict(train=[], valid=data.stems)) for n in nets)
    one,both = (e.evaluate(data, progress=False, dtype='fp32').matrix for e in (Ensemble([a, a]), Ensemble([a, b])))
    np.testing.assert_array_equal(one, a.evaluate(data, progress=False, dtype='fp32').matrix)
    assert both.sum()==one.sum() and (both!=one).any()
