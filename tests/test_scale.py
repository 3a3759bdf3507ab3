"Training and prediction see the same photo: one scale, the same down and across, for photos of every shape"
import numpy as np, pytest, torch
from PIL import Image
from torch import nn
from drone_seg.classes import IGNORE, ClassTable
from drone_seg.data.datasets import open_dataset
from drone_seg.photo.images import save_image, save_mask
from drone_seg.data.splits import Split
from drone_seg.models.bundle import Bundle, as_bundle, load_bundle
from drone_seg.models.unet import create_unet
from drone_seg.predict.scale import seen_scale

TABLE = ClassTable(['void','dark','light'], void=['void'])
PERIOD = 40 # Photo pixels from one stripe to the next, down and across
SHAPES = {'1:1':[(512,512)], '4:3':[(480,640)], '3:2':[(400,600)], '16:9':[(450,800)], 'portrait':[(640,480)],
          'mixed':[(480,640), (640,480), (512,512), (450,800)], 'small':[(120,160)]}

def stripes(shape):
    "A photo whose red says how far down a pixel lies and whose green how far across, as waves"
    y,x = np.mgrid[:shape[0],:shape[1]]
    wave = lambda v: (127.5 + 100*np.sin(2*np.pi*v/PERIOD)).round().astype(np.uint8)
    return np.stack([wave(y), wave(x), np.full(shape, 128, np.uint8)], -1)

def wave_lengths(x):
    "Pixels from wave to wave in (3, H, W), down and across: the strongest frequency"
    def length(wave):
        n = 1<<14
        return n/np.abs(np.fft.rfft((wave-wave.mean())*np.hanning(len(wave)), n)).argmax()
    x = np.asarray(x, dtype=float)
    return length(x[0].mean(1)),length(x[1].mean(0))

class Watch(nn.Module):
    "A network that keeps what it is shown"
    def __init__(self): super().__init__(); self.seen,self.p = [],nn.Parameter(torch.zeros(1))
    def forward(self, x): self.seen.append(x.float().numpy().copy()); return torch.cat([x[:,:1], 1-x[:,:1]], 1)

def make(folder, shapes, n=4):
    for k in range(n):
        image = stripes(shapes[k%len(shapes)])
        save_image(image, folder/'images'/f'p{k}.png')
        save_mask(1+(image[...,0]>127), TABLE, folder/'masks'/f'p{k}.png')
    (folder/'classes.csv').write_text('id,name,void\n0,void,yes\n1,dark,\n2,light,\n')
    data = open_dataset(folder)
    return data,Split(data.stems[:n//2+1], data.stems[n//2+1:])

def model_of(dls, net): return Bundle(net, TABLE, tuple(dls.size), dls.photo_size, None, dls.scale, sides=dls.sides, squish=dls.squish, device='cpu')

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

@pytest.mark.parametrize('name', SHAPES)
@pytest.mark.parametrize('resize', ['keep','squish'])
def test_one_scale_in_training_and_prediction(tmp_path, name, resize):
    data,split = make(tmp_path, SHAPES[name])
    dls = data.dataloaders(split, size=(192,288), bs=1, augment=None, resize=resize, num_workers=0)
    for dl,stems in ((dls.train.new(shuffle=False), split.train), (dls.valid, split.valid)):
        for (x,y),stem in zip(dl, stems, strict=True):
            watch = Watch()
            pred = model_of(dls, watch).predict(data.pair(stem).image, dtype='fp32')
            trained,predicted = wave_lengths(x[0]),wave_lengths(watch.seen[0][0])
            assert trained==pytest.approx(predicted, rel=.02), stem
            (H,W),(h,w) = data[stem][1].shape,dls.size
            if resize=='squish': assert trained==pytest.approx((PERIOD*h/H, PERIOD*w/W), rel=.02)
            else: assert trained==pytest.approx((PERIOD*dls.scale,)*2, rel=.02) and pred.scale==pytest.approx(dls.scale)
            assert tuple(x.shape[2:])==(h, w) and not set(y.unique().tolist())-{0,1,IGNORE}

@pytest.mark.parametrize('name', SHAPES)
def test_items_have_the_shape_of_the_photos(tmp_path, name):
    data,split = make(tmp_path, SHAPES[name])
    dls = data.dataloaders(split, size=(192,288), bs=2, num_workers=0)
    h,w = dls.size
    assert .7<h*w/(192*288)<1.4
    if name!='mixed':
        H,W = SHAPES[name][0]
        assert .9<h/w*W/H<1.1
        x,y = dls.valid.one_batch()
        assert (y!=IGNORE).all()                             # nothing is padded where all photos are alike

def test_the_whole_of_a_mixed_folder_is_seen(tmp_path):
    "Cuts move from epoch to epoch, and what lies beyond a photo is void"
    data,split = make(tmp_path, [(300,600), (600,300)], n=8)
    dls = data.dataloaders(split, size=(192,192), bs=1, augment=None, num_workers=0, seed=0)
    firsts = {tuple(x[0,:,0,0].tolist()) for _ in range(4) for x,_ in dls.train}
    assert len(firsts)>8
    for x,y in dls.valid:
        void = (y[0]==IGNORE).float().mean()
        assert 0<void<.6

@pytest.mark.parametrize('augment', ['nadir','flips'])
def test_test_items_of_training_photos_are_seen_as_in_prediction(tmp_path, augment):
    data,split = make(tmp_path, SHAPES['4:3'])
    dls = data.dataloaders(split, size=(192,288), bs=1, augment=augment, num_workers=0)
    x, = dls.test_dl([data.pair(split.train[0])]).one_batch()[:1]
    assert wave_lengths(x[0].cpu())==pytest.approx((PERIOD*dls.scale,)*2, rel=.02)

def test_a_saved_model_keeps_the_scale(tmp_path):
    data,split = make(tmp_path/'data', SHAPES['1:1'])
    data.gsd = .05
    dls = data.dataloaders(split, size=(64,96), bs=2, num_workers=0)
    learn = type('L', (), dict(dls=dls, model=create_unet('mobilenetv3_small_050', 2)))
    as_bundle(learn).save(tmp_path/'run')
    b = load_bundle(tmp_path/'run')
    assert b.size==(64,64) and b.scale==dls.scale==64/512 and b.sides==(512,512) and b.gsd==pytest.approx(.05*8)
    assert seen_scale(b, (512,512))==64/512 and seen_scale(b, (512,512), gsd=.05)==pytest.approx(64/512)
    assert seen_scale(b, (300,500), gsd=.1)==pytest.approx(1/4) # from twice as high

def test_a_photo_that_is_a_finer_copy_is_seen_as_the_photo():
    b = Bundle(Watch(), TABLE, (192,288), (512,768), scale=.375, sides=(512,512))
    assert seen_scale(b, (512,768))==seen_scale(b, (600,512))==.375
    assert seen_scale(b, (4096,6144))==pytest.approx(.375/8)
    assert seen_scale(b, (256,384))==.75

def test_a_bundle_of_before_sees_as_it_did():
    b = Bundle(Watch(), TABLE, (256,384), (512,768))
    assert seen_scale(b, (4000,6000))==pytest.approx(256/4000) and seen_scale(b, (1000,800))==pytest.approx(256/800)

def test_very_uneven_photos_are_named(tmp_path):
    data,split = make(tmp_path, [(200,300), (200,300), (200,300), (600,900)], n=8)
    with pytest.warns(UserWarning, match='300x200 and 900x600 pixels.* 3.0 times as large'): data.dataloaders(split, size=64, bs=2, num_workers=0)
