"75_runs.run: a run of an older version opened, and what is said of runs that lost a file or were changed"
import json, shutil, zipfile
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from drone_seg.data.datasets import open_dataset
from drone_seg.fields import DroneSegError, ModelError
from drone_seg.models.bundle import load_bundle
from drone_seg.models.ensemble import Ensemble
from drone_seg.runs.compare import *
from drone_seg.runs.report import make_report
from drone_seg.runs.run import *
from drone_seg.runs.suspects import find_suspects
from drone_seg.runs.verdict import say_run
from drone_seg.scenes.scene import write_scenes

DATA = Path(__file__).parent/'data'/'old_run.zip'

@pytest.fixture
def folder(tmp_path):
    with zipfile.ZipFile(DATA) as z: z.extractall(tmp_path)
    return tmp_path/'run'

def test_a_run_of_before_opens_whole(folder):
    run = open_run(folder)
    said = json.loads((folder/'bundle.json').read_text())
    assert run.finished and run.name=='run' and run.notes==['no regions or borders were counted, as in versions of before; drone_seg evaluate counts them']
    assert run.scores.over=='photo' and run.scores.of_photos().index.tolist() and run.scores.near is None
    assert run.recipe.encoder=='test_efficientnet' and run.command.startswith('drone_seg train scenes --recipe fast')
    assert len(run.history)==30 and run.history.miou.max()>.25
    assert run.stems==run.split.valid==['s0004','s0006','s0019'] and len(run.split.train)==17
    assert run.scores.miou==pytest.approx(said['scores']['miou'], abs=1e-9)
    assert run.intervals()['miou'].value==pytest.approx(run.scores.miou)
    assert run.model.classes.n==8
    assert open_run(run) is run
    assert repr(run).splitlines()[0]=='Run run: fast' and len(repr(run).splitlines())==6

@pytest.mark.parametrize('name, how, says', [
    ('run.json', None, 'only what the model tells is known'), ('run.json', '{"asked": ', 'run.json is torn'),
    ('run.json', '[1]', 'run.json is not what a training writes'), ('confusion.npz', None, 'without intervals'), ('confusion.npz', 'PK', 'confusion.npz is torn'),
    ('history.csv', None, None), ('split.json', None, None), ('split.json', '{', 'split.json is not the split'), ('scores.json', None, None)])
def test_what_is_lost_is_said_and_the_rest_is_there(folder, name, how, says):
    (folder/name).unlink() if how is None else (folder/name).write_text(how)
    run = open_run(folder)
    assert [says in o for o in run.notes if 'no regions' not in o]==[True]*(says is not None)
    assert run.recipe.name=='fast' and run.split.valid and (says is None or says in repr(run)) # the bundle knows both, too

def change(f, **values): f.write_text(json.dumps(json.loads(f.read_text()) | values))

def test_what_was_changed_is_said(folder):
    with open(folder/'weights.safetensors', 'r+b') as f:
        f.seek(-1, 2)
        f.write(b'!')
    change(folder/'bundle.json', scores=dict(miou=.9))
    change(folder/'split.json', train=['s0000'])
    notes = open_run(folder).notes[1:] # the first says that no regions were counted
    assert len(notes)==3 and 'weights.safetensors' in notes[0] and 'says mIoU 0.900, its confusion matrices 0.288' in notes[1] and 'split.json' in notes[2]

@pytest.mark.parametrize('name', ['bundle.json','weights.safetensors'])
def test_what_the_model_is_must_be_sound(folder, name):
    (folder/name).write_text('{') if name=='bundle.json' else (folder/name).unlink()
    with pytest.raises(DroneSegError, match=name): open_run(folder)

def test_what_has_not_ended_and_what_is_no_run(folder, tmp_path):
    (folder/'bundle.json').unlink()
    run = open_run(folder)
    assert not run.finished and 'not finished' in repr(run) and run.split.valid==['s0004','s0006','s0019'] and run.classes.n==8
    with pytest.raises(ModelError, match='not a run'): open_run(tmp_path/'scenes')
    with pytest.raises(ModelError, match='not a run'): open_run(tmp_path/'nowhere')

