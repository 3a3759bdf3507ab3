"Bundles: the same model on the other side, nothing run and nothing allocated on the word of a stranger, to the hub and back"
import hashlib, io, json, os, pickle, re, struct, subprocess, sys, threading, base64
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import numpy as np
import pytest, torch, yaml
from safetensors.torch import load_file, save_file
from drone_seg.fields import DroneSegError, ModelError
from drone_seg.classes import ClassTable
from drone_seg.models.bundle import Bundle, load_bundle
from drone_seg.models.hub import from_hub, model_card, push_to_hub
from drone_seg.models.unet import create_unet

TABLE = ClassTable(['void','road','grass','car'], [(0,0,0),(128,64,128),(0,102,0),(9,143,150)], void=['void'])
SPLIT = dict(train=['a','b'], valid=['c'], test=[], by='place', seed=0, data='street', about={})
SCORES = dict(miou=.5, photos=1, definition='Set-wide', per_class=[dict(name='road', iou=.75, pixels=12), dict(name='car', iou=None, pixels=0)])

def make(**kw):
    torch.manual_seed(0)
    net = create_unet('test_resnet', TABLE.n, widths=[16]*4).eval()
    for m in net.modules(): # so that running statistics are not those of a fresh network
        if isinstance(m, torch.nn.BatchNorm2d): m.running_mean.uniform_(-.1, .1); m.running_var.uniform_(.5, 1.5)
    return Bundle(net, TABLE, (64,96), (640,960), .1, data='street', split=SPLIT, scores=SCORES, training=dict(arch='test_resnet', lr=1e-3), **kw)

@pytest.fixture
def saved(tmp_path): return make().save(tmp_path/'b')

def edit(folder, **kw):
    "Changed keys of bundle.json; None takes a key out"
    f = folder/'bundle.json'
    d = json.loads(f.read_text()) | kw
    f.write_text(json.dumps({k:v for k,v in d.items() if v is not Gone}))
    return folder
class Gone: pass

def refused(folder, *words, error=DroneSegError):
    with pytest.raises(error) as e: load_bundle(folder)
    s = str(e.value)
    assert '\n' not in s and len(s)<700 and all(w in s for w in words), s


# The same model on the other side

