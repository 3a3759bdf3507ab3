"The command line on bad input: one line that names file, value and way out, exit code 2, nothing left behind"
import json, shutil, sys
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from drone_seg.fields import TrainError
from drone_seg import cli
from drone_seg.photo.images import save_mask
from drone_seg.data.datasets import open_dataset
from drone_seg.scenes.scene import write_scenes, SCENE_CLASSES
from drone_seg.train.recipes import recipe

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drawn')/'scenes'
    write_scenes(folder, 8, size=(64,96))
    return folder

@pytest.fixture
def scenes(drawn, tmp_path): return shutil.copytree(drawn, tmp_path/'scenes')

def run(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, 'argv', ['drone_seg', *map(str, args)])
    code = 0
    try: cli.main()
    except SystemExit as e: code = e.code or 0
    out = capsys.readouterr()
    return code,out.out,out.err.strip()

def photo(root, i): return sorted((root/'images').iterdir())[i]
def mask(root, i): return sorted((root/'masks').iterdir())[i]

def no_masks(root): shutil.rmtree(root/'masks')
def bad_id(root):
    m = np.asarray(Image.open(mask(root, 1))).copy(); m[:3,:5] = 99
    Image.fromarray(m).save(mask(root, 1))
def bad_color(root):
    for i in range(8):
        rgb = SCENE_CLASSES.to_colors(np.asarray(Image.open(mask(root, i))))
        if i==2: rgb[:2,:2] = 1,2,3
        Image.fromarray(rgb).save(mask(root, i))
def other_size(root): save_mask(np.ones((50,96), np.uint8), SCENE_CLASSES, mask(root, 1))
def truncated(root): photo(root, 1).write_bytes(photo(root, 1).read_bytes()[:900])
def repeated_id(root): (root/'classes.csv').write_text('name,id,r,g,b\nroad,1,0,0,0\ngrass,1,9,9,9\n')
def no_table(root): (root/'classes.csv').unlink()
def not_an_image(root): photo(root, 3).write_text('hello')

broken = [(no_masks, 'no folder of masks'), (bad_id, 'id 99 (15 pixels)'), (bad_color, '(1, 2, 3) (4 pixels'), (other_size, 'mask is 96x50'),
          (truncated, 'damaged'), (repeated_id, 'id 1 stands in line 2 and again in line 3'), (no_table, 'no class table'), (not_an_image, 'not an image')]

@pytest.mark.parametrize('spoil,says', broken, ids=lambda v: getattr(v, '__name__', None))
def test_train_refuses_bad_data_before_it_starts(spoil, says, scenes, tmp_path, monkeypatch, capsys):
    spoil(scenes)
    code,out,err = run(monkeypatch, capsys, 'train', scenes, '--out', tmp_path/'run', '--weights', 'none', '--split', 'random')
    assert code==2
    assert says in err and str(scenes) in err
    assert len(err.splitlines())==1 and 'Traceback' not in err
    assert not (tmp_path/'run').exists()

@pytest.mark.parametrize('args,says', [
    (['--weights', 'gone.safetensors'], 'gone.safetensors'),
    (['--arch', 'resnet18'], 'no pretrained weights for resnet18'),
    (['--arch', 'resnet19', '--weights', 'none'], 'resnet19'),
    (['--arch', 'hf-hub:timm/resnet18.a1_in1k', '--weights', 'none'], 'hf-hub:timm/resnet18.a1_in1k'),
    (['--size', '²x²'], "size='²x²'"),
    (['--split', 'luck'], "split='luck'"),
    (['--valid', '1.5'], 'valid=1.5'),
    (['--size', 'big'], "size='big'"),
    (['--size', '8'], '32 pixels or more')], ids=lambda a: ' '.join(a) if isinstance(a, list) else None)
