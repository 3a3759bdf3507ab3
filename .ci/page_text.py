"""A page, as nbdev processed it for the docs, as Markdown: its cells in order, pictures as files with a text, links between pages.

Docments become tables. Needs nbdev for the tables only."""
import base64, html, json, os, re
from pathlib import Path
from readme import fenced, joined

HOME = 'https://github.com/drone-seg/drone_seg/blob/main'
OWN = re.compile(r'\[(`[^`\n]+`)\]\(https://drone-seg\.github\.io/drone_seg/([\w./]+)\.html(?:#([\w.]+))?\)')
LINK = re.compile(r'\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)')
PAGE = re.compile(r'(?<!\[)`(\d\d[a-z]?_[\w.]+)`')
SHOWN = re.compile(r'\{ #([\w.]+) \}')
ENDS = {'image/jpeg': 'jpg', 'image/png': 'png', 'image/svg+xml': 'svg'}

# Definitions

def place(name):
    "Where on its page a definition stands; with its capitals, as a page may have `Recipe` and `recipe`"
    return name.replace('__', '')

def plain(text):
    "`text` of a docment as it stands in a cell of a table, words in backticks untouched"
    parts = re.split(r'(`[^`]+`)', ' '.join(text.split()))
    return ''.join(o if o.startswith('`') else re.sub(r'([*_\[\]|])', r'\\\1', html.escape(o, quote=False)) for o in parts)

def type_name(anno):
    "A type without the modules it comes from"
    name = anno if isinstance(anno, str) else getattr(anno, '__name__', None) if isinstance(anno, type) and not hasattr(anno, '__args__') else str(anno)
    return re.sub(r'\b(?:[a-z_]\w*\.)+(?=\w)', '', name)

def ticked(value): return '`'+' '.join(value.split())+'`' if value else '' # a bar between backticks parts no cells

def argument_rows(docs, empty):
    "A row of the table for each argument, and for what is returned"
    for name,d in docs.items():
        if name in ('self', 'cls') or name=='return' and not d['docment']: continue
        default = '' if d['default'] is empty else repr(d['default'])
        default = default if len(default)<40 and ' at 0x' not in default else '…'
        kind = '' if d['anno'] in (empty, None) else type_name(d['anno'])
        yield f"| {'**returns**' if name=='return' else ticked(name)} | {ticked(kind)} | {ticked(default)} | {plain(d['docment'] or '')} |"

def short_signature(name, sig, empty):
    "Names and defaults on a line, without types, which the table holds"
    if sig is None: return f'{name}(…)'
    def said(p):
        res = str(p.replace(annotation=empty))
        return res if len(res)<60 and ' at 0x' not in res else f'{p.name}=…'
    return f"{name}({', '.join(said(p) for p in sig.parameters.values() if p.name not in ('self', 'cls'))})"

def method_rows(cls, empty):
    "A row for each public method and property that the class itself defines"
    from inspect import signature
    for name,o in vars(cls).items():
        said = getattr(o, '__doc__', None)
        inner = getattr(o, '__func__', o)
        if name.startswith('_') or not said or not (callable(inner) or isinstance(o, property)): continue
        call = short_signature(name, signature(inner), empty) if callable(inner) else name
        yield f"| {ticked(call)}{{ #{place(cls.__name__+'.'+name)} }} | {plain(said.splitlines()[0])} |"

def definition_text(shown):
    "What nbdev's `show_doc` found of a definition, as heading, signature, docstring and table"
    from inspect import Parameter
    from fastcore.docments import docments
    from nbdev.doclinks import NbdevLookup, _lineno
    found = NbdevLookup()[shown.nm]
    try: rows = list(argument_rows(docments(shown.sym, full=True, returns=True), Parameter.empty))
    except Exception: rows = [] # nothing that takes arguments
    yield f"### `{shown.nm}` {{ #{place(shown.nm)} }}"
    yield fenced(short_signature(shown.nm, shown.sig, Parameter.empty), 'python')
    if shown.docs: yield shown.docs
    if rows: yield '\n'.join(['| argument | type | default | |', '|---|---|---|---|', *rows])
    methods = list(method_rows(shown.sym, Parameter.empty)) if isinstance(shown.sym, type) else []
    if methods: yield '\n'.join(['| method | |', '|---|---|', *methods])
    if isinstance(found, tuple):
        line = _lineno(shown.nm, found[1])
        yield f"[source]({HOME}/{found[1]}{f'#L{line}' if line else ''}){{ .source }}"

# Cells

def caption(head, prose):
    "Text of a picture: the heading it stands under, and the sentence that leads to it"
    said = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', prose)
    said = re.split(r'(?<=[.:?!])\s', ' '.join(re.sub(r'[`*#>|]', '', said).split()))[0]
    return re.sub(r'[\[\]"<>{}]', '', f'{head}: {said}' if said and said!=head else head).strip(' :')

