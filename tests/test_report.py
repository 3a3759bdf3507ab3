"78_runs.charts, 78a_runs.photos, 79_runs.report: the page of a run, read by a parser and, where there is one, by a browser"
import base64, io, json, re, shutil, zipfile
from pathlib import Path
import numpy as np, pytest
from bs4 import BeautifulSoup
from PIL import Image
import browser
from drone_seg.classes import ClassTable
from drone_seg.fields import DatasetError, FileError, ModelError
from drone_seg.data.datasets import open_dataset
from drone_seg.runs.photos import as_uri, four_views, _hatch, pick_photos
from drone_seg.runs.report import class_table, make_report
from drone_seg.runs.run import open_run
from drone_seg.runs.suspects import find_suspects
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene, write_scenes

DATA = Path(__file__).parent/'data'/'old_run.zip'
NAMES = ['<script>alert(1)</script>', '"quoted" & \'so\'', 'дорога', '屋顶', 'a$b$c', '{{ 7*7 }}', '</style>', '<img src=x onerror=alert(2)>']
STEMS = ['<b>bold', 'say "no" & \'yes\'', 'дом $1$']

def unzip(folder):
    with zipfile.ZipFile(DATA) as z: z.extractall(folder)
    return folder/'run'

def change(f, **values): f.write_text(json.dumps(json.loads(f.read_text()) | values))

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A run whose classes and photos have odd names, and its data set: 14 photos that judge"
    root = tmp_path_factory.mktemp('report')
    run = unzip(root)
    write_scenes(root/'new', 14, size=(64,96), progress=False)
    for old,new in zip(sorted(f.stem for f in (root/'new'/'images').iterdir()), STEMS):
        for f in (root/'new').glob(f'*/{old}.*'): f.rename(f.with_stem(new))
    classes = json.loads((run/'bundle.json').read_text())['classes']
    for c,name in zip((c for c in classes if not c['void']), NAMES): c['name'] = name
    data = open_dataset(root/'new', classes=ClassTable.from_dict(dict(classes=classes)))
    change(run/'bundle.json', classes=classes, split=dict(train=['s9999'], valid=data.stems, by='random'))
    for name in ('confusion.npz','split.json'): (run/name).unlink()
    return run,data

@pytest.fixture(scope='module')
def page(made, tmp_path_factory):
    f = tmp_path_factory.mktemp('page')/'report.html'
    make_report(*made, progress=False).save(f)
    return f

@pytest.fixture(scope='module')
def soup(page): return BeautifulSoup(page.read_text(encoding='utf-8'), 'html.parser')


# What the page says

def test_names_are_shown_as_text(soup):
    assert {re.sub(r'^\d+\s*', '', o.get_text().strip()) for o in soup.select('.classes tbody th')}==set(NAMES)
    assert {o.get_text() for o in soup.select('.shot figcaption strong')}>set(STEMS)
    assert len(soup.find_all('script'))==1 and 'alert' not in soup.script.string and len(soup.find_all('style'))==1
    assert not soup.find_all(lambda o: any(k.startswith('on') for k in o.attrs)) and not soup.find_all('b', string='bold')
    assert {o['src'].partition(':')[0] for o in soup.find_all('img')}=={'data'}

def test_the_page_needs_nothing_else(page, soup):
    text = page.read_text(encoding='utf-8')
    assert not soup.find_all(['link','iframe','object']) and 'url(' not in soup.style.string and '@import' not in text
    assert all(a['href'][0]=='#' and soup.find(id=a['href'][1:]) for a in soup.find_all('a'))
    ids = [o['id'] for o in soup.find_all(id=True) if o.find_parent('svg') is None]
    assert len(ids)==len(set(ids)) and [int(o.name[1]) for o in soup.find_all(re.compile('^h[1-6]$'))][0]==1
    assert all(o.get('alt') is not None for o in soup.find_all('img')) and all(o.get('aria-label') for o in soup.find_all('svg'))

