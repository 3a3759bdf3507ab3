#!/usr/bin/env python3
"""The notebook half of the docs build: pages processed as for the site, then plain HTML to read them in.

The site itself is made by `nbdev-docs`, which needs Quarto (see .github/workflows/docs.yml). This half finds what
goes wrong in the pages: documentation of a name that is gone, front matter that does not parse, a bad link."""
import argparse, functools, json, os, sys
from pathlib import Path
import nbformat, yaml
from nbconvert import HTMLExporter, TemplateExporter
from nbconvert.filters import Highlight2HTML
from traitlets.config import Config

def processed(root, n_workers=0):
    "Runs nbdev's docs processing over nbs/ of `root`; returns the folder it made"
    import nbdev.config
    from nbdev.serve import proc_nbs
    nbdev.config._load_toml = functools.cache(nbdev.config._load_toml) # it reads the project's settings for each cell anew
    os.chdir(root)
    return Path(proc_nbs(n_workers=n_workers, force=True))

# What a cell may hold by the notebook format; nbdev leaves marks of its own, which nbconvert refuses
FIELDS = {'id', 'cell_type', 'metadata', 'source', 'outputs', 'execution_count', 'attachments'}

def readable(page):
    "The processed notebook `page` as nbconvert takes it: its front matter as a title, inputs that are not to be shown tagged"
    nb = json.loads(page.read_text(encoding='utf-8'))
    for c in nb['cells']:
        for k in c.keys()-FIELDS: del c[k]
        c['metadata'] = {'tags': ['unseen']} if '#| echo: false' in ''.join(c['source']) else {}
    head = ''.join(nb['cells'][0]['source']) if nb['cells'][0]['cell_type']=='raw' else ''
    nb['metadata'] |= yaml.safe_load(head.strip().strip('-')) or {}
    nb['cells'][0] |= dict(cell_type='markdown', source=f"# {nb['metadata'].get('title', page.stem)}\n\n> {nb['metadata'].get('description', '')}")
    return nbformat.reads(json.dumps(nb), as_version=4)

class PlainExporter(HTMLExporter):
    "HTML as the template gives it: nbconvert reads every page anew to add `tabindex` and `alt`, which takes as long as making it"
    def from_notebook_node(self, nb, resources=None, **kwargs):
        self.register_filter('highlight_code', Highlight2HTML(pygments_lexer='ipython3', parent=self))
        return TemplateExporter.from_notebook_node(self, nb, self._init_resources(resources), **kwargs)

def make_exporter():
    unseen = Config(TagRemovePreprocessor=dict(remove_input_tags=['unseen']))
    trusted = dict(clean_html=lambda text: text) # our own pages
    return PlainExporter(config=unseen, filters=trusted, exclude_input_prompt=True, exclude_output_prompt=True)

def write_html(exporter, page, folder, out):
    "Writes the processed notebook `page`, found below `folder`, as HTML below `out`; returns its path"
    body,_ = exporter.from_notebook_node(readable(page))
    res = out/page.relative_to(folder).with_suffix('.html')
    res.parent.mkdir(parents=True, exist_ok=True)
    res.write_text(body, encoding='utf-8')
    return res

def main():
    root = Path(__file__).resolve().parent.parent
    p = argparse.ArgumentParser(description='Process the pages for the docs and write them as plain HTML')
    p.add_argument('--root', type=Path, default=root, help='folder of pyproject.toml and nbs/')
    p.add_argument('--out', type=Path, default=None, help='folder for the HTML (default: _docs in that folder)')
    a = p.parse_args()
    root = a.root.resolve()
    out = (a.out or root/'_docs').resolve()
    try: folder = processed(root)
    except Exception as e: sys.exit(f'the docs do not build: {e}') # it names page and cell
    pages = sorted(folder.rglob('*.ipynb'))
    if not pages: sys.exit(f'no pages in {root/"nbs"}')
    exporter = make_exporter()
    for o in pages: write_html(exporter, o, folder, out)
    print(f'{len(pages)} pages in {out}')

if __name__=='__main__': main()
