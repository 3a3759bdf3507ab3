"Photo and mask get one draw, masks keep their ids, what is filled is void; and the self-test catches those who do otherwise"
import pickle, random
import albumentations as A, cv2, numpy as np, pytest, torch
from fastai.vision.core import PILImage, PILMask, TensorImage, TensorMask
from drone_seg.fields import *
from drone_seg.classes import *
from drone_seg.data.augment import *
from drone_seg.data.augment import draw_once, AUGMENTATIONS, Augment, ResizeItem

@pytest.mark.parametrize('size', [64, (64,96)])
@pytest.mark.parametrize('name', list(AUGMENTATIONS))
def test_presets(name, size):
    assert check_augmentation(name, size, n=40)>.5
    turn,last = Augment(as_augmentation(name, size)),ResizeItem(size)
    rng = np.random.default_rng(0)
    image,mask = rng.integers(0, 255, (150,200,3), dtype=np.uint8),rng.choice(np.uint8([0,3,7,IGNORE]), (150,200))
    for _ in range(10):
        im,m = map(np.asarray, last(turn((PILImage.create(image), PILMask.create(mask)), split_idx=0)))
        assert im.shape==(*last.size, 3) and m.shape==last.size and im.dtype==m.dtype==np.uint8
        assert set(np.unique(m))<={0,3,7,IGNORE}
    pickle.loads(pickle.dumps((turn, last)))

@pytest.mark.parametrize('name', ['oblique','fastai-unet','deeplab-focal-dice','harvey-deeplab'])
def test_what_is_filled_is_void(name):
    "A white photo, all of one class: what is not white is filled, and void"
    tfm = as_augmentation(name, 96)
    warps = A.Compose([t for t in tfm.transforms if hasattr(t, 'fill_mask') and not isinstance(t, A.CoarseDropout)])
    for t in warps.transforms: t.p = 1
    random.seed(0); voids = 0
    for _ in range(20):
        im,m = draw_once(warps, np.full((96,96,3), 255, np.uint8), np.full((96,96), 5, np.uint8))
        assert set(np.unique(m))<={5, IGNORE}
        void = cv2.erode((m==IGNORE).astype(np.uint8), np.ones((3,3), np.uint8))>0 # along its border colours are mixed
        assert (im[m==5]>200).mean()>.97 and (not void.any() or (im[void]<200).mean()>.9)
        voids += (m==IGNORE).sum()
    assert voids>0

def moves(size): return A.Compose([t for t in nadir(size) if isinstance(t, A.DualTransform)])

def test_quarter_turns_are_rarer_where_they_enlarge():
    mask = np.repeat(np.arange(100, dtype=np.uint8)[:,None], 150, 1) # id = row
    def turned(tfm): m = draw_once(tfm, np.zeros((100,150,3), np.uint8), mask)[1]; return (m[:,:1]==m).mean()<.5
    random.seed(0)
    tfm = moves((64,96))
    assert .15<np.mean([turned(tfm) for _ in range(200)])<.35
    tfm = moves((64,64))
    assert .4<np.mean([turned(tfm) for _ in range(200)])<.6

def sometimes_apart(image, mask): # one draw in ten
    return (image[:,::-1].copy(), mask) if random.random()<.1 else (image, mask)
def shifted(image, mask): return np.roll(image, 20, 1),mask
def as_float(image, mask): return image,mask.astype(np.float32)
def fills_with_zero(image, mask): return image,np.where(np.arange(mask.shape[1])<40, 0, mask).astype(np.uint8)
def cut_one(image, mask): return image[:-10],mask
def twice(image, mask):
    tfm = A.Rotate(10, p=1, fill_mask=IGNORE)
    return tfm(image=image)['image'],tfm(image=image, mask=mask)['mask']

@pytest.mark.parametrize('bad, says', [(sometimes_apart, 'photo and mask part in'), (shifted, 'part in 64 of 64'), (twice, 'part in'), (as_float, 'comes out as float32'), (cut_one, 'same size'),
    (fills_with_zero, 'trained as class 0'), (A.RandomResizedCrop((100,100), mask_interpolation=cv2.INTER_LINEAR), 'it is interpolated'),
    (A.Compose([A.Crop(0, 0, 2, 2)]), 'nothing is left')])
def test_bad_transforms_are_told(bad, says):
    with pytest.raises(DroneSegError, match=says): check_augmentation(bad, (128,192))

