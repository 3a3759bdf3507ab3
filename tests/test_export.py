"Exported networks against the bundle they came from, and the runner that needs no torch against `Bundle.predict`"
import json, re, subprocess, sys, warnings
from dataclasses import replace
from pathlib import Path

import cv2, numpy as np, pytest, torch
from PIL import Image
from torch import nn

for m in ('onnx', 'onnxscript', 'onnxruntime'): pytest.importorskip(m, reason=f"{m} is not installed (extra `onnx`)")
import onnx, onnxruntime

from drone_seg.fields import ModelError
import drone_seg.export.write as ex
from drone_seg.classes import ClassTable
from drone_seg.photo.images import read_mask, resize_image, save_image
from drone_seg.export.write import *
from drone_seg.export.write import EXPORT_KEY, describe_export
from drone_seg.models.bundle import Bundle, load_bundle
from drone_seg.models.unet import UNet
from drone_seg.models.zoo import create_model
from drone_seg.export.run_onnx import *
from drone_seg.export.run_onnx import resize_photo, area_weights, _open
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene

ROOT = Path(__file__).resolve().parent.parent

class TwoMaps(nn.Module):
    "The smallest encoder that is one"
    def __init__(self, middle=nn.Identity()):
        super().__init__()
        self.a,self.b,self.middle = nn.Conv2d(3, 8, 3, stride=2, padding=1),nn.Conv2d(8, 16, 3, stride=2, padding=1),middle
    def forward(self, x): return [a := self.a(x).relu(), self.middle(self.b(a).relu())]

def make_bundle(size=(64,96), middle=nn.Identity(), **kwargs):
    torch.manual_seed(0)
    net = UNet(TwoMaps(middle), SCENE_CLASSES.n, mean=(.4,.5,.6), std=(.2,.25,.3), widths=(16,8)).eval()
    net.name,net.config = 'unet',dict(encoder='two maps')
    return Bundle(net, SCENE_CLASSES, size, **kwargs)

@pytest.fixture(scope='module')
def tiny(): return make_bundle(gsd=.08, temperature=1.5)

@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('export')

@pytest.fixture(scope='module')
def model(tiny, folder): return export_onnx(tiny, folder/'model.onnx').path

def same(a, b): return float((a==b).mean())


# The default network, through the command line, and a machine without torch

BLOCK = '''
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch','fastai','fastcore','cv2','timm','onnx','onnxscript','matplotlib','scipy','segmentation_models_pytorch'): raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, Block())
import runpy
sys.argv = ['run_onnx', *sys.argv[1:]]
runpy.run_module('drone_seg.export.run_onnx', run_name='__main__')
'''

@pytest.fixture
def one_block_a_stage(monkeypatch):
    "The default encoder with 7 of its 16 blocks, one of each kind: exporting takes as long as there are layers"
    from timm.models import efficientnet
    decode = efficientnet.decode_arch_def
    def short(stages, *args, **kwargs):
        return decode([[re.sub(r'_r\d', '_r1', block) for block in stage] for stage in stages], *args, **kwargs)
    monkeypatch.setattr(efficientnet, 'decode_arch_def', short)

