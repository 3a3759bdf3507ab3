"Recipes: the facts of their sources, that each runs to its end, what is refused, and a comparison that goes on"
import csv, itertools, json, random, subprocess, sys
from functools import partial
from types import SimpleNamespace
import numpy as np, pytest, timm, torch
from torch import nn
from fastai.callback.core import Callback
from drone_seg.fields import DroneSegError, TrainError
from drone_seg.data.augment import BatchAugment
from drone_seg.data.datasets import open_dataset
from drone_seg.models.bundle import load_bundle
from drone_seg.runs.published import compare_checkpoints, compare_recipes, run_recipe
from drone_seg.models.weights import load_state, offline_file
from drone_seg.models.zoo import create_model
from drone_seg.scenes.scene import write_scenes
from drone_seg.train.learner import seg_learner
from drone_seg.train.rates import untouched
from drone_seg.train.losses import LossSum, seg_loss
from drone_seg.train.budget import KeepTime, Pace, seconds_per_epoch
from drone_seg.train.by_recipe import (fit_budget, fit_epochs, rare_classes, recipe_dataloaders, recipe_learner,
                                       recipe_split, recipe_stages, train_recipe)
from drone_seg.train.recipes import Recipe, read_setting, recipe, recipes

@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path_factory.getbasetemp()/'recipes_cache'))

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('recipes')/'scenes'
    write_scenes(root, 10, size=(64,96))
    return open_dataset(root)

@pytest.fixture(scope='module')
def split(data): return data.split(by='random', progress=False)

tiny = dict(size=(64,96), batch=4, epochs=1, final_epochs=0)
def quick(name): # lite0's own weights where a package has them
    if name in ('best','fast','auto') and offline_file('tf_efficientnet_lite0'): return tiny
    return _quick(name)

def _quick(name): # what a test can afford: resnet101 takes seconds even at this size
    r = recipes[name]
    if name=='unet-scratch': return dict(tiny, batch=2)
    return dict(tiny, encoder='test_resnet' if r.network!='upernet' else 'convnext_atto', weights=None)


# What the sources say, written down by hand from their notebooks

FACTS = { # network, encoder, pretrained, loss, optimiser, rate, schedule, epochs, batch, size, split, kept by
    'fastai-unet':        ('unet', 'resnet34', True, 'ce', 'adamw', 1e-3, 'one-cycle', 20+12, 4, (400,600), 'random', 'pixel_accuracy'),
    'unet-scratch':       ('unet-scratch', None, False, 'jaccard', 'adam', 3.66e-4, 'flat', 100, 32, (256,256), 'random', 'miou'),
    'smp-tuned':          ('deeplabv3plus', 'resnet18', True, 'jaccard', 'adam', 2.57e-4, 'flat', 200, 40, (256,256), 'random', 'miou'),
    'deeplab-focal-dice': ('deeplabv3-resnet101', None, True, 'focal + dice', 'sgd', None, 'one-cycle', 40, 2*2, (720,1280), 'class', 'dice_per_image'),
    'mobile-landing':     ('unet', 'mobilenetv2_100', True, 'ce', 'adamw', 1e-3, 'one-cycle', 10, 3, (704,1056), 'random', 'miou'),
    'harvey-deeplab':     ('deeplabv3plus', 'resnet101', True, 'ce', 'adam', None, 'plateau', None, None, (368,368), 'random', 'dice_per_image')}

@pytest.mark.parametrize('name', FACTS)
def test_published_recipes_are_those_of_their_sources(name):
    r,(network,encoder,pretrained,loss,opt,lr,schedule,epochs,batch,size,split,keep) = recipes[name],FACTS[name]
    assert (r.network, r.encoder, r.weights is not None, r.optimiser, r.schedule, r.size, r.split, r.keep, r.augment)==(network, encoder, pretrained, opt, schedule, size, split, keep, name)
    assert r.loss.partition('(')[0]==loss
    for k,here,there in (('lr', r.lr, lr), ('epochs', r.epochs+r.final_epochs, epochs), ('batch', r.batch, batch)):
        assert k in r.ours if there is None else here==there # what a source does not tell is marked as ours

