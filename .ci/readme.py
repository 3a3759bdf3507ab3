#!/usr/bin/env python3
"""Writes README.md from nbs/index.ipynb; with --check only says whether it is in step.

Markdown stays as it is (links to pages and pictures get the folder in front), code becomes fenced Python without its
directives, text outputs follow as fenced text. Left out: hidden cells, raw cells, pictures. Needs only Python."""
import argparse, json, re, sys
from pathlib import Path

DIRECTIVE = re.compile(r'^\s*#\s*\|')
PAGE_LINK = re.compile(r'\]\((?!\w+:|/|#)([^)\s]+\.(?:ipynb|jpg|png))')

def joined(s): return s if isinstance(s, str) else ''.join(s)

def fenced(text, lang=''):
    "`text` as a code block, behind a fence longer than any inside it"
    n = max([2, *(len(o) for o in re.findall(r'`{3,}', text))])
    return f"{'`'*(n+1)}{lang}\n{text}\n{'`'*(n+1)}"

def is_hidden(source):
    "Whether the cell has `#| hide`, or any of `#| echo: false` and `#| include: false`"
    dirs = [DIRECTIVE.sub('', o).strip() for o in source.splitlines() if DIRECTIVE.match(o)]
    return any(o=='hide' or re.match(r'(echo|include):\s*false', o) for o in dirs)

def outputs(cell):
    "README blocks of the cell's outputs: Markdown, and text where the output has no picture"
    for o in cell.get('outputs', []):
        data = o.get('data', {})
        if any(k.startswith('image/') for k in data): continue
        if 'text/markdown' in data: yield joined(data['text/markdown']).strip('\n')
        else:
            text = joined(o['text'] if o.get('name')=='stdout' else data.get('text/plain', '')).strip('\n')
            if text: yield fenced(text, 'text')

def blocks(cell):
    "The README blocks of one cell"
    src = joined(cell['source']).strip('\n')
    if cell['cell_type']=='markdown': yield PAGE_LINK.sub(r'](nbs/\1', src)
    if cell['cell_type']!='code' or is_hidden(src): return
    code = '\n'.join(o for o in src.splitlines() if not DIRECTIVE.match(o)).strip('\n')
    if code: yield fenced(code, 'python')
    yield from outputs(cell)

def readme_text(nb):
    "README.md for the notebook `nb`, a dict"
    head = '<!-- Written by `make readme` from nbs/index.ipynb: edit that page, not this file. -->'
    return '\n\n'.join([head, *(b for c in nb['cells'] for b in blocks(c) if b)]) + '\n'

def main():
    root = Path(__file__).resolve().parent.parent
    p = argparse.ArgumentParser(description='Write README.md from nbs/index.ipynb')
    p.add_argument('--check', action='store_true', help='write nothing; exit with 1 where README.md is out of step')
    p.add_argument('--page', type=Path, default=root/'nbs'/'index.ipynb', help='notebook to read')
    p.add_argument('--readme', type=Path, default=root/'README.md', help='file to write or check')
    a = p.parse_args()
    want = readme_text(json.loads(a.page.read_text(encoding='utf-8'))).encode()
    in_step = a.readme.exists() and a.readme.read_bytes()==want
    if a.check:
        if not in_step: sys.exit(f'{a.readme.name} is not what {a.page.name} says: run `make readme`, and commit both')
        print(f'{a.readme.name} is in step with {a.page.name}')
    elif in_step: print(f'{a.readme.name} was in step already')
    else:
        a.readme.write_bytes(want)
        print(f'wrote {a.readme.name}')

if __name__=='__main__': main()