@pytest.mark.parametrize('good', [None, 'flips', A.RandomCrop(100, 100), A.Compose([A.RandomRotate90(), A.GaussNoise((.1, .3), p=1)]), A.Rotate(45, fill_mask=IGNORE, p=1), A.CoarseDropout(p=1, fill_mask=IGNORE),
    A.ToGray(p=1), A.InvertImg(p=0), lambda image, mask: (image[::-1].copy(), mask[::-1].copy())])
def test_good_transforms_pass(good): assert check_augmentation(good, (128,192))>.4

def test_the_self_test_leaves_no_trace():
    random.seed(5); a = random.random(); random.seed(5)
    check_augmentation('flips', 64, n=2)
    assert random.random()==a

def test_joint_transform_refuses_what_differs_in_size():
    with pytest.raises(DroneSegError, match='both must change alike'): Augment(cut_one).apply(np.zeros((100,100,3), np.uint8), np.zeros((100,100), np.uint8))


# A whole batch

def batch(b=4, h=40, w=60, seed=0):
    g = torch.Generator().manual_seed(seed)
    return TensorImage(torch.rand(b, 3, h, w, generator=g)),TensorMask(torch.randint(0, 7, (b,h,w), generator=g).to(torch.uint8))

def same_places(x, y):
    "Photos whose red is id/10, to see whether photo and mask moved alike"
    return TensorImage((y[:,None].float()/10).repeat(1,3,1,1).as_subclass(torch.Tensor)),y

def test_nothing_drawn_changes_nothing():
    x,y = batch()
    xx,yy = BatchAugment(flips=False, turns=False, scale=(1,1), light=0)((x, y), split_idx=0)
    assert torch.equal(y, yy) and torch.allclose(x, xx, atol=1e-5) and type(xx) is TensorImage and type(yy) is TensorMask

def test_flips_and_turns_are_exact():
    x,y = batch(32, 48, 48)
    xx,yy = BatchAugment(scale=(1,1), light=0, seed=1)((x, y), split_idx=0)
    seen = set()
    for k in range(32):
        ways = {(f,r): torch.rot90(y[k].flip(1) if f else y[k], r) for f in (0,1) for r in range(4)}
        hit = [w for w,m in ways.items() if torch.equal(torch.as_tensor(m), torch.as_tensor(yy[k]))]
        assert len(hit)==1; seen.add(hit[0])
        f,r = hit[0]
        assert torch.allclose(torch.rot90(x[k].flip(2) if f else x[k], r, (1,2)), xx[k], atol=1e-4)
    assert len(seen)==8

def test_same_draw_and_void_beyond():
    _,y = batch(16)
    y = TensorMask(torch.nn.functional.interpolate(y[:,None,::10,::10].float().as_subclass(torch.Tensor), (40,60))[:,0].to(torch.uint8))
    y[0,:5] = IGNORE
    x,_ = same_places(None, TensorMask(torch.where(y==IGNORE, torch.zeros_like(y), y)))
    xx,yy = BatchAugment(rotate=30, scale=(.5, 1), light=0, seed=0)((x, y), split_idx=0)
    known = yy!=IGNORE
    assert yy.dtype==torch.uint8 and set(yy.unique().tolist())<={*range(7), IGNORE}
    assert .3<float(known.float().mean())<.9                       # shrunk photos leave void around, not class 0
    near = (abs(xx[:,0]*10 - yy.float())<.5)[known]
    assert float(near.float().mean())>.85                           # but for the bilinear seams between squares
    assert torch.isfinite(xx).all() and xx.min()>=0 and xx.max()<=1

def test_int64_masks_keep_their_type(): assert BatchAugment()((batch()[0], batch()[1].long()), split_idx=0)[1].dtype==torch.int64

def test_validation_batches_pass():
    x,y = batch()
    for idx in (1, None):
        xx,yy = BatchAugment()((x, y), split_idx=idx)
        assert xx is x and yy is y

def test_draws_repeat_with_a_seed():
    x,y = batch()
    a,b,c = (BatchAugment(seed=s)((x, y), split_idx=0)[0] for s in (1,1,2))
    assert torch.equal(a, b) and not torch.equal(a, c)

def test_bad_scale():
    with pytest.raises(DroneSegError, match='scale='): BatchAugment(scale=(0,1))

