"""Whoever knows fastai is at home: the documented calls of `Learner`, `Interpretation`, `Recorder`, callbacks and
`unet_learner`, on our learner and on fastai's own with our loaders."""
import numpy as np, pytest, torch
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.schedule import minimum, slide, steep, valley
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback, TerminateOnNaNCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.block import DataBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import Normalize, RandomSplitter, get_image_files
from fastai.interpret import ClassificationInterpretation, Interpretation, SegmentationInterpretation
from fastai.learner import load_learner
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat
from fastai.metrics import DiceMulti, foreground_acc
from fastai.vision.augment import CropPad, RandomCrop, Resize, aug_transforms
from fastai.vision.core import PILImage
from fastai.vision.data import ImageBlock, MaskBlock, SegmentationDataLoaders
from fastai.vision.learner import unet_learner as fastai_learner
from PIL import Image
from torchvision.models import resnet18
from drone_seg.fields import DroneSegError, TrainError
from drone_seg.classes import IGNORE, ClassTable
from drone_seg.data.encode import encode_masks
from drone_seg.data.datasets import open_dataset
from drone_seg.photo.photo_file import read_image
from drone_seg.photo.images import resize_image
from drone_seg.models.bundle import load_bundle, save_bundle
from drone_seg.scenes.scene import write_scenes
from drone_seg.train.learner import SegLearner, unet_learner
from drone_seg.train.loss_for import labelled_only
from drone_seg.train.losses import seg_loss

SIZE = 64,96

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')/'scenes'
    write_scenes(folder, 8, size=(96,144), progress=False)
    return open_dataset(folder)

@pytest.fixture(scope='module')
def dls(data): return data.dataloaders(data.split('random', valid=.25, seed=0), size=SIZE, bs=2, seed=0, device='cpu', cache=False)

def ours(dls, **kwargs): return unet_learner(dls, 'test_resnet', weights=None, precision='fp32', **kwargs)
def theirs(dls, **kwargs): return fastai_learner(dls, resnet18, pretrained=False, n_out=dls.c, loss_func=seg_loss('ce'), normalize=False, **kwargs)

@pytest.fixture(scope='module')
def learners(dls, tmp_path_factory):
    res = [make(dls, path=tmp_path_factory.mktemp('models')) for make in (ours, theirs)]
    for learn in res: learn.remove_cbs([cb for cb in learn.cbs if cb.name in ('progress','keep_best')])
    return res

def shapes(o):
    if isinstance(o, (tuple,list)): return tuple(map(shapes, o))
    return tuple(o.shape) if hasattr(o, 'shape') else type(o).__name__

def fitted(learn, *args, **kwargs):
    with learn.no_logging(): return getattr(learn, kwargs.pop('call'))(*args, **kwargs)

LR = slice(1e-5, 1e-3)
CALLS = dict(
    fit=lambda l,d: fitted(l, 1, call='fit'), fit_lr=lambda l,d: fitted(l, 1, lr=1e-3, call='fit'),
    one_cycle=lambda l,d: fitted(l, 1, call='fit_one_cycle'), one_cycle_slice=lambda l,d: fitted(l, 1, lr_max=LR, call='fit_one_cycle'),
    flat_cos=lambda l,d: fitted(l, 1, lr=LR, call='fit_flat_cos'), sgdr=lambda l,d: fitted(l, 1, 1, lr_max=1e-3, call='fit_sgdr'),
    fine_tune=lambda l,d: fitted(l, 1, base_lr=1e-3, freeze_epochs=1, lr_mult=100, pct_start=.3, div=5., call='fine_tune'),
    validate=lambda l,d: len(l.validate())>0,
    get_preds=lambda l,d: shapes(l.get_preds()), get_preds_all=lambda l,d: shapes(l.get_preds(with_input=True, with_decoded=True, with_loss=True)),
    predict_path=lambda l,d: shapes(l.predict(d.items[0].image))[1:], predict_text=lambda l,d: shapes(l.predict(str(d.items[0].image)))[1:],
    predict_array=lambda l,d: shapes(l.predict(read_image(d.items[0].image)))[1:],
    predict_pil=lambda l,d: shapes(l.predict(Image.open(d.items[0].image)))[1:], predict_fastai=lambda l,d: shapes(l.predict(PILImage.create(d.items[0].image)))[1:],
    test_dl=lambda l,d: shapes(l.get_preds(dl=l.dls.test_dl(get_image_files(d.path/'images')[:3]))[0]),
    test_dl_labels=lambda l,d: shapes(l.get_preds(dl=l.dls.test_dl([p.image for p in d.items[:3]], with_labels=True))),
    show_batch=lambda l,d: l.dls.show_batch(max_n=2), show_results=lambda l,d: l.show_results(max_n=2),
    losses=lambda l,d: shapes(Interpretation.from_learner(l).top_losses(2)), plot_losses=lambda l,d: Interpretation.from_learner(l).plot_top_losses(1),
    show=lambda l,d: Interpretation.from_learner(l).show_results([0, 1]),
    confusion=lambda l,d: ClassificationInterpretation.from_learner(l).confusion_matrix().shape,
    report=lambda l,d: SegmentationInterpretation.from_learner(l).top_losses(2)[0].shape,
    recorder=lambda l,d: (l.recorder.plot_loss(), l.recorder.plot_sched()) and len(l.recorder.losses)>0,
    save=lambda l,d: type(l.load(l.save('a').stem)).__name__[-7:], summary=lambda l,d: 'Total params' in l.summary(),
    freeze=lambda l,d: (l.freeze(), l.unfreeze(), l.freeze_to(-1), l.unfreeze()) and None,
    mixup=lambda l,d: fitted(l, 1, cbs=MixUp(), call='fit'), cutmix=lambda l,d: fitted(l, 1, cbs=CutMix(), call='fit'),
    callbacks=lambda l,d: fitted(l, 1, cbs=[SaveModelCallback(monitor='valid_loss'), EarlyStoppingCallback(), ReduceLROnPlateau(), GradientAccumulation(4), GradientClip(), TerminateOnNaNCallback()], call='fit'))