def test_details_of_published_recipes():
    r = recipes['fastai-unet']
    assert (r.frozen, r.pct_start, r.wd, r.final_epochs, r.final_lr, r.net['bottle'])==(True, .8, .01, 12, 1e-6, True)
    for name in ('unet-scratch','smp-tuned'): assert seg_loss(recipes[name].loss).per_image # soft IoU per image and class
    r = recipes['deeplab-focal-dice']
    assert (r.frozen, r.momentum, r.accumulate)==(True, .937, 2)
    loss = seg_loss(r.loss)
    assert isinstance(loss, LossSum) and loss.factors==[1,1]
    assert recipes['mobile-landing'].keep_epochs and recipes['mobile-landing'].wd==1e-4
    assert recipes['harvey-deeplab'].rare_crops>0

def test_ours_are_there(): assert {'best','fast','auto','max','dino'}<=set(recipes) and len(recipes)==11

@pytest.mark.parametrize('encoder', ['vit_small_patch14_dinov2','vit_small_patch16_dinov3'])
def test_weights_of_the_hub_fit_dino(encoder):
    "Names and shapes of timm's classifier, whose numbers are not at hand here; sides need not be whole patches"
    if not timm.is_model(encoder): pytest.skip(f'this timm has no {encoder}, which came with 1.0.20')
    net = create_model(recipes['dino'].network, encoder, 3, weights=None).eval()
    report = load_state(net.encoder, timm.create_model(encoder).state_dict())
    assert (report.missing, report.left_over)==([], ['norm.weight','norm.bias'])
    with torch.no_grad(): assert net(torch.zeros(1, 3, 70, 100)).shape==(1, 3, 70, 100)


class StopBefore(Callback):
    "Ends a training as Ctrl-C does, before its epoch `n`, counted over all stages"
    def __init__(self, n): self.n,self.seen = n,0
    def before_epoch(self):
        if self.seen==self.n: raise KeyboardInterrupt
        self.seen += 1


# Data

@pytest.mark.parametrize('name', recipes)
def test_json_and_back(name):
    r = recipe(name)
    again = Recipe.from_dict(json.loads(json.dumps(r.to_dict())))
    assert again==r and (again.size=='auto' or isinstance(again.size, tuple)) and type(again.net) is dict
    assert name in repr(r) and r.loss in repr(r)

def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(AttributeError): recipes['best'].lr = 1
    assert recipe('best', lr=1e-2).lr==1e-2 and recipes['best'].lr!=1e-2

@pytest.mark.parametrize('given,says', [
    (dict(epoch=3), "no 'epoch'; nearest are epochs"), (dict(epochs=0), 'epochs=0'), (dict(epochs=2.5), 'epochs=2.5'), (dict(batch='4'), "batch='4'"), (dict(size=(16,16)), '32 pixels or more'),
    (dict(optimiser='sdg'), 'nearest are sgd'), (dict(schedule='onecycle'), 'nearest are one-cycle'), (dict(network='deeplabv3+'), 'nearest are deeplabv3'), (dict(augment='flip'), 'nearest are flips'),
    (dict(loss='focus'), "loss='focus'; its names are ce"), (dict(keep='mIoU'), 'nearest are miou'), (dict(split='places'), 'nearest are place'), (dict(lr=float('nan')), 'lr=nan'), (dict(average=1), 'average=1'),
    (dict(class_weights='median'), 'median_freq or effective'), (dict(favour='few'), "favour='few'"), (dict(scale=True), 'scale=True'), (dict(frozen=None), 'frozen=None'),
    (dict(favour='rare'), 'goes with scale'), (dict(scale=0), 'scale=0')], ids=str)
def test_wrong_parts_are_refused(given, says):
    with pytest.raises(DroneSegError) as e: recipe('best', **given)
    assert says in str(e.value) and '\n' not in str(e.value)

