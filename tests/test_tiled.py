"63_predict.stream and 64_predict.predict: the tiled answer against the whole-image pass, torch's own resize, and a memory meter"
import os
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from torch import nn
from drone_seg.fields import FileError, PredictError
from drone_seg.classes import ClassTable
from drone_seg.photo.images import read_mask, resize_image, scaled_size
from drone_seg.models.bundle import Bundle
from drone_seg.models.memory import has_fast_bf16
from drone_seg.predict.look import choose_device, choose_dtype
from drone_seg.predict.predict import Prediction
from drone_seg.predict.photo import as_photo
from drone_seg.predict.scale import training_scale
from drone_seg.predict.stream import *
from drone_seg.predict.stream import resize_rows, linear_sources, turn_window
from drone_seg.predict.windows import Rows, window_starts

torch.set_num_threads(1)
TABLE = ClassTable(['void','a','b','c','d'], ids=[0,7,9,200,3], void=[0])

@pytest.fixture(autouse=True)
def on_cpu(monkeypatch): monkeypatch.setattr(torch.cuda, 'is_available', lambda: False) # numbers are compared exactly

def photo(h, w, seed=0): return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
def pixel_net(c=4, seed=0):
    torch.manual_seed(seed)
    return nn.Conv2d(3, c, 1)
def deep_net(c=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, c, 3, padding=1))
def whole_logits(net, image):
    with torch.no_grad(): return net.eval()(torch.from_numpy(image).permute(2, 0, 1)[None].float()/255)
def whole_ids(net, image): return TABLE.decode(whole_logits(net, image)[0].argmax(0).byte().numpy())
def bundle_of(net, size, scale=1., table=TABLE): return Bundle(net, table, size=size, scale=scale)
def predict_ids(net, image, size, scale=1., **kw): return bundle_of(net, size, scale).predict(image, **kw).ids
def gather(net, image, size, scale=1., **kw): # all logits in one array, and how often each pixel came
    res,seen = None,np.zeros(image.shape[:2], int)
    for r,c,b in Looker(bundle_of(net, size, scale), **kw)(image):
        if res is None: res = torch.zeros(len(b), *image.shape[:2])
        res[:,r,c] = b; seen[r,c] += 1
    return res,seen

# Windows

@pytest.mark.parametrize('overlap', (0, .25, .6))
@pytest.mark.parametrize('shape', [(97,131), (131,97), (32,48), (33,49), (20,30), (5,200), (200,5), (300,10), (1,1), (1,50), (64,64)])
def test_pixelwise_net_is_the_same_tiled_and_whole(shape, overlap):
    net,im = pixel_net(),photo(*shape)
    ids = predict_ids(net, im, (32,48), overlap=overlap)
    assert ids.dtype==np.uint8 and ids.shape==shape
    np.testing.assert_array_equal(ids, whole_ids(net, im))

@pytest.mark.parametrize('shape', [(150,220), (220,150), (40,400)])
def test_deep_net_agrees_away_from_window_edges(shape):
    net,im,size = deep_net(),photo(*shape),(48,64)
    got,seen = gather(net, im, size)
    assert (seen==1).all()
    want = whole_logits(net, im)[0]
    clean = np.ones(shape, bool) # pixels no window sees from within 3 px of an edge that is not the photo's border
    h,w = turn_window(size, shape)
    for axis,(n,l) in enumerate(zip(shape, (h, w))):
        for s in window_starts(n, min(n, l), align=32):
            for a,b in ((s, s+3), (s+l-3, s+l)):
                if a>0 and b<n: clean[(slice(None),)*axis + (slice(a, b),)] = False
    assert clean.mean()>.5
    if min(shape)>=48: assert torch.allclose(got[:,clean], want[:,clean], atol=1e-5)
    else: # mirrored above and below: there the whole pass saw zeros
        inner = clean.copy(); inner[:3] = inner[-3:] = False
        assert torch.allclose(got[:,inner], want[:,inner], atol=1e-5)
    assert (got.argmax(0)==want.argmax(0)).float().mean()>.97

