#!/usr/bin/env python3
"""Looks for what is wrong in the built site: links and anchors that lead nowhere, anchors that a page has twice, pictures that are
missing or have no text, attributes left as text, and whatever a browser would fetch from another host."""
import argparse, sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {('img', 'src'), ('script', 'src'), ('link', 'href'), ('iframe', 'src'), ('source', 'src'), ('video', 'src')}

class Page(HTMLParser):
    "Links, anchors, pictures and what is fetched, of one HTML page"
    def __init__(self, text):
        super().__init__()
        self.links,self.untold,self.fetched,self.texts = [],[],[],[]
        self.ids = Counter()
        self.skip = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        d = dict(attrs)
        self.ids.update({d[k] for k in ('id', 'name') if d.get(k) and (k=='id' or tag=='a')})
        self.skip += tag in ('pre', 'code', 'script', 'style')
        if tag=='a' and d.get('href'): self.links.append(d['href'])
        if tag=='img' and not (d.get('alt') or '').strip(): self.untold.append(d.get('src', ''))
        is_told = tag=='link' and d.get('rel') in ('canonical', 'prev', 'next') # read by no browser
        self.fetched += [v for k,v in attrs if (tag, k) in FETCHED and v and not is_told]

    def handle_endtag(self, tag): self.skip -= tag in ('pre', 'code', 'script', 'style')

    def handle_data(self, data):
        if not self.skip: self.texts.append(data)

def dead(link, file, root, pages):
    "What is wrong with a link of `file`, or nothing"
    u = urlsplit(link)
    if u.scheme or u.netloc: return ''
    target = (file.parent/unquote(u.path)).resolve() if u.path else file
    if target.is_dir(): target = target/'index.html'
    if not target.is_file() or not target.is_relative_to(root): return f"{link} leads nowhere"
    if u.fragment and target in pages and unquote(u.fragment) not in pages[target].ids: return f"{link}: no such place on that page"
    return ''

def problems(root):
    "A line for each thing that is wrong in the site at `root`"
    root = Path(root).resolve()
    files = [f for f in sorted(root.rglob('*.html')) if f.name!='404.html'] # its links are from the root of the host
    pages = {f: Page(f.read_text(encoding='utf-8')) for f in files}
    for f,p in pages.items():
        where = f.relative_to(root).as_posix()
        for link in dict.fromkeys(p.links+p.fetched):
            if says := dead(link, f, root, pages): yield f"{where}: {says}"
        for name,n in p.ids.items():
            if n>1: yield f"{where}: the anchor {name} stands {n} times"
        for src in p.untold: yield f"{where}: the picture {src} has no text"
        for src in p.fetched:
            if urlsplit(src).netloc: yield f"{where}: {src} is fetched from another host"
        if '{target=' in ''.join(p.texts) or '{ #' in ''.join(p.texts): yield f"{where}: attributes stand in its text"

def main():
    p = argparse.ArgumentParser(description='Look for dead links and pictures in the built site')
    p.add_argument('site', type=Path, nargs='?', default=Path(__file__).resolve().parent.parent/'_docs', help='folder of the site')
    found = list(problems(p.parse_args().site))
    if found: sys.exit('\n'.join(found))
    print('no dead links in the site')

if __name__=='__main__': main()