class PageText:
    "Markdown of one page, written below `out` with its pictures; `links` turns a link of the page into one of the site"
    def __init__(self, page, folder, out, links):
        self.rel = page.relative_to(folder)
        self.nb,self.out,self.links = json.loads(page.read_text(encoding='utf-8')),out,links
        self.head,self.prose,self.n = '',"",0

    def picture(self, kind, data):
        self.n += 1
        name = f'{self.rel.stem}_files/{self.n}.{ENDS[kind]}'
        file = (self.out/self.rel).parent/name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.encode() if kind=='image/svg+xml' else base64.b64decode(data))
        return f'![{caption(self.head, self.prose)}]({name}){{ loading=lazy }}'

    def output(self, o):
        data = o.get('data', {})
        images = [k for k in ENDS if k in data]
        if 'text/markdown' in data: return self.links(joined(data['text/markdown']).strip('\n'), self.rel)
        if images: return self.picture(images[0], joined(data[images[0]]))
        if 'text/html' in data:
            table = re.sub(r'<style.*?</style>', '', joined(data['text/html']), flags=re.S)
            return '<div class="output">'+(table if '<pre' in table else re.sub(r'\s*\n\s*', '', table))+'</div>'
        text = joined(o.get('text', '') if o['output_type']=='stream' else data.get('text/plain', '')).strip('\n')
        return fenced(text, 'text { .output }') if text else ''

    def markdown(self, src):
        heads = re.findall(r'^#+ +(.+)$', src, re.M)
        if heads: self.head = re.sub(r'[`*]', '', heads[-1])
        said = '\n'.join(o for o in src.splitlines() if not o.startswith('#')).strip()
        if heads or said: self.prose = said
        return self.links(src, self.rel)

    def blocks(self):
        from yaml import safe_load
        for c in self.nb['cells']:
            src = joined(c['source']).strip('\n')
            if c['cell_type']=='raw' and src.startswith('---'):
                front = safe_load(src.strip().strip('-')) or {}
                self.head = re.sub(r'[`*]', '', str(front.get('title', self.rel.stem)))
                yield '---\n'+json.dumps({'description': str(front.get('description', '')), 'title': self.head})+'\n---'
                yield f"# {front.get('title', self.rel.stem)}"
                if front.get('description'): yield self.links(f"> {front['description']}", self.rel)
            elif c['cell_type']=='markdown':
                if not src.startswith('<!--'): yield self.markdown(src)
            elif c['cell_type']=='code':
                code = '\n'.join(o for o in src.splitlines() if not re.match(r'\s*#\s*\|', o)).strip('\n')
                if code and '#| echo: false' not in src: yield fenced(code, 'python')
                yield from (self.output(o) for o in c.get('outputs', []))

    def write(self):
        "Writes the Markdown; returns its path"
        res = (self.out/self.rel).with_suffix('.md')
        res.parent.mkdir(parents=True, exist_ok=True)
        res.write_text('\n\n'.join(o for o in self.blocks() if o)+'\n', encoding='utf-8')
        return res

# Links

class Links:
    "Turns links of pages into links of the site: pages to Markdown, names to their definitions, other files to the repository"
    def __init__(self, folder, pages):
        self.pages = {re.sub(r'^\d+[a-z]*_', '', p.stem): p.relative_to(folder).with_suffix('.md').as_posix() for p in pages}
        self.known = {self.pages[re.sub(r'^\d+[a-z]*_', '', p.stem)]: self.shown(p) for p in pages}

    @staticmethod
    def shown(page):
        cells = json.loads(page.read_text(encoding='utf-8'))['cells']
        texts = (joined(o.get('data', {}).get('text/markdown', '')) for c in cells for o in c.get('outputs', []))
        return {n for t in texts for n in SHOWN.findall(t)}

    @staticmethod
    def anchor(written, found, known):
        "The definition among `known` that `found` is, in small letters, or that holds it; of `Recipe` and `recipe` the one that is `written`"
        found = place(found)
        while found:
            same = sorted(o for o in known if o.lower()==found)
            if same: return next((o for o in same if o in written), same[0])
            found = found.rpartition('.')[0]
        return ''

    def definition(self, m, rel):
        "A name that nbdev has found; commands are words such as `check`, which prose also uses for other things"
        page = self.pages.get(m[2])
        if page is None or m[2]=='cli': return m[1]
        name = self.anchor(m[1], m[3] or '', self.known[page])
        return f"[{m[1]}]({os.path.relpath(page, rel.parent)}{'#'+name if name else ''})"

    def file(self, m, rel):
        "A link to a page, or to a file of the repository"
        path,anchor = m[1],(m[2] or '').lower()
        target = os.path.normpath(os.path.join('nbs', rel.parent, path))
        if target.endswith('.ipynb'): return f"]({path[:-6]}.md{anchor})"
        if target.startswith('nbs'+os.sep): return m[0]
        return f']({HOME}/{Path(target).as_posix()}{anchor})'

    def named(self, m, rel):
        "A page that prose calls by its name"
        page = self.pages.get(re.sub(r'^\d+[a-z]*_', '', m[1]))
        return m[0] if page is None else f"[{m[0]}]({os.path.relpath(page, rel.parent)})"

    def __call__(self, text, rel):
        parts = re.split(r'(^```.*?^```)', text, flags=re.S|re.M)
        for i in range(0, len(parts), 2):
            done = LINK.sub(lambda m: self.file(m, rel), parts[i])
            done = PAGE.sub(lambda m: self.named(m, rel), done)
            parts[i] = OWN.sub(lambda m: self.definition(m, rel), done)
        return ''.join(parts)
