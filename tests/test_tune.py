"A search that several processes share: what is reported, stopped, resumed, taken over from the dead, and refused"
import json, math, multiprocessing, os, signal, statistics, threading, time
from dataclasses import asdict, replace
import pytest
optuna = pytest.importorskip('optuna')
from optuna.trial import TrialState
from drone_seg.fields import DroneSegError, FileError, TrainError
from drone_seg.data.splits import Split
from drone_seg.train.space import *
from drone_seg.train.study import _describe_trial, retry_dead, open_storage, open_study, run_study
from drone_seg.train.tune import *
from drone_seg.scenes.scene import write_scenes

SPACE = {'lr': dict(low=1e-4, high=1e-1, log=True), 'batch': dict(low=16, high=48, step=8), 'loss': ['ce','dice']}
SEARCH = Search(SPACE, startup=3, warmup=2)

def curve(o, epochs=8): # what a network with these settings scores in each epoch
    best = .6 - .15*abs(math.log10(o['lr']/3e-3)) + .05*(o['loss']=='dice') - abs(o['batch']-32)/1000
    return [best*(1-.7**(e+1)) for e in range(epochs)]

def learn(o, report):
    for e,m in enumerate(curve(o)): report(m, e)
    return m

def url(kind, folder): return f'sqlite:///{folder}/study.db' if kind=='database' else folder/'study.log'
def opened(kind, folder, search=SEARCH, name='s'): return open_study(open_storage(url(kind, folder)), name, asdict(search))

kinds = pytest.mark.parametrize('kind', ['file', 'database'])

def test_scores_are_reported_as_value_and_step(tmp_path):
    study = run_study(opened('file', tmp_path), learn, SEARCH, 4)
    for t in study.trials: assert t.intermediate_values==dict(enumerate(curve(t.params)[:len(t.intermediate_values)]))
    assert all(t.value==curve(t.params)[-1] for t in study.trials if t.state==TrialState.COMPLETE)

def test_median_pruning_by_hand(tmp_path):
    "Stopped at the first epoch after the warm-up whose best so far is below the median of what finished trials had there, once 3 have finished"
    study = run_study(opened('file', tmp_path), learn, SEARCH, 20)
    stopped = 0
    for t in study.trials:
        before = [o for o in study.trials[:t.number] if o.state==TrialState.COMPLETE]
        ends = [e for e in range(8) if e>=SEARCH.warmup and len(before)>=SEARCH.startup and max(curve(t.params)[:e+1])<statistics.median(curve(o.params)[e] for o in before)]
        assert (t.state==TrialState.PRUNED)==bool(ends) and len(t.intermediate_values)==(ends[0]+1 if ends else 8)
        stopped += bool(ends)
    assert 3<=stopped<17

def test_hyperband_stops_some_and_not_the_best(tmp_path):
    search = replace(SEARCH, pruner='hyperband', warmup=1)
    study = run_study(opened('file', tmp_path, search), learn, search, 30)
    states = [t.state for t in study.trials]
    assert states.count(TrialState.PRUNED)>=5 and study.best_value>.55
    none = replace(SEARCH, pruner='none')
    assert all(t.state==TrialState.COMPLETE for t in run_study(opened('file', tmp_path, none, 'all'), learn, none, 12).trials)

def test_resumed_is_unbroken(tmp_path):
    params = lambda s: [(t.params, t.state, t.value) for t in s.trials]
    whole = run_study(opened('file', tmp_path, name='whole'), learn, SEARCH, 16)
    for n in (5, 11, 16, 16): parts = run_study(opened('file', tmp_path, name='parts'), learn, SEARCH, n)
    assert params(parts)==params(whole)
    assert params(run_study(opened('file', tmp_path, name='other'), learn, SEARCH, 16, seed=1))!=params(whole)

def forked(f, *args):
    p = multiprocessing.get_context('fork').Process(target=f, args=args)
    p.start()
    return p

def worker(kind, folder, n, both):
    met = []
    def slowly(o, report):
        if len(met)<2: met.append(both.wait(60)) # in its first two trials it waits for the other one
        time.sleep(.02)
        return learn(o, report)
    run_study(opened(kind, folder), slowly, SEARCH, n, say=(folder/f'by_{os.getpid()}').open('a').write)