@pytest.fixture(scope='module')
def counted(made):
    "Share of right pixels and IoU of each class, counted class by class"
    run,data = made
    model,hit,either = open_run(run).model,np.zeros(8),np.zeros(8)
    right = total = 0
    for s in data.stems:
        image,ids = data[s]
        answer,truth = data.classes.encode(model.predict(image).ids),data.classes.encode(ids)
        known = truth!=255
        right,total = right+(answer==truth)[known].sum(),total+known.sum()
        for c in range(8):
            hit[c] += ((answer==c) & (truth==c)).sum()
            either[c] += (((answer==c) | (truth==c)) & known).sum()
    return right/total,np.divide(hit, either, out=np.full(8, np.nan), where=either>0)

def test_numbers_are_those_of_the_pixels(counted, soup):
    right,iou = counted
    shown = {re.sub(r'^\d+\s*', '', o.th.get_text().strip()): o.select_one('.score .num') for o in soup.select('.classes tbody tr')}
    assert {n: o and o.get_text() for n,o in shown.items()}=={n: None if np.isnan(v) else f'{v:.3f}' for n,v in zip(NAMES, iou)}
    top = [o.get_text() for o in soup.select('.figures strong')]
    assert top==[f'{np.nanmean(iou):.3f}', f'{right:.1%}', f'{(iou>.5).sum()} of {(~np.isnan(iou)).sum()}']

def test_photos_that_were_picked_are_there_with_four_views(soup):
    assert [o.get_text() for o in soup.select('#photos h3')]==['The worst','Typical','The best']
    wrong = [float(re.search(r'([\d.]+)% wrong', o.get_text())[1]) for o in soup.select('.shot figcaption')]
    assert len(wrong)==12 and wrong==sorted(wrong, reverse=True)
    for p in soup.select('.shot'):
        pictures = [Image.open(io.BytesIO(base64.b64decode(o['src'].partition(',')[2]))) for o in p.find_all('img')]
        assert [o.size for o in pictures]==[(96,64)]*4 and len({o.tobytes() for o in pictures})==4

def test_suspects_are_shown_with_their_names_as_text(made):
    run,data = made
    found = find_suspects(run, data, progress=False)
    found.table = found.table.assign(given=NAMES[0])
    soup = BeautifulSoup(make_report(run, suspects=found).html, 'html.parser')
    shown = soup.select('#suspects figure')
    assert 0<len(shown)==min(12, len(found)) and len(soup.find_all('script'))==0
    assert all(NAMES[0] in o.get_text() and o.img['src'].startswith('data:image/webp') for o in shown)

def test_without_photos_it_tells_what_the_run_knows(tmp_path):
    soup = BeautifulSoup(make_report(unzip(tmp_path)).html, 'html.parser')
    assert not soup.find_all(['img','script','dialog']) and {o['id'] for o in soup.find_all('section')}=={'classes','taken','training','words','again'}
    text = soup.get_text()
    assert 'learnt from 17 photos of scenes and is judged on 3 others' in text and 'the number flatters' in text and 'drone_seg train scenes' in text

@pytest.mark.parametrize('lost, says', [('run.json', 'only what the model tells'), ('confusion.npz', 'without intervals'), ('history.csv', None), ('scores.json', None)])
def test_a_run_that_lost_a_file_is_still_told(lost, says, tmp_path):
    run = unzip(tmp_path)
    (run/lost).unlink()
    soup = BeautifulSoup(make_report(run).html, 'html.parser')
    warned = ' '.join(o.get_text() for o in soup.select('.warn li'))
    assert (says or '')in warned and len(soup.select('.classes tbody tr'))==8 and soup.select_one('.classes .num').get_text()>'0.1'

def test_what_cannot_be_told_is_refused(made, tmp_path):
    run = unzip(tmp_path)
    with pytest.raises(DatasetError, match='none of the 3 photos'): make_report(run, open_dataset(write_scenes(tmp_path/'other', 2, size=(64,96), progress=False)))
    with pytest.raises(ModelError, match='classes'): make_report(made[0], open_dataset(made[1].path))
    (run/'bundle.json').unlink()
    with pytest.raises(ModelError, match='not finished'): make_report(run)
    (tmp_path/'taken').write_text('')
    with pytest.raises(FileError, match='cannot be written'): make_report(made[0]).save(tmp_path/'taken'/'r.html')

def test_the_same_run_makes_the_same_page(made): assert make_report(made[0]).html==make_report(made[0]).html


# Parts

def matrices(*right): # photos of 100 pixels and two classes
    return np.array([[[r,100-r], [0,0]] for r in right])