@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
def test_on_the_card():
    x,y = (t.cuda() for t in batch())
    a = BatchAugment(seed=1)((x, y), split_idx=0)
    b = BatchAugment(seed=1)((x.cpu(), y.cpu()), split_idx=0)
    assert a[0].is_cuda and torch.allclose(a[0].cpu(), b[0], atol=1e-4) and (a[1].cpu()==b[1]).float().mean()>.999

def test_the_agpl_package_of_the_same_name_is_refused(monkeypatch):
    "PITFALLS 36: albumentationsx installs as `albumentations`"
    from drone_seg.data import augment
    real = augment.metadata.version
    monkeypatch.setattr(augment.metadata, 'version', lambda name: '2.5.1' if name=='albumentationsx' else real(name))
    with pytest.raises(ImportError, match=r'albumentationsx 2\.5\.1 \(AGPL\).*albumentations==2\.0\.8'): augment._refuse_agpl()
    monkeypatch.undo()
    augment._refuse_agpl() # the one that is pinned passes

FILLING = [A.Rotate(45, p=1), A.SafeRotate(45, p=1), A.Affine(rotate=30, translate_percent=.2, p=1), A.ShiftScaleRotate(p=1), A.Perspective((.1, .2), p=1), A.PadIfNeeded(300, 400, p=1),
           A.Pad(20, p=1), A.CropAndPad(px=20, p=1), A.ElasticTransform(300, 20, p=1), A.GridDistortion(p=1), A.OpticalDistortion((.5, .9), p=1), A.OneOf([A.Sequential([A.Rotate(45, p=1)], p=1)], p=1)]

@pytest.mark.parametrize('tfm', FILLING, ids=lambda t: type(t).__name__)
def test_what_an_own_augmentation_fills_is_void(tfm):
    own,image,mask = own_augmentation(tfm, (64,96)),np.full((128,192,3), 90, np.uint8),np.full((128,192), 7, np.uint8)
    seen = set()
    for k in range(8):
        own.set_random_seed(k)
        seen |= set(np.unique(own(image=image, mask=mask)['mask']).tolist())
    assert 7 in seen and seen<={7,IGNORE}

def test_transforms_of_one_draw_know_nothing_of_each_other():
    "albumentations' own `set_random_seed` gives all of them the same numbers"
    mirrors,image,mask = as_augmentation('flips', (32,48)),np.zeros((32,48,3), np.uint8),np.zeros((32,48), np.uint8)
    mask[0,0] = 1
    random.seed(0)
    at = [tuple(np.argwhere(draw_once(mirrors, image, mask)[1])[0].tolist()) for _ in range(400)]
    assert all(70<at.count(corner)<130 for corner in ((0,0), (0,47), (31,0), (31,47)))
    nested = A.Compose([A.OneOf([A.InvertImg(p=1), A.NoOp(p=1)], p=1), A.Sequential([A.HorizontalFlip(p=.5)], p=1)])
    both = [(int(im[0,0,0]), int(m.argmax())) for im,m in (draw_once(nested, image, mask) for _ in range(400))]
    assert all(70<both.count(o)<130 for o in ((0,0), (0,47), (255,0), (255,47)))

@pytest.mark.parametrize('end,say', [(A.Normalize(), 'leave Normalize'), (A.ToTensorV2(), 'leave Normalize'), (A.ToFloat(), 'leave Normalize')])
def test_what_the_network_does_itself_is_refused(end, say):
    with pytest.raises(DroneSegError, match=say): own_augmentation(A.Compose([A.HorizontalFlip(), end]), 64)

def test_transforms_of_torchvision_are_refused():
    from torchvision.transforms import v2
    with pytest.raises(DroneSegError, match='leave arrays as they are'): own_augmentation(v2.RandomHorizontalFlip(), 64)

def test_strong_light_is_no_reason_to_refuse():
    for t in (A.InvertImg(p=1), A.RandomBrightnessContrast(.4, .4, p=1), A.GaussNoise((.1, .2), p=1)): assert own_augmentation(t, 64)

@pytest.mark.parametrize('tfm,says', [(lambda image: image, 'TypeError'), (lambda image, mask: None, 'TypeError'), (A.Compose([A.HorizontalFlip()], bbox_params=A.BboxParams('coco', label_fields=['kinds'])), 'ValueError')], ids=['one','none','boxes'])
def test_what_fails_is_refused_in_words(tfm, says):
    with pytest.raises(DroneSegError, match=f'{says}: .*; it takes image and mask and returns both'): own_augmentation(tfm, 64)
