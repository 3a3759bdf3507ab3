"Batches are what the files say: right sizes, right numbers, photo and mask drawn together, workers drawn apart"
import random
import numpy as np, pytest, torch
import albumentations as A
from drone_seg.classes import *
from drone_seg.data.augment import *
from drone_seg.data.block import *
from drone_seg.data.datasets import *
from drone_seg.data.images import *
from drone_seg.scenes import write_scenes

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
        assert dl.classes is data.classes and dl.size==(64,64) and dl.split==split and dl.photo_size==(96,144)

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
    joint,seen = JointTransform((100,150), nadir((100,150), light=0)),0
    random.seed(0)
    for _ in range(60):
        im,m = joint.apply(image, mask)
        a,b = im[...,0]>127,m==7
        if b.sum()>100: seen += 1; assert (a&b).sum()/(a|b).sum()>.9
    assert seen>20

def test_bad_sizes_and_batches(data, split):
    with pytest.raises(DroneSegError, match='at least 32'): data.dataloaders(split, size=16)
    with pytest.raises(DroneSegError, match='bs=0'): data.dataloaders(split, bs=0)
    with pytest.raises(DroneSegError, match="augment='zenith'"): data.dataloaders(split, augment='zenith')
    assert data.dataloaders(split, size=48, bs=500).train.one_batch()[0].shape[0]==9

def test_pictures(data, split):
    dls = data.dataloaders(split, size=(48,72), bs=2)
    dls.show_batch(max_n=2)
    x,y = dls.valid.one_batch()
    pic = picture_of(x, [y,y], data.classes, 2)
    assert pic.height>2*160 and pic.width>3*240