def test_matrices_of_other_classes_and_recipes_of_other_versions_are_said(folder):
    with np.load(folder/'confusion.npz') as z: d = dict(z)
    np.savez(folder/'confusion.npz', **d | dict(matrices=d['matrices'][:,:5,:5]))
    facts = json.loads((folder/'run.json').read_text())
    change(folder/'run.json', recipe=facts['recipe'] | dict(temper='mild'))
    notes = open_run(folder).notes
    assert any('other classes or photos' in o for o in notes) and any('does not know: temper' in o for o in notes)
    change(folder/'run.json', recipe=facts['recipe'] | dict(epochs=-1))
    run = open_run(folder)
    assert run.recipe is None and any('cannot be read: epochs=-1' in o for o in run.notes)

def test_a_run_that_cannot_be_read_is_left_out_of_the_table(folder, tmp_path):
    shutil.copytree(folder, tmp_path/'runs'/'torn')
    (tmp_path/'runs'/'torn'/'bundle.json').write_text('{')
    with pytest.warns(UserWarning, match='left out.*torn'), pytest.raises(ModelError, match='no run in it can be read'): list_runs(tmp_path/'runs')
    shutil.copytree(folder, tmp_path/'runs'/'good')
    with pytest.warns(UserWarning, match='left out'): assert list_runs(tmp_path/'runs').run.tolist()==['good']

def test_epochs_are_those_that_were_trained(folder, tmp_path):
    for name,rows in ('early', 12), ('bare', None):
        shutil.copytree(folder, tmp_path/'runs'/name)
        f = tmp_path/'runs'/name/'history.csv'
        if rows is None: f.unlink()
        else: f.write_text('\n'.join(f.read_text().splitlines()[:rows+1]))
    about = json.loads((folder/'bundle.json').read_text())
    change(tmp_path/'runs'/'bare'/'bundle.json', training=about['training'] | dict(epochs=7))
    assert list_runs(tmp_path/'runs').set_index('run').epochs.to_dict()==dict(early=12, bare=7) # the recipe meant 30

def test_the_same_letter_means_the_same_files(folder, tmp_path):
    for i in range(28):
        shutil.copytree(folder, tmp_path/'runs'/f'{i:02}')
        facts = json.loads((folder/'run.json').read_text())
        change(tmp_path/'runs'/f'{i:02}'/'run.json', data=facts['data'] | dict(s0004=f'photo {i//2}')) # two runs each
        (tmp_path/'runs'/f'{i:02}'/'weights.safetensors').write_bytes(b'')
    letters = list_runs(tmp_path/'runs').set_index('run').judged_on
    assert letters.nunique()==14 and all(letters[f'{i:02}']==letters[f'{i+1:02}'] for i in range(0, 28, 2))

def test_the_table_has_the_best_first_and_what_differs(folder, tmp_path):
    runs = tmp_path/'runs'
    for name,miou,lr in ('a',.1,.001), ('deep/b',.3,.002), ('c',.2,.001):
        shutil.copytree(folder, runs/name)
        (runs/name/'confusion.npz').unlink()
        facts = json.loads((runs/name/'run.json').read_text())
        change(runs/name/'run.json', recipe=facts['recipe'] | dict(lr=lr))
        change(runs/name/'bundle.json', scores=dict(miou=miou))
    about = json.loads((runs/'c'/'bundle.json').read_text())
    change(runs/'c'/'bundle.json', split=about['split'] | dict(valid=['s0004'], train=['s0006']))
    table = list_runs(runs)
    assert list(table.columns)==['run','mIoU','judged_on','epochs','lr']
    assert table.run.tolist()==['b','c','a'] and table.mIoU.tolist()==[.3,.2,.1] and table.lr.tolist()==['0.002','0.001','0.001']
    assert table.judged_on[0]==table.judged_on[2]!=table.judged_on[1]
    with pytest.raises(ModelError, match='no runs in it'): list_runs(tmp_path/'scenes')


# Runs compared, 76_runs.compare

def copy_run(folder, out, wrong=0, **split):
    "A run like that in `folder` whose matrices have `wrong` pixels of each class and photo taken for the next class"
    shutil.copytree(folder, out)
    with np.load(folder/'confusion.npz') as z: d = dict(z)
    for m in d['matrices']:
        for c in range(7):
            n = min(wrong, m[c,c])
            m[c,c] -= n
            m[c,c+1] += n
    np.savez(out/'confusion.npz', **d)
    about = json.loads((out/'bundle.json').read_text())
    change(out/'bundle.json', scores={}, split=about['split'] | split)
    return out

