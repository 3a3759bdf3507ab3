"""The project itself: files that must be in step, pages that must be clean, imports that must run downstairs,
a package that must install, requirements that must have reasons, docs that must build."""
import ast, builtins, dis, functools, http.server, importlib.util, json, os, re, shutil, subprocess, sys, sysconfig, threading, time, venv
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import browser, pytest, yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try: import tomllib
except ImportError: import tomli as tomllib # Python 3.10

ROOT = Path(__file__).resolve().parent.parent
NBS,LIB = ROOT/'nbs',ROOT/'drone_seg'
PAGES = sorted(p for p in NBS.rglob('*.ipynb') if not any(o.startswith(('.', '_')) for o in p.relative_to(NBS).parts))

def page_name(p): return p.relative_to(NBS).as_posix()
def read_page(p): return json.loads(p.read_text(encoding='utf-8'))
def source(cell): return ''.join(cell['source'])
def code_cells(p): return [c for c in read_page(p)['cells'] if c['cell_type']=='code']

def plain_python(code):
    "`code` with magics turned into calls, so that it parses"
    from IPython.core.inputtransformer2 import TransformerManager
    return TransformerManager().transform_cell(code)

def run(*cmd, ok=True, **kwargs):
    "Runs `cmd`; what it printed, with its error where it failed"
    r = subprocess.run([str(o) for o in cmd], capture_output=True, text=True, **kwargs)
    if ok: assert r.returncode==0, f"{cmd} ended with {r.returncode}:\n{r.stdout}\n{r.stderr}"
    return r

each_page = pytest.mark.parametrize('page', PAGES, ids=page_name)


# README.md and drone_seg/ are in step with the pages

def test_readme_is_in_step():
    r = run(sys.executable, ROOT/'.ci'/'readme.py', '--check', ok=False)
    assert r.returncode==0, r.stderr

def test_readme_check_sees_a_change(tmp_path):
    readme = tmp_path/'README.md'
    shutil.copy(ROOT/'README.md', readme)
    check = sys.executable, ROOT/'.ci'/'readme.py', '--check', '--readme', readme
    run(*check)
    readme.write_text(readme.read_text(encoding='utf-8').replace('make demo', 'make  demo', 1), encoding='utf-8')
    r = run(*check, ok=False)
    assert r.returncode==1 and 'make readme' in r.stderr

def test_readme_blocks(tmp_path):
    "Each rule of the README script on a hand-worked page"
    code = lambda s, outputs=(): dict(cell_type='code', source=s, outputs=list(outputs))
    cells = [dict(cell_type='raw', source='---\ntitle: x\n---'),
             dict(cell_type='markdown', source=['# T\n', '[a](tutorials/a.ipynb) [b](https://c/d.ipynb) ![c](images/c.jpg)']),
             code('#| hide\nimport os'),
             code('#| eval: false\nf(1)'),
             code('print(1); g()', [dict(output_type='stream', name='stdout', text=['1\n']),
                                    dict(output_type='stream', name='stderr', text='careful\n'),
                                    dict(output_type='execute_result', data={'text/plain': ['2']}),
                                    dict(output_type='display_data', data={'image/png': 'AAAA', 'text/plain': '<Figure>'})])]
    page,readme = tmp_path/'p.ipynb',tmp_path/'R.md'
    page.write_text(json.dumps(dict(cells=cells)))
    run(sys.executable, ROOT/'.ci'/'readme.py', '--page', page, '--readme', readme)
    head,_,body = readme.read_text().partition('\n\n')
    assert head.startswith('<!--') and head.endswith('-->')
    assert body=='''# T
[a](nbs/tutorials/a.ipynb) [b](https://c/d.ipynb) ![c](nbs/images/c.jpg)

```python
f(1)
```

```python
print(1); g()
```

```text
1
```

```text
2
```
'''

def test_readme_starts_with_both_ways_in():
    screen = '\n'.join((ROOT/'README.md').read_text(encoding='utf-8').splitlines()[:32])
    for o in 'make demo', 'make test', 'pip install', 'drone_seg demo', 'pytest': assert o in screen, f"{o!r} is not on the first screen of README.md"

def test_readme_links_lead_somewhere():
    for link in re.findall(r'\]\((?!\w+:|#)([^)#\s]+)', (ROOT/'README.md').read_text(encoding='utf-8')):
        assert (ROOT/link).exists(), f"README.md links to {link}, which is not there"

def unfounded(text, results):
    "Figures of a page, .354 or 91 %, that round to no number of the results it names"
    found = [float(o) for o in re.findall(r'\d*\.\d+|\d+', results)]
    for said in re.findall(r'(?<![\w.-])(\.\d{2,3})(?!\d)', text):
        if not any(abs(o-float(said))<=.5001*10**-(len(said)-1) for o in found): yield said