def test_default_network_from_command_line_to_masks_without_torch(tmp_path, one_block_a_stage):
    from typer.testing import CliRunner
    from drone_seg.cli import app
    warnings.filterwarnings('ignore', category=FutureWarning, module='torch')
    torch.manual_seed(0)
    net = create_model(classes=SCENE_CLASSES, weights=None).eval()
    b = Bundle(net, SCENE_CLASSES, (64,96), temperature=1.2, data='drawn scenes')
    b.save(tmp_path/'run')
    r = CliRunner().invoke(app, ['export', str(tmp_path/'run'), '--to', 'onnx', '--out', str(tmp_path/'m.onnx')], catch_exceptions=False)
    assert r.exit_code==0 and 'm.onnx' in r.stdout and 'within' in r.stdout
    m = onnx.load(tmp_path/'m.onnx')
    assert m.ir_version==8 and [(o.domain, o.version) for o in m.opset_import if o.domain=='']==[('', 18)] # what onnxruntime 1.14 reads
    assert b'site-packages' not in (tmp_path/'m.onnx').read_bytes(), "paths of this machine"
    o = OnnxModel(tmp_path/'m.onnx', threads=1)
    assert o.about['weights_sha256']==json.loads((tmp_path/'run'/'bundle.json').read_text())['weights_sha256']
    for shape in ((1,3,32,32), (2,3,96,160), (5,3,64,32)):
        x = torch.rand(shape)
        with torch.no_grad(): assert np.abs(o.ask(x.numpy())-net(x).numpy()).max()<1e-3
    (tmp_path/'photos').mkdir()
    for i,size in enumerate(((130,197), (150,90))): save_image(draw_scene(i, size=size)[0], tmp_path/'photos'/f'{i}.png')
    p = subprocess.run([sys.executable, '-c', BLOCK, tmp_path/'m.onnx', tmp_path/'photos', '--out', tmp_path/'masks', '--threads', '1'], capture_output=True, text=True, cwd=tmp_path, env={'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin'})
    assert p.returncode==0, p.stderr
    for i in range(2):
        want = b.predict(tmp_path/'photos'/f'{i}.png', dtype='fp32')
        want.save(tmp_path/'want.png')
        assert same(read_mask(tmp_path/'masks'/f'{i}.png', SCENE_CLASSES), want.ids)>=.999
        assert Image.open(tmp_path/'masks'/f'{i}.png').getpalette()==Image.open(tmp_path/'want.png').getpalette()

def test_package_alone_brings_nothing():
    code = "import sys, drone_seg.export.run_onnx; print([m for m in sys.modules if m.split('.')[0] in ('torch','fastai','cv2','timm','onnxruntime') or m.startswith('drone_seg.') and m not in ('drone_seg.export','drone_seg.export.run_onnx')])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT).stdout.strip()=='[]'


# The runner against Bundle.predict

@pytest.mark.parametrize('shape, kwargs', [((300,451), {}), ((451,300), {}), ((64,96), {}), ((40,300), {}), ((300,451), dict(scale=1.)), ((300,451), dict(scale=.37)),
    ((200,211), dict(gsd=.05)), ((23,17), {}), ((90,131), dict(scale=2.)), ((70,260), dict(scale=.5)), ((300,452), dict(scale=.5))])
def test_runner_gives_the_masks_of_predict(tiny, model, shape, kwargs):
    im = draw_scene(sum(shape), size=shape)[0]
    got = OnnxModel(model, 1).predict(im, **kwargs)
    assert got.shape==shape and got.dtype==np.uint8
    assert same(got, tiny.predict(im, dtype='fp32', **kwargs).ids)>=.999

def test_windows_that_are_no_multiples_and_a_scale_of_crops(folder):
    "Training size 50x75, stride 4: the runner pads as the network does"
    b = make_bundle((50,75), scale=.5)
    path = export_onnx(b, folder/'odd.onnx').path
    im = draw_scene(1, size=(210,310))[0]
    assert same(OnnxModel(path, 1).predict(im), b.predict(im, dtype='fp32').ids)>=.999

def test_large_picture_by_bands(tiny, model):
    "More rows of windows than fit one band, enlarged afterwards"
    im = cv2.resize(draw_scene(5, size=(200,300))[0], (1500,1000), interpolation=cv2.INTER_CUBIC)
    assert same(OnnxModel(model, 1).predict(im, scale=.4), tiny.predict(im, dtype='fp32', scale=.4).ids)>=.999

def test_real_photo(tiny, model):
    photos = sorted((ROOT.parent/'shared'/'data').rglob('*.jpg'))
    if not photos: pytest.skip("no real photos beside the project")
    assert same(OnnxModel(model, 1).predict(photos[0]), tiny.predict(photos[0], dtype='fp32').ids)>=.999