@kinds
def test_two_processes_share_a_study(kind, tmp_path):
    if kind=='database': opened(kind, tmp_path) # tables are made once, before many ask for them
    both = multiprocessing.get_context('fork').Barrier(2)
    ps = [forked(worker, kind, tmp_path, 12, both) for _ in range(2)]
    for p in ps: p.join(60)
    assert [p.exitcode for p in ps]==[0, 0]
    done = [t for t in opened(kind, tmp_path).trials if t.state!=TrialState.FAIL]
    assert len(done)==12 and all(t.state.is_finished() for t in done)
    assert len({json.dumps(t.params) for t in done})==12 # nothing tried twice
    said = [f.read_text().count('trial') for f in tmp_path.glob('by_*')]
    assert len(said)==2 and min(said)>=2

def hang(folder):
    def f(o, report):
        report(.1, 0)
        (folder/'hangs').write_text(json.dumps(o))
        time.sleep(60)
    return f

def until(done, seconds=30):
    end = time.time()+seconds
    while not done():
        assert time.time()<end; time.sleep(.01)

@kinds
def test_a_killed_trial_is_tried_again(kind, tmp_path):
    run_study(opened(kind, tmp_path), learn, SEARCH, 3)
    p = forked(lambda: run_study(opened(kind, tmp_path), hang(tmp_path), SEARCH, 6))
    until((tmp_path/'hangs').exists); time.sleep(.1); os.kill(p.pid, signal.SIGKILL); p.join()
    study = opened(kind, tmp_path)
    assert study.trials[3].state==TrialState.RUNNING # and would be for ever
    said = []
    run_study(study, learn, SEARCH, 6, grace=1, say=said.append)
    states = [t.state for t in study.trials]
    assert states[3]==TrialState.FAIL and all(s.is_finished() for s in states) and len(states)==7
    again, = [t for t in study.trials if t.user_attrs.get('retry_of')==3]
    assert again.params==study.trials[3].params==json.loads((tmp_path/'hangs').read_text()) and again.state!=TrialState.FAIL
    assert any('trial 3 has been silent' in s for s in said)

def test_settings_that_kill_are_given_up(tmp_path):
    study = opened('file', tmp_path)
    for k in range(5):
        t = study.ask(SEARCH.distributions)
        time.sleep(.02); assert retry_dead(study, .01)==[t.number]
        if not study.get_trials(states=(TrialState.WAITING,)): break
    assert k==2 and len({json.dumps(t.params) for t in study.trials})==1

def test_who_lives_is_left_alone(tmp_path, monkeypatch):
    "A trial that says nothing for longer than `grace` but is at work, while another process waits for it"
    def long(o, report):
        (tmp_path/'began').touch(); until((tmp_path/'waited').exists)
        time.sleep(2.5); return .5
    p = forked(lambda: run_study(opened('file', tmp_path), long, SEARCH, 1, grace=1.5))
    until((tmp_path/'began').exists)
    sleep = time.sleep
    monkeypatch.setattr(time, 'sleep', lambda s: ((tmp_path/'waited').touch(), sleep(s)))
    study = run_study(opened('file', tmp_path), learn, SEARCH, 1, grace=1.5)
    assert [(t.state, t.value) for t in study.trials]==[(TrialState.COMPLETE, .5)]
    p.join(); assert p.exitcode==0
    run_study(opened('file', tmp_path), learn, SEARCH, 1, wait=False)

def test_taken_over_while_it_slept(tmp_path):
    "A process that was stopped for long finds its trial closed, and goes on with another"
    study,n = opened('file', tmp_path),[]
    def sleeper(o, report):
        n.append(1)
        if len(n)==1: study.tell(0, state=TrialState.FAIL)
        return learn(o, report)
    run_study(study, sleeper, SEARCH, 2)
    assert [t.state==TrialState.FAIL for t in study.trials]==[True, False, False]