def test_recipes_are_read_without_torch():
    "A misspelt name is answered before ten seconds of imports"
    code = "import sys, drone_seg.train.recipes; print(sorted({'torch','fastai','timm','albumentations'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip()=='[]'

def test_recipes_of_files_are_checked():
    for d,says in ((dict(loss='ce'), 'no name'), (dict(name='x', rate=1), 'rate'), ([], 'not a recipe')):
        with pytest.raises(TrainError, match=says): Recipe.from_dict(d)

def test_a_recipe_of_a_file_is_that_of_the_search_or_run(tmp_path):
    mine,f = recipe('fast', lr=1e-3, size=(64,96)),tmp_path/'winner.json'
    f.write_text(json.dumps(mine.to_dict()))
    assert recipe(f)==recipe(str(f))==mine and recipe(f, epochs=2).epochs==2
    (tmp_path/'run.json').write_text(json.dumps(dict(asked=mine.to_dict(), recipe=recipe(mine, epochs=2).to_dict(), seed=3)))
    assert recipe(tmp_path/'run.json')==mine
    for text,says in (('{', 'not JSON'), ('[]', 'not a recipe'), ('{"name": "x", "rate": 1}', 'winner.json: not a recipe .rate'), ('{"name": "x", "epochs": 0}', 'winner.json: epochs=0')):
        f.write_text(text)
        with pytest.raises(TrainError, match=says): recipe(f)

def test_another_encoder():
    for name,r in recipes.items():
        if name=='unet-scratch': continue
        o = recipe(name, encoder='tf_efficientnet_lite0')
        assert o.encoder=='tf_efficientnet_lite0' and (o.loss, o.lr, o.frozen)==(r.loss, r.lr, r.frozen)
    assert recipe('fastai-unet', network='fpn').net=={} and recipe('fastai-unet', network='fpn').encoder=='tf_efficientnet_lite0'

@pytest.mark.parametrize('text,says', [('epochs', 'FIELD=VALUE'), ('size=8by9', "size='8by9'; it is height and width"), ('net={bottle}', 'not JSON')])
def test_settings_that_cannot_be_read(text, says):
    with pytest.raises(DroneSegError, match=says): read_setting(text)


# Photos

def test_rare_classes_are_counted_by_hand(data, split):
    n = np.zeros((len(split.train), data.classes.n))
    for i,s in enumerate(split.train):
        m = data.classes.encode(data[s][1])
        n[i] = [(m==c).sum() for c in range(data.classes.n)]
    names = data.classes.scored_names
    assert rare_classes(data, split.train, .05)==[c for c,v in zip(names, n.sum(0)/n.sum()) if 0<v<.05]
    assert rare_classes(data, split.train, 0, .5)==[c for c,v in zip(names, (n>0).mean(0)) if 0<v<.5]

def test_five_crops_are_of_training_photos_only(data, split):
    dls = recipe_dataloaders(recipe('harvey-deeplab', size=(64,64), rare_crops=.5, batch=2), data, split)
    extra = len(dls.train_ds)-len(split.train)
    few = rare_classes(data, split.train, 0, .5)
    shown = [s for s in split.train if set(few) & {data.classes.scored_names[c] for c in np.unique(data.classes.encode(data[s][1])) if c<255}]
    assert extra==5*len(shown)>0
    assert not {p.stem for p in dls.train_ds.items} & set(split.valid) and len(dls.valid_ds)==len(split.valid)

def test_the_split_of_the_source_is_used_only_if_asked_for(data):
    assert recipe_split(recipes['deeplab-focal-dice'], data, 'recipe').by=='class'
    assert recipe_split(recipes['deeplab-focal-dice'], data, 'random').by=='random'


# Learner

def groups(learn):
    learn.create_opt()
    for ps,h in zip(learn.opt.param_lists, learn.opt.hypers):
        for p in ps: yield p,learn.opt.state[p].get('do_wd', True),h