def test_a_run_against_a_worse_one_by_hand(folder, tmp_path):
    worse = copy_run(folder, tmp_path/'worse', wrong=300)
    found = compare_runs(worse, folder)
    a,b = open_run(worse),open_run(folder)
    assert found.names==['worse','run'] and found.table.run.tolist()==['run','worse']
    assert found.table.mIoU[1].value==pytest.approx(b.scores.miou) and found.table.mIoU[2].value==pytest.approx(a.scores.miou)
    assert found.table.against_best[2].value==pytest.approx(a.scores.miou-b.scores.miou)
    right = [np.trace(m)/m.sum() for m in a.matrices]
    assert found.photos.loc[a.stems,'worse'].tolist()==pytest.approx(right)
    apart = (found.photos.run-found.photos.worse).abs().tolist()
    assert apart==sorted(apart, reverse=True) and 'run against worse' in found.sentence
    assert found.classes.loc['paved','difference'].value>0 and list(found.classes.index)==b.classes.scored_names

def test_a_run_against_itself_is_no_different(folder):
    found = compare_runs(folder, folder)
    assert found.table.against_best[2].value==0 and 'no difference can be seen with 3 photos' in found.sentence

@pytest.mark.parametrize('split, says', [
    (dict(train=['s0004'], valid=['s0019']), "was trained on 1 photos that judge run, such as s0004")])
def test_what_does_not_compare_is_refused(folder, tmp_path, split, says):
    other = copy_run(folder, tmp_path/'other', **split)
    with pytest.raises(DroneSegError, match=says): compare_runs(folder, other)

def test_other_photos_of_the_same_name_and_lost_places_are_refused(folder, tmp_path):
    other = copy_run(folder, tmp_path/'other')
    facts = json.loads((other/'run.json').read_text())
    change(other/'run.json', data=facts['data'] | dict(s0006='1-ff 2-ee'))
    with pytest.raises(DroneSegError, match='1 photos or masks of other are other files.*s0006'): compare_runs(folder, other)
    with pytest.raises(DroneSegError, match='s0004 judged the runs and has no place'): compare_runs(folder, folder, places={'a': 0})

def test_of_several_runs_the_sentence_names_who_is_worse(tmp_path):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(DATA) as z: z.extractall(tmp_path)
    stems = [f's{i:04}' for i in range(30)]
    def make(name, right):
        shutil.copytree(tmp_path/'run', tmp_path/name)
        share = np.clip(right+rng.normal(0, .01, 30), 0, 1)
        m = np.zeros((30,8,8), int)
        for c in range(8):
            m[:,c,c] = 1000*share
            m[:,c,(c+1)%8] = 1000-m[:,c,c]
        np.savez(tmp_path/name/'confusion.npz', matrices=m, stems=np.array(stems), names=np.array(list('abcdefgh')))
        about = json.loads((tmp_path/name/'bundle.json').read_text())
        change(tmp_path/name/'bundle.json', scores={}, split=about['split'] | dict(valid=stems, train=['t']))
        return tmp_path/name
    said = compare_runs(make('poor', .6), make('good', .8), make('alike', .8)).sentence
    assert 'surely worse: poor;' in said and 'no difference can be seen to: ' in said and 'poor' not in said.split('seen to')[1]

def test_other_classes_and_lost_matrices_are_refused(folder, tmp_path):
    other = copy_run(folder, tmp_path/'other')
    about = json.loads((other/'bundle.json').read_text())
    about['classes'][1]['name'] = 'tarmac'
    change(other/'bundle.json', classes=about['classes'])
    with pytest.raises(DroneSegError, match='other classes'): compare_runs(folder, other)
    (other/'confusion.npz').unlink()
    with pytest.raises(DroneSegError, match='drone_seg evaluate makes them'): compare_runs(folder, other)
    with pytest.raises(DroneSegError, match='two runs'): compare_runs(folder)

def test_evaluate_makes_lost_matrices_again(folder, tmp_path):
    from typer.testing import CliRunner
    from drone_seg.cli import app
    with np.load(folder/'confusion.npz') as z: before = z['matrices']
    (folder/'confusion.npz').unlink()
    done = CliRunner().invoke(app, ['evaluate', str(folder), str(tmp_path/'scenes'), '--out', str(tmp_path/'s.json')])
    assert done.exit_code==0, done.output
    run = open_run(folder)
    assert 'what was counted, for compare and report' in done.output and run.scores.regions is not None and (tmp_path/'s.json').exists()
    assert run.stems==['s0004','s0006','s0019'] and 0<=np.abs(run.matrices-before).sum()<.02*before.sum() # it was in bfloat16

