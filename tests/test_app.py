"The page in the browser: what it refuses, and, where gradio, playwright and a browser are there, how it works for people"
import importlib.util, os, shutil, signal, socket, subprocess, sys, time, urllib.error, urllib.request, zipfile
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from drone_seg import cli
from drone_seg.classes import ClassTable
from drone_seg.fields import *
from drone_seg.models.bundle import Bundle
from drone_seg.models.zoo import create_model
from drone_seg.photo.images import save_image
from drone_seg.photo.show import for_looking
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene
from drone_seg.use import desk as desks, view
from drone_seg.use.desk import Desk
from drone_seg.use.view import check_photo, MOST_MB

def write_model(folder, classes=SCENE_CLASSES):
    torch.manual_seed(0)
    net = create_model('unet', 'resnet18', classes.n, weights=None)
    return Bundle(net, classes, size=(96,144), gsd=.08).save(folder)

@pytest.fixture(scope='module')
def model(tmp_path_factory): return write_model(tmp_path_factory.mktemp('model')/'first')

@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp('photo')/'yard.jpg'
    save_image(draw_scene(3, size=(192,288), gsd=.08)[0], path)
    return path

def run(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, 'argv', ['drone_seg', *map(str, args)])
    with pytest.raises(SystemExit) as e: cli.main()
    return e.value.code,capsys.readouterr().err.strip()

# What is refused, each in a line