@pytest.mark.parametrize('name', CALLS)
def test_calls_answer_alike(name, learners, data, monkeypatch):
    monkeypatch.setenv('MPLBACKEND', 'agg')
    a,b = (CALLS[name](l, data) for l in learners)
    assert a==b

def test_what_a_photo_is_does_not_matter(learners, data, dls, tmp_path):
    "File, text, array and picture are brought to the scale of the loaders, as a photo of the data set is"
    learn,pair = learners[0],data.items[0]
    want = learn.get_preds(dl=dls.test_dl([pair.image], num_workers=0))[0][0]
    by_hand = torch.tensor(resize_image(read_image(pair.image), SIZE)).permute(2,0,1)[None]/255.
    with torch.no_grad(): assert torch.allclose(learn.model.eval()(by_hand).softmax(1)[0], want, atol=1e-5)
    for photo in (str(pair.image), read_image(pair.image), Image.open(pair.image), PILImage.create(pair.image)):
        assert torch.allclose(learn.predict(photo)[2], want, atol=1e-5)
    Image.new('RGB', (144,96)).save(tmp_path/'other.jpg')
    with pytest.raises(DroneSegError, match='so its mask is not known'): learn.get_preds(dl=dls.test_dl([tmp_path/'other.jpg'], with_labels=True, num_workers=0))

def test_what_would_be_read_as_something_else_is_refused(learners, tmp_path):
    "One band may be infrared, 16 bits would be cut to white, floats are no bytes; as `Bundle.predict` does"
    learn,grey = learners[0],Image.fromarray(np.full((96,144), 90, np.uint8))
    grey.save(tmp_path/'grey.jpg')
    for photo in (tmp_path/'grey.jpg', str(tmp_path/'grey.jpg'), grey):
        with pytest.raises(DroneSegError, match='one band'): learn.predict(photo)
    for photo in (Image.fromarray(np.full((96,144), 900, np.uint16)), np.full((96,144,3), .5, np.float32), np.zeros((96,144,4), np.uint8), np.zeros((96,144), np.uint8)):
        with pytest.raises(DroneSegError, match='8 bits|uint8'): learn.predict(photo)

def test_a_loaded_learner_predicts(learners, data, tmp_path):
    learn = learners[0]
    learn.export(tmp_path/'l.pkl')
    photo = data.items[0].image
    assert torch.allclose(load_learner(tmp_path/'l.pkl').predict(photo)[2], learn.predict(photo)[2], atol=1e-6)

def test_rates_by_fastai_names(learners):
    found = learners[0].lr_find(show_plot=False, suggest_funcs=(minimum, steep, valley, slide))
    assert found._fields==('minimum','steep','valley','slide') and 1e-5<=found.valley<=.1