def test_logits_are_the_same_bits_in_another_process(tmp_path):
    archs = ['tf_efficientnet_lite0', 'resnet18', 'convnext_atto']
    for arch in archs:
        torch.manual_seed(0)
        b = Bundle(create_unet(arch, TABLE.n).eval(), TABLE, (64,96))
        x = torch.rand(2,3,61,95)
        with torch.no_grad(): save_file(dict(x=x, y=b.net(x).contiguous()), tmp_path/f'{arch}.safetensors')
        b.save(tmp_path/arch)
    code = f"""
import sys, torch
from safetensors.torch import load_file
from drone_seg.models.bundle import load_bundle
torch.set_num_threads(1)
for arch in {archs}:
    d = load_file(arch+'.safetensors')
    with torch.no_grad(): y = load_bundle(arch).net(d['x'])
    print('same' if torch.equal(y, d['y']) else (arch, (y-d['y']).abs().max().item()))
print([m for m in sys.modules if m.startswith(('fastai', 'drone_seg.train', 'drone_seg.data')) and 'data.class_' not in m and m!='drone_seg.data'])"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, env=os.environ | dict(PYTHONPATH=str(Path(__file__).parents[1]), OMP_NUM_THREADS=str(torch.get_num_threads())))
    assert r.stdout.split()==['same']*3+['[]'], r.stdout+r.stderr

def test_predictions_are_the_same_pixels(saved):
    b,photo = make(),np.random.default_rng(0).integers(0, 256, (150,200,3), dtype=np.uint8)
    want = b.predict(photo, progress=False).ids
    got = load_bundle(saved).predict(photo, progress=False).ids
    assert got.shape==(150,200) and (got==want).all() and len(np.unique(want))>1

def test_everything_comes_back(saved):
    a,b = make(),load_bundle(saved)
    for k in ('classes','size','photo_size','gsd','scale','data','split','scores','training'): assert getattr(a, k)==getattr(b, k), k
    assert b.versions['torch']==torch.__version__.split('+')[0] and not b.net.training
    assert all(torch.equal(v, b.net.state_dict()[k]) for k,v in a.net.state_dict().items())
    edit(saved, versions=dict(torch='1.0')) # those that made it stay when it is saved again
    assert load_bundle(load_bundle(saved).save(saved.parent/'again')).versions==dict(torch='1.0')

def test_it_lies_in_two_files_that_any_program_can_read(saved):
    assert sorted(f.name for f in saved.iterdir())==['bundle.json','weights.safetensors']
    d = json.loads((saved/'bundle.json').read_text())
    assert d['normalisation']['mean']==pytest.approx([.5,.5,.5]) and d['network']['encoder']=='test_resnet'
    assert len(load_file(saved/'weights.safetensors'))==len(make().net.state_dict())

def test_numbers_of_numpy_and_undefined_scores_are_written(tmp_path):
    b = make()
    b.scores = dict(miou=np.float64(.25), empty=float('nan'), n=np.int64(3), rows=np.arange(2), path=Path('x'))
    assert load_bundle(b.save(tmp_path)).scores==dict(miou=.25, empty=None, n=3, rows=[0,1], path='x')

def test_failed_training_and_half_precision_are_not_saved(tmp_path):
    b = make()
    with pytest.raises(ModelError, match='call net.float'): Bundle(b.net.half(), TABLE, (64,96)).save(tmp_path)
    b.net.float().head.bias.data[0] = float('nan')
    with pytest.raises(ModelError, match='not finite'): b.save(tmp_path)
    assert list(tmp_path.iterdir())==[]

@pytest.mark.parametrize('change,word', [(dict(size=(64.,64.)), 'size'), (dict(temperature=50), 'temperature'), (dict(gsd=-1.), 'gsd'), (dict(data='x'*2000), 'data'),
    (dict(classes=ClassTable(['a','b'])), '3 classes, the class table has 2'), (dict(scores=dict(x={1,2})), 'as JSON')])
def test_what_no_bundle_holds_is_not_written(tmp_path, change, word):
    b = make()
    for k,v in change.items(): setattr(b, k, v)
    with pytest.raises(ModelError, match=word) as e: b.save(tmp_path)
    assert list(tmp_path.iterdir())==[] and '\n' not in str(e.value) and 'damaged' not in str(e.value)

def test_a_description_no_bundle_holds_is_not_written(tmp_path):
    b = make()
    for odd in (8192, torch.nn.ReLU, 'hf-hub:x/y'):
        b.net.config = dict(b.net.config, widths=odd)
        with pytest.raises(ModelError, match='which no bundle holds'): b.save(tmp_path)
    assert list(tmp_path.iterdir())==[]

def test_other_peoples_networks_are_shown_and_refused(tmp_path):
    import segmentation_models_pytorch as smp
    for net in (smp.Unet('resnet18', encoder_weights=None, classes=3), torch.nn.Conv2d(3, 3, 1)):
        b = Bundle(net, TABLE, (64,96))
        assert type(net).__name__ in repr(b)
        with pytest.raises(ModelError, match=f'^{type(net).__name__} has no .*made by name'): b.save(tmp_path)

def test_interrupted_writing_leaves_no_bundle(saved, monkeypatch):
    import drone_seg.models.bundle as m
    real = m.replacing
    def stopped(path):
        if path.name=='bundle.json': raise KeyboardInterrupt
        return real(path)
    monkeypatch.setattr(m, 'replacing', stopped)
    b = make(); b.net.head.bias.data += 1
    with pytest.raises(KeyboardInterrupt): b.save(saved)
    refused(saved, 'not the weights')

def test_a_network_with_moved_strides_is_built_again(tmp_path):
    "ResNet v1 has the tensors of v1.5, so only its name tells them apart"
    a = Bundle(create_unet('resnet50_v1', TABLE.n).eval(), TABLE, (64,96))
    b = load_bundle(a.save(tmp_path/'b'))
    x = torch.rand(1,3,64,96)
    with torch.no_grad(): assert torch.equal(a.net(x), b.net(x))
    assert b.net.encoder.layer2[0].conv1.stride==(2,2) and b.net.encoder.layer2[0].conv2.stride==(1,1)

@pytest.mark.parametrize('in_chans', [1, 2, 5, 12])
def test_other_bands_come_back(tmp_path, in_chans):
    a = Bundle(create_unet('test_resnet', TABLE.n, widths=[16]*4, in_chans=in_chans).eval(), TABLE, (64,96))
    b = load_bundle(a.save(tmp_path/'b'))
    x = torch.rand(1,in_chans,40,64)
    with torch.no_grad(): assert torch.equal(a.net(x), b.net(x))


# Nothing is run, nothing is believed

class Bomb:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)

@pytest.mark.parametrize('name', ['model.pkl', 'model.pth', 'bundle.json', 'weights.safetensors'])
def test_a_pickle_is_never_opened(saved, tmp_path, name):
    "Under its own name or that of one of our files"
    evil = pickle.dumps(Bomb(tmp_path/'ran'))
    (saved/name).write_bytes(evil)
    if name=='weights.safetensors': edit(saved, weights_sha256=hashlib.sha256(evil).hexdigest())
    refused(saved/name if name.startswith('model') else saved)
    assert not (tmp_path/'ran').exists()
    pickle.loads(evil) # the bomb is a bomb
    assert (tmp_path/'ran').exists()

def test_a_learner_export_is_refused_in_words(saved):
    (saved/'export.pkl').write_bytes(pickle.dumps(1))
    refused(saved/'export.pkl', 'a pickled model can run any code')

NET = dict(name='unet', encoder='test_resnet', widths=[16]*4, n_classes=3, in_chans=3)
@pytest.mark.parametrize('change,words', [
    (dict(extra=1), ["'extra'"]), ({'a\nb':1}, [r"'a\nb'"]), (dict(scores=Gone), ['no scores']), (dict(format='other'), ["'other'"]), (dict(format=['x']*10**5), ['format']),
    (dict(weights='../../secret.safetensors'), ["'weights'"]),
    (dict(network=NET | dict(weights='../../secret.pth')), ["'weights'"]), (dict(network=NET | dict(pretrained=True)), ["'pretrained'"]),
    (dict(network=NET | dict(checkpoint_path='x')), ["'checkpoint_path'"]), (dict(network=NET | dict(options=dict(pretrained=True))), ["'pretrained'"]),
    (dict(network=NET | dict(encoder='hf-hub:evil/net')), ['hf-hub:evil/net', 'which no bundle holds']), (dict(network=NET | dict(encoder='local-dir:/etc')), ['local-dir', 'which no bundle holds']),
    (dict(network=NET | dict(encoder='../../etc')), ['../../etc', 'which no bundle holds']), (dict(network=NET | dict(encoder='/etc/x')), ['/etc/x', 'which no bundle holds']), (dict(network=NET | dict(encoder='a/b/c')), ['a/b/c', 'which no bundle holds']),
    (dict(network=NET | dict(encoder='resnet35')), ['cannot be built']), (dict(network=NET | dict(encoder='x\ny')), ["'x\\ny'"]), (dict(network=NET | dict(encoder='')), ["''"]),
    (dict(network=NET | dict(unknown=3)), ['cannot be built']), (dict(network=NET | dict(name='os.system')), ['not known']), (dict(network=NET | dict(name=['unet'])), ['not known']),
    (dict(network=[]), ['network is']), (dict(network='unet'), ['network is']),
    (dict(network=NET | dict(n_classes=10**6)), ['1000000', 'up to 4096']), (dict(network=NET | dict(n_classes=-1)), []), (dict(network=NET | dict(n_classes=4)), ['4 classes', 'table has 3']),
    (dict(network=NET | dict(in_chans=10**9)), ['1000000000']), (dict(network=NET | dict(in_chans=4096)), ['do not fit the network']), (dict(network=NET | dict(in_chans=0)), []),
    (dict(network=NET | dict(widths=[10**9])), ['1000000000']), (dict(network=NET | dict(widths=[64]*10**5)), ['which no bundle holds']), (dict(network=NET | dict(widths=[[[[[[1]]]]]])), ['which no bundle holds']),
    (dict(network=NET | dict(widths=[1e300])), ['1e+300']), (dict(network=NET | dict(encoder='resnet18')), ['do not fit the network']),
    (dict(classes=[]), []), (dict(classes='road'), ['classes']), (dict(classes=[dict(name=f'c{i}') for i in range(10**4)]), ['classes']), (dict(classes=[dict(name='a', evil=1)]), ['classes']),
    (dict(classes=[dict(name='a', id=300)]), ['300']), (dict(classes=[dict(name='a', aliases=5)]), ['classes']), (dict(classes=[1]), ['classes']), (dict(classes=[dict(name='a', color='no')]), ['no']),
    (dict(size='abc'), ["size is 'abc'"]), (dict(size=[0,5]), ['size']), (dict(size=[True,5]), ['size']), (dict(size=[10**9,5]), ['size']), (dict(size=None), ['size']), (dict(photo_size=[1]), ['photo_size']),
    (dict(gsd=-1), ['gsd']), (dict(gsd='x'), ['gsd']), (dict(gsd=True), ['gsd']), (dict(scale=10**400), ['scale']), (dict(scale=0), ['scale']), (dict(data=5), ['data']), (dict(data='x'*10**5), ['data']),
    (dict(split=[]), ['split']), (dict(split=dict(train='abc')), ['split']), (dict(split=dict(train=[1])), ['split']), (dict(scores=[]), ['scores']), (dict(training=1), ['training']),
    (dict(versions=dict(torch=1)), ['versions']), (dict(normalisation={}), ['normalisation']), (dict(normalisation=dict(mean=[.485,.456,.406], std=[.229,.224,.225])), ['not the network']),
    (dict(weights_sha256='../x'), ['weights_sha256']), (dict(weights_sha256='0'*64), ['not the weights'])], ids=lambda v: re.sub(r'\W+', '-', str(v))[:40] if isinstance(v, dict) else '')
def test_a_changed_json_is_refused_in_one_line(saved, change, words): refused(edit(saved, **change), *words)

@pytest.mark.parametrize('change,words', [
    (lambda t: t.encode().replace(b'street', b'stre\xff\xfet'), ['utf-8']), (lambda t: t.encode('utf-16'), ['not JSON']), (lambda t: b'', ['not JSON']), (lambda t: b'\xef\xbb\xbf'+t.encode(), ['BOM']),
    (lambda t: t.replace('"gsd": 0.1', '"gsd": NaN').encode(), ['NaN is no number']), (lambda t: t.replace('"gsd": 0.1', '"gsd": -Infinity').encode(), ['-Infinity']),
    (lambda t: t.replace('"gsd": 0.1', '"gsd": 1e999').encode(), ['1e999']), (lambda t: t.replace('"gsd": 0.1', '"gsd": 1'+'0'*10**5).encode(), ['not JSON']),
    (lambda t: t.replace('"gsd": 0.1', '"gsd": 0.1, "gsd": 0.2').encode(), ["'gsd' occurs twice"]), (lambda t: t.replace('"miou": 0.5', '"miou": 0.5, "miou": 0.9').encode(), ["'miou' occurs twice"]),
    (lambda t: t.replace('"gsd": 0.1', '"gsd": '+'['*10**6+']'*10**6).encode(), ['not JSON']),
    (lambda t: ('[' + t + ']').encode(), ['format']), (lambda t: b'null', ['format']), (lambda t: t[:len(t)//2].encode(), ['not JSON'])])
def test_a_broken_json_is_refused_in_one_line(saved, change, words):
    f = saved/'bundle.json'
    new = change(f.read_text())
    assert new!=f.read_bytes(), 'the case changes nothing'
    f.write_bytes(new)
    refused(saved, *words, error=ModelError)

def test_an_enormous_json_is_not_read(saved):
    with open(saved/'bundle.json', 'r+b') as f: f.truncate(100<<30) # a hole, takes no room
    refused(saved, 'MB')

@pytest.mark.parametrize('name', ['bundle.json', 'weights.safetensors'])
def test_links_out_of_the_folder_are_refused(saved, tmp_path, name):
    outside = (saved/name).rename(tmp_path/'elsewhere')
    (saved/name).symlink_to(outside)
    refused(saved, 'a link out of', error=ModelError)
    (saved/name).unlink(); outside.rename(saved/'within'); (saved/name).symlink_to('within') # a link within is no harm
    load_bundle(saved)

def test_a_linked_folder_is_a_folder(saved, tmp_path):
    (tmp_path/'link').symlink_to(saved)
    assert load_bundle(tmp_path/'link').data=='street'

@pytest.mark.parametrize('name', ['bundle.json', 'weights.safetensors'])
def test_a_missing_file_a_folder_or_a_pipe_in_its_place(saved, name):
    (saved/name).unlink()
    refused(saved, name)
    os.mkfifo(saved/name) # opening it would wait for ever
    refused(saved, name)
    (saved/name).unlink(); (saved/name).mkdir()
    refused(saved, name)

@pytest.mark.parametrize('name', ['bundle.json','weights.safetensors'])
def test_a_file_of_the_bundle_is_told_of_its_folder(saved, name):
    with pytest.raises(ModelError, match='a file; pass the folder'): load_bundle(saved/name)

def raw(header, data=b''):
    h = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(h)) + h + data
def tensor(shape, a, b, dtype='F32'): return dict(dtype=dtype, shape=shape, data_offsets=[a, b])

@pytest.mark.parametrize('content', [
    raw(dict(w=tensor([10**6,10**6], 0, 4*10**12))), raw(dict(w=tensor([10**12], 0, 4)), b'1234'), raw(dict(w=tensor([-1], 0, 4)), b'1234'), raw(dict(w=tensor([1], -4, 0)), b'1234'),
    raw(dict(w=tensor([2**32,2**32], 0, 0))), raw(dict(a=tensor([2], 0, 8), b=tensor([2], 4, 12)), b'0'*12), raw(dict(a=tensor([1], 0, 4)), b''), raw(dict(a=tensor([1], 0, 4)), b'0'*400),
    raw(dict(w=tensor([1], 0, 4, 'PICKLE')), b'1234'), raw(b'{"w":'), raw(b'[]'), raw(b'\xff\xfe'), raw({}), raw(dict(w=tensor([0,10**12], 0, 0))),
    struct.pack('<Q', 2**63) + b'{}', struct.pack('<Q', 10**11) + b'{}', b'', b'1234', raw(dict(__metadata__={'a':1}, w=tensor([1], 0, 4)), b'1234'), raw(b'{"a":'*10**5)],
    ids=['terabytes','elements','negative','offset','overflow','overlap','truncated','surplus','dtype','json','list','utf8','empty-header','no-elements','header-2^63','header-100GB','empty','short','metadata','deep'])
def test_absurd_tensor_files_are_refused(saved, content):
    (saved/'weights.safetensors').write_bytes(content)
    refused(edit(saved, weights_sha256=hashlib.sha256(content).hexdigest()), 'weights.safetensors', error=ModelError)

@pytest.mark.parametrize('change', [lambda s: s.pop('head.bias'), lambda s: s.update(more=torch.zeros(3)), lambda s: s.update({'head.bias':torch.zeros(4)}),
    lambda s: s.update({'head.bias':torch.zeros(3, dtype=torch.float64)}), lambda s: s.update({'head.bias':torch.zeros(3).half()}), lambda s: s.update({'a\nb':torch.zeros(3)})])
def test_other_tensors_are_refused(saved, change):
    w = saved/'weights.safetensors'
    state = load_file(w); change(state); save_file(state, w)
    refused(edit(saved, weights_sha256=hashlib.sha256(w.read_bytes()).hexdigest()), 'do not fit the network', error=ModelError)

@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='reads /proc')
def test_no_memory_is_taken_on_the_word_of_a_json(saved, program):
    "Four blocks of 4096 channels are 5 GB; the file holds none of them"
    edit(saved, network=NET | dict(widths=[4096]*4))
    code = f"""