def test_a_run_that_is_none(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for args,says in (((), 'run drone_seg demo first'), (('gone',), 'no such folder'), ((model, '--second', tmp_path), 'no bundle.json')):
        code,err = run(monkeypatch, capsys, 'app', *args)
        assert code==2 and says in err and len(err.splitlines())==1

def test_without_gradio_the_way_to_it_is_said(model, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, 'drone_seg.app', raising=False)
    monkeypatch.setitem(sys.modules, 'gradio', None)
    code,err = run(monkeypatch, capsys, 'app', model)
    assert code==2 and 'pip install' in err and '[app]' in err and len(err.splitlines())==1

def test_runs_of_other_classes_are_not_compared(model, tmp_path):
    other = write_model(tmp_path/'other', ClassTable(['a','b'], [(0,0,0), (9,9,9)]))
    with pytest.raises(ModelError, match='only runs of one class table'): Desk([model, other], tmp_path/'desk')

def test_photos_too_large_are_refused(tmp_path):
    Image.new('1', (20000,6001)).save(tmp_path/'wide.png') # small as a file
    with pytest.raises(ImageError, match='20000x6001'): check_photo(tmp_path/'wide.png')
    Image.new('L', (8,8)).save(tmp_path/'long.bmp')
    os.truncate(tmp_path/'long.bmp', (MOST_MB+1)*1_000_000)
    with pytest.raises(ImageError, match='101 MB'): check_photo(tmp_path/'long.bmp')

def write_tif(path, **place):
    import rasterio
    with rasterio.open(path, 'w', driver='GTiff', count=3, height=64, width=96, dtype='uint8',
                       transform=rasterio.Affine(.08, 0, 326000, 0, -.08, 2789000), **place) as f:
        f.write(draw_scene(1, size=(64,96), gsd=.08)[0].transpose(2, 0, 1))

def test_a_geotiff_becomes_a_map_and_polygons(model, tmp_path):
    import rasterio
    write_tif(tmp_path/'ortho.tif', crs='EPSG:32640')
    desk = Desk([model], tmp_path/'desk')
    seen = desk.look('ann', tmp_path/'ortho.tif')
    assert abs(seen.gsd-.08)<1e-4 and seen.shown['heads'][-1]=='m²'
    shutil.unpack_archive(desk.make_map('ann', seen), tmp_path/'map')
    with rasterio.open(tmp_path/'map'/'ortho_map.tif') as f: assert f.crs.to_epsg()==32640 and (f.read(1)==seen.preds[0].ids).all()
    assert {'ortho_polygons.gpkg','ortho_polygons.geojson'}<={p.name for p in (tmp_path/'map').iterdir()}
    assert seen.files[-1].name=='ortho_map.zip'
    names = zipfile.ZipFile(seen.files[-1]).namelist()
    shutil.copy(tmp_path/'ortho.tif', tmp_path/'ortho_map.tif')
    desk.look('ann', tmp_path/'ortho_map.tif')
    assert zipfile.ZipFile(desk.make_map('ann', seen)).namelist()==names # again, and beside a photo of such a name

@pytest.mark.parametrize('name', ['victim', '../victim', '/'], ids=['plain','up','root'])
def test_what_a_visitor_is_called_names_no_folder(model, tmp_path, name):
    victim = tmp_path/'victim'
    (victim/'desk').mkdir(parents=True)
    desk = Desk([model], tmp_path/'desk')
    desk.place('other')
    for visitor in (name, str(victim)):
        assert desk.place(visitor).parent==tmp_path/'desk'
        desk.clear(visitor)
        desk.leave(visitor)
    assert (victim/'desk').is_dir() and desk.place('other').is_dir()

@pytest.mark.parametrize('work', ['look','land','make_map'])
def test_who_leaves_in_the_middle_leaves_nothing(model, tmp_path, monkeypatch, work):
    write_tif(tmp_path/'ortho.tif', crs='EPSG:32640')
    desk = Desk([model], tmp_path/'desk')
    seen = desk.look('ann', tmp_path/'ortho.tif')
    def left(*args): desk.leave('ann')
    real = view.find_polygons
    def slow(*args): left(); return real(*args)
    monkeypatch.setattr(view, 'find_polygons', slow)
    zones = desks.landing_zones
    def found(*args, **kw): left(); return zones(*args, **kw)
    monkeypatch.setattr(desks, 'landing_zones', found)
    do = dict(look=lambda: desk.look('ann', tmp_path/'ortho.tif', progress=left), land=lambda: desk.land('ann', seen, 'scenes'),
              make_map=lambda: desk.make_map('ann', seen))
    with pytest.raises((FileError, OSError)): do[work]()
    assert list((tmp_path/'desk').iterdir())==[] and desk.pack('ann')==[]

@pytest.mark.parametrize('n', [1, 2])
def test_who_leaves_while_files_are_handed_out_is_told_so(model, photo, tmp_path, n):
    gr,app = pytest.importorskip('gradio'),importlib.import_module('drone_seg.app')
    desk = Desk([model], tmp_path/'desk')
    for _ in range(n): seen = desk.look('ann', photo)
    shutil.rmtree(desk.place('ann')) # as the page is closed, between two lines of `show`
    with pytest.raises(gr.Error, match='drop them again'): app._Steps(desk).files(seen, 'ann')
    desk.leave('ann')
    with pytest.raises(gr.Error, match='drop them again'): app._Steps(desk).files(seen, 'ann')

@pytest.mark.filterwarnings('ignore:.*plan.tif')
def test_odd_photos_get_an_answer(model, tmp_path):
    Image.new('RGB', (1,1)).save(tmp_path/'dot.png')
    write_tif(tmp_path/'plan.tif')
    desk = Desk([model], tmp_path/'desk')
    assert desk.look('ann', tmp_path/'dot.png').preds[0].ids.shape==(1,1)
    plan = desk.look('ann', tmp_path/'plan.tif')
    assert plan.gsd is None and 'plan.tif: a GeoTIFF without a projection' in ' '.join(plan.notes)
    assert str(tmp_path) not in ' '.join(plan.notes)
    with pytest.raises(GeoError, match='no projection'): desk.make_map('ann', plan)
    with pytest.raises(GeoError, match='give the flying height'): desk.land('ann', plan, 'scenes')

# In a browser

def browser_path():
    for name in ('chromium','chromium-browser','google-chrome','chrome'):
        if found := shutil.which(name): return found
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p: return p.chromium.executable_path

lacks = [m for m in ('gradio','playwright') if importlib.util.find_spec(m) is None]
needs_browser = pytest.mark.skipif(bool(lacks) or not Path(browser_path()).exists(), reason=f"no {', '.join(lacks) or 'browser'} here")

def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s: return s.getsockname()[1]

@pytest.fixture(scope='module')
def page(model, tmp_path_factory):
    "Address of an open page, and the folder that its own folder lies in"
    tmp,port = tmp_path_factory.mktemp('served'),free_port()
    env = os.environ | dict(TMPDIR=str(tmp), CUDA_VISIBLE_DEVICES='', PYTHONUNBUFFERED='1')
    command = [sys.executable, '-m', 'drone_seg.cli', 'app', str(model), '--port', str(port)]
    server = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert f':{port}' in server.stdout.readline()
    yield f'http://127.0.0.1:{port}',tmp
    server.send_signal(signal.SIGTERM)
    rest = server.communicate(timeout=60)[0]
    assert 'Traceback' not in rest, rest
    assert not list(tmp.glob('drone_seg_*')), "the folder outlives the page"

@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=browser_path(), args=['--no-sandbox'])
        yield b
        b.close()