def test_interrupted_is_tried_first(tmp_path):
    def stop(o, report): raise KeyboardInterrupt
    study = opened('file', tmp_path)
    with pytest.raises(KeyboardInterrupt): run_study(study, stop, SEARCH, 3)
    run_study(study, learn, SEARCH, 3)
    assert [t.state==TrialState.FAIL for t in study.trials]==[True, False, False, False]
    assert study.trials[1].params==study.trials[0].params
    def bug(o, report): 1/0
    with pytest.raises(ZeroDivisionError): run_study(study, bug, SEARCH, 4)
    assert study.trials[4].state==TrialState.FAIL and len(study.trials)==5

def test_bad_settings_count_as_bad(tmp_path):
    def picky(o, report):
        if o['batch']>=40: raise RuntimeError('CUDA out of memory. Tried to allocate')
        if o['loss']=='ce': raise DroneSegError('loss is nan at step 3\nsecond line')
        return math.nan if o['lr']>5e-2 else learn(o, report)
    study = run_study(opened('file', tmp_path), picky, replace(SEARCH, space=SPACE | {'loss': ['dice','ce']}), 15)
    errors = [t.user_attrs.get('error') for t in study.trials]
    assert {'loss is nan at step 3','CUDA out of memory. Tried to allocate'}<=set(errors) and all(t.state==TrialState.PRUNED for t,e in zip(study.trials, errors) if e)
    assert 'out of memory' in _describe_trial(study.trials[next(i for i,e in enumerate(errors) if e and 'CUDA' in e)])
    def full(o, report): raise RuntimeError('[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes')
    with pytest.raises(TrainError, match='all 3 trials .* not enough memory'): run_study(opened('file', tmp_path, name='cpu'), full, SEARCH, 10)
    def disk(o, report): raise FileError('/x: cannot be written (No space left on device)') # says nothing about these settings
    with pytest.raises(FileError): run_study(opened('file', tmp_path, name='disk'), disk, SEARCH, 10)
    def never(o, report): raise DroneSegError('no such network')
    with pytest.raises(TrainError, match='all 3 trials .* no such network'): run_study(opened('file', tmp_path, name='n'), never, SEARCH, 10)

def test_half_a_line_is_cut_off(tmp_path):
    run_study(opened('file', tmp_path), learn, SEARCH, 3)
    f = tmp_path/'study.log'
    whole = f.read_bytes()
    f.write_bytes(whole + whole.splitlines()[-1][:17])
    run_study(opened('file', tmp_path), learn, SEARCH, 5)
    assert len(opened('file', tmp_path).trials)==5 and f.read_bytes().startswith(whole)
    (tmp_path/'empty.log').touch(); open_study(open_storage(tmp_path/'empty.log'), 's', {})

def test_a_lock_left_behind_is_released(tmp_path):
    run_study(opened('file', tmp_path), learn, SEARCH, 1)
    lock = tmp_path/'study.log.lock'
    lock.touch()
    threading.Timer(.3, lock.unlink).start() # as Optuna does after 30 s; here only: who waits gets it
    assert len(opened('file', tmp_path).trials)==1

def test_other_studies_are_refused(tmp_path):
    run_study(opened('file', tmp_path), learn, SEARCH, 2)
    storage = open_storage(tmp_path/'study.log')
    with pytest.raises(TrainError, match="space.lr was .*, is .*"): open_study(storage, 's', asdict(replace(SEARCH, space=SPACE | {'lr': [.1]})))
    with pytest.raises(TrainError, match="recipe was 'best', is 'fast'"): open_study(storage, 's', asdict(replace(SEARCH, recipe='fast')))
    study = optuna.load_study(study_name='s', storage=storage)
    study.set_user_attr('drone_seg', study.user_attrs['drone_seg'] | dict(format='drone_seg study 7', versions={'drone_seg':'9.0'}))
    was = (tmp_path/'study.log').read_bytes()
    with pytest.raises(TrainError, match="another version .*study 7.*9.0.*another name or file"): opened('file', tmp_path)
    assert (tmp_path/'study.log').read_bytes()==was
    optuna.create_study(storage=storage, study_name='theirs').ask()
    with pytest.raises(TrainError, match='another program'): open_study(storage, 'theirs', {})
    assert len(study.trials)==2 # nothing was lost

