#!/usr/bin/env python3
"""Builds the documentation site: pages as nbdev processes them for the docs, to Markdown, to HTML by mkdocs-material.

Nothing of a page is run but its imports and definitions, which the tables of arguments are read from; examples show what is
stored. At the end every link, anchor and picture of the site is looked for (.ci/site_check.py), and a dead one ends the build."""
import argparse, functools, logging, os, re, shutil, sys
from pathlib import Path
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
from page_text import Links, PageText, definition_text
from site_check import problems

def processed(root, only=''):
    "Runs nbdev's docs processing over nbs/ of `root`; returns the folder it made"
    import nbdev.config, nbdev.showdoc
    from nbdev.serve import proc_nbs
    nbdev.config._load_toml = functools.cache(nbdev.config._load_toml) # it reads the project's settings for each cell anew
    nbdev.showdoc.BasicMarkdownRenderer._repr_markdown_ = lambda self: '\n\n'.join(definition_text(self))
    os.chdir(root)
    return Path(proc_nbs(n_workers=0, force=True, file_re=only))

def menu(contents):
    "`nbs/sidebar.yml` as mkdocs takes it"
    for o in contents:
        if isinstance(o, str): yield o.replace('.ipynb', '.md')
        else: yield {o['section']: list(menu(o['contents']))}

def listed(nav):
    for o in nav:
        if isinstance(o, str): yield o
        else: yield from listed(*o.values())

def as_mathml(m):
    "A formula as browsers draw it themselves"
    from html import unescape
    from latex2mathml.converter import convert
    inline = m[0].startswith('<span')
    drawn = convert(unescape(m[1])[2:-2], display='inline' if inline else 'block')
    return drawn if inline else f'<div class="formula">{drawn}</div>'

def draw_formulas(out):
    for p in out.rglob('*.html'):
        text = p.read_text(encoding='utf-8')
        drawn = re.sub(r'<(?:span|div) class="arithmatex">(.*?)</(?:span|div)>', as_mathml, text, flags=re.S)
        if drawn!=text: p.write_text(drawn, encoding='utf-8')

def build(root, texts, out):
    "Runs mkdocs over the Markdown in `texts`"
    from mkdocs.commands.build import build as mkdocs_build
    from mkdocs.config import load_config
    nav = list(menu(yaml.safe_load((root/'nbs'/'sidebar.yml').read_text(encoding='utf-8'))['contents']))
    logging.getLogger('mkdocs').setLevel(logging.WARNING)
    logging.getLogger('mkdocs').addHandler(logging.StreamHandler())
    config = load_config(str(Path(__file__).resolve().parent/'mkdocs.yml'), docs_dir=str(texts), site_dir=str(out), nav=nav)
    mkdocs_build(config)

def python_of(root):
    "The Python that runs this, as one calls it from `root`"
    here = Path(sys.executable)
    return here.relative_to(root) if here.is_relative_to(root) else here.name

def main():
    root = Path(__file__).resolve().parent.parent
    p = argparse.ArgumentParser(description='Build the documentation site')
    p.add_argument('--root', type=Path, default=root, help='folder of pyproject.toml and nbs/')
    p.add_argument('--out', type=Path, default=None, help='folder for the site (default: _docs in that folder)')
    a = p.parse_args()
    root = a.root.resolve()
    out = (a.out or root/'_docs').resolve()
    try: folder = processed(root)
    except Exception as e: sys.exit(f'the docs do not build: {e}') # it names page and cell
    pages = sorted(folder.rglob('*.ipynb'))
    if not pages: sys.exit(f'no pages in {root/"nbs"}')
    texts = folder/'texts'
    links = Links(folder, pages)
    for o in pages: PageText(o, folder, texts, links).write()
    for o in 'images', 'theme':
        if (root/'nbs'/o).is_dir(): shutil.copytree(root/'nbs'/o, texts/o)
    build(root, texts, out)
    draw_formulas(out)
    if found := list(problems(out)): sys.exit('\n'.join(found))
    print(f'{len(pages)} pages in {out}')
    print(f'To read them: {python_of(root)} -m http.server -d {os.path.relpath(out, root)}, then http://localhost:8000; opened as files, they have no search')

if __name__=='__main__': main()