@pytest.mark.parametrize('page', sorted((NBS/'guides').glob('*.ipynb')), ids=lambda p: p.stem)
def test_figures_of_guides_were_measured(page):
    text = '\n'.join(source(c) for c in read_page(page)['cells'])
    named = {page.parent/o for o in re.findall(r'\]\(([^)#\s]*benchmarks/results/[^)#\s]+)\)', text)}
    assert not list(unfounded(re.sub(r'^ {4,}.*$|`[^`]*`', '', text, flags=re.M), '\n'.join(o.read_text(encoding='utf-8') for o in named)))

def test_a_figure_that_nobody_measured_is_seen():
    assert list(unfounded('mIoU .354 and .36, not .371', '| 0.3541 | 0.363 |'))==['.371']

def test_exports_are_in_step():
    r = run(sys.executable, ROOT/'.ci'/'exports.py', ok=False)
    assert r.returncode==0, r.stderr

def test_exports_check_sees_a_change(tmp_path):
    "A module edited by hand, one that no page makes and one that was deleted are each named"
    copy = tmp_path/'copy'
    (copy/'nbs').mkdir(parents=True)
    shutil.copy(NBS/'01_classes.ipynb', copy/'nbs')
    shutil.copy(ROOT/'pyproject.toml', copy)
    (copy/'drone_seg').mkdir()
    (copy/'drone_seg'/'stray.py').write_text('x = 1\n')
    shutil.copy(LIB/'__init__.py', copy/'drone_seg')
    shutil.copy(LIB/'classes.py', copy/'drone_seg')
    with open(copy/'drone_seg'/'classes.py', 'a') as f: f.write('\n')
    before = sorted(copy.rglob('*'))
    err = run(sys.executable, ROOT/'.ci'/'exports.py', '--root', copy, ok=False).stderr
    assert 'stray.py comes from no page' in err and 'classes.py differs' in err and '_modidx.py is missing' in err
    assert sorted(copy.rglob('*'))==before, "the check wrote into the folder it looks at"

def test_links_and_names_live():
    r = run(sys.executable, ROOT/'.ci'/'links.py', ok=False)
    assert r.returncode==0, r.stderr

@pytest.mark.parametrize('text, says', [
    ('[a](nowhere.ipynb)', 'leads nowhere'), ('[a](b.ipynb#Not-there)', 'no such heading'), ('[a](b.ipynb#There-it-is)', ''),
    ('`12_photo.nowhere`', 'no page'), ('`tests/test_nothing.py`', 'is not there'), ('`known.lost_name`', "no code says 'lost_name'"),
    ('`known(a=1)`, `plainword`, [a](https://example.com/x.ipynb)', '')])
def test_dead_links_and_names_are_seen(tmp_path, text, says):
    (tmp_path/'nbs').mkdir()
    page = lambda *cells: json.dumps(dict(cells=[dict(cell_type=k, source=s) for k,s in cells]))
    (tmp_path/'nbs'/'b.ipynb').write_text(page(('markdown', '## There it is'), ('code', 'known = 1')))
    (tmp_path/'nbs'/'a.ipynb').write_text(page(('markdown', text)))
    for f in ('README.md','CONTRIBUTING.md'): (tmp_path/f).write_text('')
    r = run(sys.executable, ROOT/'.ci'/'links.py', '--root', tmp_path, ok=False)
    assert (says in r.stderr and r.returncode==1) if says else r.returncode==0, r.stderr


# Pages are clean and small

def test_pages_are_clean(tmp_path):
    "nbdev-clean would change no byte"
    shutil.copytree(NBS, tmp_path/'nbs')
    shutil.copy(ROOT/'pyproject.toml', tmp_path)
    run(sys.executable, '-c', 'from nbdev.clean import nbdev_clean; nbdev_clean()', cwd=tmp_path)
    dirty = [page_name(p) for p in PAGES if p.read_bytes()!=(tmp_path/'nbs'/page_name(p)).read_bytes()]
    assert not dirty, f"{dirty}: run nbdev-clean"

def bare_problems(nb):
    "What should not be in a notebook as committed: metadata, counts, errors, logs, widgets, progress bars, paths"
    for i,c in enumerate(nb['cells']):
        if c.get('metadata'): yield f"cell {i} has metadata {sorted(c['metadata'])}"
        if c.get('execution_count') is not None: yield f"cell {i} has an execution count"
        for o in c.get('outputs', []):
            if o.get('execution_count') is not None: yield f"an output of cell {i} has an execution count"
            if o.get('metadata'): yield f"an output of cell {i} has metadata"
            if o['output_type']=='error': yield f"cell {i} failed with {o.get('ename')}"
            if o.get('name')=='stderr': yield f"cell {i} has a log: {''.join(o['text'])[:80]!r}"
            if any('widget' in k for k in o.get('data', {})): yield f"cell {i} has widget state"
            if '<progress' in json.dumps(o): yield f"cell {i} has a progress bar"
        texts = [source(c), *(json.dumps({k:v for k,v in o.get('data', {}).items() if not k.startswith('image/')})+''.join(o.get('text', ''))
                              for o in c.get('outputs', []))]
        for t in texts:
            if m := re.search(r'(?<![\w.~:/-])(/(home|root|Users|work|tmp|private|var|mnt)/|[A-Z]:\\+Users)\S*', t): yield f"cell {i} has a path of one machine: {m[0][:60]}"