def test_compare_on_the_command_line_over_places_and_photos(folder, tmp_path):
    from typer.testing import CliRunner
    from drone_seg.cli import app
    other,scenes = copy_run(folder, tmp_path/'other', wrong=300),tmp_path/'scenes'
    ask = lambda *words: CliRunner().invoke(app, ['compare', *map(str, words)])
    by_photo,by_place = ask(folder, other),ask(folder, other, scenes)
    assert by_photo.exit_code==by_place.exit_code==0, by_photo.output+by_place.output
    assert 'photos' in by_photo.output.splitlines()[-1] and 'places' in by_place.output.splitlines()[-1]

# Models in memory

@pytest.fixture
def scenes(tmp_path): return open_dataset(write_scenes(tmp_path/'drawn', 4, size=(64,96), gsd=.08, seed=1))

def taught(folder, **split): return replace(load_bundle(folder), path=None, split=split)

def test_an_ensemble_without_a_split_is_judged_like_a_bundle_without_one(folder, scenes):
    one = taught(folder)
    both = Ensemble([one, one])
    assert open_run(both).split is None and open_run(both).trained==[]
    assert both.evaluate(scenes, progress=False).stems==scenes.stems
    page = make_report(both, scenes, progress=False).html
    assert '<h1>ensemble of 2</h1>' in page and 'have trained it' not in page
    sentence = compare_runs(both, one, scenes).sentence
    assert 'which photos trained ensemble of 2 and model is not known' in sentence

def test_what_trained_one_fold_does_not_judge_an_ensemble_unsaid(folder, scenes):
    s = scenes.stems
    folds = [taught(folder, train=s[:2], valid=s[2:]), taught(folder, train=s[2:], valid=s[:2])]
    both = Ensemble(folds)
    assert open_run(both).trained==s and both.evaluate(scenes, progress=False).seen==s
    assert '4 photos that judge have trained it' in make_report(both, scenes, progress=False).html
    with pytest.raises(DroneSegError, match='^ensemble of 2 was trained on 4 photos that judge it, such as'):
        compare_runs(both, folds[0], scenes)
    with pytest.raises(DroneSegError, match='all 4 photos trained ensemble of 2'): find_suspects(both, scenes, progress=False)

def test_an_ensemble_of_one_split_is_judged_on_its_photos(folder, scenes):
    s = scenes.stems
    one = taught(folder, train=s[:2], valid=s[2:])
    both = Ensemble([one, one])
    assert both.evaluate(scenes, progress=False).seen==[] and open_run(both).split.valid==s[2:]
    page = make_report(both, scenes, progress=False).html
    assert 'learnt from 2 photos' in page and 'judged on 2 others' in page and 'have trained it' not in page
    found = compare_runs(both, one, scenes)
    assert found.photos.index.tolist()==s[2:] and 'not known' not in found.sentence

def test_what_was_kept_is_of_the_model_that_was_kept(folder):
    same,other = load_bundle(folder),load_bundle(folder)
    assert open_run(same).scores.miou==pytest.approx(.288, abs=.001)
    with torch.no_grad():
        for p in other.net.parameters(): p.mul_(.5)
    for model in other,replace(same, net=other.net):
        run = open_run(model)
        assert run.scores is None and run.about['scores']=={} and run.history.empty
        assert run.notes==['not the model that run holds: only what it tells itself is known'] and run.model is model
    (folder/'bundle.json').write_text('{')
    assert 'not the model that run holds' in open_run(same).notes[0]

def test_a_model_in_memory_has_no_history_of_a_folder_that_is_called_like_it(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path/'model')
    monkeypatch.chdir(tmp_path)
    run = open_run(taught(folder))
    assert run.history.empty and 'epochs' not in repr(run)
    assert len(open_run('model').history)==30

def test_photos_that_trained_it_are_no_others(folder, scenes):
    s = scenes.stems
    run = open_run(taught(folder, train=s[:2], valid=s[2:]))
    said = lambda stems: say_run(run, run.model.evaluate(scenes, stems, progress=False))[1]
    assert 'from 2 photos of scenes and is judged on 2 others.' in said(s[2:])
    assert 'from 2 photos of scenes and is judged on 4.' in said(s)