def test_vocabulary(dls, data):
    assert list(dls.vocab)==data.classes.scored_names and dls.c==data.classes.n

def test_confusion_is_that_of_a_slow_loop(learners, dls):
    learn = learners[0]
    interp = ClassificationInterpretation.from_learner(learn)
    _,truth,ids = learn.get_preds(with_decoded=True)
    want = np.zeros((dls.c, dls.c), int)
    for t,p in zip(truth.flatten().tolist(), ids.flatten().tolist()):
        if t!=IGNORE: want[t,p] += 1
    assert (interp.confusion_matrix()==want).all()

# --- losses that know no void

@pytest.mark.parametrize('loss', [CrossEntropyLossFlat(axis=1), FocalLossFlat(axis=1), torch.nn.CrossEntropyLoss()], ids=lambda l: type(l).__name__)
def test_losses_of_others_leave_void_out(loss, dls):
    torch.manual_seed(0)
    logits,truth = torch.randn(2, 3, 4, 4, requires_grad=True),torch.randint(0, 3, (2,4,4))
    truth[0,:3] = IGNORE
    known = truth!=IGNORE
    pixels,ids = logits.permute(0,2,3,1)[known],truth[known]
    ce = torch.nn.functional.cross_entropy(pixels, ids, reduction='none')
    want = ((1-(-ce).exp())**2*ce if isinstance(loss, FocalLossFlat) else ce).mean()
    found = labelled_only(loss)
    assert torch.allclose(found(logits, truth), want)
    found(logits, torch.full_like(truth, IGNORE)).nan_to_num().backward() # nothing labelled: no error
    learn = ours(dls, loss_func=loss, keep=None)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[CutMix()] if isinstance(loss, CrossEntropyLossFlat) else None)

def test_mixup_mixes_losses_of_photos():
    "By hand: with shares lam, each photo's loss is lam times that of its own mask and 1-lam that of the other's"
    from fastai.callback.mixup import MixHandler
    torch.manual_seed(0)
    loss,logits = seg_loss('ce'),torch.randn(2, 3, 4, 4)
    own,other,lam = torch.randint(0, 3, (2,4,4)),torch.randint(0, 3, (2,4,4)),torch.tensor([.7,.9])
    mix = MixHandler()
    mix.learn = type('L', (), dict(training=True))()
    mix.old_lf,mix.yb1,mix.lam = loss,(other,),lam
    ce = lambda k,y: torch.nn.functional.cross_entropy(logits[k:k+1], y[k:k+1])
    assert torch.allclose(mix.lf(logits, own), sum((1-w)*ce(k, other)+w*ce(k, own) for k,w in enumerate(lam))/2)

# --- fastai's own arguments and loaders

@pytest.mark.parametrize('more', [dict(pretrained=False), dict(n_in=3), dict(n_out=8), dict(self_attention=True), dict(y_range=(-2,2)), dict(blur=True),
    dict(bottle=True), dict(last_cross=False), dict(config=dict(self_attention=True, blur=True)), dict(loss_func=None), dict(splitter=None), dict(wd=.01, train_bn=False, moms=(.9,.8,.9))], ids=lambda d: '-'.join(d))
def test_fastai_arguments(dls, more):
    learn = ours(dls, **more)
    x = torch.rand(2, 3, *SIZE)
    with torch.no_grad(): y = learn.model.eval()(x)
    assert y.shape==(2, dls.c, *SIZE)
    kinds = {type(m).__name__ for m in learn.model.modules()}
    if 'self_attention' in more or 'config' in more: assert 'SelfAttention' in kinds
    if 'y_range' in more: assert -2<y.min() and y.max()<2
    if 'blur' in more: assert any(getattr(m, 'blur', False) for m in learn.model.modules())

def test_metrics_of_fastai(dls):
    "Without mIoU among them nothing is kept but the last weights, as in fastai"
    learn = ours(dls, metrics=[DiceMulti(), foreground_acc])
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert learn.recorder.metric_names[3:5]==['dice_multi','foreground_acc'] and not hasattr(learn, 'keep_best')

def test_outputs_follow_the_classes(dls):
    with pytest.raises(TrainError, match='n_out=5; .* 8 scored classes'): ours(dls, n_out=5)