@each_page
def test_page_is_bare(page):
    bad = list(bare_problems(read_page(page)))
    assert not bad, f"{page_name(page)}: {'; '.join(bad)}"

@pytest.mark.parametrize('change, says', [
    (dict(metadata={'collapsed': True}), 'metadata'),
    (dict(execution_count=3), 'count'),
    (dict(outputs=[dict(output_type='error', ename='ValueError')]), 'ValueError'),
    (dict(outputs=[dict(output_type='stream', name='stderr', text=['warn'])]), 'log'),
    (dict(outputs=[dict(output_type='display_data', data={'text/html': '<progress value=1>'})]), 'progress'),
    (dict(outputs=[dict(output_type='stream', name='stdout', text='wrote /home/me/x.png')]), '/home/me'),
    (dict(source="p = '/tmp/x'"), '/tmp/x'),
])
def test_bare_problems_are_seen(change, says):
    cell = dict(cell_type='code', source='1+1', metadata={}, execution_count=None, outputs=[])
    assert not list(bare_problems(dict(cells=[cell])))
    found = list(bare_problems(dict(cells=[{**cell, **change}])))
    assert len(found)==1 and says in found[0]

def mixed_cells(page):
    "Cells of `page`, shown as examples, that import and do something else: the docs build runs each cell with an import, without those before"
    for i,c in enumerate(code_cells(page)):
        if re.search(r'^\s*#\s*\|\s*(export|eval:\s*false)', source(c), re.M): continue
        tree = ast.parse(plain_python(source(c)))
        n = sum(isinstance(o, (ast.Import, ast.ImportFrom)) for o in tree.body)
        if n!=len(tree.body) and any(isinstance(o, (ast.Import, ast.ImportFrom)) for o in ast.walk(tree)): yield f"code cell {i}: {source(c)[:60]!r}"

@each_page
def test_imports_stand_in_their_own_cells(page):
    bad = list(mixed_cells(page)) if re.match(r'\d\d[a-z]?_', page.name) else []
    assert not bad, f"{page_name(page)}, the docs build would run these alone; move their imports to a cell above: {'; '.join(bad)}"

@each_page
def test_title_cell_holds_the_title_only(page):
    "The docs make title and subtitle of this cell, and drop whatever else stands in it"
    lines = next(source(c) for c in read_page(page)['cells'] if c['cell_type']=='markdown').splitlines()
    assert lines[0].startswith('# ')
    more = [o for o in lines[1:] if o.strip() and not re.match(r'> |- [\w-]+:', o)]
    assert not more, f"{page_name(page)}: give this a cell of its own: {more[0]!r}"

@each_page
def test_page_is_small(page):
    limit = 1_000_000 if page.parent.name=='tutorials' else 300_000
    assert page.stat().st_size<=limit, f"{page_name(page)} has {page.stat().st_size/1000:.0f} KB; {limit/1000:.0f} are enough"


# Imports only run downstairs

# Which floors each floor may know about. Prediction stays clear of training: using a model needs no learner.
MAY_KNOW = {n: {*range(n+1)} for n in range(10)} | {4: {0,1,2,4}, 6: {0,1,2,4,6}}
ROOF = 100 # drone_seg.all stands on every module, so none may import it
# What the lower floors, photos and scores, are written without
NOT_DOWNSTAIRS = {'fastai', 'timm', 'segmentation_models_pytorch', 'albumentations'}

def page_number(number, letter):
    "22a stands between 22 and 23"
    return int(number) + (ord(letter)-ord('a')+1)/100 if letter else int(number)

def page_modules():
    "Module each numbered page exports, with the page's number"
    for p in PAGES:
        num = re.match(r'(\d\d)([a-z]?)_', p.name)
        for c in code_cells(p):
            if num and (m := re.match(r'\s*#\s*\|\s*default_exp\s+(\S+)', source(c))): yield p, f'drone_seg.{m[1]}', page_number(*num.groups())

NUMBERS = {m:n for _,m,n in page_modules()}

def module_file(module): return (ROOT/module.replace('.', '/')).with_suffix('.py')

def imports(tree, module):
    "Line and absolute dotted name of everything `tree`, the code of `module`, imports at any depth"
    package = module.split('.')[:-1]
    for o in ast.walk(tree):
        if isinstance(o, ast.Import): yield from ((o.lineno, a.name) for a in o.names)
        elif isinstance(o, ast.ImportFrom):
            base = package[:len(package)-o.level+1] if o.level else []
            base = '.'.join(base + (o.module.split('.') if o.module else []))
            yield o.lineno, base
            yield from ((o.lineno, f'{base}.{a.name}') for a in o.names)
        elif isinstance(o, ast.Call) and getattr(o.func, 'attr', getattr(o.func, 'id', '')) in ('import_module', '__import__'):
            if o.args and isinstance(o.args[0], ast.Constant): yield o.lineno, str(o.args[0].value)