ALONE = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('drone_seg','torch','fastai','fastcore','timm','onnx','matplotlib','scipy','rasterio'): raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, Block())
import runpy
sys.path.insert(0, sys.argv.pop(1))
runpy.run_path(sys.path[0] + '/run_onnx.py', run_name='__main__')
"""
HOLE = np.zeros((90,140), bool); HOLE[:,:40] = True; HOLE[70:] = True

def odd_photo(folder, how):
    "A photo whose left and lower part show nothing, and say so in one of several ways"
    rasterio = pytest.importorskip('rasterio')
    im = np.clip(draw_scene(2, size=HOLE.shape)[0], 1, 254)
    there = np.where(HOLE, 0, 255).astype(np.uint8)
    if how=='png': Image.fromarray(np.dstack([im, there])).save(folder/'p.png'); return folder/'p.png'
    a = np.moveaxis(im, 2, 0).astype(np.uint16 if how=='12 bits' else np.uint8)
    if how=='12 bits': a = a*16
    if how!='internal mask': a[:,HOLE] = 0
    what = dict(nodata=0) if how in ('nodata','12 bits') else {}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter('ignore')
        with rasterio.open(folder/'p.tif', 'w', driver='GTiff', height=90, width=140, count=3, dtype=a.dtype, photometric='RGB', **what) as f:
            f.write(a)
            if how=='internal mask': f.write_mask(there)
    return folder/'p.tif'

@pytest.mark.parametrize('how', ['png','nodata','internal mask','12 bits','black margin'])
def test_runner_reads_photos_as_predict_does(tiny, model, how, tmp_path):
    "Also from copies of its two files, where there is no library"
    b,path = tiny,model
    if how=='12 bits':
        b = replace(tiny, photos=(3,(0,4095)))
        path = altered(model, tmp_path, 'deep.onnx', lambda m: set_about(m, photos=describe_export(b)['photos']))
    photo = odd_photo(tmp_path, how)
    border = ['--void-border'] if how=='black margin' else []
    want = b.predict(photo, dtype='fp32', void_border=bool(border)).ids
    assert ((want==SCENE_CLASSES.void_id)==HOLE).all() and len(np.unique(want[~HOLE]))>1
    got = OnnxModel(path, 1).predict(photo, void_border=bool(border))
    assert ((got==SCENE_CLASSES.void_id)==HOLE).all() and same(got, want)>=.999
    for f in ('export/run_onnx.py','photo/photo_file.py'): (tmp_path/Path(f).name).write_text((ROOT/'drone_seg'/f).read_text())
    p = subprocess.run([sys.executable, '-c', ALONE, tmp_path, path, photo, '--out', tmp_path/'masks', *border], capture_output=True, text=True, cwd=tmp_path, env={'PATH': '/usr/bin'})
    assert p.returncode==0, p.stderr
    np.testing.assert_array_equal(read_mask(tmp_path/'masks'/'p.png', SCENE_CLASSES), got)

def test_runner_refuses_what_does_not_fit(tiny, model, tmp_path, capsys):
    Image.fromarray(np.full((90,140), 90, np.uint8)).save(tmp_path/'grey.png')
    for say in (lambda f: OnnxModel(model, 1).predict(f), lambda f: tiny.predict(f)):
        with pytest.raises(ValueError, match='one band, and the model was trained on photos of three bands.*save it as RGB'): say(tmp_path/'grey.png')
    with pytest.raises(RunError, match='-scale 0 4095 0 255'): OnnxModel(model, 1).predict(odd_photo(tmp_path, '12 bits')) # which white is not known
    assert run_onnx([str(model), str(odd_photo(tmp_path, 'black margin')), '--out', str(tmp_path/'m')])==0
    assert 'p.tif: ' in (said := capsys.readouterr().err) and 'taken for ground; void_border' in said
    rasterio = pytest.importorskip('rasterio')
    with rasterio.open(tmp_path/'map.tif', 'w', driver='GTiff', height=90, width=140, count=3, dtype='uint8', photometric='RGB', crs='EPSG:32640', transform=rasterio.Affine(.1, 0, 4e5, 0, -.1, 2.7e6)) as f: f.write(np.full((3,90,140), 99, np.uint8))
    with pytest.raises(RunError, match='whose own metres per pixel are not read here'): OnnxModel(model, 1).predict(tmp_path/'map.tif')
    np.testing.assert_array_equal(OnnxModel(model, 1).predict(tmp_path/'map.tif', gsd=.1), tiny.predict(tmp_path/'map.tif', dtype='fp32').ids)

def slow_area(a, n): # one axis, as the definition says: the integral over each new pixel
    edges = np.arange(n+1)*(len(a)/n)
    sums = np.concatenate([[0], np.cumsum(a)])
    return np.diff(np.interp(edges, np.arange(len(a)+1), sums))/(len(a)/n)

@pytest.mark.parametrize('n_in, n_out', [(10,3), (7,7), (768,192), (451,113), (6,5), (4000,171)])
def test_area_is_an_integral(n_in, n_out):
    a = np.random.default_rng(0).random(n_in)
    at,w = area_weights(n_in, n_out)
    got = (a[at]*w).sum(1)
    np.testing.assert_allclose(got, slow_area(a, n_out), atol=1e-5)

@pytest.mark.parametrize('size', [(128,192), (60,90), (100,151), (150,225), (90,135), (299,450), (300,450), (1,1), (600,900), (437,655), (75,90), (1000,1500)])
def test_resizing_is_opencvs(size):
    im = np.random.default_rng(1).integers(0, 256, (300,450,3), dtype=np.uint8)
    off = np.abs(resize_photo(im, size).astype(int)-resize_image(im, size))
    assert off.max()<=1 and (off>0).mean()<(.002 if size[0]>300 else 1e-9) # reduced: the very same bytes

def test_sixteen_bits_and_orientation(tmp_path):
    from drone_seg.photo.photo_file import read_image
    a = np.random.default_rng(0).integers(0, 65536, (20,30), dtype=np.uint16)
    Image.fromarray(a).save(tmp_path/'a.png')
    im,exif = Image.fromarray(draw_scene(0, size=(40,60))[0]),Image.Exif()
    exif[0x0112] = 6
    im.save(tmp_path/'b.jpg', exif=exif)
    for f,bands in (('a.png',1), ('b.jpg',3)): np.testing.assert_array_equal(_open(tmp_path/f, dict(photos=(bands,None))).image, read_image(tmp_path/f))


# QGIS Deepness: what the plugin does with a file, in our words

def test_deepness_reads_right_values(tiny, folder):
    path = export_deepness(tiny, folder/'q.onnx', tile=64).path
    s = onnxruntime.InferenceSession(path)
    meta = {k: json.loads(v) for k,v in s.get_modelmeta().custom_metadata_map.items()}
    assert str(meta['model_type']).capitalize()=='Segmentor' and float(meta['resolution'])==8 and int(meta['tile_size'])==64 and int(meta['tiles_overlap'])==25
    names = sorted(meta['class_names'].items(), key=lambda o: int(o[0]))
    assert [int(k) for k,_ in names]==list(range(SCENE_CLASSES.n)) and [v for _,v in names]==SCENE_CLASSES.scored_names
    (i,),(o,) = s.get_inputs(),s.get_outputs()
    assert i.shape[1:]==[3,64,64] and o.shape[2]==o.shape[3]==64 and len(o.shape)==4 and isinstance(i.shape[0], str)
    tiles = np.stack([draw_scene(k, size=(64,64))[0] for k in range(3)])
    x = (np.float32(tiles/255.)-np.float32(meta['standardization_mean']))/np.float32(meta['standardization_std'])
    y = s.run(None, {i.name: np.float32(x.transpose(0, 3, 1, 2))})[0]
    y[y<meta['seg_thresh']] = 0
    with torch.no_grad(): logits = tiny.net(torch.from_numpy(tiles).permute(0, 3, 1, 2)/255)
    assert (y.argmax(1)==logits.argmax(1).numpy()).mean()>=.9999
    np.testing.assert_allclose(y, (logits/1.5).softmax(1), atol=1e-4) # at the bundle's temperature

def test_runner_takes_the_file_for_qgis(tiny, folder):
    "Its windows are the tiles; logarithms of probabilities blend like logits"
    path = export_deepness(tiny, folder/'q2.onnx', tile=64).path
    im = draw_scene(2, size=(200,301))[0]
    assert same(OnnxModel(path, 1).predict(im, scale=.6), Bundle(tiny.net, SCENE_CLASSES, size=(64,64), scale=.6).predict(im, dtype='fp32').ids)>=.999


# Eight bits, OpenVINO, torch.export

def test_eight_bits(tiny, folder):
    scenes = [draw_scene(i, size=(64,96))[0] for i in range(20)]
    done = export_int8(tiny, folder/'int8.onnx', scenes)
    m = onnx.load(done.path)
    scales = {n.input[1] for n in m.graph.node if n.op_type=='DequantizeLinear'}
    per_channel = [i for i in m.graph.initializer if i.name in scales and len(i.dims)==1 and i.dims[0]>1]
    assert len(per_channel)>=4 and any(i.data_type==onnx.TensorProto.INT8 for i in m.graph.initializer)
    o = OnnxModel(done.path, 1)
    x = np.stack(scenes[:4]).transpose(0, 3, 1, 2).astype(np.float32)/255
    with torch.no_grad(): want = tiny.net(torch.from_numpy(x)).numpy()
    off = np.abs(o.ask(x)-want)
    assert 1e-4<off.mean()<.05*(want.max()-want.min()) # it is rounded, and near
    assert '16 photos' in done.note and '4 others' in done.note

def test_eight_bits_need_photos(tiny, folder):
    with pytest.raises(ModelError, match='15 photos .* at least 16'): export_int8(tiny, folder/'no.onnx', [np.zeros((64,96,3), np.uint8)]*15)
    assert not (folder/'no.onnx').exists()

def test_openvino(tiny, folder):
    ov = pytest.importorskip('openvino', reason="openvino is not installed (extra `openvino`)")
    done = export_openvino(tiny, folder/'m.xml')
    model = ov.Core().read_model(done.path)
    assert json.loads(model.get_rt_info(['drone_seg']).astype(str))==describe_export(tiny)
    run,x = ov.Core().compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}),torch.rand(2,3,80,48)
    with torch.no_grad(): assert np.abs(run(x.numpy())[0]-tiny.net(x).numpy()).max()<1e-3

def test_pt2(tiny, folder):
    done = export_program(tiny, folder/'m.pt2')
    said = {'drone_seg.json': ''}
    run = torch.export.load(done.path, extra_files=said).module()
    assert json.loads(said['drone_seg.json'])==describe_export(tiny)
    for shape in ((1,3,8,8), (3,3,40,68)):
        x = torch.rand(shape)
        with torch.no_grad(): torch.testing.assert_close(run(x), tiny.net(x), atol=1e-4, rtol=1e-4)


# Bad input

def altered(model, folder, name, change):
    m = onnx.load(model)
    change(m)
    onnx.save(m, folder/name)
    return folder/name

def set_about(m, **values):
    p = next(p for p in m.metadata_props if p.key=='drone_seg')
    p.value = json.dumps(json.loads(p.value) | values)

def test_foreign_and_damaged_files(model, folder):
    strange = altered(model, folder, 'strange.onnx', lambda m: m.ClearField('metadata_props'))
    (folder/'cut.onnx').write_bytes(model.read_bytes()[:2000])
    (folder/'text.onnx').write_text('not a model')
    def opset(m):
        for o in m.opset_import: o.version = 999
    future = altered(model, folder, 'future.onnx', opset)
    for path,says in ((strange, 'not written by drone_seg'), (folder/'cut.onnx', 'cannot open it'), (folder/'text.onnx', 'cannot open it'), (future, 'update onnxruntime'), (folder/'gone.onnx', 'no such file')):
        with pytest.raises(RunError, match=says) as e: OnnxModel(path)
        assert '\n' not in str(e.value) and path.name in str(e.value)

def test_a_file_of_another_format(model, folder):
    with pytest.raises(RunError, match='this version reads'): OnnxModel(altered(model, folder, 'changed.onnx', lambda m: set_about(m, format='drone_seg export 9')))

def test_a_file_that_does_not_say_enough(model, folder):
    def less(m):
        p = next(p for p in m.metadata_props if p.key=='drone_seg')
        p.value = json.dumps({k: v for k,v in json.loads(p.value).items() if k!='size'})
    with pytest.raises(RunError, match='does not say its size; export the run again'): OnnxModel(altered(model, folder, 'less.onnx', less))

@pytest.mark.parametrize('kind, shape', [('FLOAT', (None,1,None,None)), ('FLOAT', (3,None,None)), ('INT64', (None,3,None,None))])
def test_a_network_of_other_input(kind, shape, model, folder, tmp_path, capsys):
    "One band, three dimensions, whole numbers"
    h = onnx.helper
    about = next(p.value for p in onnx.load(model).metadata_props if p.key=='drone_seg')
    g = h.make_graph([h.make_node('Identity', ['x'], ['y'])], 'g', *[[h.make_tensor_value_info(n, getattr(onnx.TensorProto, kind), shape)] for n in 'xy'])
    m = h.make_model(g, opset_imports=[h.make_opsetid('', 18)], ir_version=8)
    h.set_model_props(m, dict(drone_seg=about))
    onnx.save(m, folder/'wrong.onnx')
    Image.new('RGB', (96,64)).save(tmp_path/'a.png')
    assert run_onnx([str(folder/'wrong.onnx'), str(tmp_path/'a.png'), '--out', str(tmp_path/'o')])==2
    err = capsys.readouterr().err
    assert 'cannot run on' in err and 'export the run again' in err and err.count('\n')==1

def test_a_table_of_other_classes(model, folder):
    "What the file answers does not fit what it says"
    o = OnnxModel(altered(model, folder, 'few.onnx', lambda m: set_about(m, classes=SCENE_CLASSES.to_dict()['classes'][:3])), 1)
    with pytest.raises(RunError, match='answered .* export the run again'): o.predict(np.zeros((64,96,3), np.uint8), scale=1)

def test_photos_and_options_that_do_not_fit(model, tmp_path, capsys):
    o = OnnxModel(model, 1)
    for kw,says in ((dict(scale=1, gsd=.1), 'both given'), (dict(gsd=-1), 'above 0'), (dict(gsd=40.), 'check the units')):
        with pytest.raises(RunError, match=says): o.predict(np.zeros((50,60,3), np.uint8), **kw)
    with pytest.raises(RunError, match='a photo is'): o.predict(np.zeros((50,60), np.uint8))
    (tmp_path/'a.jpg').write_bytes(b'no photo')
    assert run_onnx([str(model), str(tmp_path/'a.jpg'), '--out', str(tmp_path)])==2 and 'not an image' in capsys.readouterr().err
    Image.new('RGB', (9,9)).save(tmp_path/'b.png')
    assert run_onnx([str(model), str(tmp_path/'b.png'), '--out', str(tmp_path)])==2 and 'the photo itself' in capsys.readouterr().err
    Image.new('RGB', (9,9)).save(tmp_path/'b.tif')
    assert run_onnx([str(model), str(tmp_path/'b.png'), str(tmp_path/'b.tif'), '--out', str(tmp_path/'o')])==2 and 'masks of one name' in capsys.readouterr().err
    assert sorted(f.name for f in tmp_path.iterdir())==['a.jpg','b.png','b.tif']

class Asks(nn.Module):
    def forward(self, x): return x if x.sum()>0 else -x
class Unheard(nn.Module):
    def forward(self, x): return torch.special.bessel_j0(x)

@pytest.mark.parametrize('middle, says', [(Asks(), 'cannot export this network'), (Unheard(), 'has no ONNX for a part.*bessel_j0')])
def test_networks_that_cannot_be_exported_are_refused_in_words(folder, middle, says):
    with pytest.raises(ModelError, match=says) as e: export_onnx(make_bundle(middle=middle), folder/'never.onnx')
    assert '\n' not in str(e.value) and '\x1b' not in str(e.value) and not [f for f in folder.iterdir() if 'never' in f.name]

def test_what_differs_is_not_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(ex, '_ort', lambda m: lambda x: tiny.net(torch.from_numpy(x)).detach().numpy()*1.01+.1)
    with pytest.raises(ModelError, match='nothing was written'): export_onnx(tiny, tmp_path/'m.onnx')
    assert not list(tmp_path.iterdir())

def test_tables_and_bundles_that_do_not_fit(tmp_path):
    b = make_bundle()
    b.classes = ClassTable(['a','b'])
    with pytest.raises(ModelError, match='the class table has 2'): export_onnx(b, tmp_path/'m.onnx')
    with pytest.raises(ModelError, match='name it m.pt2'): export_program(b, tmp_path/'m.onnx')

def test_ensembles_are_refused(tiny, tmp_path):
    from drone_seg.models.ensemble import Ensemble
    for f,name in ((export_onnx, 'm.onnx'), (export_program, 'm.pt2')):
        with pytest.raises(ModelError, match='each of its bundles'): f(Ensemble([tiny, tiny]), tmp_path/name)

@pytest.mark.parametrize('words, says', [('--to tflite', "to='tflite'; nearest are"), ('--to int8', 'int8 needs photos'), ('--to onnx --photos .', 'needs none'), ('--tile 64', 'for deepness')])
def test_command_line_refuses_before_it_works(words, says):
    from typer.testing import CliRunner
    from drone_seg.cli import app
    r = CliRunner().invoke(app, ['export', 'no_run', *words.split()])
    assert r.exit_code and says in str(r.exception) and '\n' not in str(r.exception)

def test_eight_bits_from_the_command_line(tiny, tmp_path, monkeypatch):
    from typer.testing import CliRunner
    from drone_seg.cli import app
    for i in range(16): save_image(draw_scene(i, size=(64,96))[0], tmp_path/'photos'/f'{i}.png')
    monkeypatch.setattr(ex, 'load_bundle', lambda folder: tiny)
    monkeypatch.setattr('drone_seg.cli.read_about', lambda run: {})
    r = CliRunner().invoke(app, ['export', 'run', '--to', 'int8', '--photos', str(tmp_path/'photos'), '--out', str(tmp_path/'m.onnx')], catch_exceptions=False)
    assert r.exit_code==0 and 'of 3 others' in r.stdout
    assert OnnxModel(tmp_path/'m.onnx', 1).predict(draw_scene(0, size=(64,96))[0]).shape==(64,96)

def test_both_sides_name_one_format(): assert EXPORT_KEY==EXPORT_FORMAT

def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path/'file').write_text('x')
    model = OnnxModel.__new__(OnnxModel)
    model.palette = np.zeros((256,3), np.uint8)
    with pytest.raises(RunError, match='cannot be written') as e: model.save(np.zeros((4,4), np.uint8), tmp_path/'file'/'masks'/'a.png')
    assert '\n' not in str(e.value)