def test_weight_decay_takes_hold_of_weights_only(data, split):
    "The three parameter groups of deeplab-focal-dice: weights with decay, those of batch normalisation without, biases without"
    r = recipe('deeplab-focal-dice', encoder='resnet18', weights=None, size=(64,64))
    learn = recipe_learner(r, recipe_dataloaders(r, data, split))
    assert (learn.dls.bs, learn.accumulate)==(4, 2)
    norms = {id(p) for m in learn.model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    for p,decays,h in groups(learn):
        assert decays==(p.ndim>1 and id(p) not in norms)
        assert h['mom']==.937
    assert learn.wd==5e-4

def test_adam_is_that_of_pytorch(data, split):
    "A few steps against torch.optim.Adam with its own constants"
    r = recipe('smp-tuned', encoder='resnet18', weights=None, size=(64,64), batch=2, lr=1e-2)
    learn = recipe_learner(r, recipe_dataloaders(r, data, split))
    torch.manual_seed(0)
    mine = nn.Parameter(torch.randn(7)); theirs = nn.Parameter(mine.detach().clone())
    a,b = learn.opt_func([mine], lr=r.lr, wd=r.wd),torch.optim.Adam([theirs], lr=r.lr)
    for _ in range(4):
        g = torch.randn(7)
        mine.grad,theirs.grad = g.clone(),g.clone()
        a.step(); b.step()
    assert torch.allclose(mine, theirs, atol=1e-6)

def test_random_weights_are_never_frozen():
    for r in recipes.values():
        assert not any(s.frozen for s in recipe_stages(recipe(r, weights=None)))
        if r.weights: assert any(s.frozen for s in recipe_stages(r))==(r.frozen or r.freeze_epochs>0)


# Budgets

def test_timing_leaves_no_trace(data, split):
    r = recipe('best', encoder='test_resnet', weights=None, size=(64,96), batch=2)
    ends = []
    for timed in (False, True):
        torch.manual_seed(0); random.seed(0); np.random.seed(0)
        learn = recipe_learner(r, recipe_dataloaders(r, data, split, 0, 'cpu'))
        if timed: assert seconds_per_epoch(learn, n=2)>0
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
        ends.append({k:v.clone() for k,v in learn.model.state_dict().items()})
    assert all(torch.equal(v, ends[1][k]) for k,v in ends[0].items())

def test_timing_leaves_loaders_and_optimiser_alone(data, split):
    own = BatchAugment(flips=True, seed=0)
    learn = seg_learner(data.dataloaders(split, size=(64,96), bs=4, augment=None, seed=0, device='cpu', batch_tfms=[own]), 'fpn', 'test_resnet', weights=None, precision='fp32')
    with untouched(learn): next(iter(learn.dls.train))
    assert learn.dls.train.epoch==-1 # first draws, though it was never run through before
    learn.create_opt()
    before,opt = own.rng.getstate(),learn.opt
    assert seconds_per_epoch(learn, n=1)>0 and seconds_per_epoch(learn, frozen=True, n=1)>0
    assert own.rng.getstate()==before and learn.opt is opt and opt.frozen_idx==0

def test_numbers_of_a_recipe():
    assert recipe('best', momentum=0).momentum==0
    for odd in (dict(momentum=True), dict(momentum=1), dict(lr=float('inf')), dict(wd=float('nan'))):
        with pytest.raises(TrainError, match=f'{next(iter(odd))}='): recipe('best', **odd)

@pytest.mark.parametrize('both', [dict(budget=60, steps=5), dict(budget=60, epochs=2), dict(steps=5, epochs=2), dict(within=60, budget=60), dict(within=60, steps=5)])
def test_one_length_is_enough(both, data, split):
    with pytest.raises(TrainError, match='; give one of them'): train_recipe('best', data, split, **both)

def test_epochs_of_a_budget_are_whole_and_in_proportion(monkeypatch):
    import drone_seg.train.budget as m
    monkeypatch.setattr(m, 'seconds_per_epoch', lambda learn, frozen=False: 6. if frozen else 10.)
    fit = lambda name, s, **kw: (lambda r: (r.freeze_epochs, r.epochs, r.final_epochs))(fit_budget(recipe(name, **kw), None, s)[0])
    assert fit('best', 106)==(1,10,0)                # 6 + 10*10
    assert fit('best', 106, weights=None)==(1,10,0)  # all at 10: 11 epochs, 110 s
    assert fit('smp-tuned', 100)==(0,10,0)
    assert fit('fastai-unet', 96)==(0,10,6)          # frozen throughout: 16 of 6 s, as 20 to 12
    with pytest.warns(UserWarning, match='one epoch takes 10 s'): assert fit('smp-tuned', 3)==(0,1,0)

@pytest.mark.parametrize('time,photo,free,found,parts', [
    (dict(budget=80), (3000,4000), None, (256,384), 1),   # an epoch takes 10 s there, and a validation 1 s
    (dict(budget=79), (3000,4000), None, (192,288), 1),
    (dict(within=88), (3000,4000), None, (256,384), 1),   # validation counts
    (dict(within=87), (3000,4000), None, (192,288), 1),
    (dict(budget=1e9), (512,768), None, (512,768), 1),    # no larger than the photos
    (dict(budget=1e9), (3000,4000), 8., (1024,1536), 2),  # a batch needs 16 there
    (dict(budget=1e9), (3000,4000), 1., (512,768), 4),    # two photos of 8, and of the next size not even one
    (dict(budget=1e9), (3000,4000), .05, (128,192), 5),   # the smallest size is taken in any case
    (dict(budget=1), (3000,4000), None, (128,192), 1)])
def test_a_size_that_fits(time, photo, free, found, parts, monkeypatch):
    import drone_seg.train.by_recipe as m
    timed = []
    def pace_at(learn, times, alone):
        timed.append((round(384*times), learn.parts.n))
        return Pace(0., 10*times**2, times**2)
    monkeypatch.setattr(m, 'pace_at', pace_at)
    monkeypatch.setattr(m, 'training_memory', lambda learn, parts: (1., free))
    learn = SimpleNamespace(dls=SimpleNamespace(size=(256,384), photo_size=photo), parts=SimpleNamespace(n=1))
    asked = m.Asked(recipe('auto'), **time)
    r = m.size_for(learn, asked, *time.values())
    assert (r.size, r.accumulate)==(found, parts)
    assert timed[-1]==(found[1], parts) # nothing larger was timed, and what was went through in its parts

@pytest.mark.parametrize('do', ['curve','search','compare'])
def test_several_trainings_have_one_size(do, data, tmp_path):
    from drone_seg.runs.curve import learning_curve
    from drone_seg.train.space import Search
    with pytest.raises(TrainError, match="'auto' finds its size by a budget of time, for one training; give a size"):
        if do=='curve': learning_curve('auto', data, budget=9, out=tmp_path/'curve')
        if do=='search': Search(dict(lr=[1e-3,1e-2]), recipe='auto').check({})
        if do=='compare': compare_recipes(data, ['auto'], epochs=1, out=tmp_path/'compare')
    assert not any(tmp_path.iterdir())

def test_a_size_of_the_time_is_kept_by_a_resume(data, split, tmp_path):
    given = dict(encoder='test_resnet', weights=None, batch=2, freeze_epochs=0)
    with pytest.raises(TrainError, match="size='auto'; it is found by a budget of time"): train_recipe('auto', data, split, **given)
    with pytest.raises(KeyboardInterrupt):
        train_recipe('auto', data, split, budget=2, out=tmp_path/'run', cbs=[StopBefore(1)], bar=False, **given)
    facts = json.loads((tmp_path/'run'/'run.json').read_text())
    assert facts['asked']['size']=='auto' and facts['recipe']['size']==[128,192]
    assert recipe(tmp_path/'run'/'run.json').size=='auto'
    said = []
    done = train_recipe(None, data, out=tmp_path/'run', resume=True, bar=False, say=said.append)
    assert done.recipe.size==(128,192) and not any('which is worth' in str(s) for s in said)

@pytest.mark.parametrize('n', [1,2,3,7,32,100])
def test_fit_epochs_adds_up(n):
    for r in recipes.values():
        o = fit_epochs(r, n)
        assert o.all_epochs==n and o.epochs>=1 and min(o.freeze_epochs, o.final_epochs)>=0


# Each runs to its end

@pytest.mark.parametrize('name', recipes)
def test_each_recipe_runs_to_its_end(name, data, split, tmp_path, monkeypatch):
    monkeypatch.setattr('drone_seg.models.scratch.WIDTHS', (8,16,32,64,128)) # of unet-scratch, whose own are 31 million numbers
    run = run_recipe(name, data, split, tmp_path/'run', bar=False, **quick(name))
    assert 0<=run.scores.miou<=1 and len(run.history)==run.recipe.all_epochs and run.seconds>0 and run.memory>0
    assert all(torch.isfinite(v.float()).all() for v in run.bundle.net.state_dict().values())
    b = load_bundle(tmp_path/'run')
    assert Recipe.from_dict(b.training['recipe'])==run.recipe and b.split['valid']==split.valid
    assert {'history.csv','scores.json','split.json','run.json','confusion.npz'} <= {p.name for p in (tmp_path/'run').iterdir()}
    assert Recipe.from_dict(json.loads((tmp_path/'run'/'run.json').read_text())['recipe'])==run.recipe
    assert not (tmp_path/'run'/'checkpoint.safetensors').exists()

def test_kept_epochs_are_compared_at_full_size(data, split, tmp_path):
    run = run_recipe('mobile-landing', data, split, tmp_path/'run', bar=False, **{**quick('mobile-landing'), 'epochs':2})
    table = compare_checkpoints(tmp_path/'run', data, progress=False)
    assert table.epoch.tolist()==[0, 1]
    assert any(abs(miou-run.scores.miou)<1e-9 for miou in table.miou) # the bundle is one of them
    with open(tmp_path/'run'/'checkpoints.csv') as f: assert len(list(csv.DictReader(f)))==2

def test_weights_that_cannot_be_had_are_said_before_the_split(data, monkeypatch):
    import drone_seg.models.weights as w
    from drone_seg.data.datasets import DroneDataset
    monkeypatch.setattr(w, 'hub_reachable', lambda *a, **k: False)
    monkeypatch.setattr(DroneDataset, 'split', None)
    with pytest.raises(DroneSegError, match='no pretrained weights for resnet34'): train_recipe('fastai-unet', data)

def test_a_run_goes_on_as_it_was_started(data, split, tmp_path):
    "A run that stops after its first epoch, and goes on without being told anything again, ends as the unbroken one"
    given = dict(quick('smp-tuned'), epochs=2, batch=2)
    whole = train_recipe('smp-tuned', data, split, seed=3, out=tmp_path/'whole', bar=False, **given)
    with pytest.raises(KeyboardInterrupt): train_recipe('smp-tuned', data, split, seed=3, out=tmp_path/'run', bar=False, cbs=[StopBefore(1)], **given)
    with pytest.raises(DroneSegError, match='resume'): run_recipe('smp-tuned', data, split, tmp_path/'run', bar=False, **given)
    with pytest.raises(DroneSegError): train_recipe(None, data, out=tmp_path/'run', resume=True, bar=False, lr=1.)
    rest = train_recipe(None, data, out=tmp_path/'run', resume=True, bar=False)
    assert (rest.recipe, rest.seed, rest.split)==(whole.recipe, 3, whole.split) and len(rest.history)==2
    for k,v in whole.learn.model.state_dict().items(): assert torch.equal(v, rest.learn.model.state_dict()[k]), k


def given_tiny(**kw): return dict(encoder='test_resnet', weights=None, size=(64,96), batch=4, average=False, bar=False) | kw

def test_the_network_is_built_once(data, split, monkeypatch):
    import drone_seg.train.by_recipe, drone_seg.train.learner
    made = []
    for m in (drone_seg.train.by_recipe, drone_seg.train.learner):
        monkeypatch.setattr(m, 'create_model', lambda *args, own=m.create_model, **kw: made.append(args) or own(*args, **kw))
    train_recipe('best', data, split, **given_tiny(epochs=1, freeze_epochs=0))
    assert len(made)==1

def test_within_a_time_a_run_says_what_it_will_take_and_goes_on_as_it_was_planned(data, split, tmp_path):
    told = []
    given = given_tiny(epochs=2, freeze_epochs=1, say=lambda s: told.append(str(s)))
    with pytest.raises(KeyboardInterrupt): run_recipe('best', data, split, tmp_path, within=3000, cbs=[StopBefore(2)], **given)
    plan = [t for t in told if t.startswith('about ')]
    assert len(plan)==1 and ' in all: 3 epochs of ' in plan[0] and 'final scoring' in plan[0] and 'cut' not in plan[0] # at most as many as were asked for
    run = run_recipe(None, data, None, tmp_path, resume=True, bar=False)
    whole = run_recipe('best', data, split, **given)
    assert len(run.history)==3 and run.bundle.training['within']==3000
    assert [h['miou'] for h in run.history]==pytest.approx([h['miou'] for h in whole.history], abs=1e-5) # with time enough, the training without a limit
    with pytest.raises(TrainError, match='s more, a smaller size'): run_recipe('best', data, split, within=1e-3, **given_tiny())

def test_a_part_of_an_epoch_is_an_epoch_in_every_table(data, split, tmp_path, monkeypatch):
    import drone_seg.train.by_recipe as m
    told,slow = [],itertools.count(step=40.).__next__ # seconds, each time somebody looks
    monkeypatch.setattr(m, 'measure_pace', lambda *args: Pace(frozen=100, free=100, valid=1))
    monkeypatch.setattr(m, 'KeepTime', partial(KeepTime, clock=slow))
    run = run_recipe('best', data, split, tmp_path, within=90, **given_tiny(epochs=3, batch=2), say=lambda s: told.append(str(s)))
    row, = run.history
    assert any('a part of an epoch of 1 min 40 s' in t for t in told)
    assert 0<=row['miou']<=1 and row['valid_loss']>0 and isinstance(row['train_s'], float)
    assert len(np.atleast_1d(np.genfromtxt(tmp_path/'history.csv', delimiter=',', names=True, dtype=None, encoding='utf-8')))==1

def test_a_refused_resume_leaves_the_split_as_it_was(data, split, tmp_path):
    given = given_tiny(epochs=2, freeze_epochs=0)
    with pytest.raises(KeyboardInterrupt): train_recipe('best', data, split, out=tmp_path, cbs=[StopBefore(1)], **given)
    other = dict(train=split.valid+split.train[:2], valid=split.train[2:])
    with pytest.raises(DroneSegError, match='the split is another'): train_recipe(None, data, other, out=tmp_path, resume=True, bar=False)
    assert train_recipe(None, data, out=tmp_path, resume=True, bar=False).split.valid==split.valid

def test_stopped_while_its_scores_are_written_a_run_goes_on_to_the_same_scores(data, split, tmp_path, monkeypatch, capsys):
    given,told = given_tiny(epochs=1, freeze_epochs=1, say=lambda s: told.append(str(s))),[]
    monkeypatch.setattr('drone_seg.train.by_recipe.fit_budget', lambda r, learn, seconds: (r, 1.))
    whole = run_recipe('best', data, split, **given)
    assert [t.split('  ')[0] for t in told if t.startswith('epoch')]==['epoch 0','epoch 1'] # as in history.csv, though each stage begins anew
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as c, pytest.raises(OSError):
        c.setattr('drone_seg.runs.evaluate.save_scores', full)
        run_recipe(recipe('best', epochs=1, freeze_epochs=1), data, split, tmp_path/'run', budget=60., **given_tiny())
    assert f'stopped before it was scored; the whole training is in {tmp_path}/run' in (err := capsys.readouterr().err) and f'drone_seg train DATA --out {tmp_path}/run --resume' in err
    with pytest.raises(TrainError, match='did not finish; go on with resume'): run_recipe('best', data, split, tmp_path/'run', **given)
    run = run_recipe(None, data, None, tmp_path/'run', resume=True, bar=False)
    assert run.scores.miou==whole.scores.miou and len(run.history)==2 and run.bundle.training['budget']==60
    assert all(torch.equal(v, run.bundle.net.state_dict()[k]) for k,v in whole.bundle.net.state_dict().items())
    with pytest.raises(TrainError, match='is finished, there is nothing to go on with'): run_recipe(None, data, None, tmp_path/'run', resume=True)

def test_what_stopped_in_its_first_epoch_is_begun_anew_without_a_word(data, split, tmp_path):
    given = given_tiny(epochs=1, freeze_epochs=0)
    with pytest.raises(DroneSegError, match='try a lower lr'): run_recipe('best', data, split, tmp_path/'run', **given, lr=1e12, optimiser='sgd')
    assert (tmp_path/'run'/'run.json').exists()
    assert len(run_recipe('best', data, split, tmp_path/'run', **given).history)==1


# Comparison

def test_a_comparison_goes_on_and_survives_failures(data, split, tmp_path):
    told,tiny = [],dict(size=(64,96), batch=4, weights=None)
    given = dict(tiny, split=split, say=told.append, out=tmp_path/'c', epochs=2)
    fast,broken,folder = recipe('fast', encoder='test_resnet'),Recipe('broken', encoder='test_resnet', keep='iou:unicorn'),tmp_path/'c'/'runs'/'fast-seed0'
    stop = StopBefore(1)
    with pytest.raises(KeyboardInterrupt): train_recipe(fit_epochs(recipe(fast, **tiny), 2), data, split, out=folder, bar=False, cbs=[stop]) # a run that was interrupted after its first epoch
    res = compare_recipes(data, [fast, broken], **given)
    assert 'fast, seed 0: goes on ...' in told and res.runs['fast',0]['epochs']==2
    assert [r['recipe'] for r in res.rows]==['fast'] and 'unicorn' in res.failed['broken',0] and 'broken, seed 0 failed' in (tmp_path/'c'/'compare.md').read_text()
    assert {'compare.md','compare.csv','runs.csv','compare.png'} <= {p.name for p in (tmp_path/'c').iterdir()}
    stamp = (folder/'result.json').stat().st_mtime_ns
    told.clear()
    again = compare_recipes(data, [fast], **given)
    assert (folder/'result.json').stat().st_mtime_ns==stamp and again.rows==res.rows and not any('...' in t for t in told)
    with pytest.raises(TrainError, match='epochs is another'): compare_recipes(data, [fast], **{**given, 'epochs':3})
    with pytest.raises(TrainError, match='two recipes are called'): compare_recipes(data, [fast, fast], **given)
    row = again.rows[0]
    assert row['low']<=row['miou']<=row['high'] and row['memory']>100 and row['parameters']>1e5

def test_comparison_as_bars_with_intervals(monkeypatch):
    from drone_seg.runs.published import Comparison
    rows = [dict(recipe='good', miou=.4, low=.3, high=.6, rare=.1), dict(recipe='bad', miou=.2, low=.15, high=.22, rare=float('nan'))]
    monkeypatch.setattr(Comparison, 'rows', rows)
    ax = Comparison.__new__(Comparison).plot().axes[0]
    bars = [(b.get_y()+b.get_height()/2, b.get_width()) for b in ax.patches]
    assert bars==[pytest.approx((0, .2)), pytest.approx((1, .4))] # the best on top
    ends = [s[:,0].tolist() for s in ax.collections[0].get_segments()]
    assert ends==[pytest.approx([.15,.22]), pytest.approx([.3,.6])]
    assert [t.get_text() for t in ax.get_yticklabels()]==['bad','good']