def test_batches_and_batch_sizes_agree():
    net,im = deep_net(),photo(100, 140)
    one = predict_ids(net, im, (32,48), bs=1)
    for bs in (2, 3, 7, 100): np.testing.assert_array_equal(predict_ids(net, im, (32,48), bs=bs), one)

@pytest.mark.parametrize('shape,window', [((100,150),(32,48)), ((150,100),(48,32)), ((100,100),(32,48))])
def test_windows_are_turned_for_portrait_photos(shape, window):
    seen = set()
    class Spy(nn.Module):
        def forward(self, x): seen.add(tuple(x.shape[2:])); return torch.zeros(len(x), 4, *x.shape[2:])
    predict_ids(Spy(), photo(*shape), (32,48))
    assert seen=={window}

@pytest.mark.parametrize('shape', [(16,700), (700,16)])
def test_network_sees_strips_upright(shape):
    im = np.zeros((*shape, 3), np.uint8); im[:, :, 0] = np.arange(shape[1])%256; im[:, :, 1] = (np.arange(shape[0])%256)[:,None]
    class Spy(nn.Module):
        def forward(self, x):
            red,green = (x[0,:2]*255).round()
            assert (red==red[:1]).all() and (green==green[:,:1]).all() # red varies along columns only, green along rows only
            return torch.zeros(len(x), 4, *x.shape[2:])
    predict_ids(Spy(), im, (32,48))

# Resizing

def test_rows_resize_as_torch_does():
    g = np.random.default_rng(0)
    for k in range(200):
        h,w,H,W = (int(v) for v in g.integers(1, 120, 4))
        x = torch.randn(int(g.integers(1, 9)), h, w); step = int(g.integers(1, 40))
        rows = (Rows(s, x[:, s:s+step]) for s in range(0, h, step))
        got,at = [],0
        for r in resize_rows(rows, (h,w), (H,W), chunk=int(g.integers(1, 100_000))):
            assert r.start==at; at += r.block.shape[1]; got.append(r.block.clone())
        got,want = torch.cat(got, 1),F.interpolate(x[None], size=(H,W), mode='bilinear', align_corners=False)[0]
        assert got.shape==want.shape
        assert torch.allclose(got, want, atol=1e-4) # torch's own kernels differ from each other by as much
        if len(x)>1: # the same winner, but where two classes are as good as equal
            top = want.topk(2, 0).values
            assert ((got.argmax(0)==want.argmax(0)) | (top[0]-top[1]<1e-4)).all()

@pytest.mark.parametrize('size', [(256,384), (100,160), (300,500)])
def test_rows_resize_at_the_size_of_photos_as_near_to_float64_as_torch(size):
    torch.manual_seed(0)
    x = torch.randn(5, *size)
    def resize(x): return F.interpolate(x[None], size=(1000,1500), mode='bilinear', align_corners=False)[0]
    def rows(*starts): return (Rows(s, x[:, s:e]) for s,e in zip(starts, (*starts[1:], size[0])))
    def resized(*starts): return torch.cat([r.block.clone() for r in resize_rows(rows(*starts), size, (1000,1500))], 1)
    got,exact = resized(0, 70),resize(x.double())
    ours,theirs = (got-exact).abs(),(resize(x)-exact).abs()
    # On no processor the same bits as torch: which multiplications are fused with additions differs
    assert ours.max()<=1.05*theirs.max() and ours.mean()<=1.05*theirs.mean()
    top = exact.topk(2, 0).values
    assert ((got.argmax(0)==exact.argmax(0)) | (top[0]-top[1]<2*ours.max())).all()
    for starts in ((0,), (0, 1, 33, 99)): assert torch.equal(resized(*starts), got) # one machine, one path: however the rows come

def test_same_size_is_handed_through_untouched():
    x = torch.randn(3, 20, 30)
    got = torch.cat([r.block for r in resize_rows([Rows(0, x)], (20,30), (20,30))], 1)
    assert torch.equal(got, x)