@pytest.mark.parametrize('n, counts', [(1, (1,0,0)), (2, (2,0,0)), (3, (1,1,1)), (7, (3,2,2)), (12, (6,3,3)), (100, (6,3,3))])
def test_photos_are_picked_once(n, counts):
    right = np.random.default_rng(n).permutation(n)
    picked = pick_photos(matrices(*right))
    rows = sum(picked.values(), [])
    assert tuple(len(o) for o in picked.values())==counts and len(set(rows))==len(rows)
    assert sorted(right[picked['worst']])==list(range(counts[0])) and all(right[picked['best']]>=n-counts[2])

def test_a_photo_of_void_alone_is_not_picked():
    assert sum(pick_photos(np.concatenate([matrices(5, 9), np.zeros((1,2,2), int)])).values(), [])==[0,1]

def test_pictures_have_so_many_bytes_at_most_and_void_is_hatched():
    noise = np.random.default_rng(0).integers(0, 256, (900,1400,3), dtype=np.uint8)
    ids = np.repeat(np.arange(9, dtype=np.uint8), 100)[:,None].repeat(1400, 1)
    views = four_views(noise, ids, np.roll(ids, 50, 0), SCENE_CLASSES)
    assert list(views)==['photo','truth','answer','errors'] and max(map(len, views.values()))<=80_000*4/3+40
    grey = _hatch(noise, ids==0)
    assert {tuple(o) for o in grey[:100].reshape(-1, 3)}=={(120,)*3, (180,)*3} and (grey[100:]==noise[100:]).all()


# In a browser

@pytest.fixture(scope='module')
def chromium():
    if browser.WHY_NOT: pytest.skip(browser.WHY_NOT)
    b = browser.Browser()
    yield b
    b.close()

SHOWN = "[...document.querySelectorAll('.shot img')].filter(o => o.offsetParent).map(o => o.alt.split(', ').pop())"

def test_pictures_load_and_switch_by_key_and_click(chromium, page):
    assert chromium.open(page)<5 and chromium.run("[...document.images].every(o => o.complete && o.naturalWidth>0)")
    assert chromium.run(SHOWN)==['errors']*12
    chromium.press('2')
    assert chromium.run(SHOWN)==['truth']*12 and chromium.run("document.querySelectorAll('[data-view=truth][aria-pressed=true]').length")==2
    chromium.click('.bar-of-views [data-view=photo]')
    assert chromium.run(SHOWN)==['photo']*12 and chromium.problems==[]

def test_a_picture_opens_large_and_the_keyboard_does_all(chromium, page):
    chromium.open(page)
    large = lambda: chromium.run("(o => o.open && o.querySelector('img').alt)(document.getElementById('large'))")
    stems = chromium.run("[...document.querySelectorAll('.shot strong')].map(o => o.textContent)")
    assert large() is False
    chromium.run("document.querySelectorAll('.open')[1].focus()")
    chromium.press('Enter')
    assert large()==f'{stems[1]}, errors'
    for key,want in ('3', f'{stems[1]}, answer'),('ArrowRight', f'{stems[2]}, answer'),('ArrowLeft', f'{stems[1]}, answer'),('1', f'{stems[1]}, photo'):
        chromium.press(key)
        assert large()==want
    assert chromium.run("document.querySelector('#large img').naturalWidth")==96
    chromium.press('Escape')
    assert large() is False and chromium.run("document.activeElement.className")=='open'
    chromium.click('.shot .open')
    assert large()==f'{stems[0]}, photo'
    chromium.click('#large .close')
    assert large() is False and chromium.problems==[]

@pytest.mark.parametrize('width', [320, 390, 1280])
def test_no_width_scrolls_sideways(width, chromium, page):
    chromium.open(page, width, 800)
    assert chromium.run('document.documentElement.scrollWidth')<=width and chromium.problems==[]

def test_dark_is_dark_and_paper_is_white_with_all_views(chromium, page):
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    chromium.open(page)
    assert min(chromium.run(ground))>240
    chromium.open(page, dark=True)
    assert max(chromium.run(ground))<40 and min(chromium.run(ground.replace('backgroundColor', 'color')))>200
    chromium.open(page, dark=True, media='print')
    assert min(chromium.run(ground))>240 and len(chromium.run(SHOWN))==48
