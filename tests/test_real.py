"The whole way on real photos, where they are at hand"
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from fastai.torch_core import set_seed
from drone_seg.all import *

REAL = Path(__file__).parents[2]/'shared'/'data'
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason='the real photos are not beside this checkout (licences)')

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A few seconds of training on 48 real photos"
    data = open_dataset(REAL/'semantic_drone_dataset')
    data = DroneDataset(data.path, data.items[:48], data.classes, name=data.name)
    set_seed(0)
    dls = data.dataloaders(data.split(by='random', valid=.25), size=(96,144), bs=6, seed=0, num_workers=0, cache=True)
    learn = unet_learner(dls, 'tf_efficientnet_lite0')
    with learn.no_bar(), learn.no_logging():
        before = learn.validate()
        learn.fine_tune(3)
    folder = save_bundle(learn, tmp_path_factory.mktemp('run'))
    return data,learn,before,load_bundle(folder)

def test_something_is_learnt(trained):
    data,learn,before,model = trained
    after = dict(zip(['loss','accuracy','miou','dice'], learn.validate()))
    assert after['loss']<.8*before[0] and after['miou']>before[2]+.03
    scores = model.evaluate(data, progress=False)
    n = scores.matrices.sum(0).sum(1)
    assert scores.photos==12 and scores.miou>(n.max()/n.sum())/np.count_nonzero(n)  # better than always answering the largest class
    assert scores.pixel_accuracy>.45

def test_the_loaded_model_answers_alike(trained):
    data,learn,_,model = trained
    x,_ = learn.dls.valid.one_batch()
    with torch.no_grad(): assert torch.equal(learn.model.eval()(x.as_subclass(torch.Tensor)), model.net(x.as_subclass(torch.Tensor)))

def test_a_photo_of_24_megapixels_keeps_its_size(trained, tmp_path):
    data,_,_,model = trained
    with Image.open(data.items[0].image) as im: im.resize((6000,4000)).save(tmp_path/'photo.jpg', quality=90)
    pred = model.predict(tmp_path/'photo.jpg')
    assert pred.ids.shape==(4000,6000) and set(np.unique(pred.ids))<=set(data.classes.ids)-data.classes.void
    small = model.predict(data.items[0].image).ids
    assert (resize_mask(pred.ids, small.shape)==small).mean()>.9                   # the same answer, only larger
    pred.save(tmp_path/'mask.png')
    assert (read_mask(tmp_path/'mask.png', data.classes)==pred.ids).all()

def test_lr_find_gives_a_rate_and_changes_nothing(trained):
    data = trained[0]
    small = DroneDataset(data.path, data.items[:8], data.classes, name=data.name)
    dls = small.dataloaders(small.split(by='random', valid=.25), size=(64,96), bs=2, seed=0, num_workers=0, cache=True)
    learn = unet_learner(dls, 'tf_efficientnet_lite0') # 100 steps, of two small photos
    before = {k:v.clone() for k,v in learn.model.state_dict().items()}
    with learn.no_bar(): rate = learn.lr_find(num_it=20, show_plot=False).valley
    assert 1e-7<rate<1 and all(torch.equal(v, before[k]) for k,v in learn.model.state_dict().items())