def test_importance_is_drawn_of_ten_trials_or_more():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0), direction='maximize')
    def of(n):
        while len(study.trials)<n: study.optimize(lambda t: t.suggest_float('lr', 0, 1) + .01*t.suggest_float('wd', 0, 1), n_trials=1)
        axes = Tuned([(Search({'lr': dict(low=0., high=1.), 'wd': dict(low=0., high=1.)}), study)], {}).plot().axes
        assert all(v==int(v) for v in axes[0].get_xticks()) # trials are whole
        return len(axes[1].patches),[t.get_text() for t in axes[1].texts]
    assert of(9)==(0, ['not to be told\nfrom so few trials'])
    assert of(12)==(2, [])

def test_files_of_others_are_refused(tmp_path):
    for k,content in enumerate((b'hello\nworld\n', b'{"a": 1}\n{"b": 2}\n', b'\x00\xff\n'*9)):
        f = tmp_path/f'{k}.log'; f.write_bytes(content)
        with pytest.raises(TrainError, match='cannot keep a study there'): open_study(open_storage(f), 's', {})
        assert f.read_bytes()==content
    with pytest.raises(TrainError, match='cannot keep a study there'): open_storage(tmp_path)
    with pytest.raises(TrainError, match='cannot keep a study there'): open_storage('nosuch://x')

def test_a_database_of_another_version(tmp_path):
    import sqlite3
    opened('database', tmp_path)
    with sqlite3.connect(tmp_path/'study.db') as db: db.execute("update alembic_version set version_num='v9.9.9.z'")
    with pytest.raises(TrainError, match='cannot keep a study there'): opened('database', tmp_path)

@pytest.mark.parametrize('space, says', [({}, 'at least one'), ([], 'dictionary'), ({'lr': []}, 'list of choices'), ({'lr': 'ce'}, 'list of choices'), ({'batch': {'low':1}}, 'low and high'),
    ({'batch': dict(low=2, high=1)}, 'low <= high'), ({'lr': dict(low=0., high=1., log=True)}, 'low > 0'), ({'lr': dict(low=1, high=3, lgo=True)}, 'lgo'), ({'batch': dict(low=1, high=8, log=True, step=2)}, 'step'),
    ({'lr': dict(low=1., high=float('inf'))}, 'lr=inf')])
def test_odd_spaces(space, says):
    with pytest.raises(TrainError, match=says): Search(space).check({})

def test_what_is_tried():
    "Whole numbers stay whole, steps are kept, choices of any kind come back as they were"
    space = {'i': dict(low=1, high=9), 'f': dict(low=1., high=9), 's': dict(low=0., high=1., step=.25), 'j': dict(low=1, high=1000, log=True), 'c': [None, True, 'x', 3, [96, 144], {'a': [1]}]}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0)); search = Search(space)
    drawn = [search.tried(study.ask(search.distributions).params) for _ in range(200)]
    for d in drawn:
        assert type(d['i']) is int and 1<=d['i']<=9 and type(d['f']) is float and d['s']*4==int(d['s']*4) and type(d['j']) is int
    assert {d['i'] for d in drawn}==set(range(1, 10)) and {json.dumps(d['c']) for d in drawn}=={json.dumps(o) for o in space['c']}
    assert 30<sum(d['j']<=10 for d in drawn)<110 # a third of a logarithmic range of three decades


# On a data set

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    write_scenes(folder, 12, size=(64,96), seed=2)
    return __import__('drone_seg.data.datasets', fromlist=['']).open_dataset(folder)

SMALL = dict(network='fpn', encoder='test_resnet', weights=None, size=(64,96), batch=3, epochs=2, freeze_epochs=0)