@pytest.fixture
def visit(browser, page):
    "Opens the page for a visitor of its own; nothing may go wrong in the browser"
    said,contexts = [],[]
    def opened(width=1280, url=page[0]):
        contexts.append(browser.new_context(viewport=dict(width=width, height=900), accept_downloads=True))
        p = contexts[-1].new_page()
        p.set_default_timeout(120_000)
        p.on('pageerror', lambda e: said.append(str(e)))
        p.on('request', lambda r: said.append(r.url) if not r.url.startswith((url, 'data:', 'blob:')) else None)
        p.goto(url)
        p.wait_for_selector('#look')
        return p
    yield opened
    for c in contexts: c.close()
    assert not said

def hand_in(p, *photos):
    with p.expect_response(lambda r: '/upload?' in r.url): p.set_input_files('#photos input[type=file]', list(map(str, photos)))
    p.wait_for_selector('#photos .file-preview')

def look(p, *photos):
    hand_in(p, *photos)
    p.click('#look')
    p.wait_for_selector('#view canvas')

def colour(p, x, y): # of the picture as it is drawn, at shares of its width and height
    return p.evaluate('''([x, y]) => { const c = document.querySelector('#view canvas');
        return [...c.getContext('2d').getImageData(x*c.width, y*c.height, 1, 1).data].slice(0, 3) }''', [x, y])

def slide(p, name, value): p.evaluate(f"v => {{ const s = document.querySelector('#view .{name}'); s.value = v; s.dispatchEvent(new Event('input')) }}", value)

def downloads(p):
    "The files to take along, by name"
    res = {}
    for link in p.query_selector_all('#files a[download]'):
        with p.expect_download() as d: link.click()
        res[d.value.suggested_filename] = Path(d.value.path()).read_bytes()
    return res

def own_files(page): # while others are deleted
    files = [Path(d)/n for d,_,names in os.walk(page[1]) for n in names]
    return [f for f in files if f.exists() and f.stat().st_size]

def wait_until(true):
    end = time.time()+60
    while not true() and time.time()<end: time.sleep(.2)
    assert true()

@needs_browser
def test_from_photo_to_mask(visit, page, model, photo, tmp_path):
    p = visit()
    look(p, photo)
    command = [sys.executable, '-m', 'drone_seg.cli', 'predict', str(model), str(photo), '--out', str(tmp_path/'out')]
    subprocess.run(command, env=os.environ | dict(CUDA_VISIBLE_DEVICES=''), check=True)
    mask = tmp_path/'out'/'masks'/'yard.png'
    got = downloads(p)
    assert got['yard_mask.png']==mask.read_bytes() and got['yard_overlay.jpg'] and b'share' in got['yard_classes.csv']
    # what lies under the pointer
    ids,box = np.array(Image.open(mask)),p.query_selector('#view canvas').bounding_box()
    for x,y in ((.25,.3), (.7,.8)):
        p.mouse.move(box['x']+x*box['width'], box['y']+y*box['height'])
        name = SCENE_CLASSES.name_of(int(ids[int(y*192), int(x*288)]))
        assert p.inner_text('#view .under').startswith(f'{name}, ')
    # strength, a class off, doubt in grey
    image = np.asarray(Image.open(photo)).astype(int)
    slide(p, 'strength', 100)
    i = int(ids[96, 144])
    assert colour(p, .5, .5)==for_looking(SCENE_CLASSES).colors[SCENE_CLASSES.row(i)].tolist()
    p.uncheck(f'#view label:has-text("{SCENE_CLASSES.name_of(i)}") input')
    assert np.abs(np.array(colour(p, .5, .5))-image[96, 144]).max()<40 # the photo, once more as JPEG
    slide(p, 'least', 100)
    assert len({*colour(p, .5, .5)})==1
    # gone with the visitor
    p.context.close()
    wait_until(lambda: not own_files(page))

@needs_browser
def test_at_the_width_of_a_phone_with_metres(visit, photo):
    p = visit(width=390)
    p.click('#metres button')
    p.fill('#cm input', '8')
    look(p, photo)
    assert 'm²' in p.inner_text('#view') and '8 cm per pixel' in p.inner_text('#notes')
    p.click('[role=tab]:has-text("Landing zones")')
    p.click('#land')
    p.wait_for_selector('#zones img')
    assert 'aids a decision and does not make it' in p.inner_text('#advice')
    assert any(n.endswith('.zones.json') for n in downloads(p))
    assert p.evaluate('document.documentElement.scrollWidth')<=390