def test_linear_sources_by_hand():
    lo,hi,f = linear_sources(2, 4) # new centres at -.25, .25, .75, 1.25 of the old
    assert lo.tolist()==[0,0,0,1] and hi.tolist()==[0,1,1,1]
    np.testing.assert_allclose(f, [0, .25, .75, .25])
    assert [a.tolist() for a in linear_sources(1, 3)[:2]]==[[0]*3, [0]*3] # nothing to mix with

@pytest.mark.parametrize('shape,scale', [((200,300),.5), ((201,307),.37), ((60,90),2.), ((30,700),.7), ((700,30),.7), ((23,31),3.3)])
def test_photo_logits_equal_a_full_buffer_resized(shape, scale):
    net,im = pixel_net(5),photo(*shape)
    got,seen = gather(net, im, (32,48), scale=scale)
    assert (seen==1).all()
    small = whole_logits(net, resize_image(im, scaled_size(shape, scale)))
    want = F.interpolate(small, size=shape, mode='bilinear', align_corners=False)[0]
    assert torch.allclose(got, want, atol=1e-4)
    top = want.topk(2, 0).values
    assert ((got.argmax(0)==want.argmax(0)) | (top[0]-top[1]<1e-4)).all()

# Scale

@pytest.mark.parametrize('shape,want', [((4000,6000),(256,384)), ((6000,4000),(384,256)), ((3000,4000),(256,341)), ((1,1),(16,16)), ((100,150),(256,384)), ((256,5000),(256,5000)), ((128,5000),(201,7838))])
def test_shorter_side_rule(shape, want):
    assert scaled_size(shape, training_scale(shape, (256,384)))==want

def test_strange_photos_stay_small():
    for shape in ((30000,10), (10,30000), (1,100000), (1,1), (2,3), (50,50000)):
        H,W = scaled_size(shape, training_scale(shape, (256,384)))
        assert H*W<=max(shape[0]*shape[1], 16*256*384)*1.1 and max(H/shape[0], W/shape[1])<=16

def test_scale_by_gsd_and_by_hand():
    assert training_scale((100,100), (32,32), gsd=.02, trained_gsd=.08)==pytest.approx(.25)
    assert training_scale((100,100), (32,32), scale=1.5)==1.5
    assert training_scale((100,100), (32,32), scale=1.5, trained_gsd=.1)==1.5

@pytest.mark.parametrize('kw,say', [(dict(scale=1, gsd=1), 'give one of them'), (dict(gsd=.1), 'does not know'), (dict(scale=17), '16 is most'), (dict(scale=.001), 'less than 1 px'),
    (dict(gsd=5., trained_gsd=.05), 'metres'), (dict(gsd=.05, trained_gsd=5000.), 'metres')])
def test_bad_scales_are_refused_in_one_line(kw, say):
    with pytest.raises(PredictError, match=say) as e: training_scale((100,150), (32,48), **kw)
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('kw', [dict(scale=0), dict(scale=-1), dict(scale=float('nan')), dict(gsd=float('inf')), dict(gsd=-.1)])
def test_scales_that_are_none_are_refused(kw):
    with pytest.raises(PredictError, match='above 0'): Looker(bundle_of(pixel_net(), (32,48)), **kw)

def test_enlarging_into_billions_is_refused():
    with pytest.raises(PredictError, match='billion'): training_scale((20000,20000), (32,48), scale=4)

def test_a_strip_of_30000_by_10():
    net,im = pixel_net(),photo(10, 30000)
    ids = predict_ids(net, im, (256,384), scale=training_scale((10,30000), (256,384)))
    assert ids.shape==(10,30000) and set(np.unique(ids))<={7,9,200,3}

# Networks