def test_train_refuses_bad_options(args, says, scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    import drone_seg.models.weights as w
    monkeypatch.setattr(w, 'hub_reachable', lambda timeout=5.: False)
    more = [] if '--split' in args else ['--split', 'random']
    code,out,err = run(monkeypatch, capsys, 'train', scenes, '--out', tmp_path/'run', *more, *args)
    assert code==2 and says in err and len(err.splitlines())==1
    assert not (tmp_path/'run').exists()

def test_empty_split(scenes, tmp_path, monkeypatch, capsys):
    f = tmp_path/'split.json'; f.write_text(json.dumps(dict(train=open_dataset(scenes).stems, valid=[])))
    code,_,err = run(monkeypatch, capsys, 'train', scenes, '--out', tmp_path/'run', '--split', f)
    assert code==2 and 'no valid photos' in err and not (tmp_path/'run').exists()

def test_a_finished_run_is_not_overwritten(scenes, tmp_path, monkeypatch, capsys):
    (tmp_path/'run').mkdir(); (tmp_path/'run'/'history.csv').write_text('epoch\n')
    code,_,err = run(monkeypatch, capsys, 'train', scenes, '--out', tmp_path/'run')
    assert code==2 and 'holds a run already' in err
    assert (tmp_path/'run'/'history.csv').read_text()=='epoch\n'

@pytest.mark.parametrize('make,says', [
    (lambda p: p.mkdir(), 'no bundle.json'),
    (lambda p: None, 'no such folder'),
    (lambda p: (p.mkdir(), (p/'bundle.json').write_text('{')), 'not JSON')], ids=['empty','missing','broken'])
def test_a_run_folder_that_is_none(make, says, scenes, tmp_path, monkeypatch, capsys):
    make(tmp_path/'run')
    for args in (['predict', tmp_path/'run', photo(scenes, 0)], ['evaluate', tmp_path/'run', scenes]):
        code,_,err = run(monkeypatch, capsys, *args, '--out', tmp_path/'o')
        assert code==2 and says in err and len(err.splitlines())==1 and not (tmp_path/'o').exists()

def test_a_pickle_is_never_opened(scenes, tmp_path, monkeypatch, capsys):
    import pickle
    class Harm:
        def __reduce__(self): return (open, (str(tmp_path/'harm'), 'w'))
    (tmp_path/'model.pkl').write_bytes(pickle.dumps(Harm()))
    code,_,err = run(monkeypatch, capsys, 'predict', tmp_path/'model.pkl', photo(scenes, 0))
    assert code==2 and 'can run any code' in err and not (tmp_path/'harm').exists()

def test_check_reports_all_and_exits_1(scenes, monkeypatch, capsys):
    bad_id(scenes); photo(scenes, 4).write_bytes(photo(scenes, 4).read_bytes()[:900])
    code,out,_ = run(monkeypatch, capsys, 'check', scenes)
    assert code==1 and '2 problems' in out and 'id 99' in out and 'damaged' in out

def test_split_is_written(scenes, tmp_path, monkeypatch, capsys):
    code,out,_ = run(monkeypatch, capsys, 'split', scenes, '--by', 'random', '--out', tmp_path/'s.json')
    d = json.loads((tmp_path/'s.json').read_text())
    assert code==0 and sorted(d['train']+d['valid'])==open_dataset(scenes).stems

@pytest.fixture
def untrained(scenes, tmp_path):
    "A bundle whose network knows nothing"
    from drone_seg.models.bundle import Bundle
    from drone_seg.models.unet import create_unet
    c = open_dataset(scenes).classes
    return Bundle(create_unet('test_resnet', c.n, widths=[16]*4), c, (64,96)).save(tmp_path/'untrained')

def test_evaluate_names_the_bad_mask_before_it_predicts(untrained, scenes, tmp_path, monkeypatch, capsys):
    bad_id(scenes)
    from drone_seg.predict.predict import Predictor
    monkeypatch.setattr(Predictor, 'predict', None)
    code,_,err = run(monkeypatch, capsys, 'evaluate', untrained, scenes, '--photos', 'all', '--out', tmp_path/'s.json')
    assert code==2 and mask(scenes, 1).name in err and 'id 99' in err and not (tmp_path/'s.json').exists()

def test_a_wrong_scale_is_said_once(untrained, scenes, tmp_path, monkeypatch, capsys):
    for args in (['predict', untrained, scenes/'images', '--out', tmp_path/'o'], ['evaluate', untrained, scenes, '--photos', 'all', '--out', tmp_path/'s.json']):
        code,_,err = run(monkeypatch, capsys, *args, '--scale', '0')
        assert code==2 and err.count('scale=0.0; it is a number, above 0')==1 and not (tmp_path/'o').exists()

@pytest.mark.parametrize('args,says', [(['--size', 'foo'], "size='foo'"), (['--arch', 'nonet', '--weights', 'none'], 'nonet'), (['--weights', 'gone.safetensors'], 'gone.safetensors'),
                                       (['--model', 'unet-scratch', '--arch', 'resnet18'], 'leave encoder out'), (['--weights', 'gone.pth'], "weights auto, or none for random ones"),
                                       (['--loss', 'dice', '--class-weights', 'median_freq'], 'ce, focal and ohem do'), (['--class-weights', 'inverse'], "class_weights='inverse'; it is median_freq or effective")],
                         ids=lambda a: ' '.join(a) if isinstance(a, list) else None)
def test_cheap_mistakes_are_found_before_the_split(args, says, scenes, tmp_path, monkeypatch, capsys):
    from drone_seg.data.datasets import DroneDataset
    monkeypatch.setattr(DroneDataset, 'split', None)
    code,_,err = run(monkeypatch, capsys, 'train', scenes, '--out', tmp_path/'run', *args)
    assert code==2 and says in err

@pytest.mark.parametrize('what', ['evaluate','predict','train'])
def test_outputs_that_cannot_be_written_are_refused_first(what, untrained, scenes, tmp_path, monkeypatch, capsys):
    (tmp_path/'file').write_text('')
    from drone_seg.predict.predict import Predictor
    monkeypatch.setattr(Predictor, 'predict', None)
    args = dict(evaluate=[untrained, scenes, '--out', tmp_path/'file'/'s.json'], predict=[untrained, scenes/'images', '--out', tmp_path/'file'/'o'], train=[scenes, '--out', tmp_path/'file'/'run'])[what]
    code,_,err = run(monkeypatch, capsys, what, *args)
    assert code==2 and 'is a file' in err and len(err.splitlines())==1

def test_a_bundle_computes_where_it_was_told_to(untrained):
    from drone_seg.models.bundle import load_bundle
    import drone_seg.predict.look as look, torch
    import unittest.mock as mock
    with mock.patch.object(torch.cuda, 'is_available', return_value=True):
        b = load_bundle(untrained, device='cpu')
        assert b.device=='cpu' and b.predict(np.zeros((64,96,3), np.uint8)).ids.shape==(64,96)
        assert look.choose_device(b.net).type=='cuda'          # what would be taken if nobody had said

def test_the_whole_way(scenes, tmp_path, monkeypatch, capsys):
    "train, evaluate, predict: files, ids and sizes"
    out = tmp_path/'run'
    code,text,err = run(monkeypatch, capsys, 'train', scenes, '--out', out, '--weights', 'none', '--split', 'random', '--valid', '.25', '--size', '64x96', '--epochs', '1', '--batch', '2')
    assert code==0, err
    assert {'bundle.json','weights.safetensors','split.json','history.csv','scores.json','samples'} <= {f.name for f in out.iterdir()}
    assert not list(out.glob('*.pkl')) and not list(out.glob('*.pth'))
    assert len((out/'history.csv').read_text().splitlines())>=2
    trained = json.loads((out/'scores.json').read_text())
    code,text,err = run(monkeypatch, capsys, 'evaluate', out, scenes, '--photos', 'valid', '--out', tmp_path/'again.json')
    again = json.loads((tmp_path/'again.json').read_text())
    assert code==0 and again['miou']==trained['miou']
    assert {'miou','macro_dice','pixel_accuracy','per_class','photos','void_pixels','definition'} <= set(again)
    assert {'name','iou','dice','pixels'} <= set(again['per_class'][0]) and again['photos']==2
    code,text,err = run(monkeypatch, capsys, 'evaluate', out, scenes, '--photos', 'all', '--out', tmp_path/'all.json')
    assert '6 of these 8 photos trained the model' in text and len(json.loads((tmp_path/'all.json').read_text())['trained_on'])==6
    truncated(scenes)
    code,text,err = run(monkeypatch, capsys, 'predict', out, scenes/'images', '--out', tmp_path/'pred')
    assert code==2 and '1 photo could not be used' in err and photo(scenes, 1).name in err
    masks = sorted((tmp_path/'pred'/'masks').iterdir())
    assert len(masks)==7 and len(list((tmp_path/'pred'/'overlays').iterdir()))==7
    m = Image.open(masks[0])
    assert m.mode=='P' and m.size==(96,64)
    assert set(np.unique(np.asarray(m))) <= set(SCENE_CLASSES.ids) - SCENE_CLASSES.void

def test_predict_takes_a_data_set_and_goes_on_where_it_stopped(untrained, scenes, tmp_path, monkeypatch, capsys):
    code,text,err = run(monkeypatch, capsys, 'predict', untrained, scenes, '--out', tmp_path/'o', '--no-overlays')
    assert code==0 and err=='' and '8 masks written' in text and str(scenes/'images') in text
    assert len(list((tmp_path/'o'/'masks').rglob('*.png')))==8 and (tmp_path/'o'/'summary.csv').is_file()
    next((tmp_path/'o'/'masks').iterdir()).unlink()
    code,text,err = run(monkeypatch, capsys, 'predict', untrained, scenes, '--out', tmp_path/'o', '--no-overlays')
    assert code==0 and '1 mask written' in text and '7 were finished before' in text

@pytest.mark.parametrize('args,says', [(['--scale', '0'], 'scale=0'), (['--gsd', '.1'], 'gsd=0.1: the model does not know'), (['--gsd', '.1'], 'give a scale'), (['--vote', '3'], 'vote=3: for videos'),
                                       (['--tta', 'twice'], 'tta=twice'), (['--abstain', '7'], 'abstain=7'), (['--dtype', 'int8'], "dtype='int8'; nearest are"), (['--device', 'toaster'], "device='toaster'")], ids=lambda a: ' '.join(a) if isinstance(a, list) else None)
def test_predict_names_the_option_that_is_wrong(args, says, untrained, scenes, tmp_path, monkeypatch, capsys):
    code,_,err = run(monkeypatch, capsys, 'predict', untrained, scenes/'images', '--out', tmp_path/'o', *args)
    assert code==2 and says in err and len(err.splitlines())==1 and not (tmp_path/'o').exists()

def test_predict_never_writes_over_photos(untrained, scenes, tmp_path, monkeypatch, capsys):
    was = {f:f.read_bytes() for f in scenes.rglob('*') if f.is_file()}
    for out in (scenes/'images', scenes):
        code,_,err = run(monkeypatch, capsys, 'predict', untrained, scenes/'images', '--out', out)
        assert code==2 and 'give another output folder' in err
    assert {f:f.read_bytes() for f in scenes.rglob('*') if f.is_file()}==was

def test_predict_a_video(untrained, tmp_path, monkeypatch, capsys):
    av = pytest.importorskip('av', reason="PyAV is not installed: pip install -e '.[video]'")
    with av.open(str(tmp_path/'v.mp4'), 'w') as box:
        s = box.add_stream('h264', rate=25); s.width,s.height,s.pix_fmt = 96,64,'yuv420p'
        for i in range(4):
            f = av.VideoFrame.from_ndarray(np.full((64,96,3), 60*i, np.uint8), format='rgb24'); f.pts = i
            box.mux(s.encode(f))
        box.mux(s.encode())
    code,text,err = run(monkeypatch, capsys, 'predict', untrained, tmp_path/'v.mp4', '--out', tmp_path/'o', '--vote', '3')
    assert code==0 and err=='' and '4 frames' in text and {f.name for f in (tmp_path/'o').iterdir()}=={'v.mp4','v.mp4.csv'}
    code,_,err = run(monkeypatch, capsys, 'predict', untrained, tmp_path/'v.mp4', '--out', tmp_path/'o', '--vote', '2')
    assert code==2 and 'vote=2; an odd number' in err
    shutil.copy(tmp_path/'v.mp4', tmp_path/'v.mkv'); (tmp_path/'v.csv').write_text('flight log'); was = {f:f.read_bytes() for f in tmp_path.glob('v.*')}
    code,_,err = run(monkeypatch, capsys, 'predict', untrained, tmp_path/'v.mp4', '--out', tmp_path/'o'/'..')
    assert code==2 and 'the folder of the film itself' in err and {f:f.read_bytes() for f in tmp_path.glob('v.*')}==was
    code,_,err = run(monkeypatch, capsys, 'predict', untrained, tmp_path/'v.mkv', '--out', tmp_path/'o')
    assert code==0 and {f.name for f in (tmp_path/'o').iterdir()}=={'v.mp4','v.mp4.csv','v.mkv','v.mkv.csv'}

@pytest.mark.parametrize('dirs', [('original_images','label_images_semantic'), ('Tile 1/images','Tile 1/masks')], ids=['semantic drone','tiles'])
def test_predict_leaves_the_label_images_of_a_data_set_alone(dirs, untrained, scenes, tmp_path, monkeypatch, capsys):
    from drone_seg.data.datasets import DroneDataset
    from drone_seg.data.pair import Pair
    root = tmp_path/'set'
    for a,b in zip(('images','masks'), dirs): (root/b).parent.mkdir(parents=True, exist_ok=True); shutil.copytree(scenes/a, root/b)
    pairs = [Pair(p.stem, p, root/dirs[1]/f'{p.stem}.png') for p in sorted((root/dirs[0]).iterdir())]
    monkeypatch.setattr('drone_seg.data.datasets.open_dataset', lambda path: DroneDataset(Path(path), pairs, SCENE_CLASSES))
    code,text,err = run(monkeypatch, capsys, 'predict', untrained, root, '--out', tmp_path/'o', '--no-overlays')
    assert code==0 and '8 masks written' in text and str(root/dirs[0]) in text and len(list((tmp_path/'o'/'masks').rglob('*.png')))==8

def test_a_data_set_is_named_or_given_its_classes(scenes, tmp_path, monkeypatch, capsys):
    "Messages name options that there are"
    for side in ('train','val'):
        for old,new in (('images','src'), ('masks','gt')): shutil.copytree(scenes/old, tmp_path/'mine'/side/new)
    for sub in ('train','val'):
        for f in (tmp_path/'mine'/sub/'gt').iterdir(): Image.fromarray(np.asarray(Image.open(f))%5).save(f)
    code,_,err = run(monkeypatch, capsys, 'check', tmp_path/'mine')
    assert code==2 and "record 'udd5' or 'udd6' or 'vdd'" in err
    code,out,_ = run(monkeypatch, capsys, 'check', tmp_path/'mine', '--record', 'vdd')
    assert 'Varied Drone Dataset' in out
    (tmp_path/'own.csv').write_text('id,name\n' + ''.join(f'{i},own{i}\n' for i in range(5)))
    for how in ((), ('--record','none')):
        code,out,_ = run(monkeypatch, capsys, 'check', tmp_path/'mine', '--classes', tmp_path/'own.csv', *how)
        assert 'own4' in out and 'Varied' not in out
    code,_,err = run(monkeypatch, capsys, 'check', scenes, '--record', 'vddd')
    assert code==2 and "record='vddd'; nearest are vdd" in err
    assert run(monkeypatch, capsys, 'check', scenes)[0]==0 # options of the call before do not stay

def test_python_dash_m_is_the_command():
    import subprocess
    res = subprocess.run([sys.executable, '-m', 'drone_seg.cli', 'check', 'no/such/folder'], capture_output=True, text=True)
    assert res.returncode==2 and 'no such folder' in res.stderr

def test_every_command_names_the_option_that_is_wrong(untrained, scenes, tmp_path, monkeypatch, capsys):
    for args,says in ((['evaluate', untrained, scenes, '--photos', 'all', '--scale', '0'], 'scale=0'), (['evaluate', untrained, scenes, '--photos', 'all', '--gsd', '1'], 'give a scale'),
                      (['calibrate', untrained, scenes], 'take --photos all'), (['calibrate', untrained, scenes, '--photos', 'all', '--scale', '0'], 'scale=0'),
                      (['predict', untrained, scenes/'images', '--tta', 'bogus'], "or several: d4,.75,1")):
        code,_,err = run(monkeypatch, capsys, *args)
        assert code==2 and says in err and 'stems=' not in err and len(err.splitlines())==1, err
    assert run(monkeypatch, capsys, 'predict', untrained, scenes/'images', '--workers', '0')[0]==2

def test_recipes_are_listed_and_shown(scenes, monkeypatch, capsys):
    code,out,_ = run(monkeypatch, capsys, 'recipes')
    assert code==0 and all(n in out for n in ('fastai-unet','unet-scratch','smp-tuned','deeplab-focal-dice','mobile-landing','harvey-deeplab','best','fast','max'))
    code,out,_ = run(monkeypatch, capsys, 'recipes', 'mobile-landing')
    assert code==0 and '704x1056' in out and '.243' in out
    assert 'nearest are' in run(monkeypatch, capsys, 'recipes', 'mobile')[2]

@pytest.mark.parametrize('args,says', [
    (['train', '--recipe', 'mobile'], 'nearest are mobile-landing'), (['train', '--recipe', 'winner.json'], 'winner.json: cannot be read'), (['train', '--track', 'neptune'], "track='neptune'; nearest are tensorboard"), (['train', '--set', 'epochs'], 'FIELD=VALUE'), (['train', '--set', 'rate=1'], "no 'rate'"), (['train', '--budget', 'long'], "budget='long'"),
    (['train', '--resume'], 'leave out resume'), (['train', '--recipe', 'unet-scratch', '--arch', 'resnet18'], 'leave encoder out'), (['compare-recipes', 'mobile'], 'nearest are mobile-landing'),
    (['compare-recipes', '--epochs', '0'], 'epochs=0; it is a whole number, 1 or more'), (['train', '--epochs', '0'], 'epochs=0; it is a whole number'), (['train', '--device', 'toaster'], "device='toaster'"), (['train', '--gsd', '0'], 'gsd=0'),
    (['tune', '--space', 'bset'], "space='bset'; nearest are best"), (['tune', '--set', 'rate=1'], "no 'rate'"), (['compare-recipes', '--seeds', 'a'], "seeds='a'"), (['compare-recipes', '--budget', '1m', '--epochs', '3', '--split', 'random'], 'give one of them')], ids=lambda a: ' '.join(a) if isinstance(a, list) else None)
def test_wrong_words_about_recipes(args, says, scenes, tmp_path, monkeypatch, capsys):
    code,_,err = run(monkeypatch, capsys, args[0], scenes, *args[1:], '--out', tmp_path/'run')
    assert code==2 and says in err and len(err.splitlines())==1 and 'Traceback' not in err

def test_train_by_a_recipe(scenes, tmp_path, monkeypatch, capsys):
    code,out,err = run(monkeypatch, capsys, 'train', scenes, '--recipe', 'smp-tuned', '--set', 'epochs=1', '--set', 'size=64x96', '--arch', 'test_resnet', '--weights', 'none', '--batch', '2', '--split', 'random', '--out', tmp_path/'run')
    assert code==0, err
    r = json.loads((tmp_path/'run'/'bundle.json').read_text())['training']['recipe']
    assert (r['name'], r['epochs'], r['size'], r['encoder'], r['batch'], r['loss'])==('smp-tuned', 1, [64,96], 'test_resnet', 2, 'jaccard(per_image=True)')

def test_train_as_another_run_did_and_watch_it(scenes, tmp_path, monkeypatch, capsys):
    import torch
    way,runs = tmp_path/'way.json',[tmp_path/'a',tmp_path/'b']
    way.write_text(json.dumps(recipe('best', encoder='test_resnet', weights=None, size=(64,96), batch=2, freeze_epochs=0, epochs=2).to_dict()))
    try:
        code,_,err = run(monkeypatch, capsys, 'train', scenes, '--recipe', way, '--split', 'random', '--pictures', '2', '--track', 'tensorboard', '--deterministic', '--out', runs[0])
        assert code==0 and torch.are_deterministic_algorithms_enabled(), err
    finally: torch.use_deterministic_algorithms(False); torch.backends.cudnn.deterministic = False
    assert {'epoch_000.jpg','kept.jpg'}=={p.name for p in (runs[0]/'pictures').iterdir()} and list((runs[0]/'tensorboard').glob('events*'))
    code,_,err = run(monkeypatch, capsys, 'train', scenes, '--recipe', runs[0]/'run.json', '--split', runs[0]/'split.json', '--out', runs[1])
    assert code==0, err
    a,b = ((r/'weights.safetensors').read_bytes() for r in runs)
    assert a==b

@pytest.mark.parametrize('first,then,shown', [([], ['--pictures', '1'], ['epoch_001.jpg']), (['--pictures', '1'], [], ['epoch_000.jpg'])], ids=['without, with', 'with, without'])
def test_a_run_goes_on_with_pictures_or_without(first, then, shown, scenes, tmp_path, monkeypatch, capsys):
    from drone_seg.train.checkpoint import Checkpoint
    given = ['--recipe', 'best', '--arch', 'test_resnet', '--weights', 'none', '--size', '64x96', '--batch', '2', '--set', 'freeze_epochs=0', '--epochs', '2', '--split', 'random']
    write = Checkpoint.after_epoch
    def stopped(self): write(self); raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(Checkpoint, 'after_epoch', stopped)
        assert run(monkeypatch, capsys, 'train', scenes, *given, *first, '--out', tmp_path/'run')[0]==130
    code,_,err = run(monkeypatch, capsys, 'train', scenes, '--out', tmp_path/'run', '--resume', *then)
    assert code==0 and [p.name for p in sorted((tmp_path/'run'/'pictures').glob('epoch*'))]==shown, err

def test_warnings_of_ours_are_a_line():
    ours = str(Path(cli.__file__).parent/'train'/'learner.py')
    assert cli._one_line_warning("bs=1: scores will jump", UserWarning, ours, 66)=="drone_seg: bs=1: scores will jump\n"
    other = cli._one_line_warning('old bs=1', UserWarning, '/lib/torch/x.py', 1)
    assert 'UserWarning' in other and '/lib/torch/x.py' in other and 'bs=1' in other


# The first minute of a stranger: before torch, beside it, and afterwards

def own_env():
    import os
    return dict(os.environ, PYTHONPATH=os.pathsep.join([str(Path(cli.__file__).parent.parent), os.environ.get('PYTHONPATH', '')]))

def shell(*args, cwd):
    "The command in a process of its own; nothing of it is a terminal"
    import subprocess
    return subprocess.run([sys.executable, '-m', 'drone_seg.cli', *map(str, args)], capture_output=True, text=True, cwd=cwd, env=own_env())

TORCHLESS = """
import contextlib, io, json, shlex, sys
for m in ('torch','fastai','timm'): sys.modules[m] = None # whoever imports one fails
from drone_seg import cli
def run(line):
    out,err,code,sys.argv = io.StringIO(),io.StringIO(),0,['drone_seg', *shlex.split(line)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: cli.main()
        except SystemExit as e: code = e.code or 0
        except ImportError as e: code = repr(e)
    return code,out.getvalue(),err.getvalue().strip()
print(json.dumps({o:run(o) for o in json.load(sys.stdin)}))
"""

WRONG = [
    ('report nowhere', 'nowhere: no such'), ('report scenes', 'it has no bundle.json'), ('report untrained nowhere', 'nowhere: no such'), ('report untrained --suspects', 'give DATA too'), ('report untrained --out taken/r.html', 'taken is a file'),
    ('import nowhere', 'nowhere: no such file or folder'), ('import scenes --out taken/plain', 'taken is a file'), ('check nowhere', 'nowhere: no such folder'), ('check scenes --json taken/report', 'taken is a file'), ('split nowhere', 'nowhere: no such folder'), ('models nonet', "no network fits 'nonet'"),
    ('recipes besst', 'nearest are best'), ('train nowhere', 'nowhere: no such folder'), ('train scenes --recipe besst', 'nearest are best'), ('train scenes --recipe gone.json', 'gone.json: cannot be read'),
    ('train scenes --model fpnn', 'nearest are fpn'), ('train scenes --loss luck', "loss='luck'; its names are ce"), ('train scenes --set rate=1', "no 'rate'"), ('train scenes --budget long', "budget='long'"),
    ('train scenes --split gone.json', 'gone.json: no such file'), ('train scenes --split luck', "split='luck'"), ('train scenes --size big', "size='big'"), ('train scenes --track neptune', "track='neptune'"),
    ('train scenes --resume', 'leave out resume'), ('train scenes --out taken/run', 'taken is a file'), ('train scenes --device toaster', "device='toaster'"),
    ('tune scenes --space bset', "space='bset'"), ('tune nowhere', 'nowhere: no such folder'), ('compare-recipes scenes besst', 'nearest are best'), ('compare-recipes nowhere', 'nowhere: no such folder'),
    ('compare nowhere scenes', 'nowhere: no such'), ('compare untrained empty scenes', 'it has no bundle.json'), ('evaluate empty scenes', 'it has no bundle.json'), ('compare scenes untrained', 'scenes: masks, no run'), ('evaluate scenes/masks scenes --scale 2', 'no run'), ('curve nowhere', 'nowhere: no such folder'), ('curve scenes --recipe besst', 'nearest are best'), ('curve scenes --budget long', "budget='long'"), ('curve scenes --out taken/c', 'taken is a file'), ('next nowhere scenes', 'nowhere: no such folder'), ('next untrained nowhere', 'nowhere: no such file'), ('next untrained scenes -n 0', 'n=0'), ('next untrained scenes --out taken', 'taken is a file'), ('next untrained scenes --labelled nowhere', 'nowhere: no such file'), ('suspects nowhere scenes', 'nowhere: no such folder'), ('suspects untrained nowhere', 'nowhere: no such folder'), ('suspects untrained scenes --out taken', 'taken is a file'), ('compare untrained scenes', 'two run folders or more'), ('runs nowhere', 'nowhere: no such'), ('runs scenes', 'no runs in it'), ('info nowhere', 'nowhere: no such folder'), ('info scenes', 'it has no bundle.json'), ('evaluate nowhere scenes', 'nowhere: no such folder'), ('evaluate untrained nowhere', 'nowhere: no such folder'),
    ('evaluate untrained scenes --photos some', "photos='some'"), ('evaluate untrained scenes --scale 0', 'scale=0'), ('evaluate untrained scenes --scale 1 --gsd 1', 'give one of them'),
    ('calibrate nowhere scenes', 'nowhere: no such folder'), ('calibrate untrained scenes', 'take --photos all'), ('predict nowhere scenes', 'nowhere: no such folder'), ('predict model.pkl scenes', 'can run any code'),
    ('predict untrained nowhere.jpg', 'nowhere.jpg: no such file'), ('predict untrained scenes --dtype int8', "dtype='int8'"), ('predict untrained scenes --out taken/o', 'taken is a file'), ('predict untrained scenes --to labelbox', "to='labelbox'; nearest are"),
    ('predict untrained text.jpg', 'text.jpg: not an image'), ('land untrained text.jpg --landable grass --gsd .03', 'text.jpg: not an image'), ('land untrained scenes --landable grass --gsd .03', 'scenes: a folder, not an image'),
    ('land nowhere x.jpg', 'nowhere: no such folder'), ('land untrained nowhere.jpg --landable grass', 'nowhere.jpg: no such file'), ('land untrained x.jpg --landable lawn', "'lawn'"),
    ('map nowhere o.tif', 'nowhere: no such folder'), ('map untrained o.tif', 'o.tif: no such file'), ('map untrained taken --bands 1,2', 'bands=(1, 2); give 1 or 3 numbers'), ('cut o.tif f.gpkg', 'o.tif: no such file'),
    ('predict untrained scenes --tta foo', 'tta=foo; it is mirror, flips, d4'), ('map untrained nowhere.tif --tta foo', 'tta=foo'), ('export nowhere', 'nowhere: no such folder'), ('export untrained --to onx', "to='onx'"), ('export untrained --to int8 --photos nowhere', 'nowhere: no such file'), ('app', 'run drone_seg demo first'), ('app nowhere', 'nowhere: no such folder'), ('app untrained --second scenes', 'it has no bundle.json'), ('app untrained --port 0', 'port=0'), ('app untrained --space taken/s', 'taken is a file'), ('demo --scenes 3', 'scenes=3; it is a whole number, 20 or more'), ('demo --out scenes', 'scenes: is there already')]

@pytest.fixture(scope='module')
def desk(drawn, tmp_path_factory):
    "A folder with drawn scenes, an untrained bundle, and a file where a folder could be"
    from drone_seg.models.bundle import Bundle
    from drone_seg.models.unet import create_unet
    root = tmp_path_factory.mktemp('desk')
    shutil.copytree(drawn, root/'scenes')
    (root/'taken').write_text('')
    (root/'empty').mkdir()
    (root/'text.jpg').write_text('no photo')
    (root/'model.pkl').write_bytes(b'')
    c = open_dataset(root/'scenes').classes
    Bundle(create_unet('tf_efficientnet_lite0', c.n), c, (64,96)).save(root/'untrained')
    return root

ASKED = '--help','--version','recipes','recipes best','models','info untrained','land untrained','train --help','check scenes'

@pytest.fixture(scope='module')
def without_torch(desk):
    "What each of the lines above answers where torch cannot be imported, and what was written meanwhile"
    import subprocess
    before = sorted(desk.rglob('*'))
    r = subprocess.run([sys.executable, '-c', TORCHLESS], input=json.dumps([*(l for l,_ in WRONG), *ASKED]), capture_output=True, text=True, cwd=desk, env=own_env() | dict(DRONE_SEG_CACHE=str(desk.parent/'cache')))
    assert r.returncode==0, r.stderr
    return json.loads(r.stdout),sorted(set(desk.rglob('*'))-set(before))

@pytest.mark.parametrize('line,says', WRONG, ids=lambda v: v)
def test_what_is_wrong_is_found_before_torch(line, says, without_torch):
    "One line, exit code 2, nothing written"
    answers,written = without_torch
    code,_,err = answers[line]
    assert code==2 and says in err and len(err.splitlines())==1 and err.startswith('drone_seg: ') and not written

@pytest.mark.parametrize('line', ASKED)
def test_what_is_asked_is_answered_without_torch(line, without_torch):
    code,out,err = without_torch[0][line]
    assert code==0 and out and not err

@pytest.mark.parametrize('seconds,says', [(None, 'recipe fast, 2 epochs, seed 0'), (61.4, 'recipe fast, 2 epochs, 61 s, seed 0')])
def test_info_does_not_say_a_time_that_nobody_took(seconds, says, desk, tmp_path, monkeypatch, capsys):
    shutil.copytree(desk/'untrained', tmp_path/'run')
    about = json.loads((tmp_path/'run'/'bundle.json').read_text())
    about['training'] = dict(recipe=dict(name='fast'), epochs=2, seed=0) | ({} if seconds is None else dict(seconds=seconds))
    (tmp_path/'run'/'bundle.json').write_text(json.dumps(about))
    assert says in run(monkeypatch, capsys, 'info', tmp_path/'run')[1]

def test_every_command_is_tried_with_something_wrong():
    assert {o.split()[0] for o,_ in WRONG}=={c.name for c in cli.app.registered_commands}

@pytest.mark.parametrize('name', [c.name for c in cli.app.registered_commands])
def test_help_says_what_each_parameter_is_and_an_example_parses(name, monkeypatch, capsys):
    import typer
    group = typer.main.get_command(cli.app)
    command = group.commands[name]
    assert all(p.help or p.name=='help' for p in command.params) # each has its comment
    example = command.epilog.removeprefix('Example: drone_seg ')
    import shlex
    words = shlex.split(example)
    assert words[0]==name
    command.make_context(name, words[1:]) # raises where an argument lacks or an option is unknown
    assert example in run(monkeypatch, capsys, name, '--help')[1]

def test_a_closed_pipe_is_no_error(desk):
    import subprocess
    p = subprocess.run(f'{sys.executable} -m drone_seg.cli models | head -1; echo ${{PIPESTATUS[0]}}', shell=True, executable='/bin/bash', capture_output=True, text=True, env=own_env(), cwd=desk)
    assert p.stdout.splitlines()[0].startswith('unet') and 'Traceback' not in p.stderr and 'rror' not in p.stderr

def test_a_training_in_a_log_and_its_last_lines(desk, monkeypatch, capsys):
    "No bar in either stream, a line per epoch; the last lines say what was kept, and what they advise works"
    import shlex
    line = "train scenes --out runs/first --arch resnet18 --weights none --size 64x96 --epochs 2 --set freeze_epochs=0 --batch 2 --split random --valid .25 --gsd .02"
    r = shell(*line.split(), cwd=desk)
    assert r.returncode==0, r.stderr
    assert not any(o in r.stdout+r.stderr for o in ('\r', '\x1b', '%|', '█'))
    assert len([l for l in r.stdout.splitlines() if l.startswith('epoch ')])==2
    import csv
    rows = list(csv.DictReader(open(desk/'runs'/'first'/'history.csv')))
    best = max(rows, key=lambda o: float(o['miou']))
    scores = json.loads((desk/'runs'/'first'/'scores.json').read_text())
    assert f"kept: epoch {best['epoch']} of 0 to 1" in r.stdout and f"{float(best['miou']):.3f}" in r.stdout and f"mIoU {scores['miou']:.3f}" in r.stdout.split('scored:')[1]
    bundle = json.loads((desk/'runs'/'first'/'bundle.json').read_text())
    assert bundle['gsd']==pytest.approx(.02/bundle['scale']) # photo pixels of 2 cm
    advised = [l.removeprefix('next:').strip() for l in r.stdout.splitlines() if l.removeprefix('next:').strip().startswith('drone_seg ')]
    assert len(advised)==3
    monkeypatch.chdir(desk)
    for l in advised:
        code,out,err = run(monkeypatch, capsys, *shlex.split(l)[1:])
        assert code==0 and out, (l, err)
    out = run(monkeypatch, capsys, 'info', 'runs/first')[1]
    assert all(o in out for o in ('mIoU', 'resnet18', 'recipe best', '0.02 m', 'calibrated'))

@pytest.mark.parametrize('found, called, says', [(None, '.venv/bin/drone_seg', '.venv/bin/drone_seg'), ('/bin/drone_seg', '.venv/bin/drone_seg', 'drone_seg'), (None, 'cli.py', 'drone_seg')])
def test_demo_advises_what_the_shell_finds(monkeypatch, capsys, found, called, says):
    import shutil
    from drone_seg import cli
    monkeypatch.setattr(shutil, 'which', lambda name: found)
    monkeypatch.setattr(sys, 'argv', [called, 'demo'])
    cli._say_demo_next(Path('demo'))
    lines = [l.removeprefix('next:').strip() for l in capsys.readouterr().out.splitlines()]
    assert len(lines)==3 and all(l.split()[0]==says for l in lines)

def test_a_size_that_cannot_fit_is_refused_with_one_that_does(scenes, tmp_path, monkeypatch, capsys):
    import re
    import drone_seg.train.by_recipe as by_recipe, drone_seg.train.memory as memory
    def fits(*args): raise by_recipe.TrainError('it would train now')
    monkeypatch.setattr(by_recipe, 'fit_stages', fits)
    monkeypatch.setattr(memory, 'free_memory', lambda device: 8*10**9)
    given = ['train', scenes, '--arch', 'test_resnet', '--weights', 'none', '--split', 'random', '--out', tmp_path/'run', '--size']
    code,_,err = run(monkeypatch, capsys, *given, '5000x8000')
    assert code==2 and '8.0 GB are free' in err and len(err.splitlines())==1 and not (tmp_path/'run').exists()
    size = re.search(r'take size (\d+x\d+) or less', err)[1]
    assert 'it would train now' in run(monkeypatch, capsys, *given, size)[2]