def test_the_winner_is_scored_on_the_test_side_even_if_stopped_before(data, tmp_path, monkeypatch, capsys):
    from types import SimpleNamespace
    from drone_seg.runs.winner import train_winner
    from drone_seg.models.bundle import load_bundle
    from drone_seg.train.recipes import recipe
    import drone_seg.runs.published # before anything is patched, or it would keep what it was given
    split = data.split('random', valid=.25, test=.25, progress=False)
    found,out = SimpleNamespace(winner=recipe('best', **SMALL), split=split),tmp_path/'winner'
    def stopped(*args, **kwargs): raise KeyboardInterrupt
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr('drone_seg.runs.evaluate.save_scores', stopped)
        train_winner(found, data, out, 0)
    trained = (out/'history.csv').read_text()
    train_winner(found, data, out, 0)
    assert load_bundle(out).scores['stems']=='test photos of the split' and json.loads((out/'scores.json').read_text())['stems']==split.test and (out/'history.csv').read_text()==trained
    train_winner(SimpleNamespace(winner=replace(found.winner, about='of more trials'), split=split), data, out, 0)
    assert 'trained already' in capsys.readouterr().out
    with pytest.raises(DroneSegError, match='an earlier winner'): train_winner(SimpleNamespace(winner=replace(found.winner, lr=1e-4), split=split), data, out, 0)

def test_trials_are_trainings_and_test_photos_are_not_read(data, tmp_path, monkeypatch):
    from drone_seg.data.pair import Pair
    import drone_seg.train.tune as page
    seen,done,train = set(),[],page.train_recipe
    for name in ('photo','both'):
        own = getattr(Pair, name)
        monkeypatch.setattr(Pair, name, lambda self, *args, own=own, **kwargs: seen.add(self.stem) or own(self, *args, **kwargs))
    monkeypatch.setattr(page, 'train_recipe', lambda *args, **kwargs: done.append(train(*args, **kwargs)) or done[-1])
    split = data.split('random', valid=.25, test=.25, progress=False)
    said = []
    tuned = tune(data, {'lr': [1e-3, 1e-2], 'loss': ['ce','ce + dice']}, 2, tmp_path/'study.log', split=split, say=said.append, **SMALL)
    assert seen==set(split.train+split.valid) and len(split.test)==3
    assert len(done)==len(tuned.trials)==2 and sum(str(s).startswith('trial ') for s in said)==2
    for t,run in zip(tuned.trials, done):
        mious = [r['miou'] for r in run.history]
        assert len(mious)==2 and list(tuned.stages[0][1].trials[t['number']].intermediate_values.values())==pytest.approx(mious) and t['miou']==pytest.approx(max(mious))
        assert {k:getattr(run.recipe, k) for k in ('lr','loss')}==t['overrides'] and run.recipe.size==(64,96)
    best = max(tuned.trials, key=lambda t: t['miou'])
    assert tuned.winner.lr==best['overrides']['lr'] and tuned.winner.loss==best['overrides']['loss'] and tuned.winner.batch==3
    assert 'optimistic' in repr(tuned) and '3 test photos' in repr(tuned)
    other = Split(split.train, split.test, test=split.valid)
    with pytest.raises(TrainError, match='the split is another'): tune(data, tuned.stages[0][0], 2, tmp_path/'study.log', split=other, **SMALL)
    assert 'no test side' in repr(replace(tuned, split=Split(split.train, split.valid)))

def test_a_stopped_trial_says_nothing_and_trains_no_further(data, capfd):
    from drone_seg.train.tune import trainer
    heard = []
    def report(miou, epoch):
        heard.append(epoch)
        if epoch==1: raise optuna.TrialPruned
    split = Split(data.stems[:6], data.stems[6:9])
    with pytest.raises(optuna.TrialPruned): trainer(Search({'lr': [.1, .2]}), data, split, **SMALL | dict(epochs=3, final_epochs=2))(dict(lr=1e-3), report)
    assert heard==[1] and 'nothing is saved' not in capfd.readouterr().err

def made_up(monkeypatch):
    import drone_seg.train.tune as page
    monkeypatch.setattr(page, 'trainer', lambda *args, **kwargs: learn)
    monkeypatch.setattr(page.Search, 'check', lambda *args: None)