def test_modes_are_restored_part_by_part():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(.5)); net.train(); net[1].eval()
    before = net[1].running_mean.clone()
    a,b = (predict_ids(net, photo(40, 50), (32,32)) for _ in range(2))
    assert net.training and net[0].training and net[2].training and not net[1].training
    assert torch.equal(net[1].running_mean, before) and (a==b).all() # no dropout, no statistics
    assert all(p.grad is None for p in net.parameters())
    class Fails(nn.Module):
        def forward(self, x): raise RuntimeError('broken')
    f = Fails().train()
    with pytest.raises(RuntimeError, match='broken'): predict_ids(f, photo(8, 8), (32,32))
    assert f.training

class Const(nn.Module):
    def __init__(self, v, shape=None): super().__init__(); self.v,self.shape = v,shape
    def forward(self, x): return torch.full(self.shape or (len(x), 4, *x.shape[2:]), self.v)

@pytest.mark.parametrize('v', [float('nan'), float('inf'), float('-inf')])
def test_logits_that_are_no_numbers_are_refused(v):
    with pytest.raises(PredictError, match='NaN or infinite'): predict_ids(Const(v), photo(40, 50), (32,32))

def test_one_nan_among_many_is_found():
    class One(nn.Module):
        def forward(self, x): y = torch.zeros(len(x), 4, *x.shape[2:]); y[0,2,5,5] = float('nan'); return y
    with pytest.raises(PredictError, match='NaN'): predict_ids(One(), photo(40, 50), (32,32))

def test_ties_go_to_the_first_class():
    assert (predict_ids(Const(0.), photo(40, 50), (32,32))==7).all()

def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(PredictError, match='3 outputs'): predict_ids(pixel_net(3), photo(40, 50), (32,32))
    for shape in ((1,4,16,16), (1,4), (4,32,32)):
        with pytest.raises(PredictError, match='own size'): predict_ids(Const(0., shape), photo(40, 50), (32,32))

@pytest.mark.parametrize('kw', [dict(bs=0), dict(overlap=1), dict(overlap=-.5), dict(dtype='fp64')])
def test_bad_options_are_refused(kw):
    with pytest.raises(ValueError): predict_ids(pixel_net(), photo(40, 50), (32,32), **kw)

def test_bf16_is_close_to_fp32():
    net,im = deep_net(),photo(64, 96)
    a,b = (predict_ids(net, im, (32,48), dtype=d) for d in ('fp32','bf16'))
    assert (a==b).mean()>.95

def test_a_cuda_card_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr('drone_seg.predict.look.has_fast_bf16', has_fast_bf16)
    net = pixel_net()
    assert choose_device(net).type=='cuda' and choose_device(net, 'cpu').type=='cpu'
    for has,want in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: has)
        assert choose_dtype(torch.device('cuda')) is want and choose_dtype(torch.device('cuda'), 'fp32') is None
    for has,want in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: has)
        assert choose_dtype(torch.device('cpu')) is want

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA card')
def test_cuda_agrees_with_the_cpu():
    net,im = deep_net(),photo(200, 300)
    cpu = predict_ids(net, im, (48,64), scale=.7, device='cpu')
    assert (predict_ids(net, im, (48,64), scale=.7, device='cuda', dtype='fp32')==cpu).mean()>.999
    assert (predict_ids(net, im, (48,64), scale=.7, device='cuda')==cpu).mean()>.95

def test_progress_bar_changes_nothing():
    net,im = pixel_net(),photo(60, 80)
    np.testing.assert_array_equal(predict_ids(net, im, (32,48), progress=True), predict_ids(net, im, (32,48)))

# Photos and predictions

def test_photos_of_all_kinds(tmp_path):
    im = photo(12, 20)
    Image.fromarray(im).save(tmp_path/'a.png')
    for p in (im, Image.fromarray(im), tmp_path/'a.png', str(tmp_path/'a.png')): np.testing.assert_array_equal(as_photo(p).image, im)
    assert not as_photo(Image.new('RGBA', (5,4))).valid.any() and as_photo(Image.new('L', (5,4)), (1,None)).image.shape==(4,5,3)
    turned = Image.fromarray(im); turned.getexif()[0x0112] = 6
    assert as_photo(turned).image.shape==(20,12,3)
    for bad in (im[...,0], im.astype(float), im[:0], np.zeros((4,5,4), np.uint8), 3, None):
        with pytest.raises(PredictError): as_photo(bad)