def up_imports(code, module, numbers, own=False):
    "Imports in `code` that `module` may not make: of a number not below its own (`own`: or its own), or of a floor it may not know"
    num,tree = numbers[module],ast.parse(code)
    seen = set()
    for line,name in imports(tree, module):
        for target,n in {**numbers, 'drone_seg.all': ROOF}.items():
            if name!=target and not name.startswith(target+'.') or (line,target) in seen: continue
            seen.add((line,target))
            if own and target==module: continue
            if n>=num: yield f"line {line}: {module} ({num:02}) imports {target} ({n:02}), which is not below it"
            elif n//10 not in MAY_KNOW[num//10]: yield f"line {line}: {module} ({num:02}) imports {target} ({n:02}), a floor it may not know"
        if num<30 and name.split('.')[0] in NOT_DOWNSTAIRS and (line,name.split('.')[0]) not in seen:
            seen.add((line,name.split('.')[0]))
            yield f"line {line}: {module} ({num:02}) imports {name.split('.')[0]}, which the lower floors do without"

def test_pages_have_names_of_their_modules():
    "`32_data.datasets` exports drone_seg/data/datasets.py, and two pages neither share a number nor a module"
    found = list(page_modules())
    for p,module,_ in found: assert 'drone_seg.'+p.stem.partition('_')[2]==module, f"{p.name} exports {module}"
    assert len({n for *_,n in found})==len(found)==len(NUMBERS)
    numbered = [p for p in PAGES if re.match(r'\d\d[a-z]?_', p.name)]
    assert {p for p,*_ in found}==set(numbered), "a numbered page without default_exp"

def later_methods(code, module):
    "(module, name) of the methods that classes in `code` leave to a later page: `split = Later('data.splits')` in a class"
    for c in ast.walk(ast.parse(code)):
        if not isinstance(c, ast.ClassDef): continue
        for o in c.body:
            if isinstance(o, ast.Assign) and isinstance(o.value, ast.Call) and getattr(o.value.func, 'id', '')=='Later':
                yield f"drone_seg.{o.value.args[0].value}", o.value.args[-1].value if len(o.value.args)>1 else o.targets[0].id

def hidden_imports(code):
    "Lines of `code` that put the name of a module of ours together, outside the class `Later`: they could import upstairs unseen"
    tree = ast.parse(code)
    allowed = {id(o) for c in ast.walk(tree) if isinstance(c, ast.ClassDef) and c.name=='Later' for o in ast.walk(c)}
    for o in ast.walk(tree):
        if not isinstance(o, ast.Call) or id(o) in allowed: continue
        if getattr(o.func, 'attr', getattr(o.func, 'id', '')) not in ('import_module', '__import__'): continue
        if any(isinstance(a, ast.JoinedStr) and 'drone_seg' in ast.unparse(a) for a in o.args): yield o.lineno

@pytest.mark.parametrize('module', sorted(NUMBERS, key=NUMBERS.get))
def test_only_methods_of_a_class_are_left_to_later_pages(module):
    "The one way upstairs: a class names a method that stands, as a function of that name, on a later page"
    code = module_file(module).read_text(encoding='utf-8')
    found = list(later_methods(code, module))
    assert not list(hidden_imports(code)) and len(found)==code.count('= Later(')
    for page,name in found:
        assert NUMBERS[page]>NUMBERS[module], f"{module}: {name} stands below, import it"
        assert callable(getattr(importlib.import_module(page), name)), f"{page} has no function {name}"

def test_a_hidden_import_is_seen():
    assert list(hidden_imports("import importlib\nm = importlib.import_module(f'drone_seg.{x}')\nimportlib.import_module('json')"))==[2]
    assert list(later_methods("class A:\n    cut = Later('data.knife')", 'drone_seg.data.block'))==[('drone_seg.data.knife', 'cut')]

@pytest.mark.parametrize('module', sorted(NUMBERS, key=NUMBERS.get))
def test_module_imports_run_downstairs(module):
    bad = list(up_imports(module_file(module).read_text(encoding='utf-8'), module, NUMBERS))
    assert not bad, '; '.join(bad)

def unknown_names(module, code):
    "Global names that functions in `code` ask for, and neither `module` nor Python has"
    def functions(c):
        for o in c.co_consts:
            if isinstance(o, type(c)):
                yield o
                yield from functions(o)
    for f in functions(compile(code, module.__name__, 'exec')):
        for o in dis.get_instructions(f):
            known = hasattr(module, str(o.argval)) or hasattr(builtins, str(o.argval))
            if o.opname=='LOAD_GLOBAL' and not known: yield f"{f.co_name} (line {f.co_firstlineno}) asks for {o.argval}"