from drone_seg.fields import ModelError
from drone_seg.models.bundle import load_bundle
def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) >> 10 # ru_maxrss starts with that of the parent process
before = peak()
try: load_bundle({str(saved)!r})
except ModelError as e: print(peak()-before, e)"""
    grown,_,words = program(code).stdout.partition(' ')
    assert 'do not fit the network' in words and int(grown)<300, f'{grown} {words}'


# The card

def front(card): return yaml.safe_load(card.split('---\n')[1])

def test_card_says_what_the_hub_and_people_ask():
    card = model_card(make(), 'me/street', license='cc-by-nc-4.0')
    d = front(card)
    assert (d['license'], d['library_name'], d['pipeline_tag'], d['metrics'])==('cc-by-nc-4.0', 'drone_seg', 'image-segmentation', ['mean_iou'])
    assert d['model-index'][0]['results'][0]['metrics'][0]['value']==.5 and 'drone' in d['tags']
    for s in ('test_resnet', 'street', '96x64', '960x640', '10 cm', '| 1 | road | #804080 | 0.75 | 12 |', 'void', 'Set-wide', '2 photos trained it, 1 judged it', 'place',
              "from_hub('me/street')", 'other places, heights, cameras', '0.001'): assert s in card, s

def test_card_of_a_bundle_that_knows_little():
    b = make(); b.scores,b.split,b.training,b.gsd,b.photo_size,b.data = {},{},{},None,None,''
    card = model_card(b)
    assert 'not scored' in card and 'not recorded' in card and 'model-index' not in front(card)

def test_names_cannot_break_out_of_the_card():
    b = make()
    b.classes = ClassTable(['void', 'a|b', '<script>', '[x](http://y)\n# head'], void=['void'])
    b.data = "x\n---\nlicense: mit"
    b.scores = dict(per_class=[dict(name=['x'])], miou='high', stems='\n\n# big')
    b.training = dict(weights='/home/me/w.safetensors', other=Path('/home/me/x.pth'), windows='C:\\me\\w.pth', lr=.1)
    card = model_card(b)
    assert front(card)['license']=='unknown' and '<script>' not in card and '\n# head' not in card and '\n# big' not in card and not re.search(r'(?<!\\)\]\(', card)
    assert '/home/me' not in card and 'C:' not in card and 'w.safetensors' in card
    rows = [l for l in card.splitlines() if l.startswith('| ')]
    assert all(len(re.findall(r'(?<!\\)\|', l)) in (3, 4) for l in rows), rows


# To the hub and back: the hub's own client against a server that speaks the part of its protocol that is needed

class Hub(BaseHTTPRequestHandler):
    repos = {} # id -> dict(private, files)
    def log_message(self, *a): pass
    def answer(self, d, code=200, headers=()):
        body = d if isinstance(d, bytes) else json.dumps(d).encode()
        self.send_response(code)
        for k,v in dict(headers).items(): self.send_header(k, v)
        self.send_header('Content-Length', str(len(body))); self.end_headers()
        if self.command!='HEAD': self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.server.seen.append((self.command, self.path))
        if not (self.headers.get('Authorization') or '').endswith('hf_writer'): return self.answer(dict(error='Invalid credentials'), 401)
        if self.path=='/api/repos/create':
            d = json.loads(body)
            name = f"{d.get('organization') or 'me'}/{d['name']}"
            if name in self.repos: return self.answer(dict(error='You already created this model repo', url=f'{self.server.url}/{name}'), 409)
            self.repos[name] = dict(private=bool(d.get('private')) or d.get('visibility')=='private', files={})
            return self.answer(dict(url=f'{self.server.url}/{name}', id=name))
        if self.path=='/api/validate-yaml': return self.answer(dict(errors=[], warnings=[]))
        if m := re.fullmatch(r'/api/models/(.+?)/preupload/main', self.path):
            return self.answer(dict(files=[dict(path=f['path'], uploadMode='regular', shouldIgnore=False) for f in json.loads(body)['files']]))
        if m := re.fullmatch(r'/api/models/(.+?)/commit/main', self.path):
            for line in body.decode().splitlines():
                d = json.loads(line)
                if d['key']=='file': self.repos[m[1]]['files'][d['value']['path']] = base64.b64decode(d['value']['content'])
            return self.answer(dict(success=True, commitOid='c'*40, commitUrl=f'{self.server.url}/{m[1]}/commit/{"c"*40}', hookOutput=''))
        self.answer(dict(error=f'not spoken: {self.path}'), 404)

    def do_GET(self):
        self.server.seen.append((self.command, self.path))
        path = self.path.partition('?')[0]
        if m := re.fullmatch(r'/api/models/([^/]+/[^/]+)/tree/[^/]+', path):
            return self.answer([dict(type='file', path=k, size=len(v), oid=hashlib.sha1(v).hexdigest()) for k,v in self.repos[m[1]]['files'].items()])
        if m := re.fullmatch(r'/api/models/([^/]+/[^/]+)(/revision/.+)?', path):
            if m[1] not in self.repos: return self.answer(dict(error='Repository not found'), 404, {'X-Error-Code':'RepoNotFound'})
            r = self.repos[m[1]]
            return self.answer(dict(id=m[1], modelId=m[1], private=r['private'], sha='c'*40, tags=[], siblings=[dict(rfilename=k) for k in r['files']]))
        if m := re.fullmatch(r'/([^/]+/[^/]+)/resolve/([^/]+)/(.+)', path):
            data = self.repos[m[1]]['files'].get(m[3])
            if data is None: return self.answer(dict(error='Entry not found'), 404, {'X-Error-Code':'EntryNotFound'})
            return self.answer(data, 200, {'ETag':f'"{hashlib.sha1(data).hexdigest()}"', 'X-Repo-Commit':'c'*40, 'Content-Type':'application/octet-stream'})
        self.answer(dict(error=f'not spoken: {self.path}'), 404)
    do_HEAD = do_GET

@pytest.fixture
def hub(monkeypatch, tmp_path):
    import huggingface_hub, huggingface_hub.constants as c
    for v in ('https_proxy','HTTPS_PROXY','http_proxy','HTTP_PROXY','all_proxy','ALL_PROXY'): monkeypatch.delenv(v, raising=False)
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr(c, 'HF_HUB_OFFLINE', False)
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    server.url,server.seen = f'http://127.0.0.1:{server.server_port}',[]
    Hub.repos = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.api = huggingface_hub.HfApi(endpoint=server.url, token='hf_writer')
    yield server
    server.shutdown()

def test_to_the_hub_and_back(hub, saved, tmp_path):
    (saved/'samples').mkdir(); (saved/'samples'/'photo.png').write_bytes(b'a photo'); (saved/'history.csv').write_text('x')
    url = push_to_hub(saved, 'me/street', license='mit', api=hub.api)
    repo = Hub.repos['me/street']
    assert 'me/street' in url and repo['private'] and sorted(repo['files'])==['README.md','bundle.json','weights.safetensors']
    assert front(repo['files']['README.md'].decode())['license']=='mit'
    repo['files']['evil.pkl'] = repo['files']['samples/photo.png'] = b'x'
    b = from_hub('me/street', api=hub.api)
    x = torch.rand(1,3,64,96)
    with torch.no_grad(): assert torch.equal(b.net(x), load_bundle(saved).net(x))
    assert b.split==SPLIT and sorted(f.name for f in b.path.iterdir() if not f.name.startswith('.'))==['bundle.json','weights.safetensors']
    assert not any('evil' in p or 'photo' in p for _,p in hub.seen)

def test_without_the_hub_the_copy_is_used(hub, saved, monkeypatch):
    push_to_hub(load_bundle(saved), 'me/street', api=hub.api)
    from_hub('me/street', api=hub.api)
    hub.shutdown(); hub.server_close()
    assert from_hub('me/street', api=hub.api).data=='street'
    with pytest.raises(ModelError, match='no copy') as e: from_hub('me/other', api=hub.api)
    assert '\n' not in str(e.value)

def test_a_public_repository_is_not_written_to_by_mistake(hub, saved):
    Hub.repos['me/street'] = dict(private=False, files={})
    with pytest.raises(ModelError, match='everybody can see it'): push_to_hub(saved, 'me/street', api=hub.api)
    assert Hub.repos['me/street']['files']=={}
    push_to_hub(saved, 'me/street', private=False, api=hub.api)
    assert len(Hub.repos['me/street']['files'])==3

def test_folders_of_this_machine_are_not_pushed(hub, saved):
    edit(saved, training=dict(weights='/home/me/secret/w.safetensors', lr=.1))
    push_to_hub(saved, 'me/street', api=hub.api)
    d = json.loads(Hub.repos['me/street']['files']['bundle.json'])
    assert d['training']==dict(weights='w.safetensors', lr=.1)

def test_hub_errors_are_one_line(hub, saved):
    import huggingface_hub
    with pytest.raises(ModelError, match='was not written') as e: push_to_hub(saved, 'me/street', api=huggingface_hub.HfApi(endpoint=hub.url, token='hf_reader'))
    assert '\n' not in str(e.value)
    with pytest.raises(ModelError, match='was not fetched') as e: from_hub('me/nothing', api=hub.api)
    assert '\n' not in str(e.value)
    Hub.repos['me/else'] = dict(private=False, files={'model.pkl':b'x'})
    with pytest.raises(ModelError, match='no bundle.json|no such folder'): from_hub('me/else', api=hub.api)
    for bad in ('../x', 'a/b/c', '', 'x y/z'):
        with pytest.raises(ModelError, match='OWNER/NAME'): from_hub(bad)

def test_a_hostile_repository_is_refused_like_a_hostile_folder(hub, saved):
    push_to_hub(saved, 'me/street', api=hub.api)
    files = Hub.repos['me/street']['files']
    files['bundle.json'] = files['bundle.json'].replace(b'test_resnet', b'hf-hub:evil', 1)
    with pytest.raises(ModelError, match='hf-hub:evil'): from_hub('me/street', api=hub.api)

def test_a_unet_predicts_without_fastai_smp_and_albumentations(tmp_path):
    "In a process that has imported nothing"
    make().save(tmp_path/'b')
    code = """import sys, numpy as np
import drone_seg.predict.predict
assert not {'timm','torchvision'} & {*sys.modules}
from drone_seg.models.bundle import load_bundle
load_bundle(sys.argv[1]).predict(np.zeros((64,96,3), np.uint8))
assert not {'fastai','segmentation_models_pytorch','albumentations','matplotlib'} & {*sys.modules}"""
    r = subprocess.run([sys.executable, '-c', code, str(tmp_path/'b')], capture_output=True, text=True)
    assert r.returncode==0, r.stderr