@needs_browser
def test_the_table_of_two_runs_can_be_read_on_a_phone(browser, model, photo, tmp_path):
    desk = Desk([model, write_model(tmp_path/'another_longer_training')], tmp_path/'desk')
    html,css,js = (Path(view.__file__).with_suffix(end).read_text(encoding='utf-8') for end in ('.html','.css','.js'))
    p = browser.new_page(viewport=dict(width=320, height=800))
    p.set_content(f'<style>{css}</style><div id="view">{html}</div>')
    p.evaluate("""([js, value]) => new Function('element', 'props', 'watch', js)(
        document.getElementById('view'), {value}, () => {})""", [js, desk.look('ann', photo, 8).shown])
    p.wait_for_selector('#view canvas')
    last,seen = p.evaluate("""() => {
        const table = document.querySelector('#view table'), box = table.parentElement;
        box.scrollLeft = 1000; // as a finger would
        return [table.querySelector('th:last-child'), box].map(o => o.getBoundingClientRect().right) }""")
    p.close()
    assert last<=seen+1

@needs_browser
def test_two_at_once_keep_apart(visit, page, photo, tmp_path):
    other = tmp_path/'park.png'
    save_image(draw_scene(5, size=(96,144))[0], other)
    a,b = visit(),visit()
    hand_in(a, photo, other)
    hand_in(b, photo)
    for p in (a, b): p.click('#look')
    for p in (a, b): p.wait_for_selector('#view canvas')
    assert 'all_photos.zip' in downloads(a)
    a.click('#which input')
    a.click('[role=option]:has-text("park")')
    a.wait_for_function("document.querySelector('#view canvas').width==144")
    a.context.close()
    wait_until(lambda: not any(f.stem.startswith('park') for f in own_files(page)))
    assert downloads(b)['yard_mask.png'] # handed in by both, and still there

@needs_browser
def test_bad_files_are_sentences(visit, photo, tmp_path):
    p = visit()
    (tmp_path/'words.jpg').write_text('hello')
    hand_in(p, tmp_path/'words.jpg', photo)
    p.click('#look')
    p.wait_for_selector('#view canvas')
    assert p.inner_text('#status').startswith('words.jpg: not an image') # and the other one is shown
    p = visit()
    with open(tmp_path/'huge.png', 'wb') as f: f.truncate((MOST_MB+10)<<20)
    (tmp_path/'pack.zip').write_bytes(b'PK')
    for name in ('huge.png', 'pack.zip'):
        p.set_input_files('#photos input[type=file]', str(tmp_path/name))
        p.wait_for_selector('.toast-body')
    p.click('#look')
    p.wait_for_selector('#status :text("Drop a photo first")')

@needs_browser
def test_closed_in_the_middle(visit, page, photo):
    p = visit()
    hand_in(p, photo)
    p.click('#look')
    p.context.close()
    look(visit(), photo)
    wait_until(lambda: len({f.relative_to(page[1]).parts[2] for f in own_files(page) if 'desk' in f.parts})<=1)

@needs_browser
def test_no_file_outside_can_be_read(page, model, photo):
    for f in (photo, model/'bundle.json', Path(__file__), Path('/etc/hostname')):
        with pytest.raises(urllib.error.HTTPError) as e: urllib.request.urlopen(f'{page[0]}/gradio_api/file={f}')
        assert e.value.code==403

@pytest.mark.skipif('gradio' in lacks, reason="no gradio here")
def test_a_space_runs_from_its_folder(model, tmp_path):
    from drone_seg.app import write_space
    space,port = tmp_path/'space',free_port()
    write_space(model, space)
    head = (space/'README.md').read_text(encoding='utf-8').split('---')[1]
    assert 'sdk: gradio' in head and 'app_file: app.py' in head
    asked = (space/'requirements.txt').read_text().split()
    assert any(o.startswith('gradio==') for o in asked) and not any('nbdev' in o for o in asked)
    env = os.environ | dict(GRADIO_SERVER_PORT=str(port), CUDA_VISIBLE_DEVICES='', PYTHONUNBUFFERED='1')
    server = subprocess.Popen([sys.executable, 'app.py'], cwd=space, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert f':{port}' in server.stdout.readline()
    server.terminate()
    assert 'Traceback' not in server.communicate(timeout=60)[0]