@pytest.mark.parametrize('module', sorted(NUMBERS, key=NUMBERS.get))
def test_every_name_a_function_asks_for_is_there(module):
    assert list(unknown_names(importlib.import_module(module), module_file(module).read_text(encoding='utf-8')))==[]

def test_an_unknown_name_is_seen():
    code = 'def f():\n    return [len(json), g(here), nowhere]'
    assert [o.split()[-1] for o in unknown_names(sys.modules[__name__], code)]==['g', 'here', 'nowhere']

def idle_stars(module, code):
    "Modules of ours that `code` takes all names of, and uses none"
    nodes = list(ast.walk(ast.parse(code)))
    used = {o.id for o in nodes if isinstance(o, ast.Name)}
    stars = [o for o in nodes if isinstance(o, ast.ImportFrom) and o.names[0].name=='*']
    names = [importlib.util.resolve_name('.'*o.level+(o.module or ''), module.rpartition('.')[0]) for o in stars]
    return [n for n in names if n.startswith('drone_seg') and not used.intersection(importlib.import_module(n).__all__)]

@pytest.mark.parametrize('module', sorted(NUMBERS, key=NUMBERS.get))
def test_what_is_imported_with_a_star_is_used(module):
    assert idle_stars(module, module_file(module).read_text(encoding='utf-8'))==[]

def test_an_idle_star_is_seen():
    code = 'from .splits import *\nfrom drone_seg.classes import *\nt = ClassTable([])'
    assert idle_stars('drone_seg.data.block', code)==['drone_seg.data.splits']

def test_no_public_name_stands_in_two_modules():
    "In `drone_seg.all` the later one would hide the other"
    import ast, collections
    found = collections.defaultdict(list)
    for f in sorted((ROOT/'drone_seg').rglob('*.py')):
        for node in ast.parse(f.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '')=='__all__':
                for name in ast.literal_eval(node.value): found[name].append(f.stem)
    assert len(found)>100 and {k:v for k,v in found.items() if len(v)>1}=={}

@pytest.mark.parametrize('page, module', [o[:2] for o in page_modules()], ids=lambda o: getattr(o, 'name', ''))
def test_page_imports_run_downstairs(page, module):
    "The examples of a page too; they may import the page's own module"
    for c in code_cells(page):
        bad = list(up_imports(plain_python(source(c)), module, NUMBERS, own=True))
        assert not bad, f"{page.name}: {'; '.join(bad)}"

HOUSE = {'drone_seg.classes':0, 'drone_seg.data.images':30, 'drone_seg.data.block':39, 'drone_seg.models.unet':41,
         'drone_seg.train.learner':52, 'drone_seg.predict.stream':62, 'drone_seg.runs.evaluate':70}

@pytest.mark.parametrize('module, code', [
    ('drone_seg.classes',       'from drone_seg.data.images import read_image'),
    ('drone_seg.classes',       'from .data.images import *'),
    ('drone_seg.classes',       'from .data import images'),
    ('drone_seg.classes',       'import fastai.vision.all'),
    ('drone_seg.data.images',   'def f():\n    from drone_seg.models.unet import UNet'),
    ('drone_seg.data.images',   'def f():\n    from .block import dataloaders'),
    ('drone_seg.data.images',   'import drone_seg.data.block as b'),
    ('drone_seg.data.images',   'from drone_seg.data import images'),
    ('drone_seg.data.block',    'class A:\n    def f(self):\n        from ..models import unet'),
    ('drone_seg.data.block',    "import importlib\nm = importlib.import_module('drone_seg.predict.stream')"),
    ('drone_seg.models.unet',   'from ..data.images import *'),
    ('drone_seg.predict.stream', 'from ..train.learner import unet_learner'),
    ('drone_seg.runs.evaluate', 'from drone_seg.all import *'),
    ('drone_seg.runs.evaluate', 'from .. import all'),
    ('drone_seg.models.unet',   'def show(self, x):\n    "Hands on"\n    from ..predict.stream import Looker\n    return Looker(self, x)'),
])
def test_up_import_is_caught(module, code):
    assert len(list(up_imports(code, module, HOUSE)))==1

@pytest.mark.parametrize('module, code', [
    ('drone_seg.data.block',    'from ..classes import *\nfrom .images import read_image\nimport fastai.vision.all'),
    ('drone_seg.train.learner', 'def f():\n    from drone_seg.data.images import read_image\nfrom drone_seg.models.unet import UNet'),
    ('drone_seg.runs.evaluate', 'from drone_seg import __version__\nfrom ..train.learner import unet_learner'),
    ('drone_seg.classes',       'import drone_seg\nimport numpy as np, data.images'),
])
def test_down_import_passes(module, code): assert not list(up_imports(code, module, HOUSE))


# Requirements and their reasons

def settings():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']

def stated(key): return [o.strip() for o in settings()[key].splitlines() if o.strip()]

KINDS = [k for k in settings() if k.endswith('requirements')]

def project(): return tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['project']

