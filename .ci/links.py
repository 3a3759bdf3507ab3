#!/usr/bin/env python3
"""Looks for dead links and dead names in the prose of pages, README.md and CONTRIBUTING.md.

A link leads to a file of the project or to a heading of a page; a path in backticks is there; a page in backticks exists; a name
in backticks with an underscore or a dot in it stands somewhere in the code of the project."""
import argparse, json, re, sys
from pathlib import Path

LINK = re.compile(r'\]\((?!\w+:)([^)\s]+)\)')
TICKED = re.compile(r'(?<!`)`([^`\n]+)`(?!`)')
PATH = re.compile(r'(?:nbs|tests|benchmarks|drone_seg|\.ci)/[\w./-]*\.\w+')
PAGE = re.compile(r'\d\d[a-z]?_[\w.]+')
# What others call so: names in their programs and files
OTHERS = {'p001_02', 'P0001_0_800_800_1600', '18_140012_87345', 'random_grid_cell_assignment', 'stem_0', 'encoder_output_stride',
          'distrib_ctx', 'rt_info', 'to_bf16'}
NAME = re.compile(r'[A-Za-z]\w*(?:\.\w+)*(?=\(|$)')

def texts(file):
    "Pieces of prose in a page or a text, with the place where each stands"
    if file.suffix!='.ipynb':
        yield file.name, file.read_text(encoding='utf-8')
        return
    for i,c in enumerate(json.loads(file.read_text(encoding='utf-8'))['cells']):
        if c['cell_type']=='markdown': yield f"{file.name}, cell {i}", ''.join(c['source'])

def anchors(page):
    "What `#...` may lead to in a page"
    heads = re.findall(r'^#+ +(.+)$', '\n'.join(t for _,t in texts(page)), re.M)
    return {re.sub(r'[^\w-]', '', h.strip().replace(' ', '-')).lower() for h in heads}

def words_of_code(root):
    "All words in code, so that a name in prose can be looked for"
    res = set()
    for f in [*root.glob('drone_seg/**/*.py'), *root.glob('tests/*.py'), *root.glob('benchmarks/*.py'), *root.glob('.ci/*'), root/'settings.ini', root/'Makefile']:
        if f.is_file(): res.update(re.findall(r'\w+', f.read_text(encoding='utf-8')))
    for f in root.glob('nbs/**/*.ipynb'):
        for c in json.loads(f.read_text(encoding='utf-8'))['cells']:
            if c['cell_type']=='code': res.update(re.findall(r'\w+', ''.join(c['source'])))
    return res

def dead_links(file, text, root):
    for link in LINK.findall(text):
        path,_,anchor = link.partition('#')
        target = file.parent/path if path else file
        if not target.exists(): yield f"the link {link} leads nowhere"
        elif anchor and target.suffix=='.ipynb' and anchor.lower() not in anchors(target): yield f"the link {link}: no such heading"

def dead_names(text, root, pages, words):
    for said in TICKED.findall(re.sub(r'```.*?```', '', text, flags=re.S)):
        if PAGE.fullmatch(said) and said not in OTHERS and said.removesuffix('.ipynb') not in pages: yield f"no page is called {said}"
        for path in PATH.findall(said):
            if '*' not in said and not (root/path).exists(): yield f"{path} is not there"
        name = NAME.match(said)
        if name and ('_' in name[0] or '.' in name[0]) and not PATH.search(said) and not re.search(r'\.\w{1,5}$', name[0]):
            odd = [w for w in name[0].split('.') if w not in words|OTHERS]
            if odd: yield f"no code says {odd[0]!r} of {said!r}"

def problems(root):
    "A line for each dead link and name"
    files = [root/'README.md', root/'CONTRIBUTING.md', *sorted(root.glob('nbs/**/*.ipynb'))]
    files = [f for f in files if not any(p.startswith(('.', '_')) for p in f.relative_to(root).parts)]
    pages,words = {f.stem for f in files},words_of_code(root)
    for f in files:
        for where,text in texts(f):
            yield from (f"{where}: {o}" for o in dead_links(f, text, root))
            yield from (f"{where}: {o}" for o in dead_names(text, root, pages, words))

def main():
    p = argparse.ArgumentParser(description='Look for dead links and names in the prose of pages and texts')
    p.add_argument('--root', type=Path, default=Path(__file__).resolve().parent.parent, help='folder of nbs/ and README.md')
    found = list(problems(p.parse_args().root))
    if found: sys.exit('\n'.join(found))
    print('no dead links or names')

if __name__=='__main__': main()