@pytest.fixture(scope='module')
def plain(data, tmp_path_factory):
    "Masks as fastai reads them, with a class of void in the middle"
    folder = tmp_path_factory.mktemp('plain')
    rng = np.random.default_rng(0)
    for k in range(8):
        Image.fromarray(rng.integers(0, 255, (40,60,3), dtype=np.uint8)).save(folder/f'{k}.jpg')
        mask = np.zeros((40,60), np.uint8)
        mask[:,20:40],mask[:,40:] = 1,2
        Image.fromarray(mask).save(folder/f'{k}.png')
    return folder

def fastai_loaders(folder, *tfms):
    return SegmentationDataLoaders.from_label_func(folder, get_image_files(folder, recurse=False).filter(lambda p: p.suffix=='.jpg'), lambda p: p.with_suffix('.png'),
        codes=['grass','Void','roof'], bs=2, seed=0, item_tfms=Resize(SIZE, method='squish'), batch_tfms=[*aug_transforms(), *tfms], num_workers=0, device='cpu')

def test_fastai_loaders(plain):
    stats = [.4,.5,.6],[.2,.3,.4]
    dls = fastai_loaders(plain, Normalize.from_stats(*stats, cuda=False))
    learn = ours(dls)
    assert isinstance(learn, SegLearner) and learn.dls.classes.scored_names==['grass','roof']
    x,y = dls.one_batch()
    assert x.min()>=0 and x.max()<=1 and set(y.unique().tolist())=={0,1,IGNORE} # roof is 1, not 2
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert learn.model.mean.flatten().tolist()==ours(fastai_loaders(plain)).model.mean.flatten().tolist()
    asked = ours(fastai_loaders(plain, Normalize.from_stats(*stats, cuda=False)), normalize=False)
    assert asked.model.mean.flatten().tolist()==pytest.approx(stats[0]) and asked.model.std.flatten().tolist()==pytest.approx(stats[1])
    bare = ours(fastai_loaders(plain), normalize=False)
    assert bare.model.mean.abs().sum()==0 and (bare.model.std==1).all()

@pytest.mark.parametrize('item,batch', [(Resize(SIZE, method='pad', pad_mode='zeros'), []), (CropPad(SIZE), []), (Resize(SIZE), aug_transforms(pad_mode='zeros'))], ids=['resize','crop','batch'])
def test_what_fastai_would_fill_with_a_class_is_refused(plain, item, batch):
    "Such loaders hold id 0, the first class, on ground that no photo shows"
    blocks = ImageBlock,MaskBlock(['grass','Void','roof'])
    def loaders(): return DataBlock(blocks, splitter=RandomSplitter(seed=0), get_items=lambda p: sorted(p.glob('*.jpg')), get_y=lambda p: p.with_suffix('.png'), item_tfms=item, batch_tfms=batch).dataloaders(plain, bs=2, num_workers=0, device='cpu')
    with pytest.raises(TrainError, match="fills masks with 0, .*pad_mode='reflection'"): ours(loaders())

def test_a_crop_larger_than_photos_is_refused(plain):
    "fastai fills what is missing with 0"
    def loaders(size): return SegmentationDataLoaders.from_label_func(plain, get_image_files(plain, recurse=False).filter(lambda p: p.suffix=='.jpg'), lambda p: p.with_suffix('.png'),
        codes=['grass','Void','roof'], bs=2, item_tfms=RandomCrop(size), num_workers=0, device='cpu')
    with pytest.raises(TrainError, match='photos of 60x40 with 0.*crop 40 pixels or less'): ours(loaders((48,48)))
    assert isinstance(ours(loaders((32,32))), SegLearner)

def test_a_bundle_of_fastai_loaders_holds_no_split(plain, tmp_path):
    save_bundle(ours(fastai_loaders(plain)), tmp_path/'b')
    assert load_bundle(tmp_path/'b').split=={} and load_bundle(tmp_path/'b').classes.names==['grass','Void','roof']

def test_loaders_of_torch_are_refused_with_a_way_out(plain):
    photos = [(torch.rand(3, *SIZE), torch.full(SIZE, 7)) for _ in range(4)]
    bare = DataLoaders(*[torch.utils.data.DataLoader(photos, batch_size=2)]*2)
    table = ClassTable(['grass','roof'], ids=[3,7])
    for call in (lambda: encode_masks(bare, table), lambda: ours(bare)):
        with pytest.raises(DroneSegError, match='DataLoaders.from_dsets'): call()
    learn = ours(encode_masks(DataLoaders.from_dsets(photos, photos, bs=2, num_workers=0, device='cpu'), table))
    assert learn.dls.one_batch()[1].unique().tolist()==[1]