@pytest.mark.parametrize('kind', KINDS)
def test_requirements_parse(kind):
    reqs = [Requirement(o) for o in stated(kind)]
    assert reqs and len({canonicalize_name(o.name) for o in reqs})==len(reqs)

def bounds_without_reason(text):
    "Requirements in the settings file `text` that have a bound and no comment above them"
    above = ''
    for line in map(str.strip, text.splitlines()):
        if re.match(r'[\w.\[\],-]+\s*[<>=!~]=?\s*\d', line) and not re.match(r'(version|min_python)\b', line) and not above.startswith('#'): yield line
        above = line

def test_bounds_have_reasons():
    text = (ROOT/'settings.ini').read_text(encoding='utf-8')
    assert not list(bounds_without_reason(text))
    assert list(bounds_without_reason('requirements =\n    # too old\n    a>=1\n    b==2.0\n    c\n    d<3'))==['b==2.0', 'd<3']

def test_setup_py_reads_what_is_stated(tmp_path):
    "What the builder is given is what settings.ini says, comments left out"
    (tmp_path/'setuptools.py').write_text('import json\ndef setup(**k): print(json.dumps(k))')
    got = json.loads(run(sys.executable, '-c', f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path({str(ROOT/'setup.py')!r})").stdout)
    assert got['version']==settings()['version'] and got['install_requires']==stated('requirements')
    assert got['extras_require']=={k.removesuffix('_requirements'): stated(k) for k in KINDS if k!='requirements'}

def test_settings_and_pyproject_agree():
    p = project()
    assert p['name']==settings()['lib_name'] and p['requires-python']==f">={settings()['min_python']}"
    assert {'version', 'readme', 'dependencies', 'optional-dependencies'}==set(p['dynamic'])

def test_version_is_the_installed_one():
    import drone_seg
    assert drone_seg.__version__==settings()['version'], "settings.ini changed: pip install -e '.[offline,dev]'"

def test_changelog_knows_the_version():
    heads = re.findall(r'^## \[(.+?)\]', (ROOT/'CHANGELOG.md').read_text(encoding='utf-8'), re.M)
    assert heads[0]=='Unreleased' or heads[0]==settings()['version']

def test_direct_imports_are_stated():
    "What a module imports stands in settings.ini by name; what only comes along with another package may go with it"
    known = {canonicalize_name(Requirement(o).name) for k in KINDS if k!='dev_requirements' for o in stated(k)}
    dists,bad = packages_distributions(),[]
    known.add('ipython') # imported only where a notebook runs, which has it
    for f in sorted(LIB.rglob('*.py')):
        module = '.'.join(f.relative_to(ROOT).with_suffix('').parts)
        for line,name in imports(ast.parse(f.read_text(encoding='utf-8')), module):
            top = name.split('.')[0]
            if top in sys.stdlib_module_names or top=='drone_seg' or top not in dists: continue
            if not {canonicalize_name(o) for o in dists[top]}&known: bad.append(f"{f.relative_to(ROOT)}, line {line}: {top}")
    assert not bad, f"not among the requirements of settings.ini: {'; '.join(dict.fromkeys(bad))}"

def test_workflow_tests_every_python():
    jobs = yaml.safe_load((ROOT/'.github'/'workflows'/'test.yml').read_text(encoding='utf-8'))['jobs']
    tested = jobs['test']['strategy']['matrix']['python']
    said = [c.rpartition(' ')[2] for c in project()['classifiers'] if re.search(r':: 3\.\d+$', c)]
    assert tested==said and tested[0]==settings()['min_python']
    assert any(s.get('run')=='.ci/run' for s in jobs['test']['steps'])

def test_ci_calls_make_test():
    lines = [o for o in (ROOT/'.ci'/'run').read_text().splitlines() if o and not o.startswith('#')]
    assert lines[0]=='set -euo pipefail' and lines[-1].startswith('exec make test') and (ROOT/'.ci'/'run').stat().st_mode&0o111
    targets = re.findall(r'^(\w+):', (ROOT/'Makefile').read_text(), re.M)
    assert {'demo', 'test', 'readme', 'export', 'docs', 'clean'}<=set(targets)


# The wheel, in an environment that holds what it asks for and nothing else

BUILT_FROM = 'settings.ini', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md', 'CHANGELOG.md'

def closure(reqs):
    "Canonical names of the distributions that `reqs` bring in, themselves included"
    todo,seen = [(Requirement(o), '') for o in reqs],set()
    while todo:
        r,_ = o = todo.pop()
        key = canonicalize_name(r.name),frozenset(r.extras)
        if key in seen: continue
        try: needs = distribution(r.name).requires or []
        except PackageNotFoundError: continue # for another system or Python
        seen.add(key)
        for q in map(Requirement, needs):
            if q.marker is None or any(q.marker.evaluate({'extra': e}) for e in ('', *r.extras)): todo.append((q, ''))
    return {name for name,_ in seen}

def foreign_modules():
    "Top-level modules installed here that a user of drone_seg with the extra `offline` would not have"
    brought = closure(stated('requirements')+stated('offline_requirements')) | {'drone-seg'}
    return {m for m,ds in packages_distributions().items() if not brought & {canonicalize_name(d) for d in ds}} | {'nbdev', 'execnb'}

BLOCK = '''# Stands in for a fresh environment: this one borrows the folder of another, minus what drone_seg does not ask for.
import sys
from importlib.machinery import PathFinder
FOREIGN = {foreign}
class OnlyWhatIsAskedFor(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition('.')[0] in FOREIGN else super().find_spec(name, path, target)
sys.meta_path[:] = [OnlyWhatIsAskedFor if o is PathFinder else o for o in sys.meta_path]
'''

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built by way of the source archive, from a copy"
    src = tmp_path_factory.mktemp('source')
    for f in BUILT_FROM: shutil.copy(ROOT/f, src)
    shutil.copytree(LIB, src/'drone_seg', ignore=shutil.ignore_patterns('__pycache__'))
    run(sys.executable, '-m', 'build', '--no-isolation', src)
    return next((src/'dist').glob('*.whl'))

@pytest.fixture(scope='module')
def fresh(wheel, tmp_path_factory):
    """Folder of programs of an environment with the wheel installed in it, and another folder to work in. The heavy packages
    are borrowed: a .pth file names the folder they lie in (its own .pth files, so an editable drone_seg too, do not count)."""
    home = tmp_path_factory.mktemp('fresh')
    venv.create(home/'env', with_pip=False, symlinks=sys.platform!='win32')
    scripts = home/'env'/('Scripts' if sys.platform=='win32' else 'bin')
    run(sys.executable, '-m', 'pip', '--python', scripts/'python', 'install', '--quiet', '--no-deps', '--no-index', '--disable-pip-version-check', wheel)
    site = Path(run(scripts/'python', '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').stdout.strip())
    borrowed = dict.fromkeys(sysconfig.get_path(o) for o in ('purelib', 'platlib'))
    (site/'borrowed.pth').write_text('\n'.join(['import block_foreign', *borrowed])+'\n')
    (site/'block_foreign.py').write_text(BLOCK.format(foreign=sorted(foreign_modules()))) # sitecustomize is Debian's
    (home/'elsewhere').mkdir()
    return scripts,home/'elsewhere'

def clean_env():
    "This process's environment, without what steers Python"
    return {k:v for k,v in os.environ.items() if not k.startswith('PYTHON')} | {'PYTHONNOUSERSITE': '1'}

def test_wheel_holds_the_package_and_no_more(wheel):
    from zipfile import ZipFile
    names = ZipFile(wheel).namelist()
    have = {o for o in names if o.startswith('drone_seg/')}
    assert have>={p.relative_to(ROOT).as_posix() for end in ('py','json','html','css','js') for p in LIB.rglob(f'*.{end}')}
    assert {o.split('/')[0] for o in names}=={'drone_seg', f"drone_seg-{settings()['version']}.dist-info"}
    about = ZipFile(wheel).read(f"drone_seg-{settings()['version']}.dist-info/METADATA").decode()
    links = re.findall(r'\]\(([^)#\s]+)', about)
    assert 'Description-Content-Type: text/markdown' in about
    assert len(links)>8 and all(o.startswith('https://') for o in links)
    assert any(o.endswith('LICENSE') for o in names) and any(o.endswith('entry_points.txt') for o in names)

def test_wheel_works_in_a_fresh_environment(fresh, wheel):
    scripts,elsewhere = fresh
    code = '''
import drone_seg, sys
print(drone_seg.__file__, drone_seg.__version__)
assert not {'torch', 'fastai', 'numpy'} & set(sys.modules), "importing drone_seg alone must stay cheap"
try: import nbdev
except ImportError: print('no nbdev')
from drone_seg.all import *
print(sorted(o for o in ('ClassTable', 'open_dataset', 'unet_learner', 'save_bundle', 'load_bundle') if o not in globals()))
print(install_line('geo'))
'''
    r = run(scripts/'python', '-c', code, cwd=elsewhere, env=clean_env())
    assert not r.stderr, f"importing the package prints {r.stderr}"
    out = r.stdout.splitlines()
    where,_,version = out[0].rpartition(' ')
    assert Path(where).resolve().is_relative_to(scripts.parent.resolve()) and version==settings()['version']
    assert out[1:3]==['no nbdev', '[]'] and out[3].endswith(f'-m pip install "{wheel}[geo]"'), out

def test_command_works_in_a_fresh_environment(fresh):
    scripts,elsewhere = fresh
    out = run(scripts/'drone_seg', '--help', cwd=elsewhere, env=clean_env()).stdout
    for o in 'demo', 'check', 'split', 'train', 'evaluate', 'predict': assert o in out, f"drone_seg --help does not tell of {o}"


# Docs

def sidebar_pages(contents):
    for o in contents:
        if isinstance(o, str): yield o
        else: yield from sidebar_pages(o['contents'])

def test_sidebar_has_every_page():
    listed = list(sidebar_pages(yaml.safe_load((NBS/'sidebar.yml').read_text(encoding='utf-8'))['contents']))
    assert len(set(listed))==len(listed)
    have = {page_name(p) for p in PAGES}
    assert set(listed)==have, f"not there: {sorted(set(listed)-have)}; not in nbs/sidebar.yml: {sorted(have-set(listed))}"
    numbered = [o for o in listed if re.match(r'\d\d[a-z]?_', o)]
    assert numbered==sorted(numbered), "pages stand in the order of their numbers"

@pytest.fixture(scope='module')
def built(tmp_path_factory, program):
    "The documentation site; the build itself looks for dead links"
    tmp = tmp_path_factory.mktemp('docs')
    shutil.copytree(NBS, tmp/'nbs', ignore=shutil.ignore_patterns('.*'))
    shutil.copytree(LIB, tmp/'drone_seg', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(ROOT/'pyproject.toml', tmp)
    program(f"import runpy\nrunpy.run_path({str(ROOT/'.ci'/'docs.py')!r}, run_name='__main__')", '--root', tmp, '--out', tmp/'html')
    return tmp/'html'

def test_site_has_every_page(built):
    for p in PAGES:
        html = (built/page_name(p)).with_suffix('.html').read_text(encoding='utf-8')
        title = next(source(c) for c in read_page(p)['cells'] if c['cell_type']=='markdown').splitlines()[0].lstrip('# ')
        assert title.replace('`', '') in re.sub('<[^>]+>', '', html) and 'Traceback' not in html, f"{page_name(p)}"

def test_site_tells_of_arguments(built):
    html = (built/'01_classes.html').read_text(encoding='utf-8')
    row = re.search(r'<tr>\s*<td><code>tol</code></td>\s*(.*?)</tr>', html, re.S)[1]
    assert re.sub(r'<[^>]+>|\n', ' ', row).split()[:4]==['int', '0', 'Largest', 'difference']
    assert '#| export' not in html and 'id="ClassTable.from_colors"' in html
    assert 'arithmatex' not in (built/'50_train.lovasz.html').read_text(encoding='utf-8') # formulas are drawn without a script

def test_search_knows_definitions(built):
    found = json.loads((built/'search'/'search_index.json').read_text(encoding='utf-8'))['docs']
    assert any(o['location']=='80d_use.landing.html#landing_zones' for o in found)

@pytest.fixture
def served(built):
    "Address of the site on this machine"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    handler = functools.partial(Quiet, directory=built)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()

def test_site_is_found_and_read_in_a_browser(served):
    "Search finds, nothing sticks out on a phone, dark is dark, and no other host is asked"
    if browser.WHY_NOT: pytest.skip(browser.WHY_NOT)
    b = browser.Browser()
    try:
        b.open(f'{served}/index.html?q=landing+zones')
        until = time.monotonic()+60
        while not (found := b.run("[...document.querySelectorAll('.md-search-result__link')].map(o => o.pathname)")) and time.monotonic()<until: time.sleep(.2)
        assert '/80d_use.landing.html' in found and not [o for o in b.problems if not o.startswith(f'asked the network for {served}')]
        for page in 'index', '01_classes', 'guides/measured', '50_train.lovasz', '50a_train.nearness', '50b_train.summary':
            b.open(f'{served}/{page}.html', width=390, height=844, dark=True)
            assert b.run('document.documentElement.scrollWidth')<=390, f'{page} is wider than a phone'
            assert max(map(int, re.findall(r'\d+', b.run("getComputedStyle(document.body).backgroundColor"))[:3]))<80
    finally: b.close()

@pytest.mark.parametrize('body, says', [
    ('<a href="b.html#there">b</a> <a href="https://example.com/x">x</a> <img src="i.png" alt="a roof">', ''),
    ('<a href="c.html">c</a>', 'c.html leads nowhere'), ('<a href="../b.html">b</a>', 'leads nowhere'),
    ('<a href="b.html#gone">b</a>', 'no such place'), ('<a href="#gone">b</a>', 'no such place'),
    ('<img src="j.png" alt="a roof">', 'j.png leads nowhere'), ('<img src="i.png" alt=" ">', 'has no text'),
    ('<script src="https://cdn.example.com/x.js"></script>', 'another host'), ('<p>source{target="_blank"}</p>', 'attributes')])
def test_dead_links_of_the_site_are_seen(tmp_path, body, says):
    (tmp_path/'site').mkdir()
    (tmp_path/'b.html').write_text('outside')
    (tmp_path/'site'/'i.png').write_bytes(b'')
    (tmp_path/'site'/'b.html').write_text('<h2 id="there">There</h2>')
    (tmp_path/'site'/'a.html').write_text(body)
    r = run(sys.executable, ROOT/'.ci'/'site_check.py', tmp_path/'site', ok=False)
    assert (says in r.stderr and r.returncode==1) if says else r.returncode==0, r.stderr