def test_stages_narrow_the_space(data, tmp_path, monkeypatch):
    made_up(monkeypatch)
    go = lambda n: tune(data, replace(SEARCH, stages=3), n, tmp_path/'study.log', split='random', say=None)
    first = go(30)
    spaces = lambda found: [search.space for search,_ in found.stages]
    assert [len(s.trials) for _,s in first.stages]==[10]*3
    for wide,close in zip(spaces(first), spaces(first)[1:]):
        assert wide['lr']['low']<=close['lr']['low']<3e-3<close['lr']['high']<=wide['lr']['high']
        assert wide['lr']['high']/wide['lr']['low']>close['lr']['high']/close['lr']['low'] and set(close['loss'])<=set(wide['loss'])
        assert 'dice' in close['loss']
    again = go(30)
    assert again.trials==first.trials and spaces(again)==spaces(first)
    more = go(36) # more trials in each stage, in the spaces that are there
    assert spaces(more)==spaces(first) and [len(s.trials) for _,s in more.stages]==[12]*3
    assert again.best['miou']>=.55

def test_narrow_by_hand():
    narrow = lambda space, trials: Search(space).narrowed(trials).space
    trial = lambda lr, batch, loss, miou: (dict(lr=lr, batch=batch, loss=loss), miou)
    trials = [trial(1e-2, 32, 'dice', .9), trial(2e-2, 40, 'dice', .8), trial(1e-2, 32, 'dice', .7)] + [trial(1e-4, 16, 'ce', .1)]*9
    res = narrow(SPACE, trials) # the best quarter: three of twelve
    assert res['loss']==['dice'] and res['batch']==dict(low=32, high=40, step=8) # 28.8..43.2 on the grid
    assert res['lr']['low']==pytest.approx(1e-2/10**.3) and res['lr']['high']==pytest.approx(2e-2*10**.3) and res['lr']['log']
    assert narrow({'n': dict(low=1, high=11)}, [(dict(n=n), n/10) for n in (1,11,10,10)])['n']==dict(low=9, high=11)
    assert narrow({'c': [[1,2],[3]]}, [(dict(c=[3]), 1.)]*3+[(dict(c=[1,2]), 0.)])['c']==[[3]]
    with pytest.raises(TrainError, match='too few'): narrow(SPACE, trials[:1])

def test_choices_of_any_kind_come_back(data, tmp_path, monkeypatch):
    made_up(monkeypatch)
    import drone_seg.train.tune as page
    monkeypatch.setattr(page, 'trainer', lambda *args, **kwargs: lambda o, report: sum(o['size'])/1000)
    tuned = tune(data, {'size': [[64,96],[96,144]], 'weights': [None,'auto']}, 8, tmp_path/'s.log', split='random', say=None)
    assert tuned.best['overrides']['size']==[96,144] and tuned.winner.size==(96,144) and {t['overrides']['weights'] for t in tuned.trials}=={None,'auto'}
    tuned.save(tmp_path/'out')
    assert {f.name for f in (tmp_path/'out').iterdir()}=={'winner.json','trials.csv','search.png'}
    from drone_seg.train.recipes import Recipe
    assert Recipe.from_dict(json.loads((tmp_path/'out'/'winner.json').read_text()))==tuned.winner

def test_settings_no_recipe_has(data, tmp_path):
    for space,says in (({'lrr': [.1]}, "no 'lrr'"), ({'wd': dict(low=-1., high=1.)}, 'wd=-1'), ({'loss': ['ce','luck']}, 'luck'), ({'batch': [2,4]}, 'both searched and fixed')):
        with pytest.raises(DroneSegError, match=says): tune(data, space, 2, tmp_path/'s.log', split='random', **SMALL)
    assert not (tmp_path/'s.log').exists()
    with pytest.raises(TrainError, match='trials=0; it is a whole number'): tune(data, 'best', 0, tmp_path/'s.log')
    for k,s in searches.items():
        s.check(s.fixed)

def test_say_hears_of_epochs_too_and_of_the_split_once(monkeypatch):
    "`tune(say=...)` left the lines of epochs to print, and each trial told the split that all have"
    import drone_seg.train.tune as m
    asked,said = {},[]
    monkeypatch.setattr(m, 'train_recipe', lambda *args, **kw: asked.update(kw))
    m.trainer(m.Search({'lr': [.1, .2]}), None, None, say=said.append)({}, None)
    for line in ('epoch 0', Split(['a'], ['b'])): asked['say'](line)
    assert said==['epoch 0']