def test_prediction_saves_what_it_says(tmp_path):
    im = photo(30, 40)
    Image.fromarray(im).save(tmp_path/'photo.png')
    p = Prediction(predict_ids(pixel_net(), im, (32,48)), TABLE, tmp_path/'photo.png')
    p.save(tmp_path/'mask.png')
    np.testing.assert_array_equal(np.array(Image.open(tmp_path/'mask.png')), p.ids)
    np.testing.assert_array_equal(read_mask(tmp_path/'mask.png', TABLE), p.ids)
    np.testing.assert_array_equal(p.image, im)
    assert list(p.shares())==['a','b','c','d'] and sum(p.shares().values())==pytest.approx(1)
    assert p.shares()['c']==pytest.approx((p.ids==200).mean())
    assert p.overlay(legend=False).size==(40,30) and p.overlay().width>40 and p.overlay(max_side=20, legend=False).size==(20,15)
    with pytest.raises(FileError, match='would be written over'): p.save(tmp_path/'photo.png')
    with pytest.raises(PredictError, match='png'): p.save(tmp_path/'mask.jpg')
    assert sorted(f.name for f in tmp_path.iterdir())==['mask.png','photo.png']

def test_bundle_answers_at_the_photos_size_by_every_way(tmp_path):
    im = photo(70, 90)
    Image.fromarray(im).save(tmp_path/'p.png')
    b = Bundle(pixel_net(), TABLE, size=(32,48), gsd=.1)
    assert Bundle(pixel_net(), TABLE, size=(32,48), scale=.5).predict(np.zeros((200,300,3), np.uint8)).scale==.5 # trained on crops
    assert b.predict(im).scale==32/70 and b.predict(im).ids.shape==(70,90)
    want = predict_ids(b.net, im, (32,48), scale=.5)
    for p in (im, Image.fromarray(im), tmp_path/'p.png', str(tmp_path/'p.png')):
        for kw in (dict(scale=.5), dict(gsd=.05)): np.testing.assert_array_equal(b.predict(p, **kw).ids, want)
    assert b.predict(photo(1, 1)).ids.shape==(1,1) and b.predict(photo(10, 30000)).ids.shape==(10,30000)
    with pytest.raises(ValueError, match='give one of them'): b.predict('nowhere.png', scale=1, gsd=1) # before the photo is read
    b.gsd = None
    with pytest.raises(PredictError, match='does not know'): b.predict(im, gsd=.05)

# Memory

PEAK = '''
import numpy as np, torch
from torch import nn
from drone_seg.classes import ClassTable
from drone_seg.models.bundle import Bundle
torch.set_num_threads(1)
C = 24
table = ClassTable([f'c{i}' for i in range(C)])
net = nn.Conv2d(3, C, 1)
def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])/1024 # ru_maxrss starts with that of the parent process
Bundle(net, table, size=(64,96), scale=1.).predict(np.zeros((64,96,3), np.uint8))
'''

@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='reads /proc')
@pytest.mark.parametrize('shape,scale', [((1500,2000),1.), ((500,6000),1.), ((2000,3000),.1)])
def test_memory_is_a_band_not_a_picture(shape, scale, program):
    "In a process of its own, whose memory has not been used before"
    mb = float(program(f'''{PEAK}
im = np.zeros(({shape[0]},{shape[1]},3), np.uint8) + 1
before = peak()
Bundle(net, table, size=(64,96), scale={scale}).predict(im)
print(peak()-before)
''').stdout)
    whole = 24*shape[0]*shape[1]*4/2**20 # 275 to 550 MB
    assert mb<whole/4, f"{mb:.0f} MB of {whole:.0f}"
